"""Aggregations: label sets to group numbers once, then reductions over groups at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporter.errors import QueryError
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.samples import Float64s
from exporter.promql.floats import general_float, plain_float
from exporter.promql.matrix import StepMatrix, empty_matrix
from exporter.promql.seriesset import Ints, SeriesSet
from exporter.promql.sums import mean_groups, sum_groups

_BLOCK_CELLS = 1 << 17  # reduced at once: they stay in the processor's cache

_MAX_INT64 = 2.0**63


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Which group each series belongs to: `ids` (S,), and the label sets of the G groups."""

    ids: Ints
    series: SeriesSet

    @property
    def count(self) -> int:
        """G."""
        return len(self.series)


def group(series: SeriesSet, names: tuple[str, ...], *, without: bool) -> Grouping:
    """The groups of a set; kept with the set."""
    return series.memo(("group", names, without), lambda: _group(series, names, without))


def _group(series: SeriesSet, names: tuple[str, ...], without: bool) -> Grouping:
    count = len(series)
    if not names and not without:
        labels: list[LabelSet] = [LabelSet(())] if count else []
        ids = np.zeros(count, np.intp)
    else:
        gone = frozenset(names) | ({METRIC_NAME} if without else set())
        known: dict[tuple[tuple[str, str], ...], int] = {}
        ids = np.empty(count, np.intp)
        for position, own in enumerate(series.labels):
            key = tuple([pair for pair in own.pairs if (pair[0] in gone) is not without])
            ids[position] = known.setdefault(key, len(known))
        labels = [LabelSet(key) for key in known]
    drop = np.zeros(len(labels), np.bool_)
    np.logical_or.at(drop, ids, series.drop_name)
    return Grouping(ids, SeriesSet(tuple(labels), drop))


def reduce_groups(op: str, matrix: StepMatrix, grouping: Grouping, quantiles: Float64s | None) -> StepMatrix:
    """sum, avg, count, min, max, group, stddev, stdvar or quantile over groups, at every step."""
    count, steps = grouping.count, matrix.values.shape[1]
    if not count:
        return empty_matrix(steps)
    reducer = _REDUCERS[op]
    out = np.empty((steps, count))
    present = np.ones((steps, count), np.bool_)
    ids = grouping.ids
    whole = matrix.present is None
    sizes = np.bincount(ids, minlength=count) if whole else None
    if steps > 1 and quantiles is None:
        return _reduce_blocks(reducer, matrix, grouping, sizes)
    for step in range(steps):
        values, owners, counts = matrix.values[:, step], ids, sizes
        if matrix.present is not None:
            here = np.flatnonzero(matrix.present[:, step])
            values, owners = values[here], ids[here]
            counts = np.bincount(owners, minlength=count)
            present[step] = counts > 0
        assert counts is not None
        quantile = 0.0 if quantiles is None else float(quantiles[step])
        out[step] = reducer(np.ascontiguousarray(values), owners, counts, quantile)
    series = grouping.series if whole else _naming(matrix, grouping)
    return StepMatrix(series, out.T, None if whole else present.T)


def _reduce_blocks(
    reducer: Reducer, matrix: StepMatrix, grouping: Grouping, sizes: Ints | None
) -> StepMatrix:
    """As step by step, with the groups of many steps as so many groups of one reduction."""
    count, (width, steps) = grouping.count, matrix.values.shape
    out = np.empty((steps, count))
    present = np.ones((steps, count), np.bool_)
    block = max(1, _BLOCK_CELLS // max(1, width))
    for first in range(0, steps, block):
        last = min(first + block, steps)
        cells = np.ascontiguousarray(matrix.values[:, first:last].T)
        owners = grouping.ids + count * np.arange(last - first)[:, None]
        if matrix.present is None:
            assert sizes is not None
            values, places, counts = cells.ravel(), owners.ravel(), np.tile(sizes, last - first)
        else:
            here = np.ascontiguousarray(matrix.present[:, first:last].T)
            values, places = cells[here], owners[here]
            counts = np.bincount(places, minlength=count * (last - first))
            present[first:last] = (counts > 0).reshape(-1, count)
        out[first:last] = reducer(values, places, counts, 0.0).reshape(-1, count)
    series = grouping.series if matrix.present is None else _naming(matrix, grouping)
    return StepMatrix(series, out.T, None if matrix.present is None else present.T)


def _naming(matrix: StepMatrix, grouping: Grouping) -> SeriesSet:
    """The groups, their names to be dropped where a series that is present has its name dropped."""
    flags = matrix.series.drop_name
    if bool(flags.all()) or not bool(flags.any()):
        return grouping.series
    speaks = flags & matrix.mask().any(axis=1)
    drop = np.zeros(grouping.count, np.bool_)
    drop[grouping.ids[speaks]] = True
    return SeriesSet(grouping.series.labels, drop)


Reducer = Callable[[Float64s, Ints, Ints, float], Float64s]


def _sum(values: Float64s, ids: Ints, counts: Ints, _: float) -> Float64s:
    return sum_groups(values, ids, len(counts))


def _avg(values: Float64s, ids: Ints, counts: Ints, _: float) -> Float64s:
    return mean_groups(values, ids, counts)


def _count(_values: Float64s, _ids: Ints, counts: Ints, _: float) -> Float64s:
    return counts.astype(np.float64)


def _ones(_values: Float64s, _ids: Ints, counts: Ints, _: float) -> Float64s:
    return np.ones(len(counts))


def _extreme(reduce: np.ufunc) -> Reducer:
    def extreme(values: Float64s, ids: Ints, counts: Ints, _: float) -> Float64s:
        out = np.full(len(counts), np.nan)
        if len(values):
            order = np.argsort(ids, kind="stable")
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            held = counts > 0
            out[held] = reduce.reduceat(values[order], starts[held])
        return out

    return extreme


def _variance(values: Float64s, ids: Ints, counts: Ints, _: float) -> Float64s:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Around a member of the group, so that equal values give exactly 0.
        anchors = np.zeros(len(counts))
        anchors[ids[::-1]] = values[::-1]
        shifted = values - anchors[ids]
        means = np.bincount(ids, shifted, len(counts)) / counts
        rest = shifted - means[ids]
        variance: Float64s = np.bincount(ids, rest * rest, len(counts)) / counts
        return variance


def _deviation(values: Float64s, ids: Ints, counts: Ints, quantile: float) -> Float64s:
    with np.errstate(invalid="ignore"):
        deviation: Float64s = np.sqrt(_variance(values, ids, counts, quantile))
        return deviation


def _quantile(values: Float64s, ids: Ints, counts: Ints, quantile: float) -> Float64s:
    # NaN sorts below everything, as in Prometheus.
    order = np.lexsort((values, ~np.isnan(values), ids))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return pick_quantile(quantile, values[order], starts, counts)


def pick_quantile(quantile: float, ordered: Float64s, starts: Ints, counts: Ints) -> Float64s:
    """The quantile of each run of ascending values; NaN for an empty run."""
    out = np.full(len(counts), np.nan)
    held = counts > 0
    if np.isnan(quantile):
        return out
    if quantile < 0 or quantile > 1:
        out[held] = -np.inf if quantile < 0 else np.inf
        return out
    sizes = counts[held]
    rank = quantile * (sizes - 1)
    lower = np.maximum(0, np.floor(rank)).astype(np.intp)
    upper = np.minimum(sizes - 1, lower + 1)
    weight = rank - np.floor(rank)
    first = starts[held]
    with np.errstate(invalid="ignore"):
        out[held] = ordered[first + lower] * (1 - weight) + ordered[first + upper] * weight
    return out


_REDUCERS: dict[str, Reducer] = {
    "sum": _sum,
    "avg": _avg,
    "count": _count,
    "group": _ones,
    "min": _extreme(np.fmin),
    "max": _extreme(np.fmax),
    "stdvar": _variance,
    "stddev": _deviation,
    "quantile": _quantile,
}


def check_k(params: Float64s) -> None:
    """Raises: QueryError for a k that is no integer of 64 bits."""
    if bool(np.isnan(params).any()):
        raise QueryError("Parameter value is NaN")
    if float(params.min()) <= -_MAX_INT64:
        raise QueryError(f"Scalar value {general_float(float(params.min()))} underflows int64")
    if float(params.max()) >= _MAX_INT64:
        raise QueryError(f"Scalar value {general_float(float(params.max()))} overflows int64")


def pick_k(op: str, matrix: StepMatrix, grouping: Grouping, params: Float64s) -> StepMatrix:
    """topk, bottomk or limitk: the chosen cells; at a single step in the order of their rank."""
    mask = matrix.mask()
    steps = mask.shape[1]
    keep = np.zeros(mask.shape, np.bool_)
    ranked: Ints = np.zeros(0, np.intp)
    for step in range(steps):
        k = int(min(params[step], len(matrix.series)))
        if k < 1:
            continue
        here = np.flatnonzero(mask[:, step])
        ids = grouping.ids[here]
        if op == "limitk":
            order = np.argsort(ids, kind="stable")
        else:
            values = matrix.values[here, step]
            # Ties keep the order of the series; NaN ranks last.
            keys = np.where(np.isnan(values), np.inf, -values if op == "topk" else values)
            order = np.lexsort((keys, np.isnan(values), ids))
        sorted_ids = ids[order]
        starts = np.searchsorted(sorted_ids, sorted_ids)
        chosen = order[np.arange(len(order)) - starts < k]
        keep[here[chosen], step] = True
        ranked = here[chosen]
    if steps == 1:
        picked = matrix.take(ranked)
        return StepMatrix(picked.series, picked.values, None, ordered=op != "limitk")
    return StepMatrix(matrix.series, matrix.values, keep)


def limit_ratio(matrix: StepMatrix, ratios: Float64s) -> StepMatrix:
    """A share of the series, chosen by a hash of their labels: r and r - 1 choose complements."""

    def offsets() -> Float64s:
        return np.array([_spread(labels.fingerprint()) / 2.0**64 for labels in matrix.series.labels])

    places = matrix.series.memo("ratio", offsets)[:, None]
    capped = np.clip(ratios, -1, 1)
    keep = np.where(capped >= 0, places < capped, places >= 1 + capped) & (capped != 0)
    return matrix.where(keep)


def _spread(value: int) -> int:
    """Mixes the bits of a 64-bit number, so that near hashes land far from each other (splitmix64)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def count_values(matrix: StepMatrix, label: str, names: tuple[str, ...], *, without: bool) -> StepMatrix:
    """How many series of each group have each value, the value as a label."""
    mask = matrix.mask()
    rows, cols = np.nonzero(mask)
    cells = matrix.values[rows, cols]
    distinct, which = np.unique(cells.view(np.uint64), return_inverse=True)
    texts = [plain_float(value) for value in distinct.view(np.float64).tolist()]
    kept = names if without else tuple(sorted({*names, label}))
    known: dict[LabelSet, int] = {}
    made: dict[tuple[int, int], int] = {}
    pairs = list(zip(rows.tolist(), which.tolist(), strict=True))
    gone = (METRIC_NAME, *names)
    for pair in dict.fromkeys(pairs):
        labels = matrix.series.labels[pair[0]].merged({label: texts[pair[1]]})
        labels = labels.without(gone) if without else labels.keep(kept)
        made[pair] = known.setdefault(labels, len(known))
    counts = np.zeros((len(known), mask.shape[1]))
    np.add.at(counts, (np.array([made[pair] for pair in pairs], np.intp), cols), 1.0)
    return StepMatrix(SeriesSet(tuple(known)), counts, counts > 0)
