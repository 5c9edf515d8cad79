"""A whole dashboard on one page: heading, rows, panels on Grafana's grid of 24 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from exporter.dashboards.answers import Answer
from exporter.dashboards.queries import Surroundings
from exporter.drawing.ink import Ink
from exporter.drawing.shapes import Frame, Label, Picture, Shape
from exporter.drawing.text import fitted, text_width
from exporter.drawing.times import moment_text, rounded
from exporter.pictures.panels import alert_spans, panel_shapes

_COLUMNS: Final = 24
_UNIT: Final = 34  # height of a row of the grid
_GAP: Final = 8
_MARGIN: Final = 20
_HEAD: Final = 74

Answers = Mapping[int, Sequence[Answer]]
"""The answers to each panel's queries, by the panel's place in `panels_of`."""


def panels_of(dashboard: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows and panels from top to bottom; those in collapsed rows are not shown, as in the browser."""
    return list(dashboard.get("panels") or ())


def page(
    dashboard: Mapping[str, Any],
    answers: Answers,
    annotations: Sequence[Answer],
    around: Surroundings,
    *,
    width: int = 1400,
) -> Picture:
    """The picture of a dashboard over a period."""
    panels = panels_of(dashboard)
    title = str(dashboard.get("title") or "untitled")
    lowest = max((_place(panel)["y"] + _place(panel)["h"] for panel in panels), default=0)
    height = _HEAD + lowest * _UNIT + _MARGIN - _GAP
    spans = alert_spans(annotations)
    shapes = list(_heading(title, str(dashboard.get("description") or ""), around, width))
    for number, panel in enumerate(panels):
        frame = _frame(_place(panel), width)
        if panel.get("type") == "row":
            words = str(panel.get("title") or "") + (" (collapsed)" if panel.get("panels") else "")
            shapes.append(Label(frame.x + 2, frame.bottom - 6, words, Ink.TEXT, size=15, bold=True))
        else:
            shapes += panel_shapes(frame, panel, answers.get(number, ()), around, spans)
    return Picture(title, width, height, tuple(shapes), Ink.PAPER)


def _heading(title: str, description: str, around: Surroundings, width: int) -> Iterator[Shape]:
    period = (
        f"{moment_text(around.from_ms)[:16]} to {moment_text(around.to_ms)[11:16]} UTC, "
        f"{rounded(around.to_ms - around.from_ms)}"
    )
    yield Label(_MARGIN, 34, title, Ink.TEXT, size=22, bold=True)
    yield Label(width - _MARGIN, 34, period, Ink.MUTED, "end")
    room = width - 2 * _MARGIN
    yield Label(_MARGIN, 58, fitted(description, room - text_width(period, 13), 13), Ink.MUTED)


def _place(panel: Mapping[str, Any]) -> Mapping[str, int]:
    place = panel.get("gridPos") or {}
    return {"x": 0, "y": 0, "w": _COLUMNS, "h": 8, **place}


def _frame(place: Mapping[str, int], width: int) -> Frame:
    column = (width - 2 * _MARGIN + _GAP) / _COLUMNS
    return Frame(
        _MARGIN + place["x"] * column,
        _HEAD + place["y"] * _UNIT,
        place["w"] * column - _GAP,
        place["h"] * _UNIT - _GAP,
    )
