"""Panels of rows and columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
from exporter.pictures.frames import only, table_of
from exporter.pictures.numbers import nothing

_ROW, _SIZE = 26, 12
_GAP = 18  # between columns
_LEAST, _MOST = 36.0, 320.0  # width of a column


def table(frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer], now_ms: int) -> Iterator[Shape]:
    """As many rows as fit, and how many more there are."""
    found = table_of(panel, answers)
    if not found.rows:
        yield from nothing(frame, field_of(panel))
        return
    looks = [override(panel, name) for name in found.columns]
    found = only(found, [not look.hidden for look in looks])
    looks = [look for look in looks if not look.hidden]
    most = max(1, int(frame.height // _ROW) - 1)
    shown = found.rows if len(found.rows) <= most else found.rows[: most - 1]
    cells = [[_cell(cell, look, now_ms) for cell, look in zip(row, looks, strict=True)] for row in shown]
    numeric = [_is_numeric([row[at] for row in found.rows]) for at in range(len(found.columns))]
    widths = _widths(found.columns, cells, frame.width)
    left = frame.x
    for at, name in enumerate(found.columns):
        if widths[at] < 12:
            continue
        anchor, x = ("end", left + widths[at] - _GAP) if numeric[at] else ("start", left)
        yield Label(
            x,
            frame.y + 17,
            fitted(name, widths[at] - _GAP, _SIZE, bold=True),
            Ink.MUTED,
            anchor,
            _SIZE,
            bold=True,
        )
        for number, row in enumerate(cells):
            text, ink = row[at]
            base = frame.y + _ROW * (number + 1) + 17
            yield Label(x, base, fitted(text, widths[at] - _GAP, _SIZE), ink, anchor, _SIZE)
        left += widths[at]
    for number in range(len(shown) + 1):
        yield Box(frame.x, frame.y + _ROW * (number + 1) - 1, frame.width, 1, Ink.GRID)
    if len(shown) < len(found.rows):
        words = f"and {len(found.rows) - len(shown)} more"
        yield Label(frame.x, frame.y + _ROW * (len(shown) + 1) + 17, words, Ink.MUTED, size=_SIZE)


def _widths(columns: Sequence[str], cells: Sequence[Sequence[tuple[str, Ink]]], room: float) -> list[float]:
    """As the contents ask for; the widest give way first where there is not enough room."""
    wanted = [
        min(
            _MOST,
            max(_LEAST, text_width(name, _SIZE, bold=True), *(text_width(row[at][0], _SIZE) for row in cells))
            + _GAP,
        )
        for at, name in enumerate(columns)
    ]
    spare = room - sum(wanted)
    if spare >= 0:
        return [width + spare / len(wanted) for width in wanted]
    low, high = 0.0, max(wanted)
    for _ in range(30):
        cap = (low + high) / 2
        low, high = (cap, high) if sum(min(width, cap) for width in wanted) <= room else (low, cap)
    return [min(width, low) for width in wanted]


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
