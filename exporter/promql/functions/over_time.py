"""Kernels over windows: each takes `Samples` and reduces axis 0.

Source: Prometheus' functions page (<aggregation>_over_time, changes, resets, deriv, predict_linear,
double_exponential_smoothing).
"""

from __future__ import annotations

import numpy as np

from exporter.model.samples import Float64s
from exporter.promql.seriesset import Bools, Ints
from exporter.promql.sums import mean_first_axis, sum_first_axis
from exporter.promql.windows import Kernel, Samples


def _shape(samples: Samples) -> tuple[int, ...]:
    return samples.values.shape[1:]


def _spread(values: Float64s, samples: Samples) -> Float64s:
    spread: Float64s = np.broadcast_to(values, _shape(samples))
    return spread


def sum_over_time(samples: Samples) -> Float64s:
    """Sum."""
    return sum_first_axis(samples.filled(0.0))


def avg_over_time(samples: Samples) -> Float64s:
    """Mean."""
    return mean_first_axis(samples.filled(0.0), np.asarray(samples.size, np.float64))


def count_over_time(samples: Samples) -> Float64s:
    """Number of samples."""
    return _spread(np.asarray(samples.size, np.float64), samples)


def present_over_time(samples: Samples) -> Float64s:
    """1."""
    return np.ones(_shape(samples))


def min_over_time(samples: Samples) -> Float64s:
    """Least value; NaN only where all are."""
    least: Float64s = np.fmin.reduce(samples.filled(np.nan), axis=0)
    return least


def max_over_time(samples: Samples) -> Float64s:
    """Greatest value; NaN only where all are."""
    greatest: Float64s = np.fmax.reduce(samples.filled(np.nan), axis=0)
    return greatest


def first_over_time(samples: Samples) -> Float64s:
    """Oldest value."""
    oldest: Float64s = samples.values[0]
    return oldest


def last_over_time(samples: Samples) -> Float64s:
    """Newest value."""
    return samples.at(1)


def ts_of_first_over_time(samples: Samples) -> Float64s:
    """Time of the oldest sample, seconds."""
    return _spread(samples.ts_ms[0] / 1000, samples)


def ts_of_last_over_time(samples: Samples) -> Float64s:
    """Time of the newest sample, seconds."""
    return _spread(samples.ts_at(1) / 1000, samples)


def ts_of_max_over_time(samples: Samples) -> Float64s:
    """Time of the last sample with the greatest value, seconds."""
    return _time_of(samples, max_over_time(samples))


def ts_of_min_over_time(samples: Samples) -> Float64s:
    """Time of the last sample with the least value, seconds."""
    return _time_of(samples, min_over_time(samples))


def _time_of(samples: Samples, wanted: Float64s) -> Float64s:
    hit: Bools = ((samples.values == wanted) | (wanted != wanted)) & samples.mask()
    last = len(hit) - 1 - np.argmax(hit[::-1], axis=0)
    times = np.broadcast_to(samples.ts_ms, samples.values.shape)
    found: Float64s = np.take_along_axis(times, last[None], 0)[0] / 1000
    return found


def stdvar_over_time(samples: Samples) -> Float64s:
    """Population variance. Around the first value, so that equal values give exactly 0."""
    count = np.asarray(samples.size, np.float64)
    values, base = samples.values, samples.values[0]
    if samples.counts is None and base.size >= 4 * len(values):
        return _variance_by_row(values, base)
    shifted = values - base
    if samples.counts is not None:
        shifted = np.where(samples.mask(), shifted, 0.0)
    rest = shifted - shifted.sum(axis=0) / count
    if samples.counts is not None:
        rest = np.where(samples.mask(), rest, 0.0)
    variance: Float64s = (rest * rest).sum(axis=0) / count
    return variance


def _variance_by_row(values: Float64s, base: Float64s) -> Float64s:
    """The same in two passes over the rows, without a copy of the windows."""
    mean, total, rest = np.zeros_like(base), np.zeros_like(base), np.empty_like(base)
    for row in values:
        mean += np.subtract(row, base, out=rest)
    mean /= len(values)
    for row in values:
        np.subtract(row, base, out=rest)
        rest -= mean
        rest *= rest
        total += rest
    total /= len(values)
    return total


def stddev_over_time(samples: Samples) -> Float64s:
    """Population standard deviation."""
    deviation: Float64s = np.sqrt(stdvar_over_time(samples))
    return deviation


def quantile_over_time(samples: Samples, quantiles: Float64s) -> Float64s:
    """The quantile of each window; `quantiles` broadcastable to the windows."""
    return _quantile(quantiles, samples.filled(np.nan), samples.size)


def mad_over_time(samples: Samples) -> Float64s:
    """Median absolute deviation."""
    half = np.float64(0.5)
    values = samples.filled(np.nan)
    median = _quantile(half, values, samples.size)
    return _quantile(half, np.abs(values - median), samples.size)


def _quantile(quantile: Float64s | np.float64, values: Float64s, size: Ints | int) -> Float64s:
    """Quantiles of the non-padding part of axis 0, padding being NaN; NaN samples sort lowest."""
    shape = values.shape[1:]
    ordered = np.sort(values, axis=0)  # NaN, be it sample or padding, last
    counts = np.broadcast_to(np.asarray(size), shape)
    numbers = np.count_nonzero(~np.isnan(values), axis=0)
    lowest = counts - numbers  # NaN samples
    rank = quantile * (counts - 1)
    lower = np.maximum(0, np.floor(np.where(np.isfinite(rank), rank, 0))).astype(np.intp)
    upper = np.minimum(counts - 1, lower + 1)

    def pick(place: Ints) -> Float64s:
        found = np.take_along_axis(ordered, np.clip(place - lowest, 0, len(ordered) - 1)[None], 0)[0]
        return np.where(place < lowest, np.nan, found)

    weight = rank - np.floor(rank)
    result = pick(lower) * (1 - weight) + pick(upper) * weight
    result = np.where(quantile < 0, -np.inf, np.where(quantile > 1, np.inf, result))
    bounded: Float64s = np.where(np.isnan(quantile), np.nan, result)
    return bounded


def _steps(samples: Samples, changed: Bools, first: Ints | int = 0) -> Float64s:
    if samples.counts is not None:
        changed = changed & samples.mask()[1:]
    if isinstance(first, np.ndarray):
        changed = changed & (np.arange(1, len(changed) + 1)[:, None, None] > first)
    count: Float64s = np.count_nonzero(changed, axis=0).astype(np.float64)
    return count


def changes(samples: Samples, first: Ints | int = 0) -> Float64s:
    """How often the value changed; NaN equals NaN. Samples before `first` do not count."""
    before, after = samples.values[:-1], samples.values[1:]
    return _steps(samples, (before != after) & ((before == before) | (after == after)), first)


def resets(samples: Samples, first: Ints | int = 0) -> Float64s:
    """How often the value fell. Samples before `first` do not count."""
    return _steps(samples, samples.values[1:] < samples.values[:-1], first)


def anchor(samples: Samples) -> tuple[Ints, Bools]:
    """Position of the last sample at or before each window (0: none); whether any lies inside it."""
    assert samples.counts is not None
    start = samples.ends_ms - samples.range_ms
    mask = samples.mask()
    final = np.maximum(samples.counts - 1, 0)
    before_end = mask & (np.arange(len(mask))[:, None, None] < final)
    first = np.maximum((before_end & (samples.ts_ms <= start)).sum(axis=0) - 1, 0)
    inside = np.take_along_axis(samples.ts_ms, final[None], 0)[0] > start
    return first, (samples.counts > 0) & inside


def _line(samples: Samples, origin_ms: np.ndarray) -> tuple[Float64s, Float64s]:
    """Slope per second and value at the origin of the least-squares line.

    Values are taken relative to the first sample of the window: differences of large sums lose digits.
    """
    base = samples.values[0]
    # Times relative to the window's first sample: small numbers, whatever the origin.
    from_ms = samples.ts_ms[0]
    seconds = (samples.ts_ms - from_ms) / 1000
    count = np.asarray(samples.size, np.float64)
    if samples.counts is None and seconds.shape[1:] == (1, 1):
        x = seconds[:, 0, 0]
        mean_x = x.sum() / len(x)
        weighted, sum_y = _weighted(samples.values, base, x - mean_x)
        slope = weighted / ((x - mean_x) @ x)
        intercept = sum_y / count - slope * mean_x
    else:
        rise = samples.values - base
        if samples.counts is not None:
            mask = samples.mask()
            rise, seconds = np.where(mask, rise, 0.0), np.where(mask, seconds, 0.0)
        else:
            mask = np.ones((1,) * rise.ndim, np.bool_)
        sum_x, sum_y = seconds.sum(axis=0), rise.sum(axis=0)
        centred = np.where(mask, seconds - sum_x / count, 0.0)
        slope = (centred * rise).sum(axis=0) / (centred * seconds).sum(axis=0)
        intercept = sum_y / count - slope * (sum_x / count)
    slope = np.where(np.isinf(slope), np.nan, slope)  # an infinite value leaves no line
    shift = (origin_ms - from_ms) / 1000
    return slope, base + (intercept + slope * shift)


def _weighted(values: Float64s, base: Float64s, weights: Float64s) -> tuple[Float64s, Float64s]:
    """Weighted sum and plain sum over axis 0 of the values relative to `base`."""
    if base.size < 4 * len(weights):
        rise = values - base
        return (weights[:, None, None] * rise).sum(axis=0), rise.sum(axis=0)
    # Row by row in small buffers: one pass over memory, no copy of the windows.
    weighted, plain, rise = np.zeros_like(base), np.zeros_like(base), np.empty_like(base)
    for row, weight in zip(values, weights.tolist(), strict=True):
        np.subtract(row, base, out=rise)
        plain += rise
        rise *= weight
        weighted += rise
    return weighted, plain


def deriv(samples: Samples) -> Float64s:
    """Slope of the least-squares line, per second."""
    return _line(samples, samples.ts_ms[0])[0]


def predict_linear(samples: Samples, ahead_s: Float64s) -> Float64s:
    """The least-squares line's value `ahead_s` after the time of evaluation."""
    slope, value = _line(samples, samples.steps_ms)
    return slope * ahead_s + value


def double_exponential_smoothing(samples: Samples, smoothing: Float64s, trend: Float64s) -> Float64s:
    """Holt's linear method with both factors, each broadcastable to the windows."""
    values = samples.values
    level: Float64s = values[0].copy()
    slope = values[1] - values[0] if len(values) > 1 else np.zeros_like(level)
    before = np.zeros_like(level)
    for place in range(1, len(values)):
        if place > 1:
            slope_now = trend * (level - before) + (1 - trend) * slope
        else:
            slope_now = slope
        smoothed = smoothing * values[place] + (1 - smoothing) * (level + slope_now)
        if samples.counts is None:
            before, level, slope = level, smoothed, slope_now
        else:
            live = place < samples.counts
            before, level, slope = (
                np.where(live, level, before),
                np.where(live, smoothed, level),
                np.where(live, slope_now, slope),
            )
    return level


# Function name -> kernel and the least number of samples it needs.
KERNELS: dict[str, tuple[Kernel, int]] = {
    "avg_over_time": (avg_over_time, 1),
    "changes": (changes, 1),
    "count_over_time": (count_over_time, 1),
    "deriv": (deriv, 2),
    "first_over_time": (first_over_time, 1),
    "last_over_time": (last_over_time, 1),
    "mad_over_time": (mad_over_time, 1),
    "max_over_time": (max_over_time, 1),
    "min_over_time": (min_over_time, 1),
    "present_over_time": (present_over_time, 1),
    "resets": (resets, 1),
    "stddev_over_time": (stddev_over_time, 1),
    "stdvar_over_time": (stdvar_over_time, 1),
    "sum_over_time": (sum_over_time, 1),
    "ts_of_first_over_time": (ts_of_first_over_time, 1),
    "ts_of_last_over_time": (ts_of_last_over_time, 1),
    "ts_of_max_over_time": (ts_of_max_over_time, 1),
    "ts_of_min_over_time": (ts_of_min_over_time, 1),
}
