"""A dashboard as Grafana's JSON: layout, data sources, variables, annotations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from exporter.dashboards.model import Dashboard, Link, Panel, Query, Row, Source, Variable

SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
PROMETHEUS_TYPE: Final = "prometheus"
POSTGRES_TYPE: Final = "grafana-postgresql-datasource"
DEFAULT_SOURCES: Final = {Source.METRICS: "quantum-exporter", Source.SQL: "quantum-postgres"}
_SOURCE_NAMES: Final = {Source.METRICS: "Quantum exporter", Source.SQL: "Quantum Postgres"}
TAG: Final = "quantum-exporter"

_ALERT_EVENTS: Final = (
    "SELECT triggered_at AS time, coalesce(resolved_at, now()) AS timeend, "
    "type || ': ' || title AS text, lower(severity) AS tags FROM system_alerts "
    "WHERE triggered_at <= $__timeTo() AND coalesce(resolved_at, now()) >= $__timeFrom() "
    "AND coalesce(labels ->> 'role', '') <> 'heartbeat' "
    "ORDER BY triggered_at DESC LIMIT 200"
)


def render(dashboard: Dashboard) -> dict[str, Any]:
    """The JSON object of a dashboard, as Grafana exports and provisions it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG, *dashboard.tags],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": dashboard.time_from, "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "links": [_dashboards_link()],
        "annotations": {"list": [_alert_annotations()] if dashboard.annotations else []},
        "templating": {"list": [_source_variable(source) for source in Source] + _variables(dashboard)},
        "panels": _layout(dashboard.rows),
    }


def source_ref(source: Source) -> dict[str, str]:
    """A reference to the data source that the dashboard's variable picks."""
    kind = PROMETHEUS_TYPE if source is Source.METRICS else POSTGRES_TYPE
    return {"type": kind, "uid": "${" + source.value + "}"}


def _dashboards_link() -> dict[str, Any]:
    return {
        "type": "dashboards", "title": "Quantum dashboards", "tags": [TAG], "asDropdown": True,
        "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "",
        "url": "",
    }  # fmt: skip


def _alert_annotations() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": source_ref(Source.SQL),
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "target": {"refId": "Alerts", "format": "table", "rawQuery": True, "rawSql": _ALERT_EVENTS},
    }


def _source_variable(source: Source) -> dict[str, Any]:
    label = {Source.METRICS: "Metrics", Source.SQL: "Database"}[source]
    return {
        "type": "datasource",
        "name": source.value,
        "label": label,
        "query": source_ref(source)["type"],
        "regex": "",
        "current": {"text": _SOURCE_NAMES[source], "value": DEFAULT_SOURCES[source]},
        "options": [],
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "skipUrlSync": False,
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [_variable(variable) for variable in dashboard.variables]


def _variable(variable: Variable) -> dict[str, Any]:
    everything = {"text": ["All"], "value": ["$__all"]} if variable.multi else {}
    common = {
        "name": variable.name,
        "label": variable.label,
        "hide": 0,
        "includeAll": variable.multi,
        # a value for "all" is put in as it stands, unquoted: right for a regular expression, wrong for SQL
        "allValue": ".*" if variable.multi and not variable.sql and not variable.custom else None,
        "multi": variable.multi,
        "skipUrlSync": False,
        "current": everything,
        "options": [],
    }
    if variable.text:
        typed = {"text": variable.query, "value": variable.query}
        return {
            **common,
            "type": "textbox",
            "query": variable.query,
            "current": typed,
            "options": [{**typed, "selected": True}],
        }
    if variable.custom:
        choices = [choice.strip() for choice in variable.query.split(",")]
        options = [{"text": choice, "value": choice, "selected": False} for choice in choices]
        if variable.multi:
            options.insert(0, {"text": "All", "value": "$__all", "selected": True})
        return {**common, "type": "custom", "query": variable.query, "options": options}
    return {
        **common,
        "type": "query",
        "datasource": source_ref(Source.SQL if variable.sql else Source.METRICS),
        "query": variable.query
        if variable.sql
        else {"query": variable.query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "definition": variable.query,
        "regex": "",
        "refresh": 2,
        "sort": 1,
    }


def _layout(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Panels with places: left to right, a new line where the next one does not fit."""
    out: list[dict[str, Any]] = []
    top, number = 0, 1
    for row in rows:
        heading = {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": row.collapsed,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        number += 1
        top += 1
        left = line = 0
        placed: list[dict[str, Any]] = []
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, line = top + line, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            placed.append(_panel(panel, number, place))
            number += 1
            left += panel.width
            line = max(line, panel.height)
        top += line
        heading["panels"] = placed if row.collapsed else []
        out.append(heading)
        if not row.collapsed:
            out.extend(placed)
    return out


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    sources = {query.source for query in panel.queries}
    source = sources.pop() if len(sources) == 1 else None
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if _by_threshold(panel) else "palette-classic"},
        "custom": dict(panel.custom),
        "mappings": [dict(mapping) for mapping in panel.mappings],
        "links": [],
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": step.value, "color": step.color} for step in panel.steps]
            or [{"value": None, "color": "green"}],
        },
    }
    bounds = {"min": panel.lowest, "max": panel.highest, "decimals": panel.decimals}
    defaults.update({key: value for key, value in bounds.items() if value is not None})
    if panel.no_value:
        defaults["noValue"] = panel.no_value
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": source_ref(source) if source else {"type": "datasource", "uid": "-- Mixed --"},
        "gridPos": place,
        "targets": [_target(query, at) for at, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": [dict(item) for item in panel.overrides]},
        "options": dict(panel.options),
        "transformations": [dict(item) for item in panel.transformations],
        "links": [_link(link) for link in panel.links],
    }


def _by_threshold(panel: Panel) -> bool:
    return panel.kind in ("stat", "gauge", "bargauge", "state-timeline", "status-history")


def _link(link: Link) -> dict[str, Any]:
    return {"title": link.title, "url": link.url, "targetBlank": link.url.startswith("http")}


def _target(query: Query, at: int) -> dict[str, Any]:
    ref = chr(ord("A") + at)
    if query.source is Source.SQL:
        return {
            "refId": ref,
            "datasource": source_ref(Source.SQL),
            "format": query.format.value,
            "rawQuery": True,
            "editorMode": "code",
            "rawSql": query.text,
        }
    return {
        "refId": ref,
        "datasource": source_ref(Source.METRICS),
        "expr": query.text,
        "legendFormat": query.legend or "__auto",
        "format": query.format.value,
        "instant": query.instant,
        "range": not query.instant,
        "editorMode": "code",
    }
