"""Quantiles and fractions of classic histograms: series that differ in `le` only, gathered to histograms.

Source: Prometheus' functions page (histogram_quantile, histogram_fraction) and the monotonicity rules
described there: relative differences up to 1e-12 are rounding, other falls are levelled and told about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporter.model.labels import BUCKET_LABEL, LabelSet
from exporter.model.samples import Float64s
from exporter.promql.matrix import StepMatrix
from exporter.promql.seriesset import Bools, Ints, SeriesSet

_TOLERANCE = 1e-12
_MIN_NORMAL = 2.2250738585072014e-308


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """Histograms with the same bounds: `rows` (B, H) series of each bucket, `groups` (H,) their number.

    `bounds` (B,) ascending, without repeats; buckets with equal bounds are added: `parts` says which
    rows go to which bound (R,), R rows in all.
    """

    bounds: Float64s
    rows: Ints
    parts: Ints
    groups: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Histograms:
    """The histograms of a series set; `bad` are the series whose bound is no number."""

    series: SeriesSet
    shapes: tuple[Shape, ...]
    bad: tuple[LabelSet, ...]


def histograms(series: SeriesSet) -> Histograms:
    """The histograms of a set; kept with the set."""
    return series.memo("histograms", lambda: _histograms(series))


def _histograms(series: SeriesSet) -> Histograms:
    known: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
    bad = []
    bounds: dict[str, float | None] = {}
    for position, labels in enumerate(series.labels):
        text = labels.get(BUCKET_LABEL)
        if text not in bounds:
            bounds[text] = parse_bound(text)
        bound = bounds[text]
        if bound is None:
            bad.append(labels)
            continue
        key = tuple([pair for pair in labels.pairs if pair[0] != BUCKET_LABEL])
        known.setdefault(key, []).append((bound, position))
    shapes: dict[tuple[float, ...], list[tuple[int, list[int]]]] = {}
    for number, buckets in enumerate(known.values()):
        buckets.sort(key=lambda bucket: bucket[0])
        form = tuple(bound for bound, _ in buckets)
        shapes.setdefault(form, []).append((number, [position for _, position in buckets]))
    made = []
    for form, members in shapes.items():
        distinct, parts = np.unique(np.array(form), return_inverse=True)
        rows = np.array([positions for _, positions in members], np.intp).T
        groups = np.array([number for number, _ in members], np.intp)
        made.append(Shape(distinct, rows, parts, groups))
    labels_of = tuple(LabelSet(key) for key in known)
    return Histograms(SeriesSet(labels_of, True), tuple(made), tuple(bad))


def parse_bound(text: str) -> float | None:
    """The number in an `le` label as Go's ParseFloat reads it, or None."""
    if not text or text != text.strip() or text.lower().lstrip("+-") in ("infinit", "infinity_"):
        return None
    try:
        return float(text.replace("_", "?"))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Falls:
    """Where counts fell and were levelled, for W histograms: whether, the lowest and the greatest bound
    (W,) of such buckets, and by how much at most."""

    there: Bools
    lowest: Float64s
    highest: Float64s
    most: Float64s


@dataclass(slots=True)
class Levelled:
    """What was levelled in the histograms of one metric: bounds, greatest fall, how often, at which steps."""

    lowest: float = np.inf
    highest: float = -np.inf
    most: float = 0.0
    count: int = 0
    first: int = 2**62
    last: int = -1


Evaluate = Callable[[Float64s, Float64s, Ints], tuple[Float64s, Falls | None]]


class _Results:
    """Values of H histograms at T steps, filled shape by shape."""

    def __init__(self, series: SeriesSet, steps: int) -> None:
        self.series = series
        self.values = np.zeros((len(series), steps))
        self.present = np.zeros(self.values.shape, np.bool_)
        self.levelled: dict[str, Levelled] = {}

    def put(self, groups: Ints, steps: Ints, values: Float64s, falls: Falls | None) -> None:
        """Results of the histograms `groups` (W,) at `steps` (W,)."""
        self.values[groups, steps] = values
        self.present[groups, steps] = True
        if falls is None:
            return
        for place in np.flatnonzero(falls.there).tolist():
            known = self.levelled.setdefault(self.series.labels[int(groups[place])].name, Levelled())
            known.lowest = min(known.lowest, float(falls.lowest[place]))
            known.highest = max(known.highest, float(falls.highest[place]))
            known.most = max(known.most, float(falls.most[place]))
            known.count += 1
            known.first = min(known.first, int(steps[place]))
            known.last = max(known.last, int(steps[place]))


def evaluate_histograms(matrix: StepMatrix, evaluate: Evaluate) -> tuple[StepMatrix, dict[str, Levelled]]:
    """A value of every histogram at every step.

    `evaluate(bounds (B,), counts (B, W), steps (W,))` gives values (W,) and what was levelled. Returns the
    matrix and what was levelled by metric name.
    """
    found = histograms(matrix.series)
    steps = matrix.values.shape[1]
    results = _Results(found.series, steps)
    for shape in found.shapes:
        counts = matrix.values[shape.rows]  # (R, H, T)
        there: Bools = np.ones(counts.shape, np.bool_)
        if matrix.present is not None:
            there = matrix.present[shape.rows]
        whole: Bools = np.logical_and.reduce(there, axis=0)
        if len(shape.bounds) != len(shape.rows):
            whole = np.zeros(whole.shape, np.bool_)
        members, at = np.nonzero(whole)
        if len(members):
            values, falls = evaluate(shape.bounds, counts[:, members, at], at)
            results.put(shape.groups[members], at, values, falls)
        _odd_ones(shape, counts, there, whole, evaluate, results)
    present = None if bool(results.present.all()) else results.present
    return StepMatrix(found.series, results.values, present), results.levelled


def _odd_ones(
    shape: Shape,
    counts: Float64s,
    there: Bools,
    done: Bools,
    evaluate: Evaluate,
    results: _Results,
) -> None:
    """Histograms with repeated bounds or missing buckets, one at a time."""
    left: Bools = np.logical_or.reduce(there, axis=0) & ~done
    for member, step in np.argwhere(left).tolist():
        held = there[:, member, step]
        used, places = np.unique(shape.parts[held], return_inverse=True)
        merged = np.zeros(len(used))
        np.add.at(merged, places, counts[held, member, step])
        at = np.array([step])
        values, falls = evaluate(shape.bounds[used], merged[:, None], at)
        results.put(shape.groups[member : member + 1], at, values, falls)


def bucket_quantile(quantiles: Float64s, bounds: Float64s, counts: Float64s) -> tuple[Float64s, Falls | None]:
    """Quantiles (W,) of histograms counts (B, W), linear inside a bucket; what falls were levelled."""
    windows = counts.shape[1]
    result = np.where(quantiles < 0, -np.inf, np.where(quantiles > 1, np.inf, np.nan))
    if not len(bounds) or bounds[-1] != np.inf:
        return np.where((quantiles < 0) | (quantiles > 1), result, np.nan), None
    inside = (quantiles >= 0) & (quantiles <= 1)
    if len(bounds) < 2:
        return result, None
    with np.errstate(all="ignore"):
        counts, falls = _monotonic(bounds, counts)
        total = counts[-1]
        rank = quantiles * total
        # The first bucket whose count reaches the rank, the last one left out.
        reached = counts[:-1] >= rank
        bucket = np.where(reached.any(axis=0), np.argmax(reached, axis=0), len(bounds) - 1)
        columns = np.arange(windows)
        below = np.maximum(bucket - 1, 0)
        lower = np.where(bucket > 0, bounds[below], 0.0)
        before = np.where(bucket > 0, counts[below, columns], 0.0)
        share = (rank - before) / (counts[bucket, columns] - before)
        value = lower + (bounds[bucket] - lower) * share
        value = np.where(bucket == len(bounds) - 1, bounds[-2], value)
        value = np.where((bucket == 0) & (bounds[0] <= 0), bounds[0], value)
        value = np.where(total == 0, np.nan, value)
    if falls is not None:
        there = falls.there & inside & (total != 0)
        falls = Falls(there, falls.lowest, falls.highest, falls.most)
    return np.where(inside, value, result), falls


def _monotonic(bounds: Float64s, counts: Float64s) -> tuple[Float64s, Falls | None]:
    """Counts (B, W) that never fall: rounding differences levelled silently, others told about."""
    windows = counts.shape[1]
    differences = counts[1:] - counts[:-1]
    suspicious = differences < _TOLERANCE * 2 * np.abs(counts[1:])
    suspicious &= differences != 0
    if not bool(suspicious.any()):
        return counts, None
    fixed = counts.copy()
    previous = fixed[0].copy()
    there = np.zeros(windows, np.bool_)
    lowest, highest, most = np.full(windows, np.inf), np.full(windows, -np.inf), np.zeros(windows)
    for bound, row in zip(bounds[1:].tolist(), fixed[1:], strict=True):
        size = np.abs(previous) + np.abs(row)
        apart = np.abs(previous - row)
        tiny = (previous == 0) | (row == 0) | (size < _MIN_NORMAL)
        equal = np.where(tiny, apart < _TOLERANCE * _MIN_NORMAL, apart / size < _TOLERANCE)
        fell = ~equal & (row < previous)
        level = equal | fell | (row == previous)
        there |= fell
        lowest = np.where(fell, np.minimum(lowest, bound), lowest)
        highest = np.where(fell, np.maximum(highest, bound), highest)
        most = np.where(fell, np.maximum(most, apart), most)
        row[level] = previous[level]
        previous = np.where(level, previous, row)
    return fixed, Falls(there, lowest, highest, most)


def bucket_fraction(
    lower: Float64s, upper: Float64s, bounds: Float64s, counts: Float64s
) -> tuple[Float64s, Falls | None]:
    """Share of observations between two bounds (W,) each, of histograms counts (B, W)."""
    if not len(bounds) or bounds[-1] != np.inf:
        return np.full(counts.shape[1], np.nan), None
    total = counts[-1]
    with np.errstate(all="ignore"):
        low, high = _rank(lower, bounds, counts), _rank(upper, bounds, counts)
        low = np.where(low > total, total, low)
        high = np.where(high > total, total, high)
        share = (high - low) / total
    share = np.where(lower >= upper, 0.0, share)
    return np.where((total == 0) | np.isnan(lower) | np.isnan(upper), np.nan, share), None


def _rank(value: Float64s, bounds: Float64s, counts: Float64s) -> Float64s:
    """Observations at or below a value (W,), linear inside a bucket."""
    rank: Float64s = counts[-1].copy()
    settled = np.zeros(len(rank), np.bool_)
    below = np.zeros(len(rank))
    for place, bound in enumerate(bounds.tolist()):
        floor = -np.inf if place == 0 else float(bounds[place - 1])
        at_floor = ~settled & (floor >= value)
        rank = np.where(at_floor, below, rank)
        settled |= at_floor
        inside = ~settled & (floor < value) & (bound > value)
        start = 0.0 if place == 0 and bound > 0 else floor
        share = (value - start) / (bound - start)
        rank = np.where(inside, below + (counts[place] - below) * share, rank)
        settled |= inside
        below = counts[place]
    return rank
