"""A year of five-minute history: PromQL over it against the same question in SQL, in the same run.

usage: python benchmarks/year.py [--series 100] [--days 365] [--runs 3]

The history is made as packing makes it, of a sample a minute; the samples themselves are gone. The question
is the mean of every day, for some of the series.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import numpy as np
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.db.chunk_rows import COLUMNS, rollups
from exporter.db.cluster import Cluster
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.migrate import migrate_up
from exporter.db.partitions import DAY_MS, DayPartitions
from exporter.db.pool import Database
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.promql.engine import Engine
from exporter.query.local import Limits, LocalQueries
from exporter.query.metrics import QueryMetrics
from exporter.query.older import OlderSamples
from exporter.storage import MemoryStorage

SQL = """
select labels ->> 'n' as n, date_trunc('day', "time", 'UTC') as day, sum(sum) / sum(count) as mean
from quantum_metrics_5m_between($1, $2) where name = 'load' and (labels ->> 'n')::int < $3 group by 1, 2
"""


async def fill(database: Database, series: int, first_day: int, days: int) -> None:
    """The series, and five minutes of each of them in one number each."""
    labels = tuple(LabelSet.of({"__name__": "load", "n": f"{n:03d}"}) for n in range(series))
    await SampleCopier(database).write(
        [SampleBatch((first_day + days + 1) * DAY_MS, labels, np.zeros(series))]
    )
    random = np.random.default_rng(1)
    async with database.acquire() as connection:
        await connection.execute("set statement_timeout = 0")
        ids = [row["id"] for row in await connection.fetch("select id from quantum_series order by labels")]
        for day in range(first_day, first_day + days):
            await DayPartitions("quantum_rollups").ensure(connection, [day])
            ts_us = np.arange(day * DAY_MS, (day + 1) * DAY_MS, 60_000, dtype=np.int64) * 1000
            values = np.round(100 + np.cumsum(random.normal(size=(series, len(ts_us))), axis=1), 2)
            rows = [
                row for one, column in zip(ids, values, strict=True) for row in rollups(one, ts_us, column)
            ]
            await connection.copy_records_to_table(
                "quantum_rollups", records=rows, columns=(*COLUMNS, "stat")
            )
        await connection.execute("vacuum analyze quantum_rollups")


async def seconds(ask: Callable[[], Awaitable[object]], runs: int) -> float:
    """The median, after a first time."""
    taken = []
    await ask()
    for _ in range(runs):
        started = time.perf_counter()
        await ask()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def measure(url: str, args: argparse.Namespace) -> None:
    """Make the history, then print the table."""
    await migrate_up(url, asset_dir("sql"))
    clock = SystemClock()
    database = Database(url, clock)
    first_day = clock.now_ms() // DAY_MS - 1 - args.days  # yesterday has a table of samples
    await fill(database, args.series, first_day, args.days)
    head, history = MemoryStorage(), History(database)
    queries = LocalQueries(
        head,
        Engine(head),
        limits=Limits(),
        clock=clock,
        metrics=QueryMetrics(CollectorRegistry()),
        older=OlderSamples(head, lambda: history),
    )
    connection = await asyncpg.connect(url)
    start_ms, end_ms = (first_day + 1) * DAY_MS - 1, (first_day + args.days) * DAY_MS - 1
    print(f"{args.days} days, medians of {args.runs} runs\n")
    print("| series | PromQL, s | SQL, s | ratio |\n| --- | --- | --- | --- |")
    for count in (1, args.series // 5, args.series):
        text = f'avg_over_time(load{{n=~"{"|".join(f"{n:03d}" for n in range(count))}"}}[1d])'
        bounds = await connection.fetchrow(
            "select to_timestamp($1::float8) as first, to_timestamp($2::float8) as last",
            first_day * DAY_MS / 1000, end_ms / 1000,
        )  # fmt: skip
        result = await queries.range(text, start_ms, end_ms, DAY_MS)
        rows = await connection.fetch(SQL, bounds["first"], bounds["last"], count)
        theirs = {(row["n"], round(row["day"].timestamp()) // 86400): row["mean"] for row in rows}
        answer = result.to_json()["result"]
        ours = {
            (one["metric"]["n"], int(at) // 86400): float(value)
            for one in answer
            for at, value in one["values"]
        }
        assert ours.keys() == theirs.keys()
        assert all(abs(ours[key] - theirs[key]) < 1e-9 * abs(theirs[key]) for key in ours)
        promql = await seconds(lambda text=text: queries.range(text, start_ms, end_ms, DAY_MS), args.runs)  # type: ignore[misc]
        sql = await seconds(
            lambda bounds=bounds, count=count: connection.fetch(SQL, bounds["first"], bounds["last"], count),  # type: ignore[misc]
            1,
        )
        print(f"| {count} | {promql:.2f} | {sql:.2f} | {sql / promql:.1f} |", flush=True)
    await connection.close()
    queries.close()
    await database.close()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qe-year-"))
    cluster = Cluster(folder / "server", {"fsync": "off"})
    cluster.prepare()
    cluster.launch()
    try:
        await measure(cluster.url, args)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
