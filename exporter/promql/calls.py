"""Functions by name: how each evaluates its arguments and which kernel it applies.

A handler takes the evaluation and the node. Those of range functions are in `rangecalls`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.samples import Float64s
from exporter.promql import annotations as notes
from exporter.promql.floats import general_float
from exporter.promql.functions.elementwise import DATES, UNARY, clamp, round_to
from exporter.promql.functions.histogram import (
    bucket_fraction,
    bucket_quantile,
    evaluate_histograms,
    histograms,
)
from exporter.promql.functions.label import label_join, label_replace, order_by_labels
from exporter.promql.info import info
from exporter.promql.matrix import (
    Operand,
    Scalars,
    StepMatrix,
    StringOperand,
    empty_matrix,
)
from exporter.promql.plan import Function, Node, Select
from exporter.promql.read import select_points
from exporter.promql.seriesset import Bools, SeriesSet

if TYPE_CHECKING:
    from exporter.promql.evaluate import Evaluation

Handler = Callable[["Evaluation", Function], Operand]


def vector_arg(evaluation: Evaluation, node: Node) -> StepMatrix:
    """The value of an argument that is an instant vector."""
    value = evaluation.value(node)
    assert isinstance(value, StepMatrix)
    return value


def scalar_arg(evaluation: Evaluation, node: Node) -> Float64s:
    """The value (T,) of an argument that is a scalar."""
    value = evaluation.value(node)
    assert isinstance(value, Scalars)
    return value.values


def text_arg(evaluation: Evaluation, node: Node) -> str:
    """The value of an argument that is a string."""
    value = evaluation.value(node)
    assert isinstance(value, StringOperand)
    return value.value


def _unary(name: str) -> Handler:
    kernel = UNARY[name]

    def handle(evaluation: Evaluation, node: Function) -> Operand:
        matrix = vector_arg(evaluation, node.args[0])
        with np.errstate(all="ignore"):
            return matrix.with_values(kernel(matrix.values))

    return handle


def _date(name: str) -> Handler:
    kernel = DATES[name]

    def handle(evaluation: Evaluation, node: Function) -> Operand:
        if not node.args:
            times = np.floor_divide(evaluation.steps.ts_ms, 1000).astype(np.float64)
            return StepMatrix(nameless(), kernel(times)[None, :])
        matrix = vector_arg(evaluation, node.args[0])
        with np.errstate(all="ignore"):
            return matrix.with_values(kernel(matrix.values))

    return handle


def nameless() -> SeriesSet:
    """A set of one series without labels."""
    return SeriesSet((LabelSet(()),))


def _clamp(evaluation: Evaluation, node: Function) -> Operand:
    matrix = vector_arg(evaluation, node.args[0])
    steps = len(evaluation.steps)
    least, most = np.full(steps, -np.inf), np.full(steps, np.inf)
    if node.name == "clamp_max":
        most = scalar_arg(evaluation, node.args[1])
    else:
        least = scalar_arg(evaluation, node.args[1])
        if node.name == "clamp":
            most = scalar_arg(evaluation, node.args[2])
    clamped = matrix.with_values(clamp(matrix.values, least, most))
    crossed = most < least
    if bool(crossed.any()):
        return clamped.where(np.broadcast_to(~crossed, matrix.values.shape))
    return clamped


def _round(evaluation: Evaluation, node: Function) -> Operand:
    matrix = vector_arg(evaluation, node.args[0])
    nearest = scalar_arg(evaluation, node.args[1]) if len(node.args) > 1 else 1.0
    with np.errstate(all="ignore"):
        return matrix.with_values(round_to(matrix.values, nearest))


def _scalar(evaluation: Evaluation, node: Function) -> Operand:
    matrix = vector_arg(evaluation, node.args[0])
    mask = matrix.mask()
    single = mask.sum(axis=0) == 1
    out = np.full(len(evaluation.steps), np.nan)
    if len(mask):
        rows = np.argmax(mask, axis=0)
        out[single] = matrix.values[rows[single], np.flatnonzero(single)]
    return Scalars(out)


def _vector(evaluation: Evaluation, node: Function) -> Operand:
    return StepMatrix(nameless(), scalar_arg(evaluation, node.args[0])[None, :])


def _time(evaluation: Evaluation, _node: Function) -> Operand:
    return Scalars(evaluation.steps.ts_ms / 1000)


def _of_scalars(pick: np.ufunc) -> Handler:
    def handle(evaluation: Evaluation, node: Function) -> Operand:
        first, second = (scalar_arg(evaluation, arg) for arg in node.args)
        return Scalars(pick(first, second))

    return handle


def _timestamp(evaluation: Evaluation, node: Function) -> Operand:
    arg = node.args[0]
    if isinstance(arg, Select) and not arg.smoothed:
        times = evaluation.times(arg.at, arg.offset_ms)
        matrix, stamps = select_points(evaluation.reader, arg, times, evaluation.budget, stamps=True)
        assert stamps is not None
        return matrix.with_values(stamps)
    matrix = vector_arg(evaluation, arg)
    return matrix.with_values(np.broadcast_to(evaluation.steps.ts_ms / 1000, matrix.values.shape))


def absent_labels(matchers: tuple[Matcher, ...]) -> LabelSet:
    """The labels that equality matchers tell for certain."""
    told: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.op is MatchOp.EQUAL and matcher.name not in seen:
            told[matcher.name] = matcher.value
            seen.add(matcher.name)
        else:
            told.pop(matcher.name, None)
    return LabelSet.of(told)


@lru_cache(maxsize=1024)
def _absent_series(matchers: tuple[Matcher, ...]) -> SeriesSet:
    """The one series of an absence, with all that is worked out about it."""
    return SeriesSet((absent_labels(matchers),))


def absence(there: Bools, matchers: tuple[Matcher, ...]) -> StepMatrix:
    """1 at the steps where nothing is there (T,)."""
    if bool(there.all()):
        return empty_matrix(len(there))
    return StepMatrix(_absent_series(matchers), np.ones((1, len(there))), ~there[None, :])


def _absent(evaluation: Evaluation, node: Function) -> Operand:
    arg = node.args[0]
    matrix = vector_arg(evaluation, arg)
    matchers = arg.matchers if isinstance(arg, Select) else ()
    if not matrix.cells:
        return StepMatrix(_absent_series(matchers), np.ones((1, len(evaluation.steps))))
    there: Bools = np.logical_or.reduce(matrix.mask(), axis=0)
    return absence(there, matchers)


def _sort(evaluation: Evaluation, node: Function) -> Operand:
    matrix = vector_arg(evaluation, node.args[0])
    if len(evaluation.steps) > 1:
        return matrix
    here = np.flatnonzero(matrix.mask()[:, 0])
    values = matrix.values[here, 0]
    keys = -values if node.name == "sort_desc" else values
    order = np.lexsort((keys, np.isnan(values)))
    taken = matrix.take(here[order])
    return StepMatrix(taken.series, taken.values, None, ordered=True)


def _sort_by_label(evaluation: Evaluation, node: Function) -> Operand:
    matrix = vector_arg(evaluation, node.args[0])
    names = tuple(text_arg(evaluation, arg) for arg in node.args[1:])
    if len(evaluation.steps) > 1:
        return matrix
    order = order_by_labels(matrix.series, names, descending=node.name == "sort_by_label_desc")
    taken = matrix.take(order)
    return StepMatrix(taken.series, taken.values, taken.present, ordered=True)


def _label_replace(evaluation: Evaluation, node: Function) -> Operand:
    matrix = vector_arg(evaluation, node.args[0])
    target, template, source, pattern = (text_arg(evaluation, arg) for arg in node.args[1:])
    return label_replace(matrix, target, template, source, pattern)


def _label_join(evaluation: Evaluation, node: Function) -> Operand:
    matrix = vector_arg(evaluation, node.args[0])
    target, separator, *sources = (text_arg(evaluation, arg) for arg in node.args[1:])
    return label_join(matrix, target, separator, tuple(sources))


def _note_bad_buckets(evaluation: Evaluation, matrix: StepMatrix, arg: Node) -> None:
    bad = histograms(matrix.series).bad
    if not bad:
        return
    mask: Bools = np.logical_or.reduce(matrix.mask(), axis=1)
    there = {labels for labels, here in zip(matrix.series.labels, mask.tolist(), strict=True) if here}
    for labels in bad:
        if labels in there:
            evaluation.note(notes.bad_bucket(labels.name, labels.get("le"), arg.start))


def _note_bad_quantiles(evaluation: Evaluation, quantiles: Float64s, arg: Node) -> None:
    bad = quantiles[np.isnan(quantiles) | (quantiles < 0) | (quantiles > 1)]
    for quantile in dict.fromkeys(general_float(value) for value in bad.tolist()):
        evaluation.note(notes.bad_quantile(float(quantile), arg.start))


def _quantile_of(evaluation: Evaluation, matrix: StepMatrix, quantiles: Float64s, arg: Node) -> StepMatrix:
    result, levelled = evaluate_histograms(
        matrix, lambda bounds, counts, steps: bucket_quantile(quantiles[steps], bounds, counts)
    )
    ts_ms = evaluation.steps.ts_ms
    for name, known in levelled.items():
        bounds, times = (known.lowest, known.highest), (int(ts_ms[known.first]), int(ts_ms[known.last]))
        evaluation.note(notes.forced_monotonic(name, bounds, known.most, known.count, times, arg.start))
    return result


def _histogram_quantile(evaluation: Evaluation, node: Function) -> Operand:
    quantiles = scalar_arg(evaluation, node.args[0])
    matrix = vector_arg(evaluation, node.args[1])
    _note_bad_quantiles(evaluation, quantiles, node.args[0])
    _note_bad_buckets(evaluation, matrix, node.args[1])
    return _quantile_of(evaluation, matrix, quantiles, node.args[1])


def _histogram_quantiles(evaluation: Evaluation, node: Function) -> Operand:
    """One result for each histogram and quantile, the quantile as a label."""
    matrix = vector_arg(evaluation, node.args[0])
    label = text_arg(evaluation, node.args[1])
    _note_bad_buckets(evaluation, matrix, node.args[0])
    labels: list[LabelSet] = []
    values, masks = [], []
    for arg in node.args[2:]:
        quantiles = scalar_arg(evaluation, arg)
        _note_bad_quantiles(evaluation, quantiles, arg)
        result = _quantile_of(evaluation, matrix, quantiles, node.args[1])
        for text in dict.fromkeys(map(_quantile_text, quantiles.tolist())):
            at = np.array([_quantile_text(quantile) == text for quantile in quantiles.tolist()])
            labels += [own.merged({label: text}) for own in result.series.labels]
            values.append(result.values)
            masks.append(result.mask() & at)
    if not labels:
        return empty_matrix(len(evaluation.steps))
    return StepMatrix(SeriesSet(tuple(labels), True), np.concatenate(values), np.concatenate(masks))


def _quantile_text(quantile: float) -> str:
    text = general_float(quantile)
    return text if any(char in text for char in ".eInfNa") else f"{text}.0"


def _histogram_fraction(evaluation: Evaluation, node: Function) -> Operand:
    lower, upper = scalar_arg(evaluation, node.args[0]), scalar_arg(evaluation, node.args[1])
    matrix = vector_arg(evaluation, node.args[2])
    _note_bad_buckets(evaluation, matrix, node.args[2])
    result, _ = evaluate_histograms(
        matrix, lambda bounds, counts, steps: bucket_fraction(lower[steps], upper[steps], bounds, counts)
    )
    return result


def _native_only(_evaluation: Evaluation, node: Function) -> Operand:
    raise QueryError(
        f"{node.name}() needs native histograms, which are not supported", QueryErrorKind.UNSUPPORTED
    )


CALLS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        **{name: _unary(name) for name in UNARY},
        **{name: _date(name) for name in DATES},
        **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _clamp),
        **dict.fromkeys(("sort", "sort_desc"), _sort),
        **dict.fromkeys(("sort_by_label", "sort_by_label_desc"), _sort_by_label),
        **dict.fromkeys(
            (
                "histogram_avg",
                "histogram_count",
                "histogram_sum",
                "histogram_stddev",
                "histogram_stdvar",
            ),
            _native_only,
        ),
        "round": _round,
        "scalar": _scalar,
        "vector": _vector,
        "time": _time,
        "min_of": _of_scalars(np.minimum),
        "max_of": _of_scalars(np.maximum),
        "timestamp": _timestamp,
        "absent": _absent,
        "label_replace": _label_replace,
        "label_join": _label_join,
        "histogram_quantile": _histogram_quantile,
        "histogram_quantiles": _histogram_quantiles,
        "histogram_fraction": _histogram_fraction,
        "info": info,
    }
)
