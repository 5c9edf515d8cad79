"""`quantum-exporter import`: samples from files into the sample store."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Iterator

import numpy as np

from exporter.assets import asset_dir
from exporter.cli.parsers import add_config_file, add_output
from exporter.cli.replaying import connect, mapped, progress_bar
from exporter.db.copier import SampleCopier
from exporter.db.migrate import MigrationState, migration_status
from exporter.drawing.times import moment_text
from exporter.errors import MigrationError
from exporter.ingest.stream import OpenMetricsStream, Run
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch

_ROWS = 100_000  # collected before they are written: a COPY of that size is the fastest


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its kinds."""
    parser = subparsers.add_parser(
        "import",
        help="bring samples from files into the database",
        description="Brings samples from files into the sample store.",
        epilog="examples:\n  quantum-exporter import openmetrics dump.txt",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    openmetrics = kinds.add_parser(
        "openmetrics",
        help="backfill from an OpenMetrics file",
        description="Reads what promtool tsdb create-blocks-from openmetrics reads, such as the output of "
        "promtool tsdb dump-openmetrics, and writes it to the sample store behind backtests, tune and long "
        "queries. Every sample needs a timestamp. Samples that are stored already stay as they are, so that "
        "an import can be repeated.",
        epilog="examples:\n  quantum-exporter import openmetrics dump.txt\n"
        "  quantum-exporter import openmetrics dump.txt --database postgresql://app@db/app --output json",
    )
    openmetrics.add_argument("file", metavar="FILE")
    openmetrics.add_argument(
        "--database", default="", metavar="URL", help="default: that of the configuration"
    )
    add_config_file(openmetrics)
    add_output(openmetrics, "text", "json")
    openmetrics.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import. Raises: ExpositionError, ConfigError, StorageError, MigrationError."""
    with mapped(args.file) as data, progress_bar("import") as report:
        size = max(1, len(data))
        stream = OpenMetricsStream(data, args.file, progress=lambda done: report(done / size, "reading"))
        count, series, first_ms, last_ms = asyncio.run(_import(args, stream))
    if args.output == "json":
        found = {"samples": count, "series": series}
        print(json.dumps(found | ({"firstMs": first_ms, "lastMs": last_ms} if count else {}), indent=2))
    elif count:
        print(
            f"{count} samples of {series} series imported, from {moment_text(first_ms)} to "
            f"{moment_text(last_ms)} UTC"
        )
    else:
        print("the file has no samples")
    return 0


async def _import(args: argparse.Namespace, stream: OpenMetricsStream) -> tuple[int, int, int, int]:
    """Samples, series, first and last time."""
    async with contextlib.AsyncExitStack() as stack:
        database = await connect(stack, args, "quantum-exporter import")
        states = await migration_status(database.url, asset_dir("sql"))
        if any(one.state is MigrationState.PENDING for one in states):
            raise MigrationError("the database is not up to date: run quantum-exporter migrate")
        copier = SampleCopier(database)
        count, series = 0, set[LabelSet]()
        first_ms, last_ms = 2**62, -(2**62)
        for runs in _portions(stream):
            batches = by_time(runs)
            await copier.write(batches)
            count += sum(len(run.values) for run in runs)
            series.update(run.labels for run in runs)
            first_ms = min(first_ms, batches[0].ts_ms)
            last_ms = max(last_ms, batches[-1].ts_ms)
        return count, len(series), first_ms, last_ms


def _portions(stream: OpenMetricsStream) -> Iterator[list[Run]]:
    """Runs together until they are worth a COPY; long ones in pieces."""
    runs: list[Run] = []
    rows = 0
    for run in stream:
        for at in range(0, len(run.values), _ROWS):
            piece = Run(run.labels, run.ts_ms[at : at + _ROWS], run.values[at : at + _ROWS])
            runs.append(piece)
            rows += len(piece.values)
            if rows >= _ROWS:
                yield runs
                runs, rows = [], 0
    if runs:
        yield runs


def by_time(runs: list[Run]) -> list[SampleBatch]:
    """The samples of runs as batches, one for each time, ascending; of a repeated sample the first stays."""
    ts_ms = np.concatenate([run.ts_ms for run in runs])
    values = np.concatenate([run.values for run in runs])
    owners = np.repeat(np.arange(len(runs)), [len(run.values) for run in runs])
    order = np.argsort(ts_ms, kind="stable")
    bounds = np.flatnonzero(np.diff(ts_ms[order])) + 1
    labels: dict[bytes, tuple[LabelSet, ...]] = {}
    found: list[SampleBatch] = []
    for places in np.split(order, bounds):
        own = owners[places]
        key = own.tobytes()
        if key not in labels:
            named: dict[LabelSet, int] = {}
            for row, owner in enumerate(own.tolist()):
                named.setdefault(runs[owner].labels, row)
            labels[key] = tuple(named)
            if len(named) < len(own):
                del labels[key]
                kept = np.array(list(named.values()))
                found.append(SampleBatch(int(ts_ms[places[0]]), tuple(named), values[places[kept]]))
                continue
        found.append(SampleBatch(int(ts_ms[places[0]]), labels[key], values[places]))
    return found
