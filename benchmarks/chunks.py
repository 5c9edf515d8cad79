# ruff: noqa: E501
"""The sample store on the disk: packed days against rows and against plain arrays, in size and reading time.

usage: python benchmarks/chunks.py [--series 2000] [--days 30] [--row-series 200] [--runs 9]

The samples are what an application yields at one in 15 s: of 50 series 28 are the buckets, sum and count of
histograms, 10 counters, 12 gauges, counters moving with the hour of the day. All `series` x `days` are packed
and measured, the full number, nothing scaled; rows and arrays, which would take 32 GB, hold `row-series` for
one day, and their bytes a sample do not depend on how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.db.batch import CopyEncoder, SampleRows
from exporter.db.chunk_codec import encode
from exporter.db.chunk_rows import COLUMNS, rollups, to_row
from exporter.db.cluster import Cluster
from exporter.db.history import History
from exporter.db.metrics import PackingMetrics
from exporter.db.migrate import migrate_up
from exporter.db.packing import Packing
from exporter.db.partitions import DAY_MS, date_of
from exporter.db.pool import Database
from exporter.model.labels import Matcher, MatchOp

SERVER = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}
FIRST_DAY = 20_500  # 2026-02-16
STEP_S = 15
DAY = 86_400 // STEP_S
BOUNDS = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10])


class Application:
    """Histograms, counters and gauges; `day()` is float64 (S, DAY), the next day of them."""

    def __init__(self, series: int, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self._groups = series // 50
        groups = self._groups
        self._rate = self._rng.lognormal(0.5, 1.2, 2 * groups) * STEP_S
        self._mu = self._rng.normal(-2.5, 0.8, 2 * groups)
        cdf = 1 / (1 + np.exp(-1.702 * (np.log(BOUNDS) - self._mu[:, None]) / 0.8))
        self._parts = np.diff(
            np.concatenate([np.zeros((2 * groups, 1)), cdf, np.ones((2 * groups, 1))], axis=1), axis=1
        )
        self._state: np.ndarray = np.zeros(50 * groups)
        self._state[38 * groups : 44 * groups] = self._rng.integers(0, 50, 6 * groups)
        self._state[44 * groups :] = np.floor(self._rng.uniform(1e9, 1e11, 6 * groups))
        self._slope = self._rng.uniform(0, 2e5, 6 * groups) * STEP_S

    def day(self) -> np.ndarray:
        rng, groups = self._rng, self._groups
        load = 1 + 0.6 * np.sin(np.linspace(0, 2 * np.pi, DAY))
        moves = np.zeros((50 * groups, DAY))
        per_bucket = rng.poisson((self._rate[:, None] * self._parts)[:, :, None] * load)  # (2G, 12, DAY)
        count = per_bucket.sum(1)
        cumulative = np.cumsum(per_bucket, 1)
        sums = count * np.exp(self._mu + 0.32)[:, None] * rng.uniform(0.8, 1.2, count.shape)
        moves[: 24 * groups] = cumulative.reshape(24 * groups, DAY)
        moves[24 * groups : 26 * groups] = sums
        moves[26 * groups : 28 * groups] = count
        shares = np.array([0.9, 0.06, 0.03, 0.005, 0.005])
        moves[28 * groups : 38 * groups] = rng.poisson(np.outer(self._rate, shares).ravel()[:, None] * load)
        pool = rng.integers(-3, 4, (6 * groups, DAY)) * (rng.random((6 * groups, DAY)) < 0.3)
        disk = np.floor(self._slope[:, None] * rng.uniform(0, 2, (6 * groups, DAY)) / 4096) * 4096
        moves[44 * groups :] = -disk * (rng.random(disk.shape) < 0.2)
        moves[:, 0] += self._state
        values = np.cumsum(moves, axis=1)
        level = self._state[38 * groups : 44 * groups]
        for at in range(DAY):  # a pool has between 0 and 50 connections in use
            level = np.clip(level + pool[:, at], 0, 50)
            values[38 * groups : 44 * groups, at] = level
        self._state = values[:, -1].copy()
        return values


class Yesterday(SystemClock):
    """A clock by which the given day is over, whose waits are none."""

    def __init__(self, day: int) -> None:
        self._now_ms = (day + 1) * DAY_MS + 2 * 3_600_000

    def now_ms(self) -> int:
        return self._now_ms

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds * 0)


def labels_of(series: int) -> tuple[str, dict[str, str]]:
    """20 names of the same number of instances each."""
    return f"metric_{series % 20}", {"instance": f"host-{series // 20}", "job": "app"}


async def add_series(connection: Any, count: int) -> list[int]:
    names, labels = zip(*(labels_of(n) for n in range(count)), strict=True)
    rows = await connection.fetch(
        "insert into quantum_series (name, labels, fingerprint) "
        "select name, labels::jsonb, gen_random_uuid() from unnest($1::text[], $2::text[]) as n (name, labels) "
        "returning id",
        list(names),
        [json.dumps(one) for one in labels],
    )
    return [row["id"] for row in rows]


async def add_chunks(connection: Any, day: int, ids: list[int], values: np.ndarray) -> None:
    """A day as packing leaves it, samples and five-minute rows."""
    date = date_of(day)
    for table in ("quantum_chunks", "quantum_rollups"):
        await connection.execute(
            "select quantum_ensure_day_partitions($1::text::regclass, $2, $2)", table, date
        )
        await connection.execute(f"alter table {table}_{date:%Y%m%d} set (toast_tuple_target = 256)")
    ts_us = day * DAY_MS * 1000 + STEP_S * 1_000_000 * np.arange(DAY, dtype=np.int64)
    chunks = [to_row(ids[at], chunk) for at in range(len(ids)) for chunk in encode(ts_us, values[at])]
    await connection.copy_records_to_table("quantum_chunks", records=chunks, columns=COLUMNS)
    five = [row for at in range(len(ids)) for row in rollups(ids[at], ts_us, values[at])]
    await connection.copy_records_to_table("quantum_rollups", records=five, columns=(*COLUMNS, "stat"))


async def add_rows(connection: Any, day: int, ids: list[int], values: np.ndarray) -> None:
    """A day as the writer leaves it: in the order of time."""
    date = date_of(day)
    await connection.execute("select quantum_ensure_day_partitions('quantum_samples', $1, $1)", date)
    encoder = CopyEncoder()
    for lo in range(0, DAY, 240):
        ts = day * DAY_MS + STEP_S * 1000 * np.arange(lo, lo + 240, dtype=np.int64)
        rows = SampleRows(
            np.repeat(np.array(ids, np.int32), 240), np.tile(ts, len(ids)), values[:, lo : lo + 240].ravel()
        )
        await connection.copy_to_table(
            "quantum_samples", source=io.BytesIO(b"".join(encoder.encode(rows))),
            columns=["ts", "series_id", "value"], format="binary",
        )  # fmt: skip


async def add_arrays(connection: Any, day: int, ids: list[int], values: np.ndarray) -> None:
    """Plain arrays of 480 values, two hours each."""
    await connection.execute(
        "create table plain (series_id integer, start_ts timestamptz, v float8[], "
        "primary key (series_id, start_ts))"
    )
    start = datetime.combine(date_of(day), datetime.min.time(), UTC)
    await connection.copy_records_to_table("plain", columns=["series_id", "start_ts", "v"], records=[
        (ids[at], start + timedelta(seconds=STEP_S * lo), values[at, lo : lo + 480].tolist())
        for lo in range(0, DAY, 480) for at in range(len(ids))
    ])  # fmt: skip


async def bytes_of(connection: Any, pattern: str) -> int:
    return int(await connection.fetchval(
        "select sum(pg_total_relation_size(oid)) from pg_class where relkind = 'r' and relname ~ $1", pattern
    ))  # fmt: skip


async def median_ms(read: Callable[[], Awaitable[int]], runs: int, expected: int) -> float:
    taken = []
    for _ in range(runs + 2):
        started = time.perf_counter()
        found = await read()
        taken.append((time.perf_counter() - started) * 1e3)
        if found != expected:
            raise SystemExit(f"read {found} samples, not {expected}")
    return statistics.median(taken[2:])


async def measure(url: str, args: argparse.Namespace) -> None:
    await migrate_up(url, asset_dir("sql"))
    connection = await asyncpg.connect(url)
    database = Database(url, SystemClock())
    history = History(database)
    ids = await add_series(connection, args.series)
    application = Application(args.series)
    started = time.perf_counter()
    for day in range(args.days):
        await add_chunks(connection, FIRST_DAY + day, ids, application.day())
    samples = args.series * args.days * DAY
    print(
        f"{args.series} series, {args.days} days, {samples} samples in {time.perf_counter() - started:.0f} s\n"
    )
    hot_day, few = FIRST_DAY + args.days, ids[: args.row_series]
    values = application.day()[: args.row_series]
    await add_rows(connection, hot_day, few, values)
    await add_arrays(connection, hot_day, few, values)
    await connection.execute("vacuum (freeze, analyze)")
    await connection.execute("checkpoint")  # what the generator wrote is no part of reading
    size = {
        "chunks": await bytes_of(connection, "^quantum_chunks_2") / samples,
        "rows and their key": await bytes_of(connection, f"^quantum_samples_{date_of(hot_day):%Y%m%d}")
        / values.size,
        "float8[480]": await bytes_of(connection, "^plain$") / values.size,
    }
    rollup = await bytes_of(connection, "^quantum_rollups_2") / samples

    def reader(day: int, *matchers: Matcher) -> Callable[[], Awaitable[int]]:
        async def read() -> int:
            first = day * DAY_MS
            block = await history.read(matchers, first, first + DAY_MS - 1, max_samples=50_000_000)
            return len(block.ts_ms)

        return read

    async def plain(count: int) -> int:
        rows = await connection.fetch(
            "select series_id, v from plain where series_id = any($1::int[]) order by 1, start_ts",
            few[:count],
        )
        return len(np.concatenate([np.array(row["v"]) for row in rows]))

    def view(day: int) -> Callable[[], Awaitable[int]]:
        async def read() -> int:
            first = datetime.combine(date_of(day), datetime.min.time(), UTC)
            return int(await connection.fetchval(
                "select count(value) from quantum_metrics_between($1, $2) where name = 'metric_3' "
                "and labels @> '{\"instance\": \"host-1\"}'", first, first + timedelta(days=1, microseconds=-1),
            ))  # fmt: skip

        return read

    name, host = Matcher("__name__", MatchOp.EQUAL, "metric_3"), Matcher("instance", MatchOp.EQUAL, "host-1")
    ten = len(few) // 20
    old = FIRST_DAY + args.days // 2
    many = args.series // 20
    one = await median_ms(reader(old, name, host), args.runs, DAY)
    hundred = await median_ms(reader(old, name), args.runs, many * DAY)
    rows_one = await median_ms(reader(hot_day, name, host), args.runs, DAY)
    rows_few = await median_ms(reader(hot_day, name), args.runs, ten * DAY)
    plain_one = await median_ms(lambda: plain(1), args.runs, DAY)
    plain_few = await median_ms(lambda: plain(ten), args.runs, ten * DAY)
    print(f"| form | bytes a sample | one series, one day, ms | {many} series, ms | {ten} series, ms |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| chunks | {size['chunks']:.2f} | {one:.2f} | {hundred:.1f} | |")
    print(f"| rows and their key | {size['rows and their key']:.1f} | {rows_one:.1f} | | {rows_few:.0f} |")
    print(f"| float8[480] | {size['float8[480]']:.2f} | {plain_one:.1f} | | {plain_few:.1f} |")
    print(f"\nFive-minute history: {rollup:.2f} bytes for each sample of the day that it stands for.")
    sql = await median_ms(view(old), args.runs, DAY)
    print(f"One series, one day through SQL (quantum_metrics_between): {sql:.1f} ms.")
    before = await history.read([name], hot_day * DAY_MS, (hot_day + 1) * DAY_MS)
    started = time.perf_counter()
    await Packing(database, PackingMetrics(CollectorRegistry()), Yesterday(hot_day)).pack()
    seconds = time.perf_counter() - started
    after = await history.read([name], hot_day * DAY_MS, (hot_day + 1) * DAY_MS)
    same = np.array_equal(before.values.view(np.int64), after.values.view(np.int64))
    print(f"Packing {values.size} rows: {values.size / seconds / 1e3:.0f} k rows/s; reads the same: {same}.")
    started = time.perf_counter()
    await connection.execute(
        f"alter table quantum_chunks detach partition quantum_chunks_{date_of(FIRST_DAY):%Y%m%d} concurrently"
    )
    await connection.execute(f"drop table quantum_chunks_{date_of(FIRST_DAY):%Y%m%d}")
    print(f"Dropping a day: {(time.perf_counter() - started) * 1e3:.0f} ms.")
    await database.close()
    await connection.close()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--row-series", type=int, default=200)
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qe-chunks-"))
    cluster = Cluster(folder / "server", SERVER)
    cluster.prepare()
    cluster.launch()
    try:
        await measure(cluster.url, args)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
