"""Panels of single numbers: stats with their recent past, and bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.dashboards.answers import Answer, name_of
from exporter.drawing.ink import Ink
from exporter.drawing.scale import axis
from exporter.drawing.shapes import Area, Box, Frame, Label, Line, Shape
from exporter.drawing.text import fitted, text_width
from exporter.pictures.fields import Field, field_of

_ROW = 30
_LEAST = 12  # size of a number
_PAST = 0.36  # part of a stat for its recent past


@dataclass(frozen=True, slots=True)
class Reading:
    """The newest value of one series, and the values before it."""

    name: str
    value: float
    ts_ms: tuple[int, ...]
    past: tuple[float, ...]


def readings(answers: Sequence[Answer]) -> list[Reading]:
    """One for each series, or for each number in the first row of SQL."""
    found = []
    for answer in answers:
        for track in answer.tracks:
            finite = [value for value in track.values if not math.isnan(value)]
            if finite:
                name = name_of(track, answer.query.legend)
                found.append(Reading(name, finite[-1], track.ts_ms, track.values))
        if answer.query.is_sql and not answer.tracks and answer.rows:
            found += [
                Reading(column, float(cell), (), ())
                for column, cell in zip(answer.columns, answer.rows[0], strict=True)
                if cell is not None and not isinstance(cell, str)
            ]
    return found


def stat(frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer]) -> Iterator[Shape]:
    """Large numbers coloured by their thresholds: side by side, or in rows where room is short."""
    options, look = panel.get("options") or {}, field_of(panel)
    found = readings(answers)
    if not found:
        yield from nothing(frame, look)
        return
    width, height = frame.width / len(found), frame.height / len(found)
    least = max(text_width(look.text(one.value), _LEAST, bold=True) for one in found) + 14
    beside = width >= least or len(found) == 1
    for at, reading in enumerate(found):
        if beside:
            cell = Frame(frame.x + at * width, frame.y, width, frame.height)
            cell = cell.without(right=6 if at + 1 < len(found) else 0)
        else:
            cell = Frame(frame.x, frame.y + at * height, frame.width, height)
        yield from _stat(cell, reading, look, options)


def _stat(frame: Frame, reading: Reading, look: Field, options: Mapping[str, Any]) -> Iterator[Shape]:
    ink = look.ink(reading.value)
    filled = options.get("colorMode") == "background"
    text = look.text(reading.value)
    mode = options.get("textMode", "value")
    named = mode in ("value_and_name", "name")
    if filled:
        yield Box(frame.x, frame.y, frame.width, frame.height, ink, opacity=0.9, radius=4)
    if options.get("graphMode") == "area" and len(reading.past) > 1:
        yield from _past(frame, reading, Ink.ON_COLOUR if filled else ink)
    room, words = frame.width - 8, Ink.ON_COLOUR if filled else ink
    traced = options.get("graphMode") == "area" and len(reading.past) > 1
    height = frame.height * (1 - _PAST if traced else 1)
    size = 36
    while size > _LEAST and (text_width(text, size, bold=True) > room or size > height * 0.72):
        size -= 1
    middle = frame.x + frame.width / 2
    centre = frame.y + height / 2 + (4 if named else 0)
    yield Label(middle, centre + size * 0.36, text, words, "middle", size, bold=True)
    if named:
        small = next((one for one in (13, 12, 11) if text_width(reading.name, one) <= room), 10)
        name = fitted(reading.name, room, small)
        yield Label(
            middle, centre - size * 0.62, name, Ink.ON_COLOUR if filled else Ink.TEXT, "middle", small
        )


def _past(frame: Frame, reading: Reading, ink: Ink) -> Iterator[Shape]:
    """A small line of what the value was, along the bottom; its scale is its own."""
    pairs = [
        (at, value) for at, value in zip(reading.ts_ms, reading.past, strict=True) if math.isfinite(value)
    ]
    if len(pairs) < 2:
        return
    scale = axis([value for _, value in pairs], most=2)
    first, span = pairs[0][0], max(1, pairs[-1][0] - pairs[0][0])
    height = frame.height * (_PAST - 0.04)
    points = tuple(
        (frame.x + frame.width * (at - first) / span, frame.bottom - height * scale.share(value))
        for at, value in pairs
    )
    yield Area((*points, (frame.right, frame.bottom), (frame.x, frame.bottom)), ink, 0.14)
    yield Line(points, ink, 1.2)


def bars(frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer]) -> Iterator[Shape]:
    """A bar for each series on a common scale from `min` to `max`."""
    look = field_of(panel)
    found = [reading for reading in readings(answers) if math.isfinite(reading.value)]
    if not found:
        yield from nothing(frame, look)
        return
    low = look.lowest if look.lowest is not None else 0.0
    high = look.highest if look.highest is not None else max(reading.value for reading in found)
    span = (high - low) or 1.0
    most = max(1, int(frame.height // 20))
    shown = found if len(found) <= most else found[: most - 1]
    row = min(_ROW, frame.height / (len(shown) + (len(shown) < len(found))))
    names = min(frame.width * 0.36, max(text_width(one.name, 12) for one in shown) + 14)
    texts = [look.text(one.value) for one in shown]
    values = max(text_width(text, 13, bold=True) for text in texts) + 14
    room = frame.width - names - values
    for at, (reading, text) in enumerate(zip(shown, texts, strict=True)):
        top = frame.y + at * row
        ink = look.ink(reading.value)
        thick = min(16.0, row - 6)
        share = min(1.0, max(0.0, (reading.value - low) / span))
        base = top + row / 2 + 4.5
        yield Label(frame.x + names - 10, base, fitted(reading.name, names - 12, 12), Ink.TEXT, "end", 12)
        yield Box(frame.x + names, top + (row - thick) / 2, room, thick, Ink.TRACK, radius=2)
        if share > 0:
            yield Box(frame.x + names, top + (row - thick) / 2, max(2.0, room * share), thick, ink, radius=2)
        yield Label(frame.right, base, text, ink, "end", 13, bold=True)
    if len(shown) < len(found):
        base = frame.y + len(shown) * row + row / 2 + 4
        yield Label(frame.x + names, base, f"and {len(found) - len(shown)} more", Ink.MUTED, size=12)


def nothing(frame: Frame, look: Field) -> Iterator[Shape]:
    """What stands where there is no value."""
    text = look.no_value or "no data"
    yield Label(frame.x + frame.width / 2, frame.y + frame.height / 2 + 5, text, Ink.MUTED, "middle", 14)
