"""One panel: its frame and title, and the drawer of its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from exporter.dashboards.answers import Answer, name_of
from exporter.dashboards.queries import Surroundings
from exporter.drawing.chart import Look, Series, chart
from exporter.drawing.ink import Ink, ink_of
from exporter.drawing.shapes import Box, Frame, Label, Shape
from exporter.drawing.text import fitted
from exporter.pictures.fields import field_of, override
from exporter.pictures.grids import heat, states
from exporter.pictures.numbers import bars, nothing, stat
from exporter.pictures.tables import table

_TITLE: Final = 30
_PAD: Final = 12

Spans = tuple[tuple[int, int, Ink], ...]


def panel_shapes(
    frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer], around: Surroundings, spans: Spans = ()
) -> Iterator[Shape]:
    """Everything of one panel; `spans` are the annotations of charts over time."""
    yield Box(frame.x, frame.y, frame.width, frame.height, Ink.EDGE, radius=5)
    yield Box(frame.x + 1, frame.y + 1, frame.width - 2, frame.height - 2, Ink.PANEL, radius=4)
    title = fitted(str(panel.get("title") or ""), frame.width - 2 * _PAD, 13, bold=True)
    yield Label(frame.x + _PAD, frame.y + 20, title, Ink.TEXT, size=13, bold=True)
    inner = frame.without(left=_PAD, top=_TITLE, right=_PAD, bottom=8)
    failed = next((answer.error for answer in answers if answer.error), "")
    if failed:
        yield Label(inner.x, inner.y + 16, fitted(failed, inner.width, 12), Ink.RED, size=12)
        return
    yield from _content(inner, panel, answers, around, spans)


def _content(
    frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer], around: Surroundings, spans: Spans
) -> Iterator[Shape]:
    match panel.get("type"):
        case "stat":
            yield from stat(frame, panel, answers)
        case "gauge" | "bargauge":
            yield from bars(frame, panel, answers)
        case "timeseries":
            yield from _over_time(frame, panel, answers, around, spans)
        case "heatmap":
            yield from heat(frame, panel, answers, around)
        case "state-timeline" | "status-history":
            yield from states(frame, panel, answers, around)
        case "table":
            yield from table(frame, panel, answers, around.to_ms)
        case "text":
            yield from _words(frame, str((panel.get("options") or {}).get("content") or ""))
        case other:
            yield Label(
                frame.x, frame.y + 16, f"a panel of the type {other} is not drawn", Ink.MUTED, size=12
            )


def _words(frame: Frame, content: str) -> Iterator[Shape]:
    for number, line in enumerate(content.splitlines()[: int(frame.height // 18)]):
        yield Label(frame.x, frame.y + 14 + 18 * number, fitted(line, frame.width, 12), Ink.TEXT, size=12)


def _over_time(
    frame: Frame, panel: Mapping[str, Any], answers: Sequence[Answer], around: Surroundings, spans: Spans
) -> Iterator[Shape]:
    look = field_of(panel)
    named = [(name_of(track, answer.query.legend), track) for answer in answers for track in answer.tracks]
    series = [Series(name, track.ts_ms, track.values, override(panel, name).fixed) for name, track in named]
    if not any(one.finite() for one in series):
        yield from nothing(frame, look)
        return
    custom = ((panel.get("fieldConfig") or {}).get("defaults") or {}).get("custom") or {}
    legend = (panel.get("options") or {}).get("legend") or {}
    dashed = (custom.get("thresholdsStyle") or {}).get("mode", "off") != "off"
    yield from chart(
        frame,
        series,
        around.from_ms,
        around.to_ms,
        Look(
            unit=look.unit,
            decimals=look.decimals,
            lowest=look.lowest,
            highest=look.highest,
            stacked=(custom.get("stacking") or {}).get("mode") == "normal",
            bars=custom.get("drawStyle") == "bars",
            stepped=str(custom.get("lineInterpolation")).startswith("step"),
            fill=float(custom.get("fillOpacity") or 0) / 100,
            limits=tuple((value, ink) for value, ink in look.steps[1:]) if dashed else (),
            step_ms=_step_ms(series, around),
            calcs=tuple(legend.get("calcs") or ("lastNotNull",)) if legend.get("showLegend", True) else (),
            spans=spans,
        ),
    )


def _step_ms(series: Sequence[Series], around: Surroundings) -> int:
    """The time between points: that of the query, or what the rows of SQL show."""
    gaps = [after - before for one in series for before, after in zip(one.ts_ms, one.ts_ms[1:], strict=False)]
    return max(around.step_ms, min(gaps, default=around.step_ms))


def alert_spans(answers: Sequence[Answer]) -> Spans:
    """The annotations out of an SQL answer with the columns time, timeend and tags."""
    found = []
    for answer in answers:
        if {"time", "timeend", "tags"} <= set(answer.columns):
            at = {name: answer.columns.index(name) for name in ("time", "timeend", "tags")}
            found += [
                (
                    round(row[at["time"]].timestamp() * 1000),
                    round(row[at["timeend"]].timestamp() * 1000),
                    ink_of(str(row[at["tags"]])),
                )
                for row in answer.rows
            ]
    return tuple(found)
