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
    drop: dict[tuple[tuple[str, str], ...], bool] = {}
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
    del drop
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


Evaluate = Callable[[Float64s, Float64s, Ints], tuple[Float64s, Bools]]


def evaluate_histograms(matrix: StepMatrix, evaluate: Evaluate) -> tuple[StepMatrix, list[LabelSet]]:
    """A value of every histogram at every step.

    `evaluate(bounds (B,), counts (B, W), steps (W,))` gives values (W,) and where falls were levelled.
    Returns the matrix and the label sets of histograms with levelled falls.
    """
    found = histograms(matrix.series)
    steps = matrix.values.shape[1]
    out = np.zeros((len(found.series), steps))
    present = np.zeros(out.shape, np.bool_)
    forced: dict[int, None] = {}
    for shape in found.shapes:
        counts = matrix.values[shape.rows]  # (R, H, T)
        there = None if matrix.present is None else matrix.present[shape.rows]
        if there is not None and bool(there.all()):
            there = None
        if len(shape.bounds) != len(shape.rows):
            _ragged_parts(shape, counts, there, evaluate, out, present, forced)
            continue
        which = np.broadcast_to(np.arange(steps), counts.shape[1:])
        whole: Bools = np.ones(counts.shape[1:], np.bool_)
        if there is not None:
            whole = np.logical_and.reduce(there, axis=0)
        flat = counts[:, whole] if there is not None else counts.reshape(len(counts), -1)
        values, levelled = evaluate(shape.bounds, flat, which[whole])
        at = np.zeros(counts.shape[1:])
        at[whole] = values
        out[shape.groups] = at
        present[shape.groups] = whole
        if bool(levelled.any()):
            rows = np.zeros(counts.shape[1:], np.bool_)
            rows[whole] = levelled
            forced.update(dict.fromkeys(shape.groups[rows.any(axis=1)].tolist()))
        if there is not None:
            _ragged_parts(shape, counts, there, evaluate, out, present, forced, done=whole)
    labels = [found.series.labels[number] for number in forced]
    return StepMatrix(found.series, out, None if bool(present.all()) else present), labels


def _ragged_parts(
    shape: Shape,
    counts: Float64s,
    there: Bools | None,
    evaluate: Evaluate,
    out: Float64s,
    present: Bools,
    forced: dict[int, None],
    done: Bools | None = None,
) -> None:
    """Histograms with repeated bounds or missing buckets, one at a time."""
    _, members, steps = counts.shape
    for member in range(members):
        for step in range(steps):
            if done is not None and done[member, step]:
                continue
            held = np.ones(len(counts), np.bool_) if there is None else there[:, member, step]
            if not bool(held.any()):
                continue
            parts, cells = shape.parts[held], counts[held, member, step]
            used, places = np.unique(parts, return_inverse=True)
            merged = np.zeros(len(used))
            np.add.at(merged, places, cells)
            values, levelled = evaluate(shape.bounds[used], merged[:, None], np.array([step]))
            number = int(shape.groups[member])
            out[number, step] = values[0]
            present[number, step] = True
            if bool(levelled[0]):
                forced[number] = None


def bucket_quantile(quantiles: Float64s, bounds: Float64s, counts: Float64s) -> tuple[Float64s, Bools]:
    """Quantiles (W,) of histograms counts (B, W), linear inside a bucket; where falls were levelled."""
    windows = counts.shape[1]
    never = np.zeros(windows, np.bool_)
    result = np.where(quantiles < 0, -np.inf, np.where(quantiles > 1, np.inf, np.nan))
    if not len(bounds) or bounds[-1] != np.inf:
        return np.where((quantiles < 0) | (quantiles > 1), result, np.nan), never
    inside = (quantiles >= 0) & (quantiles <= 1)
    if len(bounds) < 2:
        return result, never
    with np.errstate(all="ignore"):
        counts, levelled = _monotonic(counts)
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
    return np.where(inside, value, result), levelled & inside & (total != 0)


def _monotonic(counts: Float64s) -> tuple[Float64s, Bools]:
    """Counts (B, W) that never fall: rounding differences levelled silently, others told about."""
    windows = counts.shape[1]
    levelled = np.zeros(windows, np.bool_)
    differences = counts[1:] - counts[:-1]
    suspicious = differences < _TOLERANCE * 2 * np.abs(counts[1:])
    suspicious &= differences != 0
    if not bool(suspicious.any()):
        return counts, levelled
    fixed = counts.copy()
    previous = fixed[0].copy()
    for row in fixed[1:]:
        size = np.abs(previous) + np.abs(row)
        apart = np.abs(previous - row)
        tiny = (previous == 0) | (row == 0) | (size < _MIN_NORMAL)
        equal = np.where(tiny, apart < _TOLERANCE * _MIN_NORMAL, apart / size < _TOLERANCE)
        fell = ~equal & (row < previous)
        level = equal | fell | (row == previous)
        levelled |= fell
        row[level] = previous[level]
        previous = np.where(level, previous, row)
    return fixed, levelled


def bucket_fraction(
    lower: Float64s, upper: Float64s, bounds: Float64s, counts: Float64s
) -> tuple[Float64s, Bools]:
    """Share of observations between two bounds (W,) each, of histograms counts (B, W)."""
    windows = counts.shape[1]
    never = np.zeros(windows, np.bool_)
    if not len(bounds) or bounds[-1] != np.inf:
        return np.full(windows, np.nan), never
    total = counts[-1]
    with np.errstate(all="ignore"):
        low, high = _rank(lower, bounds, counts), _rank(upper, bounds, counts)
        low = np.where(low > total, total, low)
        high = np.where(high > total, total, high)
        share = (high - low) / total
    share = np.where(lower >= upper, 0.0, share)
    return np.where((total == 0) | np.isnan(lower) | np.isnan(upper), np.nan, share), never


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
