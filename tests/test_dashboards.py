"""The shipped dashboards: current, whole, and true to the metrics, the tables and the rules."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from exporter.dashboards import render, shipped
from exporter.dashboards.files import text_of
from exporter.dashboards.queries import PanelQuery, Surroundings, expand_promql, expand_sql, panel_queries
from exporter.dashboards.render import DEFAULT_SOURCES
from exporter.dashboards.thresholds import BY_ALERT
from exporter.promql.parse import parse_expr
from tests.helpers.metrics import declared_metrics, family_of
from tests.helpers.peers import peer

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "grafana" / "dashboards"
DASHBOARDS = {name: render(dashboard) for name, dashboard in shipped().items()}
AROUND = Surroundings(
    1_700_000_000_000,
    1_700_021_600_000,
    variables={
        "severity": "critical,warning,info",
        "alertname": "HighErrorRate",
        "status": "ACTIVE",
        "docs": "http://docs",
    },
)
ALERT_SERIES = ("ALERTS", "ALERTS_FOR_STATE")
_SERIES = re.compile(r"\b(?:quantum_[a-z0-9_]+|ALERTS(?:_FOR_STATE)?)\b")

each = pytest.mark.parametrize("name", DASHBOARDS)


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels but the row headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(*, sql: bool) -> list[tuple[str, PanelQuery]]:
    return [
        (name, query)
        for name, dashboard in DASHBOARDS.items()
        for query in panel_queries(dashboard)
        if query.is_sql is sql
    ]


@each
def test_committed_json_is_current(name: str) -> None:
    """grafana/dashboards is what the code makes: run `python -m exporter.dashboards` after a change."""
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(shipped()[name])


def test_no_other_dashboard_is_committed() -> None:
    """Every file in grafana/dashboards comes from code."""
    assert {path.stem for path in FOLDER.glob("*")} == set(DASHBOARDS)


def test_uids_are_stable() -> None:
    """Links stand on these uids; they never change."""
    assert {name: dashboard["uid"] for name, dashboard in DASHBOARDS.items()} == {
        "overview": "quantum-overview",
        "upstream-apis": "quantum-upstream",
        "trading": "quantum-trading",
        "database": "quantum-database",
        "alerts": "quantum-alerts",
        "exporter": "quantum-exporter",
    }


@each
def test_panels_are_whole(name: str) -> None:
    """Each panel says what it shows, in which unit, and names its series."""
    for panel in panels(DASHBOARDS[name]):
        place = f"{name}: {panel['title']}"
        assert len(panel["description"]) > 15, place
        assert panel["fieldConfig"]["defaults"]["unit"], place
        assert panel["targets"], place
        for target in panel["targets"]:
            if "expr" in target and target["format"] == "time_series":
                assert target["legendFormat"] != "__auto", place


@each
def test_layout_has_no_overlap(name: str) -> None:
    """Panels lie side by side in 24 columns; ids are unique."""
    dashboard = DASHBOARDS[name]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        own = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not own & cells, panel["title"]
        cells |= own


@each
def test_data_sources_are_chosen_by_variables(name: str) -> None:
    """No panel is tied to one installation's data source."""
    text = json.dumps(DASHBOARDS[name])
    uids = set(re.findall(r'"uid": "([^"]+)"', text)) - {DASHBOARDS[name]["uid"], "-- Mixed --"}
    assert uids <= {"${metrics}", "${postgres}"}


def test_default_data_sources_are_provisioned() -> None:
    """What the variables choose at first exists in the provisioning, under the same uid and type."""
    document = yaml.safe_load((ROOT / "grafana/provisioning/datasources/quantum.yml").read_text())
    types = {source["uid"]: source["type"] for source in document["datasources"]}
    assert types[DEFAULT_SOURCES[next(iter(DEFAULT_SOURCES))]] == "prometheus"
    assert set(DEFAULT_SOURCES.values()) <= set(types)
    assert sorted(types.values()) == ["grafana-postgresql-datasource", "prometheus", "prometheus"]


def test_dashboards_are_provisioned_from_the_mounted_folder() -> None:
    """The provider reads the folder into which docker-compose.yml mounts the dashboards."""
    document = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/quantum.yml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    folder = document["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in compose["services"]["grafana"]["volumes"]


def test_variables_of_sql_have_no_raw_value_for_all() -> None:
    """A variable that stands in SQL has no `allValue`: Grafana would put it in without quotes."""
    for dashboard in DASHBOARDS.values():
        used = {
            name
            for query in panel_queries(dashboard)
            if query.is_sql
            for name in re.findall(r"\$\{(\w+)[:}]", query.text)
        }
        for variable in dashboard["templating"]["list"]:
            if variable["name"] in used:
                assert variable["allValue"] is None, variable["name"]


def test_promql_parses() -> None:
    """Every PromQL query is valid once Grafana's macros are expanded."""
    found = queries(sql=False)
    assert len(found) > 100
    for name, query in found:
        text = expand_promql(query.text, AROUND)
        assert "$" not in text, f"{name}: {query.panel}: {text}"
        parse_expr(text)


def test_promql_is_valid_for_prometheus(tmp_path: Path) -> None:
    """Prometheus accepts every query too: the same dashboards run on it."""
    rules = [
        {"record": f"dashboard:query:{at}", "expr": expand_promql(query.text, AROUND)}
        for at, (_, query) in enumerate(queries(sql=False))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(
        [peer("promtool"), "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_exist() -> None:
    """Every metric on a panel is one that the code exposes."""
    families = declared_metrics()
    unknown = {
        f"{series} ({name}: {query.panel})"
        for name, query in queries(sql=False)
        for series in _SERIES.findall(query.text)
        if series not in ALERT_SERIES and family_of(series, families) is None
    }
    assert not unknown, "\n".join(sorted(unknown))


async def test_sql_runs(migrated_url: str) -> None:
    """Every SQL query runs on the migrated schema, as a role that may only read."""
    found = queries(sql=True)
    assert len(found) >= 20
    connection = await asyncpg.connect(migrated_url)
    try:
        await connection.execute("set default_transaction_read_only = on")
        for name, query in found:
            text = expand_sql(query.text, AROUND)
            assert "$" not in text, f"{name}: {query.panel}: {text}"
            try:
                await connection.fetch(text)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {query.panel}: {error}\n{text}")
    finally:
        await connection.close()


def test_thresholds_are_those_of_the_rules() -> None:
    """A panel changes its colour where the rule of the same name fires."""
    expressions = {
        rule["alert"]: rule["expr"]
        for path in (ROOT / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    for alert, threshold in BY_ALERT.items():
        numbers = {
            float(text) for text in re.findall(r"(?<![\w.\[])\d+(?:\.\d+)?(?![\w.\]])", expressions[alert])
        }
        assert threshold in numbers, f"{alert}: {threshold} is not in {expressions[alert]}"


def test_links_lead_to_alerts_that_exist() -> None:
    """A panel's link names a shipped alert."""
    alerts = {
        rule["alert"]
        for path in (ROOT / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    linked = {
        match
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
        for link in panel["links"]
        for match in re.findall(r"var-alertname=(\w+)", link["url"])
    }
    assert len(linked) >= 12
    assert linked <= alerts


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rate(a[$__rate_interval])", "rate(a[60s])"),
        ("rate(a[${__interval}])", "rate(a[15s])"),
        ("increase(a[$__range])", "increase(a[21600s])"),
        ('a{x=~"$severity"}', 'a{x=~"critical,warning,info"}'),
        ('a{x=~"$unknown"}', 'a{x=~".*"}'),
    ],
)
def test_promql_macros(text: str, wanted: str) -> None:
    """Grafana's macros are expanded as the browser does: four scrapes fit in a rate's window."""
    assert expand_promql(text, AROUND) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$__timeFilter(at)", "at BETWEEN '2023-11-14T22:13:20Z' AND '2023-11-15T04:13:20Z'"),
        (
            "x > $__timeFrom() and x < $__timeTo()",
            "x > '2023-11-14T22:13:20Z' and x < '2023-11-15T04:13:20Z'",
        ),
        ("$__timeGroup(at, '1h')", "floor(extract(epoch from at)/3600)*3600"),
        ("$__timeGroup(at, $__interval)", "floor(extract(epoch from at)/15)*15"),
        ("s in (${severity:sqlstring})", "s in ('critical', 'warning', 'info')"),
    ],
)
def test_sql_macros(text: str, wanted: str) -> None:
    """The Postgres data source's macros become SQL."""
    assert expand_sql(text, AROUND) == wanted
