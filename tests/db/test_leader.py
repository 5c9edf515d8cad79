"""The leader's session on a real server: one lock, one writer, and a leader that hangs loses both."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from exporter.clock import SystemClock
from exporter.db.alerts import PostgresAlertStore
from exporter.db.leader import LeaderSession, Replica
from exporter.db.pool import Database, Purpose
from exporter.errors import StorageError, WriteError
from exporter.notify.records import Changes
from exporter.rules.cooldown import Gate
from tests.helpers.postgres import PostgresServer
from tests.helpers.proxy import CutProxy

A, B = Replica("a", "host-a:9464", "http://a:9464"), Replica("b", "host-b:9464", "http://b:9464")
LEASE_S = 1.0


@contextlib.asynccontextmanager
async def session(url: str, me: Replica, lease_s: float = LEASE_S) -> AsyncIterator[LeaderSession]:
    """A session that has looked at the database once."""
    found = LeaderSession(url, SystemClock(), me, lease_s=lease_s)
    await found.refresh()
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[CutProxy]:
    found = CutProxy(f"{postgres_server.socket_dir}/.s.PGSQL.5432")
    yield found
    found.close()


async def taken(session: LeaderSession) -> bool:
    """Whether the lock is to be had by now; a session that was silent for too long is made anew."""
    try:
        await session.refresh()
        return await session.try_lock()
    except StorageError:
        return False


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait for the server's own clock."""
    end = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def test_one_leads_and_the_other_follows_as_soon_as_it_ends(migrated_url: str) -> None:
    """The lock is with one; the term grows when another takes it, not when the same one does."""
    async with session(migrated_url, A) as first, session(migrated_url, B) as second:
        assert await first.try_lock()
        await first.take_office()
        assert not await second.try_lock()
        await second.refresh()
        assert (first.leads, second.leads, second.connected) == (True, False, True)
        assert (second.office.term, second.office.holder) == (1, A)
        await first.refresh()
        assert ([one.name for one in first.others], second.others) == (["host-b:9464"], (A,))
        await first.close()
        assert await second.try_lock()
        assert second.office.holder == A, "it says who led before, until the name is entered"
        await second.take_office()
        assert (second.office.term, second.office.holder) == (2, B)
    async with session(migrated_url, B) as again:
        assert await again.try_lock()
        await again.take_office()
        assert again.office.term == 2


async def test_only_the_leader_writes_alert_state(migrated_url: str) -> None:
    """What one wants to commit that has lost the lock is refused, however late it comes."""
    database = Database(migrated_url, SystemClock())
    async with session(migrated_url, A) as first, session(migrated_url, B) as second:
        stores = [PostgresAlertStore(database, one) for one in (first, second)]
        await first.try_lock()
        await first.take_office()
        await stores[0].commit(Changes(gates={"g": Gate("g", armed_at_ms=1)}))
        with pytest.raises(WriteError, match=r"host-a:9464 leads|nobody leads"):
            await stores[1].commit(Changes(gates={"g": Gate("g", armed_at_ms=2)}))
        await first.close()
        await second.try_lock()
        await second.take_office()
        await stores[1].commit(Changes(gates={"g": Gate("g", armed_at_ms=3)}))
        with pytest.raises(WriteError):
            await stores[0].commit(Changes(gates={"g": Gate("g", armed_at_ms=4)}))
        gate = (await stores[1].load()).gates["g"]
        assert gate is not None
        assert gate.armed_at_ms == 3
    await database.close()


async def test_a_leader_that_hangs_inside_a_transaction_loses_it(migrated_url: str) -> None:
    """It says nothing for the lease: the server ends its session, the other leads, nothing was written; the
    old one has known since before that it must not count on the lock."""
    async with session(migrated_url, A) as first, session(migrated_url, B) as second:
        await first.try_lock()
        await first.take_office()

        async def hang() -> None:
            async with first.acquire(Purpose.WRITE) as connection, connection.transaction():
                await connection.execute("delete from quantum_leader")
                await until(lambda: taken(second))
                assert not first.leads
                await connection.execute("select 1")

        with pytest.raises(WriteError):
            await hang()
        assert second.office.holder == A
        assert not first.has_lock


async def test_a_database_that_swallows_everything_is_noticed_in_time(
    proxy: CutProxy, postgres_server: PostgresServer, migrated_template: str
) -> None:
    """No answer, no reset: a commit that is cut short does not hang, and the lock is free after the lease."""
    name = postgres_server.create_database(migrated_template)
    async with (
        session(proxy.url(name), A) as first,
        session(postgres_server.url(name), B) as second,
    ):
        database = Database(proxy.url(name), SystemClock())
        store = PostgresAlertStore(database, first)
        await first.try_lock()
        await first.take_office()
        proxy.swallow()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.commit(Changes(gates={"g": Gate("g", armed_at_ms=1)}))
        assert time.monotonic() - began < 5
        assert not first.has_lock
        with pytest.raises(StorageError):
            await first.refresh()
        await until(lambda: taken(second))
        proxy.restore()
        await database.close()
    postgres_server.drop_database(name)


async def test_a_refused_row_does_not_cost_the_lead(migrated_url: str) -> None:
    """A statement that fails leaves the session; nobody counts on the lock until it has answered again."""
    async with session(migrated_url, A) as first:
        await first.try_lock()
        await first.take_office()
        with pytest.raises(WriteError):
            async with first.acquire() as connection, connection.transaction():
                await connection.execute("select 1/0")
        assert (first.has_lock, first.leads) == (True, False)
        await first.refresh()
        assert first.leads
        assert first.in_office


async def test_a_session_lets_a_server_end(migrated_url: str) -> None:
    """A server that waits for its clients is not held up by the leader."""
    ends = [False]
    found = LeaderSession(migrated_url, SystemClock(), A, lease_s=LEASE_S, is_shutting_down=lambda: ends[0])
    await found.refresh()
    ends[0] = True
    with pytest.raises(StorageError, match="shutting down"):
        await found.refresh()
    assert not found.connected
