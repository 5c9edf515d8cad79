"""The shipped indexes, views and functions, on a seeded database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.postgres import PostgresServer

# 2,000 users with 10 trades each and two snapshots a trade; a few thousand events and alerts; a UTC day full
# of events, so that the planner has as much to choose from just after midnight
SEED = """
insert into users (id) select gen_random_uuid() from generate_series(1, 2000);
insert into btc_trades
    (user_id, timeframe, status, confidence_score, data_quality_score, generated_at, expires_at)
select u.id, (array['1h', '4h', '1d', '1w'])[1 + n % 4],
    (array['HIT', 'NOT_HIT', 'EXPIRED', 'INVALIDATED', 'HIT',
        'NOT_HIT', 'EXPIRED', 'HIT', 'HIT', 'ACTIVE'])[n],
    (n * 37 + k) % 101, 40 + (n * 7 + k) % 61,
    now() - make_interval(mins => (k * 10 + n)::int), now() - make_interval(mins => (k * 10 + n)::int - 600)
from (select id, row_number() over () as k from users) u, generate_series(1, 10) n;
insert into btc_hourly_snapshots (trade_id, price, deviation_from_prediction, phase_shift_detected,
    data_quality_score, snapshot_at)
select t.id, 60000 + k % 1000, (k % 2001 - 1000) / 10.0, k % 500 = 0, 30 + k % 71,
    t.generated_at + make_interval(mins => 5 * n)
from (select id, generated_at, row_number() over () as k from btc_trades) t, generate_series(1, 2) n;
insert into quantum_anomaly_logs (anomaly_type, severity, system_suspended, detected_at, resolved_at)
select 'type' || n % 20, (array['INFO', 'WARNING', 'FATAL'])[1 + n % 3], n % 400 = 0,
    now() - make_interval(secs => n), case when n % 50 <> 0 then now() end
from generate_series(1, 10000) n;
insert into prediction_accuracy_database (overall_accuracy_rate, period_start, period_end, created_at)
select 40 + n % 60, now() - make_interval(hours => n), now() - make_interval(hours => n - 1),
    now() - make_interval(hours => n - 1)
from generate_series(1, 3000) n;
insert into api_latency_reliability_logs
    (api_name, response_time_ms, status_code, success, user_id, requested_at)
select 'api' || n % 7, n % 900, case when n % 10 = 0 then 500 else 200 end, n % 10 <> 0,
    case when n % 4 = 0 then (select id from users offset n % 100 limit 1) end,
    now() - make_interval(secs => 20 * n)
from generate_series(1, 10000) n;
select quantum_ensure_day_partitions('performance_metrics', current_date - 1, current_date + 1);
insert into performance_metrics (metric_type, metric_name, value, unit, context, timestamp)
select (array['api_response', 'db_query', 'system_health'])[1 + n % 3], '/endpoint/' || n % 40, n % 700, 'ms',
    jsonb_build_object('success', n % 25 <> 0, 'provider', 'provider' || n % 9),
    now() - make_interval(secs => n)
from generate_series(1, 20000) n;
insert into performance_metrics (metric_type, metric_name, value, timestamp)
select 'cache', 'entries', n % 100, date_trunc('day', now()) + make_interval(secs => 4 * n)
from generate_series(0, 21599) n;
insert into system_alerts (severity, type, title, message, triggered_at, resolved_at)
select (array['CRITICAL', 'WARNING', 'INFO'])[1 + n % 3], 'Alert' || n % 12, 't', 'm',
    now() - make_interval(mins => n), case when n % 100 <> 0 then now() - make_interval(mins => n - 1) end
from generate_series(1, 5000) n;
vacuum analyze;
"""

# each named index with the query that it is for
QUERIES = {
    "idx_btc_trades_user_status": """
        select * from btc_trades where user_id = (select id from users limit 1) and status = 'ACTIVE'""",
    "idx_btc_trades_expires_status": """
        select id from btc_trades where status = 'ACTIVE' and expires_at < now() - interval '13 days'""",
    "idx_btc_trades_timeframe_status": """
        select status, count(*), avg(confidence_score) from btc_trades where timeframe = '1h'
        group by status""",
    "idx_btc_trades_quality_score": """
        select id, generated_at from btc_trades where data_quality_score < 42
        order by data_quality_score limit 50""",
    "idx_btc_trades_recent_active": """
        select * from btc_trades where status = 'ACTIVE' order by generated_at desc limit 20""",
    "idx_btc_hourly_snapshots_trade_snapshot": """
        select * from btc_hourly_snapshots where trade_id = (select id from btc_trades limit 1)
        order by snapshot_at desc limit 1""",
    "idx_btc_hourly_snapshots_deviation": """
        select * from btc_hourly_snapshots where abs(deviation_from_prediction) > 99
        order by abs(deviation_from_prediction) desc nulls last limit 20""",
    "idx_btc_hourly_snapshots_phase_shift": """
        select * from btc_hourly_snapshots where phase_shift_detected order by snapshot_at desc limit 20""",
    "idx_btc_hourly_snapshots_quality": """
        select * from btc_hourly_snapshots where data_quality_score = 31
        order by snapshot_at desc limit 20""",
    "idx_quantum_anomaly_logs_active": """
        select * from quantum_anomaly_logs where severity = 'FATAL' and resolved_at is null
        order by detected_at desc limit 20""",
    "idx_quantum_anomaly_logs_suspension": """
        select count(*) from quantum_anomaly_logs
        where system_suspended and detected_at > now() - interval '5 minutes'""",
    "idx_quantum_anomaly_logs_type_severity": """
        select count(*) from quantum_anomaly_logs
        where anomaly_type = 'type3' and severity = 'INFO' and detected_at > now() - interval '1 hour'""",
    "idx_prediction_accuracy_period": """
        select * from prediction_accuracy_database order by period_end desc limit 1""",
    "idx_prediction_accuracy_rate": """
        select overall_accuracy_rate, period_end from prediction_accuracy_database
        where overall_accuracy_rate < 42 order by overall_accuracy_rate limit 10""",
    "idx_api_latency_reliability_logs_name_time": """
        select * from api_latency_reliability_logs
        where api_name = 'api3' and requested_at > now() - interval '24 hours'""",
    "idx_api_latency_reliability_logs_user_id": """
        select * from api_latency_reliability_logs where user_id = (select id from users limit 1)""",
    "idx_performance_metrics_type_time": """
        select avg(value) from performance_metrics where metric_type = 'api_response'
        and metric_name = '/endpoint/3' and timestamp > now() - interval '1 hour'""",
    "idx_performance_metrics_recent": """
        select * from performance_metrics where timestamp between now() - interval '2 minutes' and now()""",
    "idx_performance_metrics_old": """
        select min(timestamp) from performance_metrics where metric_type = 'db_query'""",
    "idx_performance_metrics_name": """
        select * from performance_metrics where metric_name = '/endpoint/7'
        order by timestamp desc limit 5""",
    "idx_performance_metrics_failed": """
        select * from performance_metrics where context ->> 'success' = 'false'
        order by timestamp desc limit 5""",
    "idx_performance_metrics_provider": """
        select count(*) from performance_metrics
        where context ->> 'provider' = 'provider3' and timestamp > now() - interval '5 hours'""",
    "idx_performance_metrics_slow": """
        select * from performance_metrics where unit = 'ms' order by value desc limit 10""",
    "idx_system_alerts_active_severity": """
        select * from system_alerts where resolved_at is null and severity = 'CRITICAL'
        order by triggered_at desc limit 5""",
    "idx_system_alerts_resolved": """
        select id from system_alerts where resolved_at is not null order by resolved_at desc limit 10""",
}


@pytest.fixture(scope="module")
def seeded_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    name = postgres_server.create_database(migrated_template)
    for statement in SEED.split(";\n"):
        if statement.strip():
            postgres_server.psql(statement, name)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
async def seeded(seeded_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(seeded_url)
    yield connection
    await connection.close()


@pytest.fixture
async def empty(migrated_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(migrated_url)
    yield connection
    await connection.close()


def _indexes(node: Any) -> Iterator[str]:
    if "Index Name" in node:
        yield node["Index Name"]
    for child in node.get("Plans", ()):
        yield from _indexes(child)


async def _family(connection: Any, index: str) -> set[str]:
    """An index, and what stands for it in the partitions."""
    rows = await connection.fetch(
        "select $1::text as name union all "
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
        "where i.inhparent = to_regclass($1)",
        index,
    )
    return {row["name"] for row in rows}


@pytest.mark.parametrize("index", QUERIES)
async def test_each_named_index_serves_its_query(seeded: Any, index: str) -> None:
    """EXPLAIN shows the index in the plan of the query that it was made for."""
    plan = json.loads(await seeded.fetchval(f"explain (format json) {QUERIES[index]}"))
    used = set(_indexes(plan[0]["Plan"]))
    assert used & await _family(seeded, index), f"{index} unused, plan has {used or 'no index'}"


async def test_every_named_index_exists_and_every_foreign_key_has_one(seeded: Any) -> None:
    """The names of the schema page are there, none is invalid, and no foreign key is without an index."""
    names = {
        row["relname"]
        for row in await seeded.fetch("select relname from pg_class where relkind in ('i', 'I')")
    }
    assert set(QUERIES) <= names
    assert await seeded.fetchval("select count(*) from pg_index where not indisvalid") == 0
    advice = await seeded.fetch("select * from analyze_query_performance()")
    assert not [row for row in advice if row["kind"] == "missing foreign-key index"]
    assert not [row for row in advice if row["kind"] == "duplicate index"]


async def test_performance_metrics_has_seven_indexes_beside_its_key(seeded: Any) -> None:
    """As the schema page says."""
    assert (
        await seeded.fetchval(
            "select count(*) from pg_index "
            "where indrelid = 'performance_metrics'::regclass and not indisprimary"
        )
        == 7
    )


async def test_the_health_view_has_one_filled_row(seeded: Any) -> None:
    """Every column says something on a live database."""
    (row,) = await seeded.fetch("select * from v_system_health_dashboard")
    values = dict(row)
    assert {name for name, value in values.items() if value is None} == set()
    assert values["status"] == "CRITICAL"
    assert values["database_status"] == "up"
    assert values["critical_alerts"] + values["warning_alerts"] + values["info_alerts"] == 50
    assert values["active_trades"] == 2000
    assert values["api_calls_last_hour"] == pytest.approx(1200, abs=5)
    assert values["users_last_24h"] == pytest.approx(144, abs=2)


async def test_the_health_view_answers_on_an_empty_database(empty: Any) -> None:
    """Nothing measured yet is healthy, and still one row."""
    (row,) = await empty.fetch("select * from v_system_health_dashboard")
    assert row["status"] == "HEALTHY"
    assert row["active_trades"] == 0


async def test_active_trades_come_with_their_newest_snapshot(seeded: Any) -> None:
    """One row for each active trade, the later of its two snapshots beside it; a trade without one stays."""
    rows = await seeded.fetch("select * from v_active_trades_with_snapshot limit 100")
    assert all(row["snapshot_at"] - row["generated_at"] == timedelta(minutes=10) for row in rows)
    assert await seeded.fetchval("select count(*) from v_active_trades_with_snapshot") == 2000


async def test_performance_is_summed_by_timeframe(seeded: Any) -> None:
    """Counts add up to all trades; the hit rate is hits over hits and misses."""
    rows = await seeded.fetch("select * from v_trade_performance_summary")
    assert {row["timeframe"] for row in rows} == {"1h", "4h", "1d", "1w"}
    assert sum(row["total_trades"] for row in rows) == 20_000
    for row in rows:
        parts = ("active", "hit", "not_hit", "invalidated", "expired")
        assert sum(row[part] for part in parts) == row["total_trades"]
        decided = row["hit"] + row["not_hit"]
        if decided:
            assert float(row["hit_rate_percent"]) == pytest.approx(100 * row["hit"] / decided, abs=0.01)


async def test_reliability_joins_the_platforms_log_and_our_events(seeded: Any) -> None:
    """Both sources of the last 24 hours appear, each API once."""
    rows = {row["api_name"]: row for row in await seeded.fetch("select * from v_api_reliability_summary")}
    assert {"api0", "provider0"} <= set(rows)
    assert rows["api0"]["calls"] == pytest.approx(86400 / 20 / 7, abs=3)
    assert 88 < rows["api1"]["success_percent"] < 92
    assert rows["api1"]["p95_response_ms"] >= rows["api1"]["avg_response_ms"]


async def test_advice_names_missing_and_duplicate_indexes(empty: Any) -> None:
    """A foreign key without an index and a copy of an index are found, each with the statement to run."""
    await empty.execute(
        "create table orders (id int primary key, user_id uuid references users (id), note text);"
        "create index copy_a on orders (note); create index copy_b on orders (note);"
    )
    advice = {row["kind"]: row for row in await empty.fetch("select * from analyze_query_performance()")}
    missing = advice["missing foreign-key index"]
    assert (missing["object"], missing["statement"]) == (
        "orders",
        "create index concurrently if not exists idx_orders_user_id on orders (user_id)",
    )
    assert advice["duplicate index"]["statement"] == "drop index concurrently if exists copy_b"
    await empty.execute(missing["statement"])
    await empty.execute(advice["duplicate index"]["statement"])
    left = {row["object"] for row in await empty.fetch("select * from analyze_query_performance()")}
    assert not left & {"orders", "copy_a", "copy_b"}


async def test_advice_names_the_column_that_statements_filter_by(empty: Any) -> None:
    """Sequential scans of a large table lead to an index on the column in the statements' WHERE."""
    await empty.execute(
        "create table visits as select n as id, n % 977 as place from generate_series(1, 30000) n"
    )
    await empty.execute("analyze visits")
    for place in range(15):
        await empty.fetch("select * from visits where place = $1", place)
    await empty.execute("select pg_stat_force_next_flush()")
    rows = await empty.fetch("select * from analyze_query_performance()")
    (found,) = [row for row in rows if row["object"] == "visits" and row["statement"]]
    assert [row["kind"] for row in rows if row["object"] == "visits"] == ["sequential scans"]  # told once
    assert found["statement"] == "create index concurrently if not exists idx_visits_place on visits (place)"


async def test_advice_calls_an_index_unused_after_a_week_and_none_of_ours(empty: Any) -> None:
    """The user's own index that nobody scans is found; one that a migration made serves something."""
    await empty.execute(
        "create table notes as select n, md5(n::text) as text from generate_series(1, 30000) n;"
        "create index notes_text on notes (text); analyze notes;"
        "insert into btc_trades (timeframe, status) select md5((n % 900)::text)::varchar(10), 'HIT' "
        "from generate_series(1, 30000) n; analyze btc_trades"
    )
    await empty.execute("select pg_stat_force_next_flush()")

    async def unused() -> dict[str, str]:
        rows = await empty.fetch("select * from analyze_query_performance() where kind = 'unused index'")
        return {row["object"]: row["statement"] for row in rows}

    assert await unused() == {"notes_text": "drop index concurrently if exists notes_text"}
    await empty.execute("select pg_stat_reset()")
    await empty.fetchval("select count(*) from notes")
    assert await unused() == {}  # statistics of a moment say nothing


async def test_advice_knows_every_index_that_the_migrations_make(empty: Any) -> None:
    """The list in the function is all of them: a new one must be added to it by a migration."""
    rows = await empty.fetch(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid "
        "join pg_class t on t.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = 'public' and not t.relispartition and not i.indisunique"
    )
    body = await empty.fetchval("select prosrc from pg_proc where proname = 'analyze_query_performance'")
    assert len(rows) > 45
    assert [row["relname"] for row in rows if f"'{row['relname']}'" not in body] == []


async def test_cleanup_reports_each_table_and_keeps_business_data(empty: Any) -> None:
    """Old days, old resolved alerts and old API log rows go; trades, open alerts and young rows stay."""
    await empty.execute(
        """
        select quantum_ensure_day_partitions('performance_metrics', current_date - 41, current_date - 39);
        insert into performance_metrics (metric_type, metric_name, value, timestamp)
            select 'x', 'y', 1, now() - interval '40 days' from generate_series(1, 7);
        insert into system_alerts (severity, type, title, message, triggered_at, resolved_at) values
            ('INFO', 'a', 't', 'm', now() - interval '200 days', now() - interval '100 days'),
            ('INFO', 'b', 't', 'm', now() - interval '200 days', null),
            ('INFO', 'c', 't', 'm', now() - interval '60 days', now() - interval '59 days');
        insert into api_latency_reliability_logs (api_name, requested_at)
            select 'a', now() - make_interval(days => n) from generate_series(1, 60) n;
        insert into btc_trades (generated_at) values (now() - interval '5 years');
        """
    )
    rows = {row["table_name"]: row for row in await empty.fetch("select * from cleanup_old_data(30)")}
    assert rows["performance_metrics"]["removed"] == 3
    assert rows["quantum_samples"]["removed"] == 0
    assert rows["system_alerts"]["removed"] == 1
    assert rows["api_latency_reliability_logs"]["removed"] == pytest.approx(31, abs=1)
    assert {row["type"] for row in await empty.fetch("select type from system_alerts")} == {"b", "c"}
    assert await empty.fetchval("select count(*) from btc_trades") == 1
    again = {
        row["table_name"]: row["removed"] for row in await empty.fetch("select * from cleanup_old_data(30)")
    }
    assert set(again.values()) == {0}
    with pytest.raises(asyncpg.RaiseError, match="days must be 1 or more"):
        await empty.fetch("select * from cleanup_old_data(0)")


async def test_optimize_analyzes_and_says_what_it_cannot_do(empty: Any) -> None:
    """Each table is analyzed; one full of dead rows is named for the command that can vacuum."""
    await empty.execute("alter table users set (autovacuum_enabled = false)")
    await empty.execute("insert into users select from generate_series(1, 5000)")
    await empty.execute("delete from users where ctid < '(10,1)'")
    await empty.execute("select pg_stat_force_next_flush()")
    await empty.execute("delete from users")
    await empty.execute("select pg_stat_force_next_flush()")
    rows = {row["table_name"]: row for row in await empty.fetch("select * from optimize_tables()")}
    assert {row["action"] for row in rows.values()} == {"analyzed"}
    assert "maintain optimize" in rows["users"]["remark"]
    assert rows["btc_trades"]["remark"] == "no vacuum needed"
    assert len(rows) == 12


async def test_partitions_are_made_once_and_by_the_utc_day(empty: Any) -> None:
    """Asking again makes nothing; the bounds are UTC midnights whatever the session's zone."""
    await empty.execute("set timezone = 'Asia/Tokyo'")
    ensure = "select quantum_ensure_day_partitions('quantum_samples', '2026-03-01', '2026-03-03')"
    assert await empty.fetchval(ensure) == 3
    assert await empty.fetchval(ensure) == 0
    await empty.execute("set timezone = 'UTC'")
    bound = await empty.fetchval(
        "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'quantum_samples_20260301'"
    )
    assert bound == "FOR VALUES FROM ('2026-03-01 00:00:00+00') TO ('2026-03-02 00:00:00+00')"
