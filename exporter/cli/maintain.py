"""`quantum-exporter maintain`: old data out, tables vacuumed, advice on indexes."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from exporter.assets import asset_dir
from exporter.cli.parsers import add_config_file, add_output
from exporter.clock import SystemClock
from exporter.config.load import load_config
from exporter.db.embedded import reachable_url
from exporter.db.maintain import Advice, Cleanup, Optimized, cleanup, optimize, suggest_indexes
from exporter.db.migrate import MigrationState, migration_status
from exporter.db.pool import Database
from exporter.errors import MigrationError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "maintain",
        help="clean up, optimize, or get advice on indexes",
        description="cleanup drops days of metrics and removes resolved alerts and API log rows that are too "
        "old. optimize vacuums and analyzes the tables and builds invalid indexes again. suggest-indexes "
        "prints what the server's statistics suggest, with the statement to run.",
        epilog="examples:\n  quantum-exporter maintain cleanup --days 30\n"
        "  quantum-exporter maintain optimize\n  quantum-exporter maintain suggest-indexes --output json",
    )
    add_config_file(parser)
    add_output(parser, "table", "json")
    parser.add_argument("what", choices=("cleanup", "optimize", "suggest-indexes"))
    parser.add_argument(
        "--days",
        type=_days,
        default=None,
        metavar="N",
        help="cleanup: keep N days (default: database.retention)",
    )
    parser.set_defaults(run=run)


def _days(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of days, 1 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Entry point; 1 where a step of `optimize` failed. Raises: ConfigError, StorageError, MigrationError."""
    config = load_config(args.config_file, os.environ)
    days = args.days or max(1, config.database.retention_ms // 86_400_000)
    data_dir = config.storage.data_dir / "postgres"
    as_json = args.output == "json"
    return asyncio.run(_run(args.what, config.database.url, data_dir, days, as_json=as_json))


async def _run(what: str, database_url: str, data_dir: Path, days: int, *, as_json: bool) -> int:
    clock = SystemClock()
    console = Console(width=None if sys.stdout.isatty() else 160)  # nothing is cut off in a pipe
    async with reachable_url(database_url, data_dir, clock) as url:
        states = await migration_status(url, asset_dir("sql"))
        if any(one.state is MigrationState.PENDING for one in states):
            raise MigrationError("the database is not up to date: run quantum-exporter migrate")
        database = Database(url, clock, application_name="quantum-exporter maintain")
        try:
            if what == "cleanup":
                return await _cleanup(console, database, days, as_json=as_json)
            if what == "optimize":
                return await _optimize(console, database, as_json=as_json)
            return await _suggest(console, database, as_json=as_json)
        finally:
            await database.close()


async def _cleanup(console: Console, database: Database, days: int, *, as_json: bool) -> int:
    with Console(stderr=True).status(f"removing what is older than {days} days") as status:
        results = await cleanup(database, days, status.update)
    if as_json:
        return _print_json(results)
    table = Table("table", "action", "removed", "remark")
    for one in results:
        table.add_row(one.table, one.action, str(one.removed), one.remark)
    console.print(table)
    return 0


async def _optimize(console: Console, database: Database, *, as_json: bool) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Console(stderr=True)
    with Progress(*columns, console=bar, disable=not bar.is_terminal, transient=True) as progress:
        task = progress.add_task("looking", total=None)

        def step(name: str, done: int, total: int) -> None:
            progress.update(task, description=name, completed=done, total=total)

        results = await optimize(database, step)
    failed = any(one.error for one in results)
    if as_json:
        _print_json(results)
        return 1 if failed else 0
    table = Table("table or index", "dead rows before", "freed", "problem")
    for one in results:
        table.add_row(one.name, str(one.dead_rows), f"{one.freed_bytes} B", one.error)
    console.print(table)
    return 1 if failed else 0


async def _suggest(console: Console, database: Database, *, as_json: bool) -> int:
    advice = await suggest_indexes(database)
    if as_json:
        return _print_json(advice)
    if not advice:
        print("nothing to suggest")
    for one in advice:
        console.print(f"[bold]{one.kind}[/bold]: {one.object}", highlight=False)
        console.print(f"  {one.detail}: {one.suggestion}", highlight=False, markup=False)
        if one.statement:
            console.print(f"  {one.statement};", highlight=False, markup=False, soft_wrap=True)
    return 0


def _print_json(rows: Sequence[Cleanup | Optimized | Advice]) -> int:
    print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    return 0
