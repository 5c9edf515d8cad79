"""The rate family: first and last sample of a window, the falls between them, and extrapolation.

Source: Prometheus' functions page (rate, increase, delta, irate, idelta) and its extended range selectors
(anchored, smoothed).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.model.samples import Float64s, Int64s
from exporter.promql.limits import Budget
from exporter.promql.matrix import RangeOperand, StepMatrix
from exporter.promql.seriesset import Bools, Ints
from exporter.promql.source import Grid
from exporter.promql.windows import Samples, Spans, allocate, finish, ragged_windows

_PIECE_CELLS = 1 << 16  # values worked on at a time


def extrapolated(operand: RangeOperand, budget: Budget, *, counter: bool, per_second: bool) -> StepMatrix:
    """rate (counter, per second), increase (counter) and delta."""
    if operand.anchored or operand.smoothed:
        return _extended(operand, budget, counter=counter, per_second=per_second)
    out, present = allocate(operand, budget)
    for grid in operand.columns.grids:
        spans = Spans.of(grid.ts_ms, operand.ends_ms, operand.range_ms)
        live = np.flatnonzero(spans.hi - spans.lo >= 2)
        # A few steps at a time: what they need stays in the processor's cache.
        together = max(1, _PIECE_CELLS // max(grid.width, 1))
        for begin in range(0, len(live), together):
            budget.check()
            steps = live[begin : begin + together]
            index = grid.index
            rows = steps if isinstance(index, slice) else steps[:, None]
            out[rows, index] = _growth(grid, spans, operand, steps, counter=counter, per_second=per_second)
            present[rows, index] = True
    for ragged in operand.columns.ragged:
        for which, samples, at in ragged_windows(ragged, operand, budget):
            assert samples.counts is not None
            with np.errstate(all="ignore"):
                first, last = samples.values[0], samples.at(1)
                growth = last - first
                if counter:
                    growth = growth + _falls(samples)
                out[at, which] = _extrapolate(
                    growth,
                    first,
                    samples.ts_ms[0],
                    samples.ts_at(1),
                    samples.counts,
                    samples.ends_ms - operand.range_ms,
                    samples.ends_ms,
                    operand.range_ms,
                    counter=counter,
                    per_second=per_second,
                )
            present[at, which] = samples.counts >= 2
    return finish(operand, out, present)


def _growth(
    grid: Grid, spans: Spans, operand: RangeOperand, steps: Ints, *, counter: bool, per_second: bool
) -> Float64s:
    """The extrapolated growth of every column of a grid at some steps: two row look-ups for each."""
    lo, hi = spans.lo[steps], spans.hi[steps]
    first, growth = grid.rows(lo), grid.rows(hi - 1)
    ends_ms = operand.ends_ms[steps][:, None]
    with np.errstate(all="ignore"):
        growth -= first
        if counter:
            add_falls(grid, lo, hi, growth)
        return _extrapolate(
            growth,
            first,
            grid.ts_ms[lo][:, None],
            grid.ts_ms[hi - 1][:, None],
            (hi - lo)[:, None],
            ends_ms - operand.range_ms,
            ends_ms,
            operand.range_ms,
            counter=counter,
            per_second=per_second,
        )


def add_falls(grid: Grid, lo: Ints, hi: Ints, growth: Float64s) -> None:
    """Add what counters had before they fell, for windows [lo, hi) of a grid, to growth (T, C)."""
    falls = grid.resets(int(lo.min()), int(hi.max()))
    if not len(falls.rows):
        return
    begins = np.searchsorted(falls.rows, lo, "right")
    ends = np.searchsorted(falls.rows, hi, "left")
    width = growth.shape[1]
    for step, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
        if begin < end:
            growth[step] += np.bincount(falls.cols[begin:end], falls.amounts[begin:end], width)


def _falls(samples: Samples) -> Float64s:
    values = samples.values
    fallen = values[1:] < values[:-1]
    if samples.counts is not None:
        fallen &= samples.mask()[1:]
    total: Float64s = np.where(fallen, values[:-1], 0.0).sum(axis=0)
    return total


def _extrapolate(
    growth: Float64s,
    first: Float64s,
    first_ms: Int64s,
    last_ms: Int64s,
    counts: Ints,
    start_ms: Int64s,
    end_ms: Int64s,
    range_ms: int,
    *,
    counter: bool,
    per_second: bool,
) -> Float64s:
    """Growth between first and last sample, stretched towards the edges of the window.

    To the edge where it lies within 1.1 mean sample distances, else by half a distance; a counter not
    beyond its zero point.
    """
    sampled = (last_ms - first_ms) / 1000
    mean = sampled / np.maximum(counts - 1, 1)
    to_start = (first_ms - start_ms) / 1000
    to_end = (end_ms - last_ms) / 1000
    threshold = mean * 1.1
    to_start = np.where(to_start >= threshold, mean / 2, to_start)
    to_end = np.where(to_end >= threshold, mean / 2, to_end)
    if counter:
        # Only where the zero point lies inside the stretch: sampled * first / growth < to_start.
        limit = growth * (to_start / sampled)
        bounded = (growth > 0) & (first >= 0) & (first < limit)
        if bool(bounded.any()):
            to_zero = sampled * (first / growth)
            to_start = np.where((growth > 0) & (first >= 0) & (to_zero < to_start), to_zero, to_start)
    factor = (sampled + to_start + to_end) / sampled
    if per_second:
        factor = factor / (range_ms / 1000)
    return growth * factor


def instant(operand: RangeOperand, budget: Budget, *, per_second: bool) -> StepMatrix:
    """irate (per second, falls count from zero) and idelta: the last two samples of each window."""
    out, present = allocate(operand, budget)
    for grid in operand.columns.grids:
        spans = Spans.of(grid.ts_ms, operand.ends_ms, operand.range_ms)
        steps = np.flatnonzero(spans.hi - spans.lo >= 2)
        if not len(steps):
            continue
        hi = spans.hi[steps]
        before, last = grid.rows(hi - 2), grid.rows(hi - 1)
        apart = (grid.ts_ms[hi - 1] - grid.ts_ms[hi - 2])[:, None]
        index = grid.index
        rows = steps if isinstance(index, slice) else steps[:, None]
        out[rows, index] = _between(before, last, apart, per_second=per_second)
        present[rows, index] = True
    for ragged in operand.columns.ragged:
        for which, samples, where in ragged_windows(ragged, operand, budget):
            assert samples.counts is not None
            apart = samples.ts_at(1) - samples.ts_at(2)
            out[where, which] = _between(samples.at(2), samples.at(1), apart, per_second=per_second)
            present[where, which] = (samples.counts >= 2) & (apart != 0)
    return finish(operand, out, present)


def _between(before: Float64s, last: Float64s, apart_ms: Int64s, *, per_second: bool) -> Float64s:
    with np.errstate(all="ignore"):
        if not per_second:
            return last - before
        growth: Float64s = np.where(last < before, last, last - before)
        return growth / (apart_ms / 1000)


def _extended(operand: RangeOperand, budget: Budget, *, counter: bool, per_second: bool) -> StepMatrix:
    """anchored: from the last sample before the window on; smoothed: edges interpolated. No extrapolation."""
    out, present = allocate(operand, budget)
    for ragged in operand.columns.ragged:
        for which, samples, rows in ragged_windows(ragged, operand, budget):
            with np.errstate(all="ignore"):
                result, there = _edges(samples, operand, counter=counter)
            out[rows, which] = result / (operand.range_ms / 1000) if per_second else result
            present[rows, which] = there
    return finish(operand, out, present)


def _edges(samples: Samples, operand: RangeOperand, *, counter: bool) -> tuple[Float64s, Bools]:
    assert samples.counts is not None
    start = samples.ends_ms - operand.range_ms
    end = samples.ends_ms
    mask = samples.mask()
    ts_ms, values, counts = samples.ts_ms, samples.values, samples.counts
    final = np.maximum(counts - 1, 0)
    # The search leaves the final sample out, as Prometheus': it is the answer where none other fits.
    before_end = mask & (np.arange(len(values))[:, None, None] < final)
    first = np.maximum((before_end & (ts_ms <= start)).sum(axis=0) - 1, 0)
    last = (before_end & (ts_ms < end)).sum(axis=0) if operand.smoothed else final

    def value(place: Ints) -> Float64s:
        picked: Float64s = np.take_along_axis(values, place[None], 0)[0]
        return picked

    def time(place: Ints) -> Int64s:
        picked: Int64s = np.take_along_axis(ts_ms, place[None], 0)[0]
        return picked

    there = (counts > 0) & (time(last) > start)
    left, right = value(first), value(last)
    if operand.smoothed:
        there &= time(first) <= end
        after = np.minimum(first + 1, final)
        left = np.where(
            time(first) < start,
            _interpolate(value(first), value(after), time(first), time(after), start, counter),
            left,
        )
        prior = np.maximum(last - 1, 0)
        right = np.where(
            (last > 0) & (time(last) > end),
            _interpolate(value(prior), value(last), time(prior), time(last), end, counter),
            right,
        )
    growth = right - left
    if counter:
        first = np.where(time(first) <= start, first + 1, first)
        last = np.where(time(last) >= end, last - 1, last)
        previous = left
        for place in range(len(values)):
            inside = (place >= first) & (place <= last)
            current = values[place]
            growth = np.where(inside & (current < previous), growth + previous, growth)
            previous = np.where(inside, current, previous)
        growth = np.where(right < previous, growth + previous, growth)
    return growth, there


def _interpolate(
    left: Float64s, right: Float64s, left_ms: Int64s, right_ms: Int64s, at_ms: Int64s, counter: bool
) -> Float64s:
    """The value on the line between two samples; a counter that fell started from zero."""
    base = np.where(right < left, 0.0, left) if counter else left
    return base + (right - base) * ((at_ms - left_ms) / (right_ms - left_ms))


def smooth_points(samples: Samples) -> tuple[Float64s, Bools]:
    """The value of a smoothed instant selector: between the samples around each step, else the one before."""
    assert samples.counts is not None
    at = samples.ends_ms
    mask = samples.mask()
    final = np.maximum(samples.counts - 1, 0)
    place = (mask & (samples.ts_ms < at)).sum(axis=0)

    def pick(array: Any, where: Ints) -> Any:
        return np.take_along_axis(array, np.clip(where, 0, final)[None], 0)[0]

    following = place < samples.counts
    next_ms, next_value = pick(samples.ts_ms, place), pick(samples.values, place)
    prior_ms, prior_value = pick(samples.ts_ms, place - 1), pick(samples.values, place - 1)
    exact = following & (next_ms == at)
    between = _interpolate(prior_value, next_value, prior_ms, next_ms, at, False)
    value = np.where(exact, next_value, np.where(following, between, prior_value))
    return value, (samples.counts > 0) & (exact | (place > 0))
