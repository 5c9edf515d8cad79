"""A backtest's timeline as a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from exporter.drawing.ink import Ink, ink_of
from exporter.drawing.shapes import Box, Label, Picture, Shape
from exporter.drawing.text import fitted
from exporter.drawing.times import moment_text, rounded, tick_text, ticks
from exporter.rules.timeline import Lane

_LEFT, _RIGHT, _TOP, _LANE, _BOTTOM = 240, 200, 64, 30, 50
_BAR = 14


def picture(
    title: str, rows: Sequence[Lane], start_ms: int, end_ms: int, *, width: int = 1200, note: str = ""
) -> Picture:
    """A lane for each alert: bars where it fires, a stroke above where a notification left."""
    bottom = _TOP + _LANE * len(rows)
    span = max(1, end_ms - start_ms)

    def x(at_ms: int) -> float:
        inside = min(max(at_ms, start_ms), end_ms) - start_ms
        return round(_LEFT + (width - _LEFT - _RIGHT) * inside / span, 1)

    shapes: list[Shape] = [
        Label(16, 26, title, Ink.TEXT, size=16),
        Label(16, 48, note, Ink.MUTED),
        Label(width - 16, 48, "episodes · firing · sent", Ink.MUTED, "end"),
    ]
    for tick in ticks(start_ms, end_ms, 8):
        shapes.append(Box(x(tick), _TOP - 6, 1, bottom - _TOP + 6, Ink.GRID))
        shapes.append(Label(x(tick), bottom + 18, tick_text(tick, span), Ink.MUTED, "middle"))
    legend = (
        "UTC. A bar: it fires. A stroke above: a notification left. Red critical, orange warning, blue info."
    )
    shapes.append(Label(16, bottom + 40, legend, Ink.MUTED, size=12))
    for number, lane in enumerate(rows):
        shapes.extend(_lane(lane, _TOP + _LANE * number, x, width))
    return Picture(title, width, bottom + _BOTTOM, tuple(shapes))


def _lane(lane: Lane, top: int, x: Callable[[int], float], width: int) -> Iterator[Shape]:
    middle = top + _LANE / 2
    ink = ink_of(lane.severity)
    words = Ink.TEXT if lane.spans else Ink.MUTED
    yield Box(16, middle - 5, 10, 10, ink)
    yield Label(36, middle + 4.5, fitted(lane.name, _LEFT - 44, 13), words)
    yield Box(_LEFT, middle, width - _LEFT - _RIGHT, 1, Ink.GRID)
    for start, end in lane.spans:
        tip = f"{lane.name}: {moment_text(start)} to {moment_text(end)}"
        yield Box(x(start), middle - _BAR / 2 + 2, max(2.0, x(end) - x(start)), _BAR, ink, tip)
    for at in _apart(sorted({x(at) for at in lane.sent_ms}), 3.0):
        yield Box(at, middle - 12, 1.5, 6, Ink.TEXT)
    figures = f"{lane.episodes} · {rounded(lane.firing_ms)} · {len(lane.sent_ms)}"
    yield Label(width - 16, middle + 4.5, figures if lane.episodes else lane.silence, Ink.MUTED, "end")


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """The places without those that would stand on the one before."""
    kept: list[float] = []
    for place in places:
        if not kept or place - kept[-1] >= gap:
            kept.append(place)
    return kept
