"""Binary operations: which series pair with which (once for two sets), then arithmetic on whole matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporter.errors import QueryError
from exporter.model.labels import METRIC_NAME, LabelSet, quote
from exporter.model.samples import Float64s
from exporter.promql.ast import Cardinality, VectorMatching
from exporter.promql.matrix import SAME_LABELSET, StepMatrix, empty_matrix, merge_equal
from exporter.promql.seriesset import Bools, Ints, SeriesSet

ARITHMETIC = frozenset(("+", "-", "*", "/", "%", "^", "atan2"))
COMPARISONS = frozenset(("==", "!=", ">", "<", ">=", "<="))
TRIMS = frozenset(("</", ">/"))
SETS = frozenset(("and", "or", "unless"))

_MAX_PAIRS = 50_000_000

_FUNCTIONS: dict[str, Callable[..., Float64s]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


def compute(op: str, lhs: Float64s | float, rhs: Float64s | float) -> Float64s:
    """The operation on numbers; comparisons give booleans."""
    with np.errstate(all="ignore"):
        return _FUNCTIONS[op](lhs, rhs)


def scalar_operation(op: str, lhs: float, rhs: float) -> float:
    """The operation between two scalars; a comparison gives 0 or 1."""
    return float(compute(op, np.float64(lhs), np.float64(rhs)))


def with_scalar(
    op: str, matrix: StepMatrix, scalar: Float64s, *, scalar_left: bool, return_bool: bool
) -> StepMatrix:
    """Vector and scalar (T,). A filter keeps the vector's values, whichever side it stands on."""
    lhs, rhs = (scalar, matrix.values) if scalar_left else (matrix.values, scalar)
    result = compute(op, lhs, rhs)
    if op in ARITHMETIC:
        return matrix.with_values(result)
    if return_bool:
        return matrix.with_values(result.astype(np.float64))
    return matrix.where(result.astype(np.bool_, copy=False))


# -- matching -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Signatures:
    """Match groups: the group of each left and each right series, numbered together.

    `right_repeats`: whether two right series share a group.
    """

    left: Ints
    right: Ints
    count: int
    right_repeats: bool


def signatures(lhs: SeriesSet, rhs: SeriesSet, matching: VectorMatching) -> Signatures:
    """The match groups of two sets; kept with the left one."""

    def make() -> Signatures:
        known: dict[tuple[tuple[str, str], ...], int] = {}
        names = frozenset(matching.labels) | (frozenset() if matching.on else {METRIC_NAME})

        def ids(series: SeriesSet) -> Ints:
            out = np.empty(len(series), np.intp)
            for position, labels in enumerate(series.labels):
                key = tuple([pair for pair in labels.pairs if (pair[0] in names) is matching.on])
                out[position] = known.setdefault(key, len(known))
            return out

        left, right = ids(lhs), ids(rhs)
        return Signatures(left, right, len(known), len(np.unique(right)) < len(right))

    return lhs.memo(("signatures", rhs, matching.on, matching.labels), make)


def _any_by_group(ids: Ints, mask: Bools, count: int) -> Bools:
    """Whether any series of each group is present, (G, T)."""
    return _count_by_group(ids, mask, count) > 0


def _count_by_group(ids: Ints, mask: Bools, count: int) -> Ints:
    out = np.zeros((count, mask.shape[1]), np.int64)
    if mask.shape[1] == 1:
        out[:, 0] = np.bincount(ids, mask[:, 0], count)
    else:
        np.add.at(out, ids, mask)
    return out


def set_operation(op: str, lhs: StepMatrix, rhs: StepMatrix, matching: VectorMatching) -> StepMatrix:
    """and, or, unless."""
    groups = signatures(lhs.series, rhs.series, matching)
    if op == "or":
        return _union(lhs, rhs, groups)
    there = _any_by_group(groups.right, rhs.mask(), groups.count)[groups.left]
    return lhs.where(there if op == "and" else ~there)


def _union(lhs: StepMatrix, rhs: StepMatrix, groups: Signatures) -> StepMatrix:
    left_mask, right_mask = lhs.mask(), rhs.mask()
    extra = right_mask & ~_any_by_group(groups.left, left_mask, groups.count)[groups.right]

    def both() -> SeriesSet:
        drop = np.concatenate([lhs.series.drop_name, rhs.series.drop_name])
        return SeriesSet(lhs.series.labels + rhs.series.labels, drop)

    series = lhs.series.memo(("union", rhs.series), both)
    joined = StepMatrix(series, np.concatenate([lhs.values, rhs.values]), np.concatenate([left_mask, extra]))
    if left_mask.shape[1] == 1:
        return joined  # equal label sets are an error only if they reach the result
    return merge_equal(joined, SAME_LABELSET)


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs that may match. `many` and `one` are positions, -1 for a filled side; `series` the results.

    At most one pair with the same number in `rivals` may be present at a step; None: all differ.
    """

    many: Ints
    one: Ints
    groups: Ints
    series: SeriesSet
    rivals: Ints | None


def vector_operation(
    op: str, lhs: StepMatrix, rhs: StepMatrix, matching: VectorMatching, *, return_bool: bool
) -> StepMatrix:
    """An arithmetic or comparison operation between two vectors."""
    filled = matching.fill_left is not None or matching.fill_right is not None
    if (not len(lhs.series) or not len(rhs.series)) and not filled:
        return empty_matrix(lhs.values.shape[1])
    swapped = matching.cardinality is Cardinality.ONE_TO_MANY
    many, one = (rhs, lhs) if swapped else (lhs, rhs)
    groups = signatures(many.series, one.series, matching)
    many_mask, one_mask = many.mask(), one.mask()
    # Where the other side is empty nothing can match, and repeats on this side do no harm.
    met = one_mask if filled else one_mask & many_mask.any(axis=0)
    _refuse_many_on_one_side(one, met, groups, matching, swapped)
    plan = many.series.memo(
        ("pairs", one.series, op, matching, return_bool),
        lambda: _pair(op, many.series, one.series, groups, matching, return_bool),
    )
    present, many_values, one_values = _cells(plan, many, one, many_mask, one_mask, groups, matching)
    _refuse_ambiguous(plan, present, matching)
    left, right = (one_values, many_values) if swapped else (many_values, one_values)
    result = compute(op, left, right)
    if op in COMPARISONS:
        if return_bool:
            result = result.astype(np.float64)
        else:
            present, result = present & result.astype(np.bool_, copy=False), left
    whole = bool(present.all())
    joined = StepMatrix(plan.series, result, None if whole else present)
    return merge_equal(joined, SAME_LABELSET) if result.shape[1] > 1 or filled else joined


def _refuse_many_on_one_side(
    one: StepMatrix, mask: Bools, groups: Signatures, matching: VectorMatching, swapped: bool
) -> None:
    """Raises: QueryError where two series of the 'one' side stand in a match group at the same step."""
    if not groups.right_repeats:
        return
    ids = groups.right
    counts = _count_by_group(ids, mask, groups.count)
    if not bool((counts > 1).any()):
        return
    group, step = np.argwhere(counts > 1)[0].tolist()
    first, second = np.flatnonzero((ids == group) & mask[:, step])[:2].tolist()
    labels = one.series.labels
    if matching.on:
        matched = labels[second].keep(matching.labels)
    else:
        matched = labels[second].without((METRIC_NAME, *matching.labels))
    side = "left" if swapped else "right"
    raise QueryError(
        f"found duplicate series for the match group {_braced(matched)} on the {side} hand-side of the "
        f"operation: [{_braced(labels[first])}, {_braced(labels[second])}]"
        ";many-to-many matching not allowed: matching labels must be unique on one side"
    )


def _braced(labels: LabelSet) -> str:
    """`{__name__="x", a="b"}`, as Prometheus prints labels in errors."""
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in labels.pairs) + "}"


def _pair(
    op: str,
    many: SeriesSet,
    one: SeriesSet,
    groups: Signatures,
    matching: VectorMatching,
    return_bool: bool,
) -> _Pairs:
    many_at, one_at = _join(groups.left, groups.right, groups.count)
    ids = groups.left[many_at]
    # A filled side has the matched labels of the other side only.
    if matching.fill_right is not None:
        many_at = np.concatenate([many_at, np.arange(len(many))])
        one_at = np.concatenate([one_at, np.full(len(many), -1)])
        ids = np.concatenate([ids, groups.left])
    if matching.fill_left is not None:
        many_at = np.concatenate([many_at, np.full(len(one), -1)])
        one_at = np.concatenate([one_at, np.arange(len(one))])
        ids = np.concatenate([ids, groups.right])
    own = frozenset(matching.labels)
    simple = matching.cardinality is Cardinality.ONE_TO_ONE
    changes = op in ARITHMETIC

    def matched(labels: LabelSet) -> LabelSet:
        return labels.keep(own) if matching.on else labels.without(own | {METRIC_NAME})

    results = []
    for many_place, one_place in zip(many_at.tolist(), one_at.tolist(), strict=True):
        right = matched(many.labels[many_place]) if one_place < 0 else one.labels[one_place]
        left = matched(one.labels[one_place]) if many_place < 0 else many.labels[many_place]
        pairs = left.pairs
        if simple:
            pairs = tuple([pair for pair in pairs if (pair[0] in own) is matching.on])
        if changes:
            pairs = tuple([pair for pair in pairs if pair[0] != METRIC_NAME])
        labels = LabelSet(pairs)
        if matching.include:
            labels = labels.merged({name: right.get(name) for name in matching.include})
        results.append(labels)
    dropped = np.full(len(results), return_bool)
    real = many_at >= 0
    dropped[real] |= many.drop_name[many_at[real]]
    series = SeriesSet(tuple(results), dropped)
    rivals: Ints | None = ids
    if not simple:
        rivals = ids * len(series.unique.labels) + series.unique.ids if series.has_duplicates else None
    if rivals is not None:
        distinct, rivals = np.unique(rivals, return_inverse=True)
        if len(distinct) == len(rivals):
            rivals = None
    return _Pairs(many_at, one_at, ids, series, rivals)


def _join(left: Ints, right: Ints, count: int) -> tuple[Ints, Ints]:
    """All pairs of positions in the same group, in order of the left ones."""
    order = np.argsort(right, kind="stable")
    sizes = np.bincount(right, minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if count else np.zeros(0, np.intp)
    repeats = sizes[left]
    total = int(repeats.sum())
    if total > _MAX_PAIRS:
        raise QueryError("query processing would load too many samples into memory in query execution")
    left_at = np.repeat(np.arange(len(left)), repeats)
    within = np.arange(total) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return left_at, order[np.repeat(starts[left], repeats) + within]


def _cells(
    plan: _Pairs,
    many: StepMatrix,
    one: StepMatrix,
    many_mask: Bools,
    one_mask: Bools,
    groups: Signatures,
    matching: VectorMatching,
) -> tuple[Bools, Float64s, Float64s]:
    """Presence and both operands of each pair, (P, T)."""
    if matching.fill_left is None and matching.fill_right is None:
        if many.present is None and one.present is None:
            present = np.ones((len(plan.many), many_mask.shape[1]), np.bool_)
        else:
            present = many_mask[plan.many] & one_mask[plan.one]
        return present, many.values[plan.many], one.values[plan.one]
    steps = many_mask.shape[1]
    present = np.zeros((len(plan.many), steps), np.bool_)
    left = np.zeros(present.shape)
    right = np.zeros(present.shape)
    real = (plan.many >= 0) & (plan.one >= 0)
    present[real] = many_mask[plan.many[real]] & one_mask[plan.one[real]]
    alone = plan.one < 0
    if bool(alone.any()):
        there = _any_by_group(groups.right, one_mask, groups.count)
        present[alone] = many_mask[plan.many[alone]] & ~there[plan.groups[alone]]
    lone = plan.many < 0
    if bool(lone.any()):
        there = _any_by_group(groups.left, many_mask, groups.count)
        present[lone] = one_mask[plan.one[lone]] & ~there[plan.groups[lone]]
    left[~lone] = many.values[plan.many[~lone]]
    left[lone] = 0.0 if matching.fill_left is None else matching.fill_left
    right[~alone] = one.values[plan.one[~alone]]
    right[alone] = 0.0 if matching.fill_right is None else matching.fill_right
    return present, left, right


def _refuse_ambiguous(plan: _Pairs, present: Bools, matching: VectorMatching) -> None:
    """Raises: QueryError where pairs of one match group cannot be told apart in the result."""
    if plan.rivals is None:
        return
    if bool((_count_by_group(plan.rivals, present, int(plan.rivals.max()) + 1) > 1).any()):
        if matching.cardinality is Cardinality.ONE_TO_ONE:
            raise QueryError(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            )
        raise QueryError("multiple matches for labels: grouping labels must ensure unique matches")
