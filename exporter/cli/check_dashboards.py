"""`quantum-exporter check dashboards`: asks every panel's queries of live data sources."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from exporter.assets import asset_dir
from exporter.cli.parsers import add_output
from exporter.dashboards.check import (
    Finding,
    FindingKind,
    Outcome,
    custom_choices,
    judge,
    panel_checks,
    read_dashboard,
    sql_variables,
    static_findings,
)
from exporter.dashboards.queries import PanelQuery, Surroundings, expand_promql, expand_sql
from exporter.errors import ConfigError, QueryError
from exporter.promql.parse import parse_expr
from exporter.query.remote import RemoteApi
from exporter.web.params import ParamError, parse_duration_ms

_EXAMPLES = """examples:
  quantum-exporter check dashboards                                  the shipped ones, without asking anything
  quantum-exporter check dashboards --url http://127.0.0.1:9464 --database "$DATABASE_URL"
  quantum-exporter check dashboards --url http://127.0.0.1:9090 mine.json"""
_STEPS = 60
_TIMEOUT_S = 30.0


def add_check(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it among the kinds of `check`."""
    parser = subparsers.add_parser(
        "dashboards",
        help="Grafana dashboards: queries that fail, panels that stay empty, units that are missing",
        description="Runs the queries of every panel, PromQL and SQL with Grafana's macros expanded, and "
        "tells which fail, which panels stay empty, and which units are missing. Without --url and "
        "--database the queries are parsed only.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--url", default="", help="Prometheus-compatible server that answers the PromQL")
    parser.add_argument("--database", default="", metavar="URL", help="Postgres that answers the SQL")
    parser.add_argument("--period", default="1h", help="length of the period up to now (default %(default)s)")
    add_output(parser, "text", "json")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="JSON (default: the shipped ones)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print. Returns 0, or 1 where a query fails, a panel is empty or a unit is missing.

    Raises: ConfigError for a file that is no dashboard and a database that does not answer.
    """
    files = args.files or sorted(asset_dir("grafana").glob("dashboards/*.json"))
    try:
        period_ms = parse_duration_ms(args.period, "period")
    except ParamError as error:
        raise ConfigError(f"--period: {error}") from error
    dashboards = [_read(path) for path in files]
    findings = asyncio.run(_check(dashboards, args.url, args.database, period_ms))
    panels = sum(len(panel_checks(dashboard)) for dashboard in dashboards)
    if args.output == "json":
        rows = [
            {"dashboard": f.dashboard, "panel": f.panel, "kind": f.kind.value, "message": f.message}
            for f in findings
        ]
        print(json.dumps({"dashboards": len(dashboards), "panels": panels, "findings": rows}, indent=2))
    else:
        for finding in findings:
            print(finding)
        count = {kind: sum(f.kind is kind for f in findings) for kind in FindingKind}
        print(
            f"{len(dashboards)} dashboards, {panels} panels: {count[FindingKind.ERROR]} errors, "
            f"{count[FindingKind.EMPTY]} empty, {count[FindingKind.STYLE]} remarks"
        )
    return 1 if findings else 0


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read_dashboard(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


async def _check(
    dashboards: Sequence[Mapping[str, Any]], url: str, database: str, period_ms: int
) -> list[Finding]:
    now_ms = time.time_ns() // 1_000_000
    around = Surroundings(now_ms - period_ms, now_ms, max(15_000, period_ms // _STEPS // 1000 * 1000))
    connection = await _connect(database) if database else None
    async with aiohttp.ClientSession() as session:
        asker = _Asker(RemoteApi(url, session, timeout_s=_TIMEOUT_S) if url else None, connection)
        try:
            return [finding for one in dashboards for finding in await asker.findings(one, around)]
        finally:
            if connection is not None:
                await connection.close()


async def _connect(database: str) -> asyncpg.Connection:
    try:
        connection = await asyncpg.connect(database, timeout=10.0, command_timeout=_TIMEOUT_S)
        await connection.execute("set default_transaction_read_only = on")
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ConfigError(f"the database does not answer: {error or type(error).__name__}") from error
    return connection


class _Asker:
    def __init__(self, api: RemoteApi | None, connection: asyncpg.Connection | None) -> None:
        self._api = api
        self._connection = connection

    async def findings(self, dashboard: Mapping[str, Any], around: Surroundings) -> list[Finding]:
        found = static_findings(dashboard)
        for_sql = Surroundings(
            around.from_ms,
            around.to_ms,
            around.step_ms,
            variables={**custom_choices(dashboard), **await self._choices(dashboard)},
        )
        for panel in panel_checks(dashboard):
            outcomes = [
                await (self._sql(query, for_sql) if query.is_sql else self._promql(query, around))
                for query in panel.queries
            ]
            found += judge(dashboard, panel, outcomes)
        return found

    async def _choices(self, dashboard: Mapping[str, Any]) -> dict[str, str]:
        if self._connection is None:
            return {}
        chosen = {}
        for name, query in sql_variables(dashboard).items():
            try:
                chosen[name] = ",".join(str(row[0]) for row in await self._connection.fetch(query))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                chosen[name] = ""  # the panels that need it will say what is wrong
        return chosen

    async def _promql(self, query: PanelQuery, around: Surroundings) -> Outcome:
        text = expand_promql(query.text, around)
        try:
            if self._api is None:
                parse_expr(text)
                return Outcome(query, asked=False)
            if query.instant:
                answer = await self._api.instant(text, around.to_ms)
            else:
                answer = await self._api.range(text, around.from_ms, around.to_ms, around.step_ms)
        except QueryError as error:
            return Outcome(query, error=str(error))
        result = answer.data.get("result") if isinstance(answer.data, dict) else None
        return Outcome(query, len(result) if isinstance(result, list) else 0)

    async def _sql(self, query: PanelQuery, around: Surroundings) -> Outcome:
        if self._connection is None:
            return Outcome(query, asked=False)
        try:
            return Outcome(query, len(await self._connection.fetch(expand_sql(query.text, around))))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            return Outcome(query, error=str(error) or type(error).__name__)
