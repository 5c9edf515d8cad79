"""Axes of values: round steps, and where a value stands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_DECIMAL = (1.0, 2.0, 2.5, 5.0, 10.0)
_BINARY = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
_SECONDS = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
            14_400.0, 21_600.0, 43_200.0, 86_400.0)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis: its ends, and the values at which a grid line stands, ascending."""

    low: float
    high: float
    marks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a value stands between the ends: 0 at the lower, 1 at the upper; outside ones at the ends."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def axis(
    values: Iterable[float],
    *,
    lowest: float | None = None,
    highest: float | None = None,
    most: int = 5,
    unit: str = "",
) -> Axis:
    """An axis that holds all finite values, from `lowest` and to `highest` where these are given.

    Where an end is not given it is a round value, so that no line touches the frame for its own sake.
    `unit` chooses what is round: powers of two for bytes, minutes and hours for seconds.
    """
    finite = [value for value in values if math.isfinite(value)]
    low = min(finite, default=0.0) if lowest is None else min(lowest, min(finite, default=lowest))
    high = max(finite, default=1.0) if highest is None else max(highest, max(finite, default=highest))
    if high <= low:
        spread = abs(low) * 0.1 or 1.0
        low, high = (low, low + spread) if lowest is not None else (low - spread, low + spread)
    step = _step((high - low) / max(1, most), unit)
    first = low if lowest is not None and low == lowest else math.floor(low / step + 1e-9) * step
    last = high if highest is not None and high == highest else math.ceil(high / step - 1e-9) * step
    count = math.floor((last - first) / step + 1e-9)
    begin = math.ceil(first / step - 1e-9)
    marks = tuple(
        mark
        for mark in ((begin + n) * step for n in range(count + 1))
        if first - 1e-12 <= mark <= last * (1 + 1e-12)
    )
    return Axis(first, last, marks)


def _step(least: float, unit: str) -> float:
    """The smallest round step that is at least so large."""
    if unit in ("bytes", "Bps") and least > 1:
        power = 1024.0 ** math.floor(math.log(least, 1024))
        return next(one * power for one in _BINARY if one * power >= least)
    if unit == "s" and 1 < least <= _SECONDS[-1]:
        return next(one for one in _SECONDS if one >= least)
    power = 10.0 ** math.floor(math.log10(least))
    return next(one * power for one in _DECIMAL if one * power >= least * (1 - 1e-12))
