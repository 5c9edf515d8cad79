"""Panels of rows and columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from exporter.dashboards.answers import Answer
from exporter.drawing.ink import Ink
from exporter.drawing.shapes import Box, Frame, Label, Shape
from exporter.drawing.text import fitted, text_width
from exporter.drawing.times import moment_text
from exporter.drawing.units import value_text
from exporter.pictures.fields import Field, field_of, override
from exporter.pictures.frames import Table, table_of
from exporter.pictures.numbers import nothing

_ROW = 26
_FITS = ((12, 18.0), (11, 12.0), (10, 8.0))  # size of letters and gap between columns, as room gets short
_LEAST, _MOST = 30.0, 320.0  # width of a column's text


@dataclass(frozen=True, slots=True)
class _Column:
    """A column as shown: heading, cells with their ink, and whether it is aligned to the right."""

    name: str
    cells: tuple[tuple[str, Ink], ...]
    is_numeric: bool

    def width(self, size: int) -> float:
        """What its widest text needs."""
        texts = (text_width(text, size) for text, _ in self.cells)
        return min(_MOST, max(_LEAST, text_width(self.name, size, bold=True), *texts))


def table(frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer], now_ms: int) -> Iterator[Shape]:
    """As many rows as fit, and how many more there are."""
    found = table_of(panel, answers)
    if not found.rows:
        yield from nothing(frame, field_of(panel))
        return
    most = max(1, int(frame.height // _ROW) - 1)
    count = len(found.rows) if len(found.rows) <= most else most - 1
    columns = _columns(panel, found, count, now_ms)
    size, gap, widths = _fit(columns, frame.width)
    left = frame.x
    for column, width in zip(columns, widths, strict=True):
        anchor, x = ("end", left + width - gap) if column.is_numeric else ("start", left)
        name = fitted(column.name, width - gap, size, bold=True)
        yield Label(x, frame.y + 17, name, Ink.MUTED, anchor, size, bold=True)
        for number, (text, ink) in enumerate(column.cells, 1):
            yield Label(x, frame.y + _ROW * number + 17, fitted(text, width - gap, size), ink, anchor, size)
        left += width
    for number in range(count + 1):
        yield Box(frame.x, frame.y + _ROW * (number + 1) - 1, frame.width, 1, Ink.GRID)
    if count < len(found.rows):
        words = f"and {len(found.rows) - count} more"
        yield Label(frame.x, frame.y + _ROW * (count + 1) + 17, words, Ink.MUTED, size=12)


def _columns(panel: Mapping[str, Any], found: Table, count: int, now_ms: int) -> list[_Column]:
    """The first `count` rows by column; what the panel hides is left out."""
    columns = []
    for at, name in enumerate(found.columns):
        look = override(panel, name)
        if not look.hidden:
            cells = tuple(_cell(row[at], look, now_ms) for row in found.rows[:count])
            columns.append(_Column(name, cells, _is_numeric([row[at] for row in found.rows])))
    return columns


def _fit(columns: Sequence[_Column], room: float) -> tuple[int, float, list[float]]:
    """Size of the letters, gap and widths: smaller where room is short, then the widest columns give way."""
    for size, gap in _FITS:
        wanted = [column.width(size) + gap for column in columns]
        spare = room - sum(wanted)
        if spare >= 0:
            return size, gap, [width + spare / len(wanted) for width in wanted]
    low, high = 0.0, max(wanted)
    for _ in range(30):
        cap = (low + high) / 2
        low, high = (cap, high) if sum(min(width, cap) for width in wanted) <= room else (low, cap)
    return size, gap, [min(width, low) for width in wanted]


def _is_numeric(cells: Sequence[Any]) -> bool:
    present = [cell for cell in cells if cell is not None]
    return bool(present) and all(
        isinstance(cell, int | float | Decimal) and not isinstance(cell, bool) for cell in present
    )


def _cell(cell: Any, look: Field, now_ms: int) -> tuple[str, Ink]:
    if cell is None:
        return "", Ink.TEXT
    if isinstance(cell, bool):
        return ("yes" if cell else "no"), Ink.TEXT
    if isinstance(cell, datetime):
        return _time(round(cell.timestamp() * 1000), look.unit, now_ms), Ink.TEXT
    if isinstance(cell, int | float | Decimal):
        return look.text(float(cell)), look.mapped_ink(float(cell)) or Ink.TEXT
    text = str(cell)
    ink = (look.texts.get(text) or ("", None))[1] or Ink.TEXT
    return _plain(text), ink


def _plain(text: str) -> str:
    """A JSON object as pairs; line breaks as spaces."""
    if text.startswith("{") and text.endswith("}"):
        try:
            pairs = json.loads(text)
        except ValueError:
            return text
        return ", ".join(f"{key}={value}" for key, value in pairs.items())
    return " ".join(text.split())


def _time(at_ms: int, unit: str, now_ms: int) -> str:
    if unit == "dateTimeFromNow":
        return _ago(now_ms - at_ms)
    text = moment_text(at_ms)
    return (
        text[11:] if unit == "dateTimeAsIsoNoDateIfToday" and text[:10] == moment_text(now_ms)[:10] else text
    )


def _ago(ms: int) -> str:
    """A distance in time as one says it."""
    words = value_text(abs(ms) / 1000, "s", 0)
    return f"{words} ago" if ms >= 0 else f"in {words}"
