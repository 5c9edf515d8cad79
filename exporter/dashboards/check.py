"""What is wrong with a Grafana dashboard: what its JSON shows, and what its queries' answers show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from exporter.dashboards.answers import Answer
from exporter.dashboards.queries import PanelQuery, panel_queries
from exporter.errors import ConfigError, Problem

_WITHOUT_QUERIES = ("row", "text", "news", "dashlist", "alertlist", "welcome", "gettingstarted")
_WITHOUT_UNIT = ("logs", "nodeGraph", "traces", "geomap", "canvas", "table")


class FindingKind(Enum):
    """How a panel fails."""

    ERROR = "error"  # a query fails
    EMPTY = "empty"  # no query yields anything, and the panel does not say that this is fine
    STYLE = "style"  # something that a reader needs is missing


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one panel."""

    dashboard: str
    panel: str
    kind: FindingKind
    message: str

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel}: {self.kind.value}: {self.message}"


@dataclass(frozen=True, slots=True)
class PanelCheck:
    """A panel to be asked about. `may_be_empty`: it has a text for "no value"."""

    title: str
    queries: tuple[PanelQuery, ...]
    may_be_empty: bool


def read_dashboard(text: str, file: str = "") -> Mapping[str, Any]:
    """The dashboard in a file: as exported, or as the API wraps it (`{"dashboard": ...}`).

    Raises: ConfigError where it is no JSON or no dashboard.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        line, column = getattr(error, "lineno", 0), getattr(error, "colno", 0)
        raise ConfigError(Problem(f"no JSON: {error}", file, line, column)) from error
    if isinstance(document, dict) and isinstance(document.get("dashboard"), dict):
        document = document["dashboard"]
    if not isinstance(document, dict) or not isinstance(document.get("panels"), list):
        raise ConfigError(Problem("no Grafana dashboard: there are no panels", file, 1, 1))
    return document


def panel_checks(dashboard: Mapping[str, Any]) -> list[PanelCheck]:
    """The panels that have queries, and the annotations (which may always be empty)."""
    empty_is_fine = {
        str(panel.get("title", "")): bool(_defaults(panel).get("noValue")) for panel in _panels(dashboard)
    }
    grouped: dict[str, list[PanelQuery]] = {}
    for query in panel_queries(dashboard):
        grouped.setdefault(query.panel, []).append(query)
    return [
        PanelCheck(title, tuple(queries), empty_is_fine.get(title, title.startswith("annotation ")))
        for title, queries in grouped.items()
    ]


def static_findings(dashboard: Mapping[str, Any]) -> list[Finding]:
    """What the JSON alone shows: panels without a title, a unit or a query; a dashboard without a uid."""
    name = str(dashboard.get("title") or "untitled")
    found = (
        []
        if dashboard.get("uid")
        else [Finding(name, "-", FindingKind.STYLE, "no uid: links to it will break")]
    )
    for panel in _panels(dashboard):
        kind, title = panel.get("type"), str(panel.get("title") or "")
        if kind in _WITHOUT_QUERIES:
            continue
        if not title:
            found.append(Finding(name, f"panel {panel.get('id')}", FindingKind.STYLE, "no title"))
        if not panel.get("targets"):
            found.append(Finding(name, title, FindingKind.STYLE, "no query"))
        if not _defaults(panel).get("unit") and kind not in _WITHOUT_UNIT:
            found.append(Finding(name, title, FindingKind.STYLE, "no unit"))
    return found


def judge(dashboard: Mapping[str, Any], panel: PanelCheck, answers: Sequence[Answer]) -> list[Finding]:
    """The faults that the answers to a panel's queries show."""
    name = str(dashboard.get("title") or "untitled")
    failed = [
        Finding(name, panel.title, FindingKind.ERROR, f"query {answer.query.ref}: {answer.error}")
        for answer in answers
        if answer.error
    ]
    if failed or panel.may_be_empty or any(answer.size or not answer.asked for answer in answers):
        return failed
    return [Finding(name, panel.title, FindingKind.EMPTY, "no query yields anything")]


def custom_choices(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Variables that need nobody's answer: all fixed choices with commas between, or the text at first."""
    found = {}
    for variable in dashboard.get("templating", {}).get("list", ()):
        if variable.get("type") == "custom":
            values = (str(option["value"]) for option in variable.get("options", ()))
            found[str(variable["name"])] = ",".join(value for value in values if value != "$__all")
        elif variable.get("type") == "textbox":
            found[str(variable["name"])] = str(variable.get("query") or "")
    return found


def sql_variables(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Variables whose choices an SQL query gives: name to query."""
    return {
        str(variable["name"]): str(variable["query"])
        for variable in dashboard.get("templating", {}).get("list", ())
        if variable.get("type") == "query" and isinstance(variable.get("query"), str)
        and "postgres" in str(variable.get("datasource", {}).get("type", ""))
    }  # fmt: skip


def _panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in dashboard.get("panels") or ():
        yield panel
        yield from _panels(panel)


def _defaults(panel: Mapping[str, Any]) -> Mapping[str, Any]:
    defaults = (panel.get("fieldConfig") or {}).get("defaults") or {}
    return defaults if isinstance(defaults, Mapping) else {}
