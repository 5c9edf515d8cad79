from __future__ import annotations

import asyncio

import asyncpg
import pytest

from exporter.clock import SystemClock
from exporter.db.pool import Database, Purpose
from exporter.errors import StorageError, WriteError
from tests.helpers.postgres import PostgresServer


async def test_nothing_is_connected_before_the_first_use(database_url: str) -> None:
    """A new Database has no state; after a query it is up and says so."""
    database = Database(database_url, SystemClock())
    assert not database.is_up
    assert repr(database) == "<Database not connected>"
    async with database.acquire() as connection:
        assert await connection.fetchval("show application_name") == "quantum-exporter"
    assert database.is_up
    assert repr(database) == "<Database up>"
    await database.close()


async def test_errors_of_the_driver_are_ours(database_url: str) -> None:
    """A failing statement raises StorageError, WriteError for writers, caused by the driver's exception."""
    database = Database(database_url, SystemClock())
    for purpose, error_type in ((Purpose.READ, StorageError), (Purpose.WRITE, WriteError)):
        with pytest.raises(error_type, match="does not exist") as raised:
            async with database.acquire(purpose) as connection:
                await connection.execute("select * from nowhere")
        assert isinstance(raised.value.__cause__, asyncpg.UndefinedTableError)
    assert database.is_up
    await database.close()


async def test_own_errors_pass_unchanged(database_url: str) -> None:
    """What the caller raises inside the block is not translated."""
    database = Database(database_url, SystemClock())
    with pytest.raises(KeyError):
        async with database.acquire():
            raise KeyError("x")
    await database.close()


async def test_statements_are_bounded_by_their_purpose(database_url: str) -> None:
    """Each purpose has its statement time-out, and leaves none behind for the next user."""
    database = Database(database_url, SystemClock(), max_connections=2)
    for purpose, shown in ((Purpose.MAINTAIN, "10min"), (Purpose.READ, "30s"), (Purpose.PROBE, "5s")):
        async with database.acquire(purpose) as connection:
            assert await connection.fetchval("show statement_timeout") == shown
    await database.close()


async def test_readers_leave_a_connection_for_writers(database_url: str) -> None:
    """However many reads hang, a write and a probe find a connection at once."""
    database = Database(database_url, SystemClock(), max_connections=3)
    hanging = [asyncio.create_task(_hang(database)) for _ in range(10)]
    await asyncio.sleep(0.05)
    async with database.acquire(Purpose.WRITE) as connection:
        assert await connection.fetchval("select 1") == 1
    assert await database.probe()
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    await database.close()


async def _hang(database: Database) -> None:
    async with database.acquire(Purpose.READ) as connection:
        await connection.execute("select pg_sleep(20)")


async def test_an_outage_is_noticed_and_survived(own_postgres: PostgresServer) -> None:
    """Down: probes say no, acquire raises soon. Up again: the same object works, without being told."""
    database = Database(own_postgres.url(own_postgres.create_database()), SystemClock())
    assert await database.probe()
    own_postgres.kill()
    assert not await database.probe()
    assert not database.is_up
    assert database.last_error
    with pytest.raises(StorageError):
        async with database.acquire():
            pass
    own_postgres.start()
    for _ in range(1500):
        if await database.probe():
            break
        await asyncio.sleep(0.02)
    assert database.is_up
    assert database.last_error == ""
    await database.close()


async def test_a_cancelled_user_gives_its_connection_back(database_url: str) -> None:
    """Cancelling in the middle of a statement leaves the pool usable at once."""
    database = Database(database_url, SystemClock(), max_connections=2)
    for _ in range(5):
        task = asyncio.create_task(_hang(database))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await database.probe()
    await database.close()


async def test_closed_is_closed(database_url: str) -> None:
    """After close nothing connects any more."""
    database = Database(database_url, SystemClock())
    assert await database.probe()
    await database.close()
    with pytest.raises(StorageError, match="closed"):
        async with database.acquire():
            pass


@pytest.mark.parametrize("url", ["mysql://nowhere/x", "postgresql://h:port/x"])
async def test_a_url_that_makes_no_sense_is_named(url: str) -> None:
    """A malformed URL is an error of the option database.url."""
    database = Database(url, SystemClock())
    with pytest.raises(StorageError, match=r"database\.url"):
        async with database.acquire():
            pass
