"""The queries of any Grafana dashboard, with Grafana's macros and variables expanded: for checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

POSTGRES_TYPES: Final = ("postgres", "grafana-postgresql-datasource")
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)|\[\[(\w+)\]\]")
_MACRO: Final = re.compile(r"\$__(\w+)\(((?:[^()']|'[^']*'|\([^()]*\))*)\)")


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query: where it stands, what asks it, its text as written, and how its series are named."""

    panel: str
    ref: str
    is_sql: bool
    text: str
    instant: bool
    over_time: bool = True
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a viewer's browser would fill in: the period, the step, the chosen variables."""

    from_ms: int
    to_ms: int
    step_ms: int = 15_000
    scrape_interval_ms: int = 15_000
    variables: Mapping[str, str] | None = None


def panel_queries(dashboard: Mapping[str, Any]) -> Iterator[PanelQuery]:
    """Every query of every panel, collapsed rows and annotations included."""
    for panel in _panels(dashboard.get("panels", ())):
        yield from queries_of(panel)
    yield from annotation_queries(dashboard)


def annotation_queries(dashboard: Mapping[str, Any]) -> Iterator[PanelQuery]:
    """The queries of a dashboard's annotations."""
    for annotation in dashboard.get("annotations", {}).get("list", ()):
        if "target" in annotation:
            yield _query(
                f"annotation {annotation.get('name')}", annotation["target"], annotation["datasource"]
            )


def queries_of(panel: Mapping[str, Any]) -> Iterator[PanelQuery]:
    """The queries of one panel."""
    for target in panel.get("targets") or ():
        yield _query(str(panel.get("title", "")), target, panel.get("datasource"))


def _panels(panels: Any) -> Iterator[Mapping[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels") or ())


def _query(panel: str, target: Mapping[str, Any], fallback: Any) -> PanelQuery:
    source = target.get("datasource") or fallback or {}
    is_sql = "rawSql" in target or source.get("type") in POSTGRES_TYPES
    text = str(target.get("rawSql") if is_sql else target.get("expr", ""))
    return PanelQuery(
        panel,
        str(target.get("refId", "")),
        is_sql,
        text,
        instant=bool(target.get("instant")),
        over_time=target.get("format") == "time_series",
        legend=str(target.get("legendFormat") or ""),
    )


def expand_promql(text: str, around: Surroundings) -> str:
    """PromQL as Grafana sends it: $__rate_interval, $__interval, $__range and the dashboard's variables."""
    step = max(around.step_ms, around.scrape_interval_ms)
    period = around.to_ms - around.from_ms
    known = {
        "__rate_interval": _duration(max(step + around.scrape_interval_ms, 4 * around.scrape_interval_ms)),
        "__rate_interval_ms": str(max(step + around.scrape_interval_ms, 4 * around.scrape_interval_ms)),
        "__interval": _duration(step),
        "__interval_ms": str(step),
        "__range": _duration(period),
        "__range_s": str(period // 1000),
        "__range_ms": str(period),
    }
    return _replaced(text, known | dict(around.variables or {}), ".*")


def expand_sql(text: str, around: Surroundings) -> str:
    """SQL as Grafana's Postgres data source sends it: time macros and the dashboard's variables."""
    variables = {"__interval": _duration(around.step_ms), **(around.variables or {})}
    text = _replaced(text, variables, None)
    return _MACRO.sub(lambda match: _macro(match.group(1), match.group(2), around), text)


def _replaced(text: str, known: Mapping[str, str], fallback: str | None) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(3) or match.group(4)
        if match.group(2) == "sqlstring" and name in known:
            return ", ".join("'" + part.replace("'", "''") + "'" for part in known[name].split(","))
        if name in known:
            return known[name]
        if name.startswith("__") or fallback is None:
            return match.group()
        return fallback

    return _VARIABLE.sub(value, text)


def _macro(name: str, arguments: str, around: Surroundings) -> str:
    parts = [part.strip() for part in arguments.split(",")]
    start, end = _timestamp(around.from_ms), _timestamp(around.to_ms)
    match name:
        case "timeFilter":
            return f"{arguments} BETWEEN {start} AND {end}"
        case "timeFrom":
            return start
        case "timeTo":
            return end
        case "timeGroup" | "timeGroupAlias":
            seconds = _seconds(parts[1].strip("'"))
            alias = ' AS "time"' if name.endswith("Alias") else ""
            return f"floor(extract(epoch from {parts[0]})/{seconds})*{seconds}{alias}"
        case "time":
            return f'{arguments} AS "time"'
        case "timeEpoch":
            return f'extract(epoch from {arguments}) as "time"'
        case "unixEpochFilter":
            return f"{arguments} >= {around.from_ms // 1000} AND {arguments} <= {around.to_ms // 1000}"
    return f"$__{name}({arguments})"


def _timestamp(ms: int) -> str:
    return "'" + datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") + "'"


def _duration(ms: int) -> str:
    return f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms}ms"


def _seconds(text: str) -> str:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    match = re.fullmatch(r"(\d+)(ms|[smhdw])", text)
    if match is None:
        return "60"
    amount = int(match.group(1))
    return str(amount / 1000) if match.group(2) == "ms" else str(amount * units[match.group(2)])
