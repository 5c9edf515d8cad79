"""Database: Postgres' own statistics, our queries, and the way of samples into it."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.dashboards import thresholds as limits
from exporter.dashboards.common import database_up, durations, quantile
from exporter.dashboards.model import Dashboard, Panel, Row, Variable
from exporter.dashboards.panels import (
    alert_links,
    good_above,
    good_below,
    lines,
    prom,
    sql,
    stat,
    table,
    trouble,
)

_OF = 'table=~"$table"'
TABLE = Variable("table", "Table", "label_values(quantum_db_query_duration_seconds_count, table)")


def database() -> Dashboard:
    """Postgres, and persistence into it."""
    return Dashboard(
        "quantum-database",
        "Quantum / Database",
        "Postgres by its own statistics, the queries measured here, and how samples get into it.",
        (
            Row("State", _state()),
            Row("Queries", _queries()),
            Row("Persistence", _persistence()),
            Row("Postgres", _postgres()),
            Row("Tables", _tables()),
        ),
        (TABLE,),
    )


def _state() -> Sequence[Panel]:
    used = "quantum_postgres_connections_used / quantum_postgres_max_connections"
    return (
        database_up(filled=True),
        stat(
            "Probe",
            prom("quantum_database_probe_duration_seconds", "time"),
            "Time of the last probe.",
            "s",
            steps=good_below(limits.QUERY_P95_S, 5),
        ),
        stat(
            "Connections in use",
            prom(used, "share"),
            "Client connections over max_connections.",
            "percentunit",
            steps=good_below(0.8, 0.95),
        ),
        stat(
            "Buffer cache",
            prom("quantum_postgres_cache_hit_ratio", "hits"),
            "Share of block reads found in Postgres' own cache since its statistics began.",
            "percentunit",
            steps=good_above(0.9, 0.99),
            decimals=2,
        ),
        stat("Size", prom("quantum_postgres_database_size_bytes", "size"), "Size of the database.", "bytes"),
        stat(
            "Up for",
            prom("quantum_postgres_uptime_seconds", "uptime"),
            "Time since the server started.",
            "s",
            graph=False,
        ),
    )


def _queries() -> Sequence[Panel]:
    rate = f"sum by (operation) (rate(quantum_db_query_duration_seconds_count{{{_OF}}}[$__rate_interval]))"
    failed = (
        "sum by (table) (rate(quantum_db_query_duration_seconds_count"
        f'{{{_OF},outcome!="success"}}[$__rate_interval]))'
    )
    return (
        *durations(
            "Query time",
            "quantum_db_query_duration_seconds",
            _OF,
            "table",
            limits.QUERY_P95_S,
            what="queries",
            target="The target for p95 is 100 ms.",
            alert="QueryLatencyHigh",
        ),
        lines(
            "Queries",
            prom(rate, "{{operation}}"),
            "Queries per second by operation.",
            "reqps",
            stacked=True,
            width=6,
        ),
        lines(
            "Failed queries",
            prom(failed, "{{table}}"),
            "Queries per second that failed, by table.",
            "reqps",
            stacked=True,
            width=6,
            no_value="none failed",
        ),
    )


def _persistence() -> Sequence[Panel]:
    age = "time() - quantum_persistence_last_progress_timestamp_seconds"
    return (
        stat(
            "Last progress",
            prom(age, "age"),
            "Time since samples were last safe in Postgres or the spool.",
            "s",
            steps=good_below(60, 120),
            links=alert_links("MetricsPipelineStalled"),
            width=6,
        ),
        stat(
            "Not yet in Postgres",
            prom("quantum_writer_lag_seconds", "lag"),
            "Age of the oldest sample that is not yet in Postgres.",
            "s",
            steps=good_below(60, 600),
            width=6,
        ),
        stat(
            "Spool",
            prom("quantum_spool_bytes", "size"),
            "Samples on disk that wait for Postgres.",
            "bytes",
            steps=good_below(1, 1024**3),
            width=6,
        ),
        stat(
            "Dropped in 24 h",
            prom("sum(increase(quantum_samples_dropped_total[24h]))", "samples"),
            "Samples given up; 0 unless the spool was full or the disk failed.",
            "short",
            steps=good_below(1),
            decimals=0,
            width=6,
            links=alert_links("SamplesLost"),
        ),
        lines(
            "Samples",
            (
                prom("rate(quantum_samples_persisted_total[$__rate_interval])", "into Postgres"),
                prom("rate(quantum_samples_spooled_total[$__rate_interval])", "into the spool"),
                prom("sum(rate(quantum_samples_dropped_total[$__rate_interval]))", "dropped"),
            ),
            "Samples per second on their way.",
            "cps",
            width=8,
        ),
        lines(
            "Spool and lag",
            (
                prom("quantum_spool_batches", "batches in the spool"),
                prom("quantum_writer_lag_seconds", "lag (s)"),
            ),
            "What an outage leaves behind, and how fast it is caught up.",
            "short",
            width=8,
        ),
        lines(
            "Events",
            (
                prom("rate(quantum_events_persisted_total[$__rate_interval])", "into Postgres"),
                prom("rate(quantum_events_spooled_total[$__rate_interval])", "into the spool"),
                prom("sum(rate(quantum_events_dropped_total[$__rate_interval]))", "dropped"),
            ),
            "Rows of performance_metrics per second.",
            "cps",
            width=8,
        ),
        lines(
            "Time of a write, p95",
            (
                prom(quantile(0.95, "quantum_writer_write_seconds"), "samples"),
                prom(quantile(0.95, "quantum_events_writer_write_seconds"), "events"),
            ),
            "One batch into Postgres by binary COPY.",
            "s",
        ),
        trouble(
            "Given up and not cleaned up",
            (
                prom("sum by (reason) (increase(quantum_samples_dropped_total[1h]))", "samples: {{reason}}"),
                prom("sum by (reason) (increase(quantum_events_dropped_total[1h]))", "events: {{reason}}"),
                prom("increase(quantum_retention_failures_total[1h])", "retention runs that failed"),
            ),
            "Of the last hour. Nothing here is as it should be.",
            links=alert_links("SamplesLost"),
            width=12,
        ),
    )


def _postgres() -> Sequence[Panel]:
    return (
        lines(
            "Connections",
            (
                prom("quantum_postgres_connections", "{{state}}"),
                prom("quantum_postgres_connections_waiting", "waiting for a lock"),
            ),
            "Client connections of this database by state.",
            "short",
        ),
        lines(
            "Transactions",
            (
                prom("rate(quantum_postgres_commits_total[$__rate_interval])", "committed"),
                prom("rate(quantum_postgres_rollbacks_total[$__rate_interval])", "rolled back"),
            ),
            "Transactions per second.",
            "ops",
        ),
        lines(
            "Oldest",
            (
                prom("quantum_postgres_longest_transaction_seconds", "transaction"),
                prom("quantum_postgres_longest_query_seconds", "query"),
            ),
            "Age of the oldest open transaction and of the oldest running query.",
            "s",
            width=8,
            steps=good_below(300),
        ),
        lines(
            "Locks",
            prom("quantum_postgres_locks > 0", "{{mode}}"),
            "Locks in this database by mode; AccessExclusiveLock stops readers too.",
            "short",
            stacked=True,
            width=8,
        ),
        lines(
            "Trouble",
            (
                prom("increase(quantum_postgres_deadlocks_total[1h])", "deadlocks (1 h)"),
                prom("increase(quantum_postgres_conflicts_total[1h])", "conflicts (1 h)"),
                prom("quantum_postgres_slow_queries", "slow queries now"),
                prom("quantum_postgres_long_transactions", "long transactions now"),
            ),
            "Deadlocks and conflicts of the last hour; queries over 1 s and transactions over 5 min now.",
            "short",
            width=8,
        ),
        lines(
            "Blocks",
            (
                prom("rate(quantum_postgres_blocks_hit_total[$__rate_interval])", "from the buffer cache"),
                prom("rate(quantum_postgres_blocks_read_total[$__rate_interval])", "read"),
            ),
            "Blocks per second.",
            "ops",
            stacked=True,
            width=6,
        ),
        lines(
            "Temporary files",
            prom("rate(quantum_postgres_temp_bytes_total[$__rate_interval])", "written"),
            "Sorts and joins that did not fit in work_mem.",
            "Bps",
            width=6,
        ),
        lines(
            "Standby",
            (
                prom("quantum_postgres_replication_lag_seconds", "lag of this standby (s)"),
                prom("quantum_postgres_in_recovery", "is a standby"),
            ),
            "How far this server is behind its primary; nothing on a primary.",
            "short",
            no_value="this is the primary",
            width=6,
        ),
        lines(
            "Replicas",
            prom("quantum_postgres_replica_lag_bytes", "{{application_name}}"),
            "WAL that each standby of this server has not replayed yet.",
            "bytes",
            no_value="this server has no standby",
            width=6,
        ),
    )


def _tables() -> Sequence[Panel]:
    return (
        lines(
            "Size by table",
            prom("topk(8, quantum_postgres_table_size_bytes)", "{{table}}"),
            "The eight largest, with indexes and TOAST.",
            "bytes",
            stacked=True,
        ),
        lines(
            "Dead rows",
            prom(
                "topk(8, quantum_postgres_table_dead_rows_ratio and quantum_postgres_table_dead_rows > 1000)",
                "{{table}}",
            ),
            "Share of rows that vacuum has not taken back, of tables with over 1000 such rows.",
            "percentunit",
            no_value="no table has over 1000 dead rows",
            highest=1,
            steps=good_below(0.2),
        ),
        lines(
            "Sequential scans",
            prom(
                "topk(8, rate(quantum_postgres_table_sequential_scans_total[$__rate_interval]) > 0)",
                "{{table}}",
            ),
            "Scans per second of whole tables; on a large table an index may be missing.",
            "ops",
            width=24,
            height=7,
            no_value="none",
        ),
        table(
            "Tables",
            sql("""
              SELECT relname AS "table", pg_total_relation_size(relid) AS "size", n_live_tup AS "rows",
                n_dead_tup AS "dead rows", seq_scan AS "sequential scans", idx_scan AS "index scans",
                greatest(last_vacuum, last_autovacuum) AS "vacuumed",
                greatest(last_analyze, last_autoanalyze) AS "analysed"
              FROM pg_stat_user_tables ORDER BY 2 DESC LIMIT 30"""),
            "Postgres' statistics, largest first.",
            units={"size": "bytes", "vacuumed": "dateTimeFromNow", "analysed": "dateTimeFromNow"},
            width=24,
        ),
        table(
            "Advice",
            sql("SELECT kind, object, detail, suggestion FROM analyze_query_performance()"),
            "What analyze_query_performance() makes of the statistics: missing, unused and double indexes.",
            height=6,
            no_value="nothing to advise",
        ),
    )
