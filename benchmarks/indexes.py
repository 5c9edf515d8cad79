# ruff: noqa: E501, ISC004
"""The platform's indexes and views at size: each query with its index and without it, in the same run.

usage: python benchmarks/indexes.py [--trades 1000000] [--snapshots 10000000] [--runs 7]

"Without it" hides that one index from the planner (`indisvalid` off) and leaves every other: the single-column
indexes of the platform then do what they can. Times of queries are the server's own (EXPLAIN ANALYZE, execution,
no parallel workers), because the way to the client would hide what takes tenths of a millisecond; times of views
are a client's. Beside them stands the processor time of the server's process (schedstat of Linux): on a busy machine
the clock tells how many others ran.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from exporter.assets import asset_dir
from exporter.db.cluster import Cluster
from exporter.db.migrate import migrate_up

SERVER = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "fsync": "off",
    "maintenance_work_mem": "512MB",
}
# two years of trades of 1,000 users, every column filled as the platform does, active until their timeframe is over
# (2,800 are, 20 of them overdue); an hour between the snapshots of a trade
SEED = """
set session_replication_role = replica;
insert into users (id) select md5('u' || n)::uuid from generate_series(1, 1000) n;
insert into btc_trades (id, user_id, symbol, entry_min, entry_max, entry_optimal, tp1_price, tp2_price, tp3_price,
    stop_loss_price, max_loss_percent, timeframe, timeframe_hours, status, confidence_score, quantum_reasoning,
    mathematical_justification, wave_pattern_collapse, data_quality_score, cross_api_proof, historical_triggers,
    generated_at, expires_at, last_validated_at)
select md5('t' || n)::uuid, md5('u' || 1 + (n * 7919::bigint) % 1000)::uuid, 'BTC',
    price - 200, price + 200, price, price + 400, price + 800, price + 1200, price - 600, 0.94,
    (array['1h', '4h', '1d', '1w'])[1 + n % 4], hours,
    case when made + lasts > now() or (n % 1000 = 0 and n <= {trades} / 50) then 'ACTIVE'
        else (array['HIT', 'NOT_HIT', 'EXPIRED', 'INVALIDATED'])[1 + (n / 4) % 4] end,
    (n * 37::bigint) % 101, repeat(md5(n::text), 8), repeat(md5(n::text), 6), 'IMPULSE', 40 + n % 61,
    jsonb_build_object('coinmarketcap', price, 'coingecko', price + 6.4, 'kraken', price - 6.4),
    jsonb_build_array(md5(n::text)), made, made + lasts, made
from generate_series(1, {trades}) n
cross join lateral (select (array[1, 4, 24, 168])[1 + n % 4] as hours, 60000 + n % 9000 + 0.25 as price) h
cross join lateral (select now() - interval '730 days' * (n::float8 / {trades}) as made,
    make_interval(hours => hours) as lasts) t;
insert into btc_hourly_snapshots (trade_id, price, sentiment_score, deviation_from_prediction, phase_shift_detected,
    data_quality_score, snapshot_at)
select md5('t' || 1 + n % {trades})::uuid, 60000 + n % 1000, n % 101, (n % 2001 - 1000) / 10.0, n % 500 = 0,
    30 + n % 71,
    now() - interval '730 days' * ((n % {trades} + 1)::float8 / {trades}) + interval '1 hour' * (n / {trades})
from generate_series(0, {snapshots} - 1) n;
insert into quantum_anomaly_logs (anomaly_type, severity, system_suspended, detected_at, resolved_at)
select 'type' || n % 20, (array['INFO', 'WARNING', 'FATAL'])[1 + n % 3], n % 400 = 0,
    now() - make_interval(secs => 60 * n), case when n % 500 <> 0 then now() end from generate_series(1, 100000) n;
insert into prediction_accuracy_database (overall_accuracy_rate, period_start, period_end, created_at)
select 40 + n % 60, now() - make_interval(hours => n), now() - make_interval(hours => n - 1),
    now() - make_interval(hours => n - 1) from generate_series(1, 10000) n;
insert into api_latency_reliability_logs (api_name, response_time_ms, status_code, success, requested_at)
select 'api' || n % 7, n % 900, case when n % 10 = 0 then 500 else 200 end, n % 10 <> 0,
    now() - make_interval(secs => 10 * n) from generate_series(1, 200000) n;
select quantum_ensure_day_partitions('performance_metrics', current_date - 3, current_date + 1);
insert into performance_metrics (metric_type, metric_name, value, unit, context, timestamp)
select (array['api_response', 'db_query', 'system_health'])[1 + n % 3], '/endpoint/' || n % 40, n % 700, 'ms',
    jsonb_build_object('success', n % 25 <> 0, 'provider', 'provider' || n % 9, 'outcome', 'success'),
    now() - make_interval(secs => 2 * n) from generate_series(1, 100000) n;
insert into system_alerts (severity, type, title, message, triggered_at, resolved_at)
select (array['CRITICAL', 'WARNING', 'INFO'])[1 + n % 3], 'Alert' || n % 12, 't', 'm',
    now() - make_interval(mins => n), case when n % 1000 <> 0 then now() - make_interval(mins => n - 1) end
from generate_series(1, 100000) n;
"""
USER = "md5('u' || 424)::uuid"
# name, aim, the index, the query
CASES = (
    ("a user's active trades", 10, "idx_btc_trades_user_status",
     f"select * from btc_trades where user_id = {USER} and status = 'ACTIVE'"),
    ("expiry checks", 5, "idx_btc_trades_expires_status",
     "select id, user_id from btc_trades where status = 'ACTIVE' and expires_at < now() "
     "order by expires_at limit 500"),
    ("performance by timeframe", 8, "idx_btc_trades_timeframe_status",
     "select status, count(*), avg(confidence_score) from btc_trades where timeframe = '1h' group by status"),
    ("recent data: trades of 24 hours", 15, "idx_btc_trades_generated_at",
     "select id, symbol, status, confidence_score from btc_trades "
     "where generated_at > now() - interval '24 hours' order by generated_at desc"),
    ("recent data: snapshots of 3 hours", 15, "idx_btc_hourly_snapshots_snapshot_at",
     "select avg(data_quality_score) from btc_hourly_snapshots where snapshot_at > now() - interval '3 hours'"),
    ("newest snapshot of a trade", 0, "idx_btc_hourly_snapshots_trade_snapshot",
     "select * from btc_hourly_snapshots where trade_id = md5('t' || 4242)::uuid order by snapshot_at desc limit 1"),
)  # fmt: skip
VIEWS = (
    ("v_active_trades_with_snapshot, a user's", f"select * from v_active_trades_with_snapshot where user_id = {USER}"),
    ("v_active_trades_with_snapshot, newest 100",
     "select * from v_active_trades_with_snapshot order by generated_at desc limit 100"),
    ("v_active_trades_with_snapshot, all", "select * from v_active_trades_with_snapshot"),
    ("v_trade_performance_summary", "select * from v_trade_performance_summary"),
    ("v_api_reliability_summary", "select * from v_api_reliability_summary"),
    ("v_system_health_dashboard", "select * from v_system_health_dashboard"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Taken:
    """Milliseconds by the clock and of the processor."""

    clock: float
    cpu: float

    @classmethod
    def median(cls, runs: Sequence[Taken]) -> Taken:
        return cls(statistics.median(one.clock for one in runs), statistics.median(one.cpu for one in runs))


class Server:
    """One connection without parallel workers, and the processor time of its process."""

    def __init__(self, connection: Any, pid: int) -> None:
        self._connection = connection
        self._schedstat = Path(f"/proc/{pid}/schedstat")

    @classmethod
    async def of(cls, connection: Any) -> Server:
        await connection.execute("set max_parallel_workers_per_gather = 0")
        return cls(connection, await connection.fetchval("select pg_backend_pid()"))

    def cpu_ms(self) -> float:
        return int(self._schedstat.read_text().split()[0]) / 1e6

    async def execute(self, query: str) -> Taken:
        """The server's own time of the query, the second time, without what planning and telling take."""
        explain = f"explain (analyze, timing off, format json) {query}"
        await self._connection.fetchval(explain)
        before = self.cpu_ms()
        await self._connection.fetchval(f"explain (format json) {query}")
        between = self.cpu_ms()
        [plan] = json.loads(await self._connection.fetchval(explain))
        return Taken(plan["Execution Time"], max(self.cpu_ms() - 2 * between + before, 0.0))

    async def fetch(self, query: str, runs: int) -> Taken:
        """The median time until a client has all rows."""
        taken = []
        await self._connection.fetch(query)
        for _ in range(runs):
            started, before = time.perf_counter(), self.cpu_ms()
            await self._connection.fetch(query)
            taken.append(Taken((time.perf_counter() - started) * 1e3, self.cpu_ms() - before))
        return Taken.median(taken)


async def hide(connection: Any, index: str, hidden: bool) -> None:
    await connection.execute(
        "update pg_index set indisvalid = $2 where indexrelid = $1::text::regclass", index, not hidden
    )


async def seed(connection: Any, args: argparse.Namespace) -> None:
    """The rows, with the indexes of the large tables made after them."""
    indexes = await connection.fetch(
        "select indexname, indexdef from pg_indexes join pg_class on relname = indexname "
        "join pg_index on indexrelid = pg_class.oid where not indisprimary "
        "and tablename in ('btc_trades', 'btc_hourly_snapshots')"
    )
    for row in indexes:
        await connection.execute(f"drop index {row['indexname']}")
    for statement in SEED.format(trades=args.trades, snapshots=args.snapshots).split(";\n"):
        if statement.strip():
            await connection.execute(statement, timeout=1800)
    for row in indexes:
        await connection.execute(row["indexdef"], timeout=1800)
    await connection.execute("vacuum analyze", timeout=1800)


async def measure(url: str, args: argparse.Namespace) -> None:
    """Seed where the database is empty, then print the tables."""
    await migrate_up(url, asset_dir("sql"))
    connection = await asyncpg.connect(url, statement_cache_size=0)
    if not await connection.fetchval("select exists (select from users)"):
        await seed(connection, args)
    server = await Server.of(connection)
    print(f"{args.trades} trades, {args.snapshots} snapshots, medians of {args.runs} runs\n")
    print("| query | with, ms | without, ms | ratio | with, ms of CPU | without | ratio | aim |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, aim, index, query in CASES:
        runs: dict[bool, list[Taken]] = {False: [], True: []}
        for _ in range(args.runs):  # by turns, so that both meet the same load
            for hidden in (False, True):
                await hide(connection, index, hidden)
                runs[hidden].append(await server.execute(query))
        await hide(connection, index, False)
        have, lack = (Taken.median(runs[hidden]) for hidden in (False, True))
        clock = f"{have.clock:.2f} | {lack.clock:.2f} | {lack.clock / have.clock:.1f}"
        cpu = "| |"
        if have.cpu > 1:  # below, planning varies by as much
            cpu = f"{have.cpu:.1f} | {lack.cpu:.1f} | {lack.cpu / have.cpu:.1f}"
        print(f"| {name} | {clock} | {cpu} | {aim or ''} |", flush=True)
    print("\n| view | ms | ms of CPU | aim |\n| --- | --- | --- | --- |")
    for name, query in VIEWS:
        view = await server.fetch(query, args.runs)
        print(f"| {name} | {view.clock:.1f} | {view.cpu:.1f} | under 100 |", flush=True)
    await connection.close()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trades", type=int, default=1_000_000)
    parser.add_argument("--snapshots", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--url", help="an empty database of this machine instead of a server of its own")
    args = parser.parse_args()
    if args.url:
        await measure(args.url, args)
        return
    folder = Path(tempfile.mkdtemp(prefix="qe-indexes-"))
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
