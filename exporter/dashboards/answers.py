"""What a data source answers to one query of a panel, as plain columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from exporter.dashboards.queries import PanelQuery

_PLACEHOLDER: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_TIME: Final = "time"


@dataclass(frozen=True, slots=True)
class Track:
    """One series as answered: labels, and samples at Unix milliseconds."""

    labels: Mapping[str, str]
    ts_ms: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query gave: series of PromQL, rows of SQL, or why it failed; or that nobody was asked."""

    query: PanelQuery
    tracks: tuple[Track, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    error: str = ""
    asked: bool = True

    @property
    def size(self) -> int:
        """The number of series or rows."""
        return len(self.rows) if self.query.is_sql else len(self.tracks)


def from_prometheus(query: PanelQuery, data: Any) -> Answer:
    """The `data` of an answer of Prometheus' API: a vector, a matrix or a scalar."""
    result = data.get("result") if isinstance(data, Mapping) else None
    if not isinstance(result, Sequence):
        return Answer(query)
    if data.get("resultType") == "scalar":
        result = [{"metric": {}, "value": result}]
    return Answer(query, tuple(_track(row) for row in result))


def _track(row: Mapping[str, Any]) -> Track:
    pairs = row["values"] if "values" in row else [row["value"]]
    times = tuple(round(float(at) * 1000) for at, _ in pairs)
    return Track(row.get("metric", {}), times, tuple(float(text) for _, text in pairs))


def from_rows(query: PanelQuery, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Answer:
    """The rows of an SQL query. Where it is to be drawn over time they become series as well."""
    kept = tuple(tuple(row) for row in rows)
    if not query.over_time or _TIME not in columns:
        return Answer(query, (), tuple(columns), kept)
    return Answer(query, tuple(_tracks(columns, kept)), tuple(columns), kept)


def _tracks(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterable[Track]:
    """Long form (time, metric, value) or wide form (time, one column for each series)."""
    at = columns.index(_TIME)
    texts = [
        place
        for place in range(len(columns))
        if place != at and any(isinstance(row[place], str) for row in rows)
    ]
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        prefix = " ".join(str(row[place]) for place in texts)
        numbers = [place for place in range(len(columns)) if place != at and place not in texts]
        for place in numbers:
            if row[place] is None:
                continue
            name = prefix if prefix and len(numbers) == 1 else f"{prefix} {columns[place]}".strip()
            found.setdefault(name, []).append((_milliseconds(row[at]), float(row[place])))
    for name, points in found.items():
        yield Track({"__name__": name}, tuple(ts for ts, _ in points), tuple(value for _, value in points))


def _milliseconds(value: Any) -> int:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    number = float(value) if isinstance(value, int | float | Decimal) else 0.0
    return round(number * 1000 if abs(number) < 1e11 else number)


def name_of(track: Track, legend: str) -> str:
    """A series' name by Grafana's legend format: `{{label}}` is the label's value."""
    if legend and legend != "__auto":
        return _PLACEHOLDER.sub(lambda match: track.labels.get(match.group(1), ""), legend)
    name = track.labels.get("__name__", "")
    inner = ", ".join(f'{key}="{value}"' for key, value in sorted(track.labels.items()) if key != "__name__")
    return f"{name}{{{inner}}}" if inner else name
