"""Builders of the panel types in use, with one look for all dashboards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from exporter.dashboards.model import GREEN, ORANGE, RED, Format, Link, Panel, Query, Source, Step

ALERTS_UID: Final = "quantum-alerts"


def prom(text: str, legend: str = "", *, instant: bool = False, table: bool = False) -> Query:
    """A PromQL query."""
    return Query(text, legend, Source.METRICS, Format.TABLE if table else Format.SERIES, instant or table)


def sql(text: str, *, series: bool = False) -> Query:
    """An SQL query; `series` where it yields a time column to draw along."""
    return Query(" ".join(text.split()), "", Source.SQL, Format.SERIES if series else Format.TABLE)


def good_below(warn: float, bad: float | None = None) -> tuple[Step, ...]:
    """Green under `warn`, then orange, red from `bad` on; red at once where there is no `bad`."""
    if bad is None:
        return (Step(None, GREEN), Step(warn, RED))
    return (Step(None, GREEN), Step(warn, ORANGE), Step(bad, RED))


def good_above(bad: float, warn: float | None = None) -> tuple[Step, ...]:
    """Red under `bad`, green from there on; orange up to `warn` where it is given."""
    if warn is None:
        return (Step(None, RED), Step(bad, GREEN))
    return (Step(None, RED), Step(bad, ORANGE), Step(warn, GREEN))


PLAIN: Final = (Step(None, GREEN),)


def values(*pairs: tuple[float | str, str, str]) -> Mapping[str, Any]:
    """A mapping of exact values to text and colour."""
    return {
        "type": "value",
        "options": {
            str(value): {"text": text, "color": color, "index": at}
            for at, (value, text, color) in enumerate(pairs)
        },
    }


UP_DOWN: Final = values((1, "up", GREEN), (0, "down", RED))
YES_NO: Final = values((1, "yes", GREEN), (0, "no", RED))


def alert_links(*alerts: str) -> tuple[Link, ...]:
    """For each alert a link to its episodes, where its runbook stands too."""
    return tuple(
        Link(f"{alert}: episodes and runbook", f"/d/{ALERTS_UID}?var-alertname={alert}&${{__url_time_range}}")
        for alert in alerts
    )


def alert_history_link() -> Mapping[str, Any]:
    """From a cell with an alert's name to its episodes."""
    return {
        "title": "Episodes of ${__value.raw}",
        "url": f"/d/{ALERTS_UID}?var-alertname=${{__value.raw}}&${{__url_time_range}}",
    }


def stat(
    title: str,
    queries: Query | Sequence[Query],
    description: str,
    unit: str,
    *,
    steps: tuple[Step, ...] = PLAIN,
    graph: bool = True,
    filled: bool = False,
    names: bool = False,
    **rest: Any,
) -> Panel:
    """One number, or one for each series, coloured by its thresholds."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background" if filled else "value",
        "graphMode": "area" if graph else "none",
        "textMode": "value_and_name" if names else "value",
        "justifyMode": "auto",
        "orientation": "auto",
        "wideLayout": True,
    }
    rest.setdefault("width", 4)
    rest.setdefault("height", 4)
    return Panel(title, "stat", _queries(queries), description, unit, steps=steps, options=options, **rest)


def lines(
    title: str,
    queries: Query | Sequence[Query],
    description: str,
    unit: str,
    *,
    steps: tuple[Step, ...] = (),
    stacked: bool = False,
    bars: bool = False,
    calcs: Sequence[str] = ("lastNotNull", "max"),
    stepped: bool = False,
    lowest: float | None = 0,
    **rest: Any,
) -> Panel:
    """Lines over time, thresholds as dashed lines. The axis begins at `lowest` (None: where the data do)."""
    asked = _queries(queries)
    several = len(asked) > 1 or "{{" in asked[0].legend  # areas over one another hide what they show
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineInterpolation": "stepAfter" if stepped else "linear",
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 25 if stacked else 0 if several else 8,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "axisPlacement": "auto",
        "axisLabel": "",
        "scaleDistribution": {"type": "linear"},
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    options = {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": list(calcs),
            "sortBy": "Max" if "max" in calcs else "Name",
            "sortDesc": "max" in calcs,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    rest.setdefault("width", 12)
    return Panel(
        title,
        "timeseries",
        asked,
        description,
        unit,
        steps=steps,
        options=options,
        custom=custom,
        lowest=lowest,
        **rest,
    )


def trouble(title: str, queries: Query | Sequence[Query], description: str, **rest: Any) -> Panel:
    """Counts that should not be: drawn where there are any, and "none" where there are not."""
    asked = tuple(replace(query, text=f"({query.text}) > 0") for query in _queries(queries))
    rest.setdefault("no_value", "none")
    return lines(title, asked, description, "short", bars=True, stacked=True, calcs=("max",), **rest)


def bar_gauge(
    title: str,
    queries: Query | Sequence[Query],
    description: str,
    unit: str,
    *,
    steps: tuple[Step, ...],
    **rest: Any,
) -> Panel:
    """A bar for each series, newest value, from zero."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "displayMode": "lcd",
        "orientation": "horizontal",
        "showUnfilled": True,
        "valueMode": "color",
        "namePlacement": "auto",
        "sizing": "auto",
    }
    return Panel(
        title,
        "bargauge",
        _queries(queries),
        description,
        unit,
        steps=steps,
        options=options,
        lowest=0,
        **rest,
    )


def heatmap(title: str, query: str, description: str, unit: str, **rest: Any) -> Panel:
    """A histogram over time; `query` is `sum by (le) (increase(..._bucket[...]))`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
        "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
        "rowsFrame": {"layout": "auto"},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
        "filterValues": {"le": 1e-9},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "showValue": "never",
    }
    rest.setdefault("width", 12)
    target = Query(query, "{{le}}", Source.METRICS, Format.HEATMAP)
    return Panel(title, "heatmap", (target,), description, unit, options=options, **rest)


def table(
    title: str,
    queries: Query | Sequence[Query],
    description: str,
    *,
    hidden: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
    order: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    sort: tuple[str, bool] | None = None,
    unit: str = "short",
    overrides: tuple[Mapping[str, Any], ...] = (),
    merged: bool = False,
    as_rows: bool = False,
    **rest: Any,
) -> Panel:
    """Rows and columns. `units` by column name as shown; `sort` is (column, descending).

    `merged` joins several queries on their labels; `as_rows` turns the columns of one row into rows.
    """
    options: dict[str, Any] = {
        "showHeader": True,
        "cellHeight": "sm",
        "footer": {"show": False, "reducer": ["sum"]},
    }
    if sort is not None:
        options["sortBy"] = [{"displayName": sort[0], "desc": sort[1]}]
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {name: at for at, name in enumerate(order)},
            "renameByName": dict(renamed or {}),
        },
    }
    steps: list[Mapping[str, Any]] = []
    if merged:
        steps.append({"id": "merge", "options": {}})
    if as_rows:
        steps.append(
            {
                "id": "reduce",
                "options": {"mode": "seriesToRows", "reducers": ["lastNotNull"], "labelsToFields": False},
            }
        )
    if hidden or renamed or order:
        steps.append(organize)
    by_unit = tuple(
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": column_unit}]}
        for name, column_unit in (units or {}).items()
    )
    rest.setdefault("width", 24)
    return Panel(
        title,
        "table",
        _queries(queries),
        description,
        unit,
        options=options,
        overrides=(*by_unit, *overrides),
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True},
        transformations=tuple(steps),
        **rest,
    )


def timeline(
    title: str,
    queries: Query | Sequence[Query],
    description: str,
    *,
    mappings: tuple[Mapping[str, Any], ...],
    **rest: Any,
) -> Panel:
    """States over time, one bar for each series."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.8,
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    rest.setdefault("width", 24)
    return Panel(
        title,
        "state-timeline",
        _queries(queries),
        description,
        "none",
        options=options,
        mappings=mappings,
        custom={"lineWidth": 0, "fillOpacity": 80},
        **rest,
    )


def by_column(name: str, **properties: Any) -> Mapping[str, Any]:
    """Properties for one column of a table, keyed as Grafana names them with _ for a dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def coloured(**colours: str) -> tuple[Mapping[str, Any], ...]:
    """Overrides that give series of these names the colours that their meaning asks for."""
    return tuple(
        by_column(name, color={"mode": "fixed", "fixedColor": colour}) for name, colour in colours.items()
    )


SEVERITY_COLOURS: Final = (
    {
        "type": "value",
        "options": {
            "critical": {"color": "red", "index": 0},
            "CRITICAL": {"color": "red", "index": 1},
            "warning": {"color": "orange", "index": 2},
            "WARNING": {"color": "orange", "index": 3},
            "info": {"color": "blue", "index": 4},
            "INFO": {"color": "blue", "index": 5},
            "FATAL": {"color": "dark-red", "index": 6},
        },
    },
)


def severity_column(name: str) -> Mapping[str, Any]:
    """The override that colours a severity column."""
    return by_column(
        name,
        custom__cellOptions={"type": "color-text"},
        mappings=[dict(SEVERITY_COLOURS[0])],
        custom__width=110,
    )


def _queries(queries: Query | Sequence[Query]) -> tuple[Query, ...]:
    return (queries,) if isinstance(queries, Query) else tuple(queries)
