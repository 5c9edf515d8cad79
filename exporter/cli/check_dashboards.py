"""`quantum-exporter check dashboards`: asks every panel's queries of live data sources."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.assets import asset_dir
from exporter.cli.parsers import add_output
from exporter.dashboards.check import (
    Finding,
    FindingKind,
    judge,
    panel_checks,
    read_dashboard,
    static_findings,
)
from exporter.dashboards.queries import Surroundings
from exporter.errors import ConfigError
from exporter.query.panels import panel_sources
from exporter.web.params import ParamError, parse_duration_ms

_EXAMPLES = """examples:
  quantum-exporter check dashboards                                  the shipped ones, without asking anything
  quantum-exporter check dashboards --url http://127.0.0.1:9464 --database "$DATABASE_URL"
  quantum-exporter check dashboards --url http://127.0.0.1:9090 mine.json"""
_STEPS = 60


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
    add_sources(parser)
    add_output(parser, "text", "json")
    parser.set_defaults(run=run)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """The options that name dashboards, data sources and the period."""
    parser.add_argument("--url", default="", help="Prometheus-compatible server that answers the PromQL")
    parser.add_argument("--database", default="", metavar="URL", help="Postgres that answers the SQL")
    parser.add_argument("--period", default="1h", help="length of the period up to now (default %(default)s)")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="JSON (default: the shipped ones)"
    )


def run(args: argparse.Namespace) -> int:
    """Check and print. Returns 0, or 1 where a query fails, a panel is empty or a unit is missing.

    Raises: ConfigError for a file that is no dashboard and a database that does not answer.
    """
    try:
        period_ms = parse_duration_ms(args.period, "period")
    except ParamError as error:
        raise ConfigError(f"--period: {error}") from error
    dashboards = list(read_dashboards(args.files).values())
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


def read_dashboards(files: Sequence[Path]) -> dict[Path, Mapping[str, Any]]:
    """The dashboards of files, of all shipped ones where none is named. Raises: ConfigError."""
    return {path: _read(path) for path in files or sorted(asset_dir("grafana").glob("dashboards/*.json"))}


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
    found: list[Finding] = []
    async with panel_sources(url, database) as sources:
        for dashboard in dashboards:
            found += static_findings(dashboard)
            own = await sources.surroundings(dashboard, around)
            for panel in panel_checks(dashboard):
                found += judge(dashboard, panel, [await sources.ask(query, own) for query in panel.queries])
    return found
