"""What a dashboard is made of, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

GREEN: Final = "green"
YELLOW: Final = "yellow"
ORANGE: Final = "orange"
RED: Final = "red"
BLUE: Final = "blue"


class Source(Enum):
    """Which data source a query goes to; the value is the dashboard variable that picks it."""

    METRICS = "metrics"
    SQL = "postgres"


class Format(Enum):
    """The shape in which a query's result comes."""

    SERIES = "time_series"
    TABLE = "table"
    HEATMAP = "heatmap"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel. `instant` asks for the newest value only; `legend` is Grafana's legend format."""

    text: str
    legend: str = ""
    source: Source = Source.METRICS
    format: Format = Format.SERIES
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """From `value` on (None: from the lowest) the panel has this colour."""

    value: float | None
    color: str


@dataclass(frozen=True, slots=True)
class Link:
    """Where a click leads."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `kind` is Grafana's panel type. Widths are in columns of 24, heights in rows of 30 px."""

    title: str
    kind: str
    queries: tuple[Query, ...]
    description: str
    unit: str
    width: int = 8
    height: int = 8
    steps: tuple[Step, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[Mapping[str, Any], ...] = ()
    mappings: tuple[Mapping[str, Any], ...] = ()
    transformations: tuple[Mapping[str, Any], ...] = ()
    links: tuple[Link, ...] = ()
    lowest: float | None = None
    highest: float | None = None
    decimals: int | None = None
    no_value: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, laid out left to right."""

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard.

    `query` is a label_values(...) query, or SQL, or choices with commas (`custom`), or what a field for free
    text holds at first (`text`).
    """

    name: str
    label: str
    query: str
    custom: bool = False
    text: bool = False
    sql: bool = False
    multi: bool = True


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A whole dashboard. `uid` never changes: links and bookmarks stand on it."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    tags: Sequence[str] = ()
    time_from: str = "now-6h"
    annotations: bool = True
