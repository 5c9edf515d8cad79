"""`quantum-exporter migrate`: bring the database's tables up to date, or say how they stand."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from exporter.assets import asset_dir
from exporter.cli.parsers import add_config_file, add_output
from exporter.clock import SystemClock
from exporter.config.load import load_config
from exporter.db.embedded import reachable_url
from exporter.db.migrate import Migration, MigrationState, MigrationStatus, migrate_up, migration_status


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "migrate",
        help="bring the database up to date (up) or show its state (status)",
        description="Applies the numbered SQL files that the database lacks, each once, in order; `run` does "
        "so at its start. Tables that exist keep their data, and no writer waits over 0.1 s for us. "
        "Exit code 1: a file was edited after it had been applied.",
        epilog="examples:\n  quantum-exporter migrate\n"
        "  DATABASE_URL=postgresql://app@db/app quantum-exporter migrate status\n"
        "  quantum-exporter migrate status --output json",
    )
    add_config_file(parser)
    add_output(parser, "table", "json")
    parser.add_argument("what", nargs="?", choices=("up", "status"), default="up", help="default: up")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Entry point. Raises: ConfigError, MigrationError, StorageError."""
    config = load_config(args.config_file, os.environ)
    data_dir = config.storage.data_dir / "postgres"
    return asyncio.run(_run(args.what, config.database.url, data_dir, as_json=args.output == "json"))


async def _run(what: str, database_url: str, data_dir: Path, *, as_json: bool) -> int:
    console = Console(width=None if sys.stdout.isatty() else 160)  # nothing is cut off in a pipe
    progress = Console(stderr=True)
    async with reachable_url(database_url, data_dir, SystemClock()) as url:
        if what == "up":
            with progress.status("migrating") as status:

                def show(migration: Migration) -> None:
                    status.update(f"applying {migration.label}")

                applied = await migrate_up(url, asset_dir("sql"), on_start=show)
            if as_json:
                print(json.dumps({"applied": [migration.label for migration in applied]}, indent=2))
            else:
                print(
                    *(f"applied {migration.label}" for migration in applied),
                    sep="\n",
                    end="\n" if applied else "",
                )
                print("the database is up to date")
            return 0
        states = await migration_status(url, asset_dir("sql"))
    if as_json:
        print(json.dumps({"migrations": [_row(one) for one in states]}, indent=2))
    else:
        console.print(_table(states))
    return 1 if any(one.state is MigrationState.CHANGED for one in states) else 0


def _row(one: MigrationStatus) -> dict[str, object]:
    return {
        "number": one.number,
        "name": one.name,
        "state": one.state.value,
        "appliedAt": one.applied_at.isoformat() if one.applied_at else None,
        "durationMs": one.duration_ms,
    }


def _table(states: Sequence[MigrationStatus]) -> Table:
    table = Table("number", "name", "state", "applied at", "took")
    for one in states:
        table.add_row(
            f"{one.number:03d}",
            one.name,
            one.state.value,
            f"{one.applied_at:%Y-%m-%d %H:%M:%S}" if one.applied_at else "",
            f"{one.duration_ms} ms" if one.duration_ms is not None else "",
        )
    return table
