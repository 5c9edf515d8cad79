"""Upkeep by hand: old data out, tables vacuumed, advice on indexes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from exporter.db.pool import Database, Purpose
from exporter.errors import StorageError

# the tables that we or the platform own, and the partitions under them, largest first
_TABLES = """
with roots as (
    select c.oid, c.relkind from pg_class c
    where c.oid in (
        to_regclass('users'), to_regclass('btc_trades'), to_regclass('btc_hourly_snapshots'),
        to_regclass('quantum_anomaly_logs'), to_regclass('prediction_accuracy_database'),
        to_regclass('api_latency_reliability_logs'), to_regclass('performance_metrics'),
        to_regclass('system_alerts'), to_regclass('quantum_series'), to_regclass('quantum_samples'),
        to_regclass('quantum_chunks'), to_regclass('quantum_rollups')
    )
)
select c.oid::regclass::text as name, coalesce(s.n_dead_tup, 0) as dead, pg_table_size(c.oid) as size
from pg_class c left join pg_stat_user_tables s on s.relid = c.oid
where c.relkind = 'r' and (
    c.oid in (select oid from roots)
    or c.oid in (select i.inhrelid from pg_inherits i join roots r on r.oid = i.inhparent)
)
order by size desc, name
"""
_INVALID = """
select i.indexrelid::regclass::text as name
from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
where not i.indisvalid and c.relkind = 'i' and n.nspname not in ('pg_catalog', 'pg_toast')
"""


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What `cleanup_old_data` did with one table."""

    table: str
    action: str
    removed: int
    remark: str


@dataclass(frozen=True, slots=True)
class Optimized:
    """One table vacuumed, or one invalid index built again; `error` says why not."""

    name: str
    dead_rows: int
    freed_bytes: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding of `analyze_query_performance`; `statement` is empty where none is certain enough."""

    kind: str
    object: str
    detail: str
    suggestion: str
    statement: str


async def cleanup(
    database: Database, days: int, progress: Callable[[str], None] = lambda _: None
) -> tuple[Cleanup, ...]:
    """Remove what is older than `days`, in calls of bounded size until nothing is due.

    Raises: StorageError where the database does not answer or refuses.
    """
    total: dict[str, Cleanup] = {}
    async with database.acquire(Purpose.MAINTAIN) as connection:
        while True:
            rows = await connection.fetch("select * from cleanup_old_data($1)", days)
            more = False
            for row in rows:
                table = row["table_name"]
                before = total[table].removed if table in total else 0
                if before and not row["removed"]:
                    continue  # a later call that found nothing: the earlier remark says more
                total[table] = Cleanup(table, row["action"], before + row["removed"], row["remark"])
                more = more or row["remark"].startswith("more are due")
            progress(", ".join(f"{one.table} {one.removed}" for one in total.values()))
            if not more:
                return tuple(total.values())


async def optimize(
    database: Database, on_step: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[Optimized, ...]:
    """VACUUM (ANALYZE) each of our tables and the platform's, and build invalid indexes again.

    `on_step(name, done, total)` is called before each step. A step that fails does not end the others.
    Raises: StorageError where the database cannot be reached.
    """
    async with database.acquire(Purpose.MAINTAIN) as connection:
        await connection.execute("set statement_timeout = 0")
        tables = await connection.fetch(_TABLES)
        indexes = await connection.fetch(_INVALID)
    steps: list[tuple[str, int, int, str]] = [
        (row["name"], row["dead"], row["size"], f"vacuum (analyze) {row['name']}") for row in tables
    ]
    steps += [(row["name"], 0, 0, f"reindex index concurrently {row['name']}") for row in indexes]
    results = []
    for done, (name, dead, size, statement) in enumerate(steps):
        on_step(name, done, len(steps))
        results.append(await _step(database, name, dead, size, statement))
    return tuple(results)


async def _step(database: Database, name: str, dead: int, size: int, statement: str) -> Optimized:
    try:
        async with database.acquire(Purpose.MAINTAIN) as connection:
            await connection.execute("set statement_timeout = 0")
            await connection.execute(statement)
            after = await connection.fetchval("select pg_table_size($1::text::regclass)", name) if size else 0
    except StorageError as error:
        return Optimized(name, dead, 0, str(error))
    return Optimized(name, dead, max(0, size - after))


async def suggest_indexes(database: Database) -> tuple[Advice, ...]:
    """What the statistics suggest. Raises: StorageError."""
    async with database.acquire(Purpose.MAINTAIN) as connection:
        rows: list[Any] = await connection.fetch("select * from analyze_query_performance()")
    return tuple(
        Advice(row["kind"], row["object"], row["detail"], row["suggestion"], row["statement"] or "")
        for row in rows
    )
