"""Panels of cells over time: states, and histograms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.dashboards.answers import Answer, name_of
from exporter.dashboards.queries import Surroundings
from exporter.drawing.ink import Ink
from exporter.drawing.shapes import Box, Frame, Label, Line, Shape
from exporter.drawing.text import fitted, text_width
from exporter.drawing.times import tick_text, ticks
from exporter.drawing.units import value_text
from exporter.pictures.fields import Field, field_of
from exporter.pictures.numbers import nothing

_SMALL = 11
_BELOW = 20
_ROW = 30


def states(
    frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer], around: Surroundings
) -> Iterator[Shape]:
    """A row for each series, a bar for each run of one value, and what the colours mean."""
    look = field_of(panel)
    rows = [
        (name_of(track, answer.query.legend), track)
        for answer in answers
        for track in answer.tracks
        if track.values
    ]
    if not rows:
        yield from nothing(frame, look)
        return
    rows.sort(key=lambda row: row[0])
    body = frame.without(bottom=_BELOW + 22)
    most = max(1, int(body.height // 14))
    shown = rows if len(rows) <= most else rows[: most - 1]
    height = min(_ROW, body.height / (len(shown) + (len(shown) < len(rows))))
    left = min(frame.width * 0.34, max(text_width(name, 12) for name, _ in shown) + 12)
    plot = Frame(frame.x + left, frame.y, frame.width - left - 8, height * len(shown))
    yield from _times(plot, body.bottom, around)
    for number, (name, track) in enumerate(shown):
        top = frame.y + number * height
        size = 12 if height >= 17 else _SMALL
        words = fitted(name, left - 12, size)
        yield Label(frame.x + left - 10, top + height / 2 + 4, words, Ink.TEXT, "end", size)
        for first_ms, last_ms, value in _runs(track.ts_ms, track.values, around.step_ms):
            x = _x(plot, first_ms, around)
            width = max(1.5, _x(plot, last_ms + around.step_ms, around) - x)
            yield Box(x, top + height * 0.14, width, height * 0.72, look.ink(value), look.text(value), 0.85)
    if len(shown) < len(rows):
        words = f"and {len(rows) - len(shown)} more"
        yield Label(frame.x + left, frame.y + height * len(shown) + 15, words, Ink.MUTED, size=12)
    yield from _meanings(frame, look)


def _meanings(frame: Frame, look: Field) -> Iterator[Shape]:
    x = frame.x + 4
    for text, ink in look.texts.values():
        if ink is not None:
            yield Box(x, frame.bottom - 14, 10, 10, ink, opacity=0.85, radius=2)
            yield Label(x + 16, frame.bottom - 5, text, Ink.TEXT, size=12)
            x += 36 + text_width(text, 12)


def _runs(ts_ms: Sequence[int], values: Sequence[float], step_ms: int) -> Iterator[tuple[int, int, float]]:
    """(first, last, value) of each run of equal values without a gap."""
    first = last = ts_ms[0]
    held = values[0]
    for at, value in zip(ts_ms[1:], values[1:], strict=True):
        if value != held or at - last > 1.5 * step_ms:
            yield first, last, held
            first, held = at, value
        last = at
    yield first, last, held


def heat(
    frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer], around: Surroundings
) -> Iterator[Shape]:
    """A histogram over time: a row for each bucket that holds anything, darker where it holds more."""
    unit = str(((panel.get("options") or {}).get("yAxis") or {}).get("unit") or field_of(panel).unit)
    buckets = _buckets(answers)
    used = [at for at, (_, cells) in enumerate(buckets) if any(count > 0 for count in cells.values())]
    if not used:
        yield from nothing(frame, field_of(panel))
        return
    shown = buckets[used[0] : used[-1] + 1]
    most = max((count for _, cells in shown for count in cells.values()), default=0.0)
    texts = [("over " + value_text(_below(buckets, at), unit)) if math.isinf(le) else value_text(le, unit)
             for at, (le, _) in enumerate(shown, used[0])]  # fmt: skip
    left = max(text_width(text, _SMALL) for text in texts) + 10
    plot = frame.without(left=left, top=4, right=8, bottom=_BELOW + 22)
    height = plot.height / len(shown)
    yield from _times(plot, plot.bottom, around)
    apart = max(1, math.ceil(14 / height))
    for number, ((_, cells), text) in enumerate(zip(shown, texts, strict=True)):
        top = plot.bottom - (number + 1) * height
        if number % apart == 0:
            yield Label(plot.x - 6, top + height / 2 + 4, text, Ink.MUTED, "end", _SMALL)
        for at, count in cells.items():
            if count > 0:
                x = _x(plot, at, around)
                width = max(1.0, _x(plot, at + around.step_ms, around) - x - 0.6)
                share = 0.12 + 0.88 * (count / most) ** 0.5
                yield Box(
                    x, top, min(width, plot.right - x), max(1.0, height - 0.8), Ink.ORANGE, opacity=share
                )
    yield from _scale(frame, most)


def _scale(frame: Frame, most: float) -> Iterator[Shape]:
    """What the shades mean."""
    x, y = frame.x + 4, frame.bottom - 14
    yield Label(x, y + 9, "0", Ink.MUTED, size=_SMALL)
    for number in range(20):
        share = 0.12 + 0.88 * ((number + 1) / 20) ** 0.5
        yield Box(x + 12 + number * 6, y, 6, 10, Ink.ORANGE, opacity=share)
    yield Label(x + 138, y + 9, f"{value_text(most, 'short')} in one step", Ink.MUTED, size=_SMALL)


def _below(buckets: Sequence[tuple[float, Mapping[int, float]]], at: int) -> float:
    return buckets[at - 1][0] if at else 0.0


def _buckets(answers: Sequence[Answer]) -> list[tuple[float, dict[int, float]]]:
    """(upper bound, time to count) of each bucket, from cumulative ones, ascending."""
    tracks = sorted(
        (
            (float(track.labels["le"].replace("Inf", "inf")), track)
            for answer in answers
            for track in answer.tracks
            if "le" in track.labels
        ),
        key=lambda pair: pair[0],
    )
    below: dict[int, float] = {}
    found = []
    for bound, track in tracks:
        cells = {}
        for at, value in zip(track.ts_ms, track.values, strict=True):
            if math.isfinite(value):
                cells[at] = max(0.0, value - below.get(at, 0.0))
                below[at] = value
        found.append((bound, cells))
    return found


def _times(plot: Frame, bottom: float, around: Surroundings) -> Iterator[Shape]:
    span = around.to_ms - around.from_ms
    for tick in ticks(around.from_ms, around.to_ms, max(2, int(plot.width // 72))):
        x, words = _x(plot, tick, around), tick_text(tick, span)
        yield Line(((x, plot.y), (x, bottom)), Ink.GRID, 1)
        if (
            plot.x - 30 <= x - text_width(words, _SMALL) / 2
            and x + text_width(words, _SMALL) / 2 <= plot.right + 8
        ):
            yield Label(x, bottom + 15, words, Ink.MUTED, "middle", _SMALL)


def _x(plot: Frame, at_ms: int, around: Surroundings) -> float:
    inside = min(max(at_ms, around.from_ms), around.to_ms) - around.from_ms
    return plot.x + plot.width * inside / max(1, around.to_ms - around.from_ms)
