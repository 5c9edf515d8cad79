"""Numbered SQL files applied once, in order, beside whatever the database already holds."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from exporter.clock import Clock, SystemClock
from exporter.db.pool import translated
from exporter.db.sqltext import concurrent_index_name, drops_concurrently, split_statements
from exporter.errors import MigrationError, StorageError

NO_TRANSACTION = "-- migrate: no transaction"
_FILE_NAME = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_LOCK_KEY = 0x7175616E74756D  # an arbitrary number of our own
_LOCK_TIMEOUT_MS = 80  # a waiting ALTER makes writers wait behind it: so it never waits long
_ATTEMPTS = 60
_RETRY_FIRST_S = 0.05
_RETRY_MAX_S = 1.0
_CONNECT_TIMEOUT_S = 10.0
_RETRYABLE = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_T = TypeVar("_T")
_READ_ONLY = "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean"
_NO_WRITES = (
    "the database takes no writes (a standby in recovery, or set read-only) and lacks {} migrations from {} "
    "on: database.url must name the primary; among several hosts target_session_attrs=read-write finds it"
)

_JOURNAL = """
create table if not exists quantum_schema_migrations (
    number      integer primary key,
    name        text not null,
    checksum    text not null,
    applied_at  timestamptz not null default now(),
    duration_ms integer not null
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `007_performance_metrics.sql` has number 7 and name `performance_metrics`."""

    number: int
    name: str
    path: Path
    sql: str
    checksum: str

    @property
    def transactional(self) -> bool:
        """Whether the file runs as a whole or not at all; else its statements run one by one."""
        return not self.sql.startswith(NO_TRANSACTION)

    @property
    def label(self) -> str:
        """The file name without its ending."""
        return f"{self.number:03d}_{self.name}"


class MigrationState(Enum):
    """How a file and the database's journal compare."""

    APPLIED = "applied"
    PENDING = "pending"
    CHANGED = "changed"  # applied, and edited since
    UNKNOWN = "unknown"  # applied by a newer version, which has more files than this one


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One row of `migrate status`."""

    number: int
    name: str
    state: MigrationState
    applied_at: datetime | None = None
    duration_ms: int | None = None


def read_migrations(sql_dir: Path) -> tuple[Migration, ...]:
    """The numbered files of a folder, in order.

    Raises: MigrationError for a name that does not fit, or a number used twice.
    """
    found: dict[int, Migration] = {}
    for path in sorted(sql_dir.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(
                f"{path}: a migration is named NNN_name.sql (lower case, digits, underscores)"
            )
        sql = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        migration = Migration(
            int(match[1]), match[2], path, sql, hashlib.sha256(sql.encode()).hexdigest()[:32]
        )
        if migration.number in found:
            raise MigrationError(f"{path}: number {match[1]} is also {found[migration.number].path.name}")
        found[migration.number] = migration
    return tuple(found[number] for number in sorted(found))


async def migrate_up(
    url: str,
    sql_dir: Path,
    *,
    clock: Clock | None = None,
    wait_s: float = 120.0,
    on_start: Callable[[Migration], None] | None = None,
) -> tuple[Migration, ...]:
    """Apply what is missing; returns the files applied now, none if the database was up to date.

    Two starters at once: the second waits up to `wait_s` for the first. Stopped midway, the next call goes on
    where this one ended. No statement waits longer than 80 ms for a lock that would make writers queue behind
    it: it gives up and tries again. A standby that has everything from its primary is up to date.

    Raises: MigrationError (a file fails, was edited after it was applied, the wait is over, or something is
        missing on a server that takes no writes); StorageError where the database cannot be reached.
    """
    clock = clock or SystemClock()
    migrations = read_migrations(sql_dir)
    async with _connection(url) as connection:
        with translated(MigrationError, "cannot read the journal of migrations"):
            if await connection.fetchval(_READ_ONLY):
                if missing := _pending(migrations, await _journal_if_any(connection)):
                    raise MigrationError(_NO_WRITES.format(len(missing), missing[0].label))
                return ()
        with translated(MigrationError, "cannot prepare the journal of migrations"):
            await _lock(connection, clock, wait_s)
            await _run(connection.execute, _JOURNAL, clock)
            pending = _pending(migrations, await _journal(connection))
        for migration in pending:
            if on_start is not None:
                on_start(migration)
            await _apply(connection, migration, clock)
        # the session lock goes with the connection
    return pending


async def migration_status(url: str, sql_dir: Path) -> tuple[MigrationStatus, ...]:
    """Each file, and each journal row without a file, with its state. Changes nothing.

    Raises: StorageError where the database cannot be reached.
    """
    migrations = {migration.number: migration for migration in read_migrations(sql_dir)}
    async with _connection(url) as connection:
        with translated(StorageError, "cannot read the journal of migrations"):
            rows = {row["number"]: row for row in await _journal_if_any(connection)}
    states = []
    for number in sorted(migrations.keys() | rows.keys()):
        migration, row = migrations.get(number), rows.get(number)
        if row is None:
            assert migration is not None
            states.append(MigrationStatus(number, migration.name, MigrationState.PENDING))
            continue
        state = MigrationState.APPLIED
        if migration is None:
            state = MigrationState.UNKNOWN
        elif migration.checksum != row["checksum"]:
            state = MigrationState.CHANGED
        states.append(MigrationStatus(number, row["name"], state, row["applied_at"], row["duration_ms"]))
    return tuple(states)


def _pending(migrations: Sequence[Migration], journal: Sequence[Any]) -> tuple[Migration, ...]:
    applied = {row["number"]: row for row in journal}
    for migration in migrations:
        row = applied.get(migration.number)
        if row is not None and row["checksum"] != migration.checksum:
            raise MigrationError(
                f"{migration.path}: edited after it was applied on {row['applied_at']:%Y-%m-%d %H:%M}; "
                "put the change into a new file with the next number"
            )
    return tuple(migration for migration in migrations if migration.number not in applied)


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[Any]:
    with translated(StorageError, "cannot connect"):
        try:
            connection = await asyncpg.connect(
                url,
                timeout=_CONNECT_TIMEOUT_S,
                server_settings={
                    "application_name": "quantum-exporter migrate",
                    "statement_timeout": "0",
                    "client_min_messages": "warning",
                    "timezone": "UTC",
                },
            )
        except ValueError as error:
            raise StorageError(f"database.url: {error}") from error
    try:
        yield connection
    finally:
        try:
            await connection.close(timeout=5.0)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()


async def _lock(connection: Any, clock: Clock, wait_s: float) -> None:
    """Polled: a session waiting inside a statement would hold up CREATE INDEX CONCURRENTLY."""
    until = clock.monotonic() + wait_s
    while not await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK_KEY):
        if clock.monotonic() >= until:
            raise MigrationError(f"another process has been migrating this database for over {wait_s:g} s")
        await clock.sleep(0.1)


async def _journal(connection: Any) -> list[Any]:
    rows: list[Any] = await connection.fetch("select * from quantum_schema_migrations order by number")
    return rows


async def _journal_if_any(connection: Any) -> list[Any]:
    exists = await connection.fetchval("select to_regclass('quantum_schema_migrations') is not null")
    return await _journal(connection) if exists else []


async def _apply(connection: Any, migration: Migration, clock: Clock) -> None:
    started = clock.monotonic()

    async def whole() -> None:
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = {_LOCK_TIMEOUT_MS}")
            await connection.execute(migration.sql)
            await _record(connection, migration, clock.monotonic() - started)

    try:
        if migration.transactional:
            await _retry(whole, clock)
        else:
            for statement in split_statements(migration.sql):
                await _apply_statement(connection, statement, clock)
            await _record(connection, migration, clock.monotonic() - started)
    except asyncpg.PostgresError as error:
        place = _line_of(migration, error)
        raise MigrationError(f"{migration.path}{place}: {error}") from error
    except (OSError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"{migration.path}: the connection broke: {error}") from error


async def _apply_statement(connection: Any, statement: str, clock: Clock) -> None:
    index = concurrent_index_name(statement)
    if index is None:
        patient = drops_concurrently(statement)  # as below: it waits for others, and nobody for it
        await connection.execute(f"set lock_timeout = {0 if patient else _LOCK_TIMEOUT_MS}")
        await _run(connection.execute, statement, clock)
        return

    async def build() -> None:
        # What an interrupted build leaves behind is invalid, and IF NOT EXISTS would take it for done.
        invalid = await connection.fetchval(
            "select true from pg_index where indexrelid = to_regclass($1) and not indisvalid", index
        )
        if invalid:
            await connection.execute(f'drop index concurrently if exists "{index}"')
        await connection.execute(statement)

    # The locks of a concurrent build hold up no writer, and its waits for old transactions may be long.
    await connection.execute("set lock_timeout = 0")
    await _retry(build, clock)


async def _record(connection: Any, migration: Migration, seconds: float) -> None:
    await connection.execute(
        "insert into quantum_schema_migrations (number, name, checksum, duration_ms) values ($1, $2, $3, $4)",
        migration.number,
        migration.name,
        migration.checksum,
        round(seconds * 1000),
    )


async def _run(execute: Callable[[str], Awaitable[_T]], statement: str, clock: Clock) -> _T:
    return await _retry(lambda: execute(statement), clock)


async def _retry(action: Callable[[], Awaitable[_T]], clock: Clock) -> _T:
    pause = _RETRY_FIRST_S
    for attempt in range(_ATTEMPTS):
        try:
            return await action()
        except _RETRYABLE:
            if attempt == _ATTEMPTS - 1:
                raise
        await clock.sleep(pause)
        pause = min(2 * pause, _RETRY_MAX_S)
    raise asyncio.InvalidStateError("unreachable")


def _line_of(migration: Migration, error: asyncpg.PostgresError) -> str:
    """`:line` of the error in the file, as far as the server tells its position in the whole text."""
    position = getattr(error, "position", None)
    if not migration.transactional or not position:
        return ""
    return f":{migration.sql.count(chr(10), 0, int(position)) + 1}"
