"""Samples into Postgres: our writer against psql's binary COPY of the same rows, in the same run.

usage: python benchmarks/ingest.py [--rows 1000000] [--series 10000] [--runs 5]

Both fill the hot table as it is in production: primary key, day partitions, fsync on. The rows are what an
exporter yields: `series` samples every 15 s, across a midnight. psql reads them from a file, in one COPY.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import asyncpg
import numpy as np
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.db.batch import CopyEncoder, SampleRows
from exporter.db.cluster import Cluster, programs_dir
from exporter.db.metrics import WriteMetrics
from exporter.db.migrate import migrate_up
from exporter.db.pool import Database
from exporter.db.sample_codec import SampleCodec
from exporter.db.spool import Spool
from exporter.db.writer import SampleWriter
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch

# as for the peers: a server that does not checkpoint in the middle of a run
SERVER = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
START_MS = 1_772_402_400_000  # 2026-03-01 22:00 UTC
STEP_MS = 15_000


def make_batches(rows: int, series: int) -> list[SampleBatch]:
    labels = tuple(
        LabelSet.of({"__name__": f"metric_{n % 50}", "instance": f"host-{n // 50}", "job": "app"})
        for n in range(series)
    )
    rng = np.random.default_rng(1)
    values = np.cumsum(rng.integers(0, 20, (rows // series, series)), axis=0).astype(float)
    return [SampleBatch(START_MS + STEP_MS * at, labels, values[at]) for at in range(rows // series)]


def write_copy_file(path: Path, batches: list[SampleBatch], ids: np.ndarray) -> None:
    """The rows in the order of time, as they would be flushed."""
    rows = SampleRows(
        np.tile(ids, len(batches)),
        np.repeat(np.array([batch.ts_ms for batch in batches], np.int64), len(ids)),
        np.concatenate([batch.values for batch in batches]),
    )
    path.write_bytes(b"".join(CopyEncoder().encode(rows)))
    path.chmod(0o644)


async def longest_pause(worst: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.005)  # often enough to see a hold, rarely enough to cost nothing
        worst[0] = max(worst[0], time.perf_counter() - before - 0.005)


async def run_writer(url: str, folder: Path, batches: list[SampleBatch]) -> tuple[float, float, float]:
    """Rows per second, CPU microseconds of this process per row, longest hold of the event loop in ms."""
    registry, clock = CollectorRegistry(), SystemClock()
    database = Database(url, clock)
    spool = Spool(folder, SampleCodec(), clock)
    writer = SampleWriter(database, spool, WriteMetrics(registry), clock)
    total = sum(map(len, batches))

    def persisted() -> float:
        return registry.get_sample_value("quantum_samples_persisted_total") or 0.0

    task = asyncio.create_task(writer.run())
    # the series are known to a running exporter: looked up once, outside of the measurement
    writer.put(SampleBatch(START_MS - STEP_MS, batches[0].labels, batches[0].values))
    while not persisted():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    worst = [0.0]
    watcher = asyncio.create_task(longest_pause(worst))
    await asyncio.sleep(0)
    started, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        writer.put(batch)
    while persisted() < total:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    watcher.cancel()
    await writer.close()
    await task
    await database.close()
    return total / seconds, cpu / total * 1e6, worst[0] * 1e3


def run_psql(url: str, path: Path, rows: int) -> float:
    started = time.perf_counter()
    copy = f"copy quantum_samples (ts, series_id, value) from '{path}' with (format binary)"
    subprocess.run([programs_dir() / "bin" / "psql", "-XqAt", "-d", url, "-c", copy], check=True)
    return rows / (time.perf_counter() - started)


async def reset(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("truncate quantum_samples")
    await connection.execute("checkpoint")
    await connection.close()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qe-ingest-"))
    os.chmod(folder, 0o755)  # noqa: PTH101 (the server reads the file as another account)
    cluster = Cluster(folder / "server", SERVER)
    cluster.prepare()
    cluster.launch()
    try:
        await migrate_up(cluster.url, asset_dir("sql"))
        batches = make_batches(args.rows, args.series)
        ours: list[tuple[float, float, float]] = []
        theirs: list[float] = []
        for run in range(args.runs + 1):  # the first run makes the series and warms up
            await reset(cluster.url)
            result = await run_writer(cluster.url, folder / "spool", batches)
            if run == 0:
                connection = await asyncpg.connect(cluster.url)
                await connection.execute(
                    "select quantum_ensure_day_partitions('quantum_samples', '2026-03-01', '2026-03-03')"
                )
                rows = await connection.fetch(
                    "select id from quantum_series order by (labels ->> 'instance'), name limit $1",
                    args.series,
                )
                await connection.close()
                ids = np.array([row["id"] for row in rows], np.int32)
                write_copy_file(folder / "rows.bin", batches, ids)
                continue
            ours.append(result)
            await reset(cluster.url)
            theirs.append(run_psql(cluster.url, folder / "rows.bin", args.rows))
        rate, cpu, pause = (statistics.median(column) for column in zip(*ours, strict=True))
        peer = statistics.median(theirs)
        print(f"rows {args.rows}, series {args.series}, medians of {args.runs} runs")
        print(f"writer             {rate / 1e3:8.0f} k rows/s  [{span([r for r, _, _ in ours])}]")
        print(f"psql COPY binary   {peer / 1e3:8.0f} k rows/s  [{span(theirs)}]")
        print(f"ratio              {rate / peer:8.2f}   (aim: 0.9 or more)")
        print(f"Python CPU         {cpu:8.2f} us/sample   (aim: under 0.3)")
        print(f"event loop held    {pause:8.1f} ms at most, median of runs   (aim: under 20)")
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def span(rates: list[float]) -> str:
    return f"{min(rates) / 1e3:.0f}..{max(rates) / 1e3:.0f}"


asyncio.run(main())
