"""Postgres' own statistics: the probe, and declared queries on the statistics views, each on its own."""

from __future__ import annotations

import asyncio

from prometheus_client.metrics_core import GaugeMetricFamily

from exporter.clock import Clock
from exporter.collectors.base import Collected
from exporter.collectors.ports import ProbedDatabase, QueryTimer
from exporter.collectors.sqlconfig import SqlCollectorSpec, SqlMetric

PROBE_TIMEOUT_S = 5.0
_GRACE_S = (
    0.1  # the probe has its own time-out; what it then takes to give its connection back is not waited for
)
_TOP_TABLES = 20
_TOP_STATEMENTS = 10


class DatabaseProbe:
    """`quantum_database_up`: 1 where the database answers a query within 5 s, else 0; always there."""

    name = "database"
    timeout_s = PROBE_TIMEOUT_S + 1.0

    def __init__(
        self,
        database: ProbedDatabase,
        clock: Clock,
        *,
        interval_s: float = 15.0,
        timer: QueryTimer | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._timer = timer
        self._probe: asyncio.Task[bool] | None = None
        self.interval_s = interval_s

    async def collect(self) -> Collected:
        """Probe now, or look at the probe that still runs. Never raises for a database that is away."""
        start = self._clock.monotonic()
        up = await self._answers()
        seconds = self._clock.monotonic() - start
        if self._timer is not None:
            error = None if up else ConnectionError("the database does not answer")
            self._timer("SELECT", "probe", seconds, error)
        return Collected(
            [
                GaugeMetricFamily(
                    "quantum_database_up", "Whether the database answers a query within 5 s.", value=up
                ),
                GaugeMetricFamily(
                    "quantum_database_probe_duration_seconds", "Time of the last probe.", value=seconds
                ),
            ]
        )

    async def _answers(self) -> bool:
        task = self._probe
        if task is None:
            # not cancelled at the time-out: a connection that is given back must not be disturbed
            task = self._probe = asyncio.create_task(self._database.probe(PROBE_TIMEOUT_S))
        await asyncio.wait({task}, timeout=PROBE_TIMEOUT_S + _GRACE_S)
        if not task.done():
            return False
        self._probe = None
        return not task.cancelled() and task.exception() is None and task.result()


def postgres_specs() -> tuple[SqlCollectorSpec, ...]:
    """The declared queries on the statistics views of a migrated database.

    Every role may run them, some rows need pg_monitor.
    """
    return (
        _spec(
            "postgres_connections",
            """
            select coalesce(a.state, known.state) as state, count(a.pid) as value
            from (values ('active'), ('idle'), ('idle in transaction'), ('idle in transaction (aborted)'))
                as known (state)
            full join (
                select pid, coalesce(state, 'unknown') as state from pg_stat_activity
                where backend_type = 'client backend' and datname = current_database()
            ) as a on a.state = known.state
            group by 1
            """,
            _gauge("quantum_postgres_connections", "Client connections by state.", labels=("state",)),
        ),
        _spec(
            "postgres_limits",
            """
            select current_setting('max_connections')::int as max_connections,
                (select count(*) from pg_stat_activity where backend_type = 'client backend') as used,
                extract(epoch from now() - pg_postmaster_start_time()) as uptime,
                pg_is_in_recovery() as recovery
            """,
            _gauge("quantum_postgres_max_connections", "Setting max_connections.", "max_connections"),
            _gauge("quantum_postgres_connections_used", "Client connections of all databases.", "used"),
            _gauge("quantum_postgres_uptime_seconds", "Time since the server started.", "uptime"),
            _gauge("quantum_postgres_in_recovery", "Whether the server is a standby (1) or not.", "recovery"),
        ),
        _spec(
            "postgres_locks",
            """
            select known.mode, count(l.pid) as value
            from (values ('AccessShareLock'), ('RowShareLock'), ('RowExclusiveLock'),
                ('ShareUpdateExclusiveLock'), ('ShareLock'), ('ShareRowExclusiveLock'),
                ('ExclusiveLock'), ('AccessExclusiveLock')) as known (mode)
            left join pg_locks l on l.mode = known.mode and l.pid <> pg_backend_pid()
                and l.database = (select oid from pg_database where datname = current_database())
            group by 1
            """,
            _gauge("quantum_postgres_locks", "Locks in this database by mode.", labels=("mode",)),
        ),
        _spec(
            "postgres_waits",
            """
            select count(*) filter (where wait_event_type = 'Lock') as waiting,
                coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0) as longest_transaction,
                coalesce(max(extract(epoch from clock_timestamp() - query_start))
                    filter (where state = 'active'), 0) as longest_query,
                count(*) filter (where xact_start < clock_timestamp() - interval '5 minutes')
                    as long_transactions,
                count(*) filter (
                    where state = 'active' and query_start < clock_timestamp() - interval '1 second'
                ) as slow_queries
            from pg_stat_activity
            where backend_type = 'client backend' and datname = current_database() and pid <> pg_backend_pid()
            """,
            _gauge("quantum_postgres_connections_waiting", "Connections that wait for a lock.", "waiting"),
            _gauge(
                "quantum_postgres_longest_transaction_seconds",
                "Age of the oldest open transaction.",
                "longest_transaction",
            ),
            _gauge(
                "quantum_postgres_longest_query_seconds", "Age of the oldest running query.", "longest_query"
            ),
            _gauge(
                "quantum_postgres_long_transactions",
                "Transactions open for over 5 minutes.",
                "long_transactions",
            ),
            _gauge("quantum_postgres_slow_queries", "Queries running for over 1 second.", "slow_queries"),
        ),
        _spec(
            "postgres_database",
            """
            select xact_commit, xact_rollback, deadlocks, conflicts, temp_bytes, blks_read, blks_hit,
                pg_database_size(datid) as size
            from pg_stat_database where datname = current_database()
            """,
            _counter("quantum_postgres_commits_total", "Transactions committed.", "xact_commit"),
            _counter("quantum_postgres_rollbacks_total", "Transactions rolled back.", "xact_rollback"),
            _counter("quantum_postgres_deadlocks_total", "Deadlocks found.", "deadlocks"),
            _counter("quantum_postgres_conflicts_total", "Queries cancelled by recovery.", "conflicts"),
            _counter("quantum_postgres_temp_bytes_total", "Bytes written to temporary files.", "temp_bytes"),
            _counter("quantum_postgres_blocks_read_total", "Blocks read from disk or OS cache.", "blks_read"),
            _counter("quantum_postgres_blocks_hit_total", "Blocks found in the buffer cache.", "blks_hit"),
            _gauge("quantum_postgres_database_size_bytes", "Size of the database.", "size"),
        ),
        _spec(
            "postgres_cache",
            """
            select blks_hit::float8 / (blks_hit + blks_read) as value
            from pg_stat_database where datname = current_database() and blks_hit + blks_read > 0
            """,
            _gauge(
                "quantum_postgres_cache_hit_ratio",
                "Share of block reads found in the buffer cache since the statistics were reset.",
            ),
        ),
        _spec(
            "postgres_tables",
            f"""
            select s.schemaname as schema, s.relname as table, pg_total_relation_size(s.relid) as size,
                greatest(c.reltuples, s.n_live_tup, 0) as live, s.n_dead_tup as dead,
                s.n_dead_tup::float8 / greatest(s.n_dead_tup + s.n_live_tup, 1) as dead_ratio,
                s.seq_scan, coalesce(s.idx_scan, 0) as idx_scan
            from pg_stat_user_tables s join pg_class c on c.oid = s.relid
            order by c.relpages desc, s.relname limit {_TOP_TABLES}
            """,
            _table_gauge("quantum_postgres_table_size_bytes", "Size with indexes and TOAST.", "size"),
            _table_gauge("quantum_postgres_table_live_rows", "Estimated live rows.", "live"),
            _table_gauge("quantum_postgres_table_dead_rows", "Estimated dead rows.", "dead"),
            _table_gauge(
                "quantum_postgres_table_dead_rows_ratio",
                "Share of dead rows: what vacuum has not taken back.",
                "dead_ratio",
            ),
            _table_counter("quantum_postgres_table_sequential_scans_total", "Sequential scans.", "seq_scan"),
            _table_counter("quantum_postgres_table_index_scans_total", "Index scans.", "idx_scan"),
            interval_ms=60_000,
        ),
        _spec(
            # no rows without pg_stat_statements
            "postgres_statements",
            f"select queryid, statement, calls, seconds from quantum_top_statements({_TOP_STATEMENTS})",
            _statement_counter(
                "quantum_postgres_statement_calls_total",
                "Calls of the statements that took most time in all.",
                "calls",
            ),
            _statement_counter(
                "quantum_postgres_statement_seconds_total",
                "Time of the statements that took most in all.",
                "seconds",
            ),
            interval_ms=60_000,
        ),
        _spec(
            # lag is unknown on a primary, and where nothing was replayed yet: then there is no row
            "postgres_replication",
            """
            select case when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
                else extract(epoch from now() - pg_last_xact_replay_timestamp()) end as value
            from (select 1) as one
            where pg_is_in_recovery() and (pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
                or pg_last_xact_replay_timestamp() is not null)
            """,
            _gauge("quantum_postgres_replication_lag_seconds", "How far this standby is behind its primary."),
        ),
        _spec(
            "postgres_replicas",
            """
            select application_name, max(pg_wal_lsn_diff(
                case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end,
                replay_lsn)) as value
            from pg_stat_replication where replay_lsn is not null group by 1
            """,
            _gauge(
                "quantum_postgres_replica_lag_bytes",
                "WAL that a standby of this server has not replayed.",
                labels=("application_name",),
            ),
        ),
    )


def _spec(name: str, query: str, *metrics: SqlMetric, interval_ms: int | None = None) -> SqlCollectorSpec:
    return SqlCollectorSpec(name, query.strip(), metrics, interval_ms)


def _gauge(name: str, help_text: str, value: str = "value", labels: tuple[str, ...] = ()) -> SqlMetric:
    return SqlMetric(name, "gauge", help_text, value, labels)


def _counter(name: str, help_text: str, value: str) -> SqlMetric:
    return SqlMetric(name, "counter", help_text, value)


def _table_gauge(name: str, help_text: str, value: str) -> SqlMetric:
    return SqlMetric(name, "gauge", help_text, value, ("schema", "table"))


def _table_counter(name: str, help_text: str, value: str) -> SqlMetric:
    return SqlMetric(name, "counter", help_text, value, ("schema", "table"))


def _statement_counter(name: str, help_text: str, value: str) -> SqlMetric:
    return SqlMetric(name, "counter", help_text, value, ("queryid", "statement"))
