"""SQL collectors against a real Postgres: values, bounds, bad rows, missing tables, outages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.collectors.base import CollectorRunner, CollectorStatus, Outcome
from exporter.collectors.metrics import CollectorMetrics
from exporter.collectors.postgres import DatabaseProbe, postgres_specs
from exporter.collectors.sql import SqlCollector
from exporter.collectors.sqlconfig import SqlCollectorSpec, SqlMetric, read_sql_file
from exporter.db.pool import Database
from tests.helpers.postgres import PostgresServer

pytestmark = pytest.mark.postgres

VALUE = SqlMetric("quantum_test", "gauge", "Test.", "value")
BY_ROW = SqlMetric("quantum_test", "gauge", "Test.", "value", ("l",))


class World:
    """A runner over one database, and the query times it measured."""

    def __init__(self, url: str) -> None:
        self.clock = SystemClock()
        self.registry = CollectorRegistry()
        self.database = Database(url, self.clock)
        self.runner = CollectorRunner(self.registry, self.clock, CollectorMetrics(self.registry))
        self.queries: list[tuple[str, str, str]] = []

    def time(self, operation: str, table: str, seconds: float, error: BaseException | None = None) -> None:
        self.queries.append((operation, table, type(error).__name__ if error else ""))

    def add(self, *specs: SqlCollectorSpec) -> None:
        for spec in specs:
            self.runner.add(SqlCollector(spec, self.database, self.clock, timer=self.time))

    async def run(self, name: str, query: str, *metrics: SqlMetric, **options: int) -> CollectorStatus:
        self.add(SqlCollectorSpec(name, query, metrics or (VALUE,), **options))  # type: ignore[arg-type]
        return await self.runner.run_once(name)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    made = World(database_url)
    yield made
    await made.database.close()


@pytest.fixture
async def migrated(migrated_url: str) -> AsyncIterator[World]:
    made = World(migrated_url)
    yield made
    await made.database.close()


@pytest.fixture
async def platform(platform_url: str) -> AsyncIterator[World]:
    made = World(platform_url)
    path = asset_dir("sql") / "queries.yml"
    made.add(*read_sql_file(path.read_text(), str(path)).collectors)
    yield made
    await made.database.close()


async def test_values_of_every_number_type(world: World) -> None:
    """Integers, numerics, floats, booleans, times and intervals become values."""
    query = """
        select * from (values ('int', 1::numeric), ('numeric', 2.5), ('inf', 'Infinity')) as t (l, value)
    """
    assert (await world.run("numbers", query, BY_ROW)).error == ""
    assert [world.value("quantum_test", l=row) for row in ("int", "numeric", "inf")] == [1, 2.5, float("inf")]
    await world.run("interval", "select interval '2 minutes' as value", SqlMetric("m", "gauge", "h"))
    assert world.value("m") == 120
    assert world.queries[0] == ("SELECT", "numbers", "")


async def test_strings_nulls_and_repeats_are_refused_and_the_rest_kept(world: World) -> None:
    """Bad values are counted and told; the good rows of the query stay."""
    query = "select * from (values ('a', 1), ('a', 2), ('b', null), ('c', 3)) as t (l, value)"
    status = await world.run("rows", query, BY_ROW, SqlMetric("texts", "gauge", "h", "l"))
    assert status.outcome is Outcome.SUCCESS
    assert (world.value("quantum_test", l="a"), world.value("quantum_test", l="c")) == (1, 3)
    assert world.value("quantum_collector_refused_values_total", collector="rows") == 6
    assert sorted(status.faults) == [
        "1 x quantum_test: a label set is repeated",
        '1 x quantum_test: column "value" holds NULL, not a number',
        '4 x texts: column "l" holds str, not a number',
    ]


async def test_too_many_rows_fail_the_collector(world: World) -> None:
    """At most max_rows rows are taken; a million rows cost neither memory nor time."""
    at_the_bound = "select n as l, n as value from generate_series(1, 5) as g (n)"
    assert (await world.run("five", at_the_bound, BY_ROW, max_rows=5)).outcome is Outcome.SUCCESS
    million = "select n as l, n as value from generate_series(1, 1000000) as g (n)"
    status = await world.run("million", million, SqlMetric("m", "gauge", "h", "value", ("l",)))
    assert (status.outcome, status.error) == (
        Outcome.ERROR,
        "the query returns more than 1000 rows (max_rows)",
    )
    assert world.value("m", l="1") is None


async def test_a_query_that_never_ends_is_cancelled_on_the_server(world: World) -> None:
    """statement_timeout ends it there; the outcome is a time-out."""
    status = await world.run("hangs", "select 1 as value from pg_sleep(600)", timeout_ms=100)
    assert (status.outcome, status.error) == (Outcome.TIMEOUT, "the statement took longer than 100 ms")
    async with world.database.acquire() as connection:
        running = await connection.fetchval(
            "select count(*) from pg_stat_activity"
            " where query like '%pg_sleep(600)%' and state = 'active' and pid <> pg_backend_pid()"
        )
    assert running == 0
    assert world.queries[0] == ("SELECT", "hangs", "QueryCanceledError")


@pytest.mark.parametrize("query", ["create table x (a int)", "select nextval('s') as value"])
async def test_queries_cannot_write(world: World, query: str) -> None:
    """The transaction is read-only."""
    async with world.database.acquire() as connection:
        await connection.execute("create sequence s")
    status = await world.run("writes", query)
    assert status.outcome is Outcome.ERROR
    assert "read-only transaction" in status.error


async def test_missing_column_is_told(world: World) -> None:
    """A declared column that the query lacks is an error, rows or not."""
    status = await world.run("column", "select 1 as other where false")
    assert status.error == 'quantum_test: the query returns no column "value" (it returns other)'


async def test_one_failing_query_harms_no_other(world: World) -> None:
    """A broken query and a hung one leave the good ones fresh, and the pool in order."""
    world.add(
        SqlCollectorSpec("broken", "selct 1", (SqlMetric("b", "gauge", "h"),)),
        SqlCollectorSpec(
            "hung", "select 1 as value from pg_sleep(9)", (SqlMetric("h", "gauge", "h"),), timeout_ms=50
        ),
        *(
            SqlCollectorSpec(f"good{n}", f"select {n} as value", (SqlMetric(f"good{n}", "gauge", "h"),))
            for n in range(8)
        ),
    )
    for _ in range(3):
        outcomes = {status.name: status.outcome for status in await world.runner.run_all()}
        assert outcomes.pop("broken") is Outcome.ERROR
        assert outcomes.pop("hung") is Outcome.TIMEOUT
        assert set(outcomes.values()) == {Outcome.SUCCESS}
    assert [world.value(f"good{n}") for n in range(8)] == list(range(8))


async def test_missing_tables_fail_each_collector_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the platform's tables are missing each collector fails, each table is told once."""
    path = asset_dir("sql") / "queries.yml"
    specs = read_sql_file(path.read_text(), str(path)).collectors
    world.add(*specs)
    for _ in range(2):
        for status in await world.runner.run_all():
            assert status.outcome is Outcome.ERROR
            assert "does not exist" in status.error
    told = [record.getMessage().split(": ", 1)[1] for record in caplog.records]
    assert len(told) == len(set(told)) == 4  # one line for each missing table
    assert world.value("quantum_collector_runs_total", collector="suspension", outcome="error") == 2


ALWAYS = {
    ("quantum_system_suspended", ()): 0,
    ("quantum_anomalies_recent", (("severity", "FATAL"),)): 0,
    ("quantum_anomalies_recent", (("severity", "WARNING"),)): 0,
    ("quantum_anomalies_recent", (("severity", "INFO"),)): 0,
    ("quantum_anomalies_last_hour", ()): 0,
    ("quantum_anomalies_previous_hour", ()): 0,
    ("quantum_users_active_last_24h", ()): 0,
    ("quantum_users_active_previous_24h", ()): 0,
    ("quantum_trades_active", ()): 0,
    ("quantum_trades_generated_24h", ()): 0,
    ("quantum_trades_by_status", (("status", "HIT"), ("timeframe", "4h"))): 0,
}
ABSENT = (
    "quantum_data_quality_ratio",
    "quantum_prediction_accuracy_ratio",
    "quantum_prediction_accuracy_by_timeframe_ratio",
    "quantum_trades_confidence_ratio",
)


async def test_empty_tables_give_zero_where_zero_is_true(platform: World) -> None:
    """Counts are 0 on empty tables; quality, accuracy and confidence are absent: nobody knows them."""
    for status in await platform.runner.run_all():
        assert (status.outcome, status.faults) == (Outcome.SUCCESS, []), status
    assert {key: platform.value(key[0], **dict(key[1])) for key in ALWAYS} == ALWAYS
    names = {sample.name for family in platform.registry.collect() for sample in family.samples}
    assert names.isdisjoint(ABSENT)


async def test_the_platforms_values(platform: World) -> None:
    """Each metric of the platform's set says what its rows say."""
    async with platform.database.acquire() as connection:
        await fill(connection)
    for status in await platform.runner.run_all():
        assert (status.error, status.faults) == ("", []), status
    assert platform.value("quantum_system_suspended") == 1
    assert platform.value("quantum_anomalies_recent", severity="FATAL") == 2
    assert platform.value("quantum_anomalies_recent", severity="WARNING") == 0
    assert platform.value("quantum_anomalies_recent", severity="ODD") == 1
    assert platform.value("quantum_anomalies_last_hour") == 4
    assert platform.value("quantum_anomalies_previous_hour") == 1
    assert platform.value("quantum_data_quality_ratio") == pytest.approx(0.7)
    assert platform.value("quantum_prediction_accuracy_ratio") == pytest.approx(0.625)
    assert platform.value("quantum_prediction_accuracy_by_timeframe_ratio", timeframe="1h") == pytest.approx(
        0.5
    )
    assert platform.value("quantum_prediction_accuracy_by_timeframe_ratio", timeframe="1w") is None
    assert platform.value("quantum_users_active_last_24h") == 1
    assert platform.value("quantum_users_active_previous_24h") == 2
    assert platform.value("quantum_trades_active") == 3
    assert platform.value("quantum_trades_generated_24h") == 2
    assert platform.value("quantum_trades_by_status", status="ACTIVE", timeframe="1h") == 3
    assert platform.value("quantum_trades_by_status", status="HIT", timeframe="2y") == 1
    assert platform.value("quantum_trades_by_status", status="NOT_HIT", timeframe="1h") == 0
    assert platform.value("quantum_trades_confidence_ratio") == pytest.approx(0.8)


async def fill(connection: asyncpg.Connection) -> None:
    await connection.execute("""
        insert into users (id) select gen_random_uuid() from generate_series(1, 3);
        insert into quantum_anomaly_logs (anomaly_type, severity, system_suspended, detected_at) values
            ('a', 'FATAL', true, now() - interval '1 minute'),
            ('a', 'fatal', false, now() - interval '2 minutes'),
            ('a', 'ODD', false, now() - interval '3 minutes'),
            ('a', 'INFO', true, now() - interval '10 minutes'),
            ('a', 'WARNING', false, now() - interval '90 minutes'),
            ('a', 'INFO', false, now() - interval '3 hours');
        insert into btc_trades (user_id, status, timeframe, confidence_score, generated_at)
            select u.id, v.status, v.timeframe, v.confidence, now() - v.age from (values
                (0, 'ACTIVE', '1h', 70, interval '1 hour'), (0, 'ACTIVE', '1h', 90, interval '2 hours'),
                (0, 'ACTIVE', '1h', null, interval '30 hours'), (1, 'HIT', '2y', 10, interval '40 hours'),
                (2, 'EXPIRED', '1h', 10, interval '60 hours')) as v (n, status, timeframe, confidence, age)
            join (select id, row_number() over () - 1 as n from users) as u on u.n = v.n;
        insert into btc_hourly_snapshots (data_quality_score, snapshot_at) values
            (60, now()), (80, now() - interval '2 hours'), (null, now()), (0, now() - interval '4 hours');
        insert into prediction_accuracy_database (overall_accuracy_rate, accuracy_1h, accuracy_4h, created_at)
        values
            (90, 90, 90, now() - interval '1 day'), (62.5, 50, null, now());
    """)


async def test_postgres_statistics(migrated: World) -> None:
    """Every declared query on the statistics views works, and says something of a database that is used."""
    world = migrated
    async with world.database.acquire() as connection:
        await connection.execute(
            "create table t (a int); insert into t select generate_series(1, 100); analyze t"
        )
    world.add(*postgres_specs())
    for status in await world.runner.run_all():
        assert (status.error, status.faults) == ("", []), status
    assert (world.value("quantum_postgres_connections", state="active") or 0) >= 1
    assert (world.value("quantum_postgres_max_connections") or 0) > 1
    assert (world.value("quantum_postgres_database_size_bytes") or 0) > 1_000_000
    assert (world.value("quantum_postgres_commits_total") or 0) > 0
    assert world.value("quantum_postgres_deadlocks_total") == 0
    assert world.value("quantum_postgres_locks", mode="AccessExclusiveLock") is not None
    assert world.value("quantum_postgres_in_recovery") == 0
    assert world.value("quantum_postgres_replication_lag_seconds") is None
    assert 0 <= (world.value("quantum_postgres_cache_hit_ratio") or 0) <= 1
    assert (world.value("quantum_postgres_table_size_bytes", schema="public", table="t") or 0) > 0
    rows = world.registry.collect()
    [calls] = [family for family in rows if family.name == "quantum_postgres_statement_calls"]
    told = {sample.labels["statement"]: sample.value for sample in calls.samples}
    assert 5 <= len(told) <= 10
    assert all(value >= 1 for value in told.values())
    assert not [text for text in told if text.lower().startswith(("create", "alter", "set"))]


async def test_postgres_statistics_without_rights_and_without_the_extension(
    migrated: World, postgres_server: PostgresServer
) -> None:
    """A role that may read nothing special gets what it may; no collector fails."""
    async with migrated.database.acquire() as connection:
        await connection.execute("drop extension pg_stat_statements; create role bystander")
    denied = World(f"{migrated.database.url}&options=-crole%3Dbystander")
    try:
        denied.add(*postgres_specs())
        for status in await denied.runner.run_all():
            assert (status.error, status.faults) == ("", []), status
        assert "quantum_postgres_statement_calls" not in {
            f.name for f in denied.registry.collect() if f.samples
        }
    finally:
        await denied.database.close()
        postgres_server.psql("drop role if exists bystander")


async def test_a_role_without_rights_is_told(world: World, postgres_server: PostgresServer) -> None:
    """Permission denied is an error of that collector, with Postgres' words."""
    async with world.database.acquire() as connection:
        await connection.execute("create table secret (a int); create role nobody_here")
    await world.database.close()
    denied = World(f"{world.database.url}&options=-crole%3Dnobody_here")
    try:
        status = await denied.run("secret", "select a as value from secret")
        assert status.error == "permission denied for table secret"
    finally:
        await denied.database.close()
        postgres_server.psql("drop role if exists nobody_here")


async def test_database_up_follows_an_outage(own_postgres: PostgresServer) -> None:
    """quantum_database_up is 0 while the server is away, 1 after; SQL collectors come back alone."""
    world = World(own_postgres.url("postgres"))
    try:
        world.runner.add(DatabaseProbe(world.database, world.clock, timer=world.time))
        world.add(SqlCollectorSpec("one", "select 1 as value", (VALUE,)))
        await world.runner.run_all()
        assert (world.value("quantum_database_up"), world.value("quantum_test")) == (1, 1)
        own_postgres.stop()
        for _ in range(2):
            status = {status.name: status for status in await world.runner.run_all()}
            assert (world.value("quantum_database_up"), world.value("quantum_test")) == (0, None)
        assert status["database"].outcome is Outcome.SUCCESS
        assert status["one"].outcome is Outcome.ERROR
        assert ("SELECT", "probe", "ConnectionError") in world.queries
        own_postgres.start()
        for _ in range(40):
            await world.runner.run_all()
            if world.value("quantum_test") == 1 and world.value("quantum_database_up") == 1:
                break
            await world.clock.sleep(0.25)
        assert (world.value("quantum_database_up"), world.value("quantum_test")) == (1, 1)
    finally:
        await world.database.close()
