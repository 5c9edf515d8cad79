"""Functions over the points of one window, in plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

Points = list[tuple[int, float]]
# points, start_ms, end_ms, parameter, evaluation time -> value, or None for no result
WindowFunction = Callable[[Points, int, int, float, int], "float | None"]


def quantile(values: list[float], q: float) -> float:
    """The q-quantile by linear interpolation; NaN counts as the smallest."""
    if not values or math.isnan(q):
        return math.nan
    if q < 0:
        return -math.inf
    if q > 1:
        return math.inf
    ordered = sorted(values, key=lambda value: (not math.isnan(value), value))
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    weight = rank - low
    return ordered[low] * (1 - weight) + ordered[high] * weight


def _extrapolated(points: Points, start: int, end: int, *, counter: bool, rate: bool) -> float | None:
    if len(points) < 2:
        return None
    (first_at, first), (last_at, last) = points[0], points[-1]
    change = last - first
    if counter:
        change += sum(a for (_, a), (_, b) in itertools.pairwise(points) if b < a)
    sampled = (last_at - first_at) / 1000
    average = sampled / (len(points) - 1)
    to_start, to_end = (first_at - start) / 1000, (end - last_at) / 1000
    if to_start >= average * 1.1:
        to_start = average / 2
    if to_end >= average * 1.1:
        to_end = average / 2
    if counter and change > 0 and first >= 0:
        to_start = min(to_start, sampled * (first / change))
    factor = (sampled + to_start + to_end) / sampled
    return change * (factor / ((end - start) / 1000) if rate else factor)


def _last_two(points: Points, *, rate: bool) -> float | None:
    if len(points) < 2:
        return None
    (before_at, before), (at, value) = points[-2:]
    if not rate:
        return value - before
    change = value if value < before else value - before
    return change / ((at - before_at) / 1000)


def _regression(points: Points, ts: int) -> tuple[float, float] | None:
    """Slope per second, and the value at `ts`."""
    if len(points) < 2:
        return None
    if all(value == points[0][1] for _, value in points):
        return (math.nan, math.nan) if math.isinf(points[0][1]) else (0.0, points[0][1])
    xs = [(at - ts) / 1000 for at, _ in points]
    ys = [value for _, value in points]
    count = len(points)
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    slope /= sum((x - mean_x) ** 2 for x in xs)
    return slope, mean_y - slope * mean_x


def _pick(points: Points, *, largest: bool) -> float:
    values = [value for _, value in points if not math.isnan(value)]
    return (max if largest else min)(values) if values else math.nan


def _variance(points: Points) -> float:
    mean = sum(value for _, value in points) / len(points)
    return sum((value - mean) ** 2 for _, value in points) / len(points)


def _differs(a: float, b: float) -> bool:
    return a != b and not (math.isnan(a) and math.isnan(b))


def _slope(points: Points) -> float | None:
    found = _regression(points, points[0][0])
    return None if found is None else found[0]


def _predict(points: Points, seconds: float, ts: int) -> float | None:
    found = _regression(points, ts)
    return None if found is None else found[0] * seconds + found[1]


OVER_TIME: dict[str, WindowFunction] = {
    "rate": lambda p, start, end, _q, _t: _extrapolated(p, start, end, counter=True, rate=True),
    "increase": lambda p, start, end, _q, _t: _extrapolated(p, start, end, counter=True, rate=False),
    "delta": lambda p, start, end, _q, _t: _extrapolated(p, start, end, counter=False, rate=False),
    "irate": lambda p, _s, _e, _q, _t: _last_two(p, rate=True),
    "idelta": lambda p, _s, _e, _q, _t: _last_two(p, rate=False),
    "sum_over_time": lambda p, _s, _e, _q, _t: sum(v for _, v in p),
    "avg_over_time": lambda p, _s, _e, _q, _t: sum(v for _, v in p) / len(p),
    "count_over_time": lambda p, _s, _e, _q, _t: float(len(p)),
    "min_over_time": lambda p, _s, _e, _q, _t: _pick(p, largest=False),
    "max_over_time": lambda p, _s, _e, _q, _t: _pick(p, largest=True),
    "last_over_time": lambda p, _s, _e, _q, _t: p[-1][1],
    "first_over_time": lambda p, _s, _e, _q, _t: p[0][1],
    "present_over_time": lambda _p, _s, _e, _q, _t: 1.0,
    "stdvar_over_time": lambda p, _s, _e, _q, _t: _variance(p),
    "stddev_over_time": lambda p, _s, _e, _q, _t: math.sqrt(_variance(p)),
    "quantile_over_time": lambda p, _s, _e, q, _t: quantile([v for _, v in p], q),
    "changes": lambda p, _s, _e, _q, _t: float(
        sum(_differs(a, b) for (_, a), (_, b) in itertools.pairwise(p))
    ),
    "resets": lambda p, _s, _e, _q, _t: float(sum(b < a for (_, a), (_, b) in itertools.pairwise(p))),
    "deriv": lambda p, _s, _e, _q, _t: _slope(p),
    "predict_linear": lambda p, _s, _e, q, t: _predict(p, q, t),
}
