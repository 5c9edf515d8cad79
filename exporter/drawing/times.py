"""Times in words and on axes, UTC; durations as exact as their length asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from exporter.model.durations import format_duration

_TICKS_MS: Final = tuple(
    minutes * 60_000
    for minutes in (
        1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080, 20_160, 43_200, 129_600,
    )
)  # fmt: skip


def ticks(start_ms: int, end_ms: int, most: int) -> list[int]:
    """Round times for an axis, at most `most` of them."""
    span = max(1, end_ms - start_ms)
    step = next((one for one in _TICKS_MS if span / one <= most), max(1, span // max(1, most)))
    first = -(-start_ms // step) * step
    return list(range(first, end_ms + 1, step))


def tick_text(at_ms: int, span_ms: int) -> str:
    """A time on an axis, as exact as the axis is."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    if span_ms > 8 * 86_400_000:
        return f"{moment:%b} {moment.day}"
    if span_ms > 86_400_000:
        return f"{moment:%b} {moment.day} {moment:%H:%M}"
    return f"{moment:%H:%M}"


def moment_text(at_ms: int) -> str:
    """A time in full."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def rounded(ms: int) -> str:
    """A duration, as exact as its length asks for."""
    unit = 1000 if ms < 3_600_000 else 60_000 if ms < 172_800_000 else 3_600_000
    return format_duration(ms // unit * unit)
