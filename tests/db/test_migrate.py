from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.assets import asset_dir
from exporter.db.migrate import (
    NO_TRANSACTION,
    MigrationState,
    migrate_up,
    migration_status,
    read_migrations,
)
from exporter.db.sqltext import concurrent_index_name, drops_concurrently, split_statements
from exporter.errors import MigrationError, StorageError

TABLES = {
    "users",
    "btc_trades",
    "btc_hourly_snapshots",
    "quantum_anomaly_logs",
    "prediction_accuracy_database",
    "api_latency_reliability_logs",
    "performance_metrics",
    "system_alerts",
    "quantum_series",
    "quantum_samples",
}


async def _fetch(url: str, sql: str, *args: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *args)]
    finally:
        await connection.close()


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _files(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(sql)
    return folder


async def test_from_nothing_then_again(database_url: str) -> None:
    """An empty database gets every table, view and function; a second run finds nothing to do."""
    sql = asset_dir("sql")
    applied = await migrate_up(database_url, sql)
    assert [one.number for one in applied] == list(range(1, len(applied) + 1))
    assert len(applied) >= 10
    assert await migrate_up(database_url, sql) == ()
    names = {name for (name,) in await _fetch(database_url, "select relname from pg_class")}
    assert names >= TABLES
    assert names >= {
        "v_active_trades_with_snapshot",
        "v_trade_performance_summary",
        "v_api_reliability_summary",
        "v_system_health_dashboard",
        "quantum_metrics",
    }
    states = await migration_status(database_url, sql)
    assert {one.state for one in states} == {MigrationState.APPLIED}
    assert all(one.applied_at is not None for one in states)


async def test_each_file_may_run_again_by_itself(database_url: str) -> None:
    """Forgetting the journal harms nothing: every file is safe on what it made before."""
    sql = asset_dir("sql")
    await migrate_up(database_url, sql)
    await _execute(database_url, "drop table quantum_schema_migrations")
    assert len(await migrate_up(database_url, sql)) >= 10


async def test_a_platform_database_keeps_its_tables_and_data(database_url: str) -> None:
    """Existing tables stay as they are, gain only the columns they lack, and keep rows and own triggers."""
    await _execute(
        database_url,
        """
        create table users (id uuid primary key default gen_random_uuid(), email text);
        create table btc_trades (
            id uuid primary key default gen_random_uuid(), user_id uuid references users (id),
            status varchar(50) default 'ACTIVE', confidence_score numeric(5, 1), note text,
            generated_at timestamptz default now(), updated_at timestamptz default now()
        );
        create function touch() returns trigger language plpgsql as
            $$ begin new.updated_at = now(); return new; end $$;
        create trigger their_own before update on btc_trades for each row execute function touch();
        insert into users (email) select 'a' from generate_series(1, 10);
        insert into btc_trades (user_id, confidence_score, note)
            select id, 71.5, 'kept' from users, generate_series(1, 20);
        """,
    )
    before = await _fetch(database_url, "select id, note, confidence_score from btc_trades order by id")
    await migrate_up(database_url, asset_dir("sql"))
    after = await _fetch(database_url, "select id, note, confidence_score from btc_trades order by id")
    assert after == before
    columns = dict(
        await _fetch(
            database_url,
            "select column_name, data_type from information_schema.columns where table_name = 'btc_trades'",
        )
    )
    assert columns["confidence_score"] == "numeric"
    assert columns["timeframe"] == "character varying"
    assert columns["cross_api_proof"] == "jsonb"
    triggers = await _fetch(
        database_url,
        "select tgname from pg_trigger where tgrelid = 'btc_trades'::regclass and not tgisinternal",
    )
    assert triggers == [("their_own",)]
    assert (await _fetch(database_url, "select active_trades from v_system_health_dashboard")) == [(200,)]


async def test_updated_at_is_kept_by_a_trigger(migrated_url: str) -> None:
    """An update of a trade moves its updated_at."""
    await _execute(
        migrated_url,
        "insert into btc_trades (updated_at) values ('2020-01-01'); update btc_trades set symbol = 'X'",
    )
    assert await _fetch(migrated_url, "select updated_at > now() - interval '1 minute' from btc_trades") == [
        (True,)
    ]


async def test_two_starters_at_once(database_url: str) -> None:
    """Of two at the same time one applies everything and the other nothing, whichever it is."""
    sql = asset_dir("sql")
    counts = [
        len(applied) for applied in await asyncio.gather(*(migrate_up(database_url, sql) for _ in range(3)))
    ]
    assert sorted(counts) == [0, 0, len(read_migrations(sql))]


async def test_a_writer_is_not_held_up(database_url: str) -> None:
    """While everything is applied to a database with data, no insert into a platform table waits long."""
    await _execute(
        database_url,
        """
        create table users (id uuid primary key default gen_random_uuid());
        create table btc_trades (id uuid primary key default gen_random_uuid(), status varchar(50),
            timeframe varchar(10), confidence_score int, generated_at timestamptz default now());
        insert into btc_trades (status, timeframe, confidence_score)
            select 'ACTIVE', '1h', n % 100 from generate_series(1, 100000) n;
        """,
    )
    worst = 0.0
    done = asyncio.Event()

    async def write() -> None:
        nonlocal worst
        connection = await asyncpg.connect(database_url)
        try:
            while not done.is_set():
                started = time.perf_counter()
                await connection.execute("insert into btc_trades (status) values ('HIT')")
                worst = max(worst, time.perf_counter() - started)
        finally:
            await connection.close()

    writer = asyncio.create_task(write())
    await migrate_up(database_url, asset_dir("sql"))
    done.set()
    await writer
    assert worst < 1.0  # 0.1 s on a quiet machine; an index built without CONCURRENTLY costs more


async def test_a_long_transaction_of_somebody_else_only_delays(database_url: str, tmp_path: Path) -> None:
    """A table that is in use is not waited for in the lock queue: we step back, and writers go on."""
    sql = _files(tmp_path, m001_t="create table t (a int)")
    await migrate_up(database_url, sql)
    _files(tmp_path, m002_c="alter table t add column b int")
    holder = await asyncpg.connect(database_url)
    other = await asyncpg.connect(database_url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("insert into t values (1)")
    migrating = asyncio.create_task(migrate_up(database_url, sql))
    slowest = 0.0
    for _ in range(20):
        started = time.perf_counter()
        await other.execute("insert into t values (2)")
        slowest = max(slowest, time.perf_counter() - started)
        await asyncio.sleep(0.02)
    assert not migrating.done()
    assert slowest < 1.0
    await transaction.commit()
    assert [one.number for one in await migrating] == [2]
    await holder.close()
    await other.close()


async def test_a_failing_file_leaves_nothing_and_names_its_line(database_url: str, tmp_path: Path) -> None:
    """A transactional file applies whole or not at all; the next run goes on from it."""
    sql = _files(tmp_path, m001_a="create table a (x int)", m002_b="create table b (x int);\nselekt 1;\n")
    with pytest.raises(MigrationError, match=r"002_b\.sql:2: syntax error"):
        await migrate_up(database_url, sql)
    assert await _fetch(database_url, "select to_regclass('a')::text, to_regclass('b')::text") == [
        ("a", None)
    ]
    _files(tmp_path, m002_b="create table b (x int)")
    assert [one.number for one in await migrate_up(database_url, sql)] == [2]


async def test_an_invalid_index_left_by_an_interruption_is_built_again(
    database_url: str, tmp_path: Path
) -> None:
    """IF NOT EXISTS would take an invalid index for done; it is dropped and rebuilt."""
    sql = _files(
        tmp_path,
        m001_t="create table t (a int); insert into t values (1), (1);",
        m002_i=f"{NO_TRANSACTION}\ncreate unique index concurrently if not exists i on t (a);",
    )
    with pytest.raises(MigrationError, match="could not create unique index"):
        await migrate_up(database_url, sql)
    assert await _fetch(database_url, "select indisvalid from pg_index where indexrelid = 'i'::regclass") == [
        (False,)
    ]
    await _execute(database_url, "delete from t where ctid = '(0,1)'")
    await migrate_up(database_url, sql)
    assert await _fetch(database_url, "select indisvalid from pg_index where indexrelid = 'i'::regclass") == [
        (True,)
    ]


async def test_an_edited_file_is_refused_and_shown(database_url: str, tmp_path: Path) -> None:
    """What was applied may not change; status says which file did, and which rows have no file."""
    sql = _files(tmp_path, m001_a="select 1", m002_b="select 2")
    await migrate_up(database_url, sql)
    _files(tmp_path, m001_a="select 3", m003_c="select 4")
    (tmp_path / "002_b.sql").unlink()
    with pytest.raises(MigrationError, match=r"001_a\.sql: edited after it was applied"):
        await migrate_up(database_url, sql)
    states = {one.number: one.state for one in await migration_status(database_url, sql)}
    assert states == {1: MigrationState.CHANGED, 2: MigrationState.UNKNOWN, 3: MigrationState.PENDING}


def test_file_names_are_checked(tmp_path: Path) -> None:
    """A misnamed file or a number used twice is an error, not ignored."""
    with pytest.raises(MigrationError, match="NNN_name"):
        read_migrations(_files(tmp_path, m1_a="select 1"))
    (tmp_path / "1_a.sql").unlink()
    with pytest.raises(MigrationError, match="number 001 is also 001_a"):
        read_migrations(_files(tmp_path, m001_a="select 1", m001_b="select 1"))


async def test_an_unreachable_database_is_one_clear_error(tmp_path: Path) -> None:
    """No traceback of a driver: one of our errors with the reason."""
    with pytest.raises(StorageError, match="cannot connect"):
        await migrate_up(f"postgresql://postgres@/x?host={tmp_path}", tmp_path)
    with pytest.raises(StorageError, match=r"database\.url|cannot connect"):
        await migrate_up("mysql://nowhere", tmp_path)


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        (" ; ;; ", []),
        ("a; b", ["a", "b"]),
        ("select ';' ; x", ["select ';'", "x"]),
        ("select 'it''s;' ; x", ["select 'it''s;'", "x"]),
        ('select "a;b"; x', ['select "a;b"', "x"]),
        ("do $$ begin x; y; end $$; z", ["do $$ begin x; y; end $$", "z"]),
        ("do $a$ $$; $$ $a$; z", ["do $a$ $$; $$ $a$", "z"]),
        ("-- c; d\nselect 1; -- e", ["select 1"]),
        ("/* a; \n b */ x; y /* ; */", ["x", "y"]),
        ("select $1; b", ["select $1", "b"]),
        ("select a.b, c::d[1:2]; e", ["select a.b, c::d[1:2]", "e"]),
    ],
)
def test_statements_are_split_as_psql_does(sql: str, statements: list[str]) -> None:
    """Semicolons in quotes, dollar quotes and comments do not end a statement."""
    assert split_statements(sql) == statements


def test_concurrent_builds_are_recognised() -> None:
    """The index name of a concurrent build, whatever the case and spacing; None for other statements."""
    assert concurrent_index_name("CREATE UNIQUE INDEX concurrently\n if not exists Abc on t (a)") == "Abc"
    assert concurrent_index_name("create index if not exists abc on t (a)") is None
    assert drops_concurrently("Drop  index concurrently if exists i")
    assert not drops_concurrently("drop index i")


async def test_the_index_for_expiry_checks_is_replaced_beside_writers(database_url: str) -> None:
    """A bare index gives way to the covering one while somebody's transaction on the table is open."""
    sql = asset_dir("sql")
    await migrate_up(database_url, sql)
    await _execute(
        database_url,
        "drop index idx_btc_trades_expires_status; delete from quantum_schema_migrations where number = 16;"
        "create index idx_btc_trades_expires_status on btc_trades (expires_at, status) "
        "where status = 'ACTIVE'",
    )
    writer = await asyncpg.connect(database_url)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("insert into btc_trades (status) values ('HIT')")
    migrating = asyncio.create_task(migrate_up(database_url, sql))
    await asyncio.sleep(0.3)  # longer than any statement of ours would wait in front of a writer
    await writer.execute("insert into btc_trades (status) values ('HIT')")
    await transaction.commit()
    assert [one.number for one in await migrating] == [16]
    await writer.close()
    assert await _fetch(
        database_url,
        "select c.relname, i.indnatts, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid "
        "where c.relname like 'idx_btc_trades_expires_status%'",
    ) == [("idx_btc_trades_expires_status", 4, True)]
