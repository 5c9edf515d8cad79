"""`check dashboards`: what it finds in a dashboard, and in the answers of live data sources."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from exporter.cli import check_dashboards
from exporter.cli.check_dashboards import _check, add_check
from exporter.dashboards import render, shipped
from exporter.dashboards.check import FindingKind, read_dashboard, static_findings
from exporter.errors import ConfigError


def panel(expr: str, **more: Any) -> dict[str, Any]:
    target = {"refId": "A", "expr": expr, "datasource": {"type": "prometheus"}}
    return {"type": "timeseries", "title": expr, "targets": [target], **more}


def dashboard(*panels: dict[str, Any]) -> dict[str, Any]:
    return {"uid": "u", "title": "d", "panels": list(panels)}


def unit(name: str = "s", **more: Any) -> dict[str, Any]:
    return {"defaults": {"unit": name, **more}}


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_check(parser.add_subparsers())
    return parser.parse_args(["dashboards", *argv])


@pytest.fixture
async def api() -> Any:
    """A Prometheus-compatible API that knows the series `full`, and fails for `broken`."""

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        query = str(form["query"])
        if "broken" in query:
            return web.json_response(
                {"status": "error", "errorType": "execution", "error": "it broke"}, status=422
            )
        result: list[Any] = [{"metric": {}, "values": []}] if "full" in query else []
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": result}})

    app = web.Application()
    app.router.add_post("/api/v1/query", answer)
    app.router.add_post("/api/v1/query_range", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_answers_are_judged(api: str) -> None:
    """A failing query is an error, a panel without any result is empty, unless it says what empty means."""
    found = await _check(
        [
            dashboard(
                panel("full", fieldConfig=unit()),
                panel("empty", fieldConfig=unit()),
                panel("empty_but_fine", fieldConfig=unit(noValue="none")),
                panel("broken", fieldConfig=unit()),
            )
        ],
        api,
        "",
        3_600_000,
    )
    assert [(finding.panel, finding.kind) for finding in found] == [
        ("empty", FindingKind.EMPTY),
        ("broken", FindingKind.ERROR),
    ]
    assert "it broke" in str(found[1])


async def test_nobody_asked_is_not_empty() -> None:
    """Without data sources queries are only parsed."""
    found = await _check(
        [dashboard(panel("full", fieldConfig=unit()), panel("sum(", fieldConfig=unit()))], "", "", 1
    )
    assert [(finding.panel, finding.kind) for finding in found] == [("sum(", FindingKind.ERROR)]


async def test_server_that_does_not_answer_is_an_error() -> None:
    """Each panel says so, and the command goes on."""
    found = await _check([dashboard(panel("full", fieldConfig=unit()))], "http://127.0.0.1:9", "", 60_000)
    assert found[0].kind is FindingKind.ERROR


async def test_sql_is_asked(migrated_url: str) -> None:
    """SQL runs with its macros expanded; a wrong one is an error."""
    source = {"type": "grafana-postgresql-datasource"}
    good = {"refId": "A", "rawSql": "select 1 where $__timeFrom() < $__timeTo()", "datasource": source}
    bad = {"refId": "B", "rawSql": "select nothing", "datasource": source}
    found = await _check(
        [
            dashboard(
                {"type": "table", "title": "good", "targets": [good]},
                {"type": "table", "title": "bad", "targets": [bad]},
            )
        ],
        "",
        migrated_url,
        60_000,
    )
    assert [(finding.panel, finding.kind) for finding in found] == [("bad", FindingKind.ERROR)]


async def test_database_that_does_not_answer_is_refused() -> None:
    """A wrong --database is a wrong use."""
    with pytest.raises(ConfigError, match="the database does not answer"):
        await _check([], "", "postgresql://127.0.0.1:9/x", 1)


def test_static_findings() -> None:
    """Missing uid, title, query and unit are found, in collapsed rows too."""
    inner = {"id": 3, "type": "stat", "targets": []}
    found = static_findings({"title": "d", "panels": [{"type": "row", "panels": [inner]}, panel("x")]})
    assert [finding.message for finding in found] == [
        "no uid: links to it will break",
        "no title",
        "no query",
        "no unit",
        "no unit",
    ]


def test_shipped_dashboards_have_no_static_finding() -> None:
    """Ours are clean."""
    assert not [finding for one in shipped().values() for finding in static_findings(render(one))]


@pytest.mark.parametrize(
    ("text", "message"), [("{", "d.json:1:2: no JSON"), ("[]", "no Grafana dashboard"), ("{}", "no Grafana")]
)
def test_other_files_are_refused(text: str, message: str) -> None:
    """A file that is no dashboard is an error with its place."""
    with pytest.raises(ConfigError, match=message):
        read_dashboard(text, "d.json")


def test_wrapped_dashboard_is_read() -> None:
    """The form of Grafana's API is accepted."""
    assert read_dashboard(json.dumps({"dashboard": dashboard()}))["uid"] == "u"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 for the shipped dashboards, 1 where something is found, JSON on request."""
    assert check_dashboards.run(arguments()) == 0
    assert "6 dashboards" in capsys.readouterr().out
    path = tmp_path / "d.json"
    path.write_text(json.dumps(dashboard(panel("x"))))
    assert check_dashboards.run(arguments("-o", "json", str(path))) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["message"] == "no unit"
    with pytest.raises(ConfigError, match="period"):
        check_dashboards.run(arguments("--period", "long"))
    with pytest.raises(ConfigError, match="missing"):
        check_dashboards.run(arguments(str(tmp_path / "missing.json")))
