"""Leadership put together: two replicas on one real database, each with a way to be cut off from it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from exporter.clock import SystemClock
from exporter.compose.replicas import ReplicaMetrics, Replicas
from exporter.db.alerts import PostgresAlertStore, StoredState
from exporter.db.leader import LeaderSession, Replica
from exporter.db.pool import Database
from exporter.errors import StorageError
from exporter.notify.office import Claim
from exporter.notify.records import Changes
from tests.helpers.postgres import PostgresServer
from tests.helpers.proxy import CutProxy

LEASE_S = 1.0


class Turns:
    """The part that notifies, as far as leadership sees it."""

    def __init__(self, tables: PostgresAlertStore) -> None:
        self._tables = tables
        self.said: list[str] = []
        self.meanwhile: list[Callable[[], None]] = []  # what happens during the next takeovers

    async def take_up(self, known: Changes | None) -> None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.said.append("begins" if known is None else "begins from what it knew")

    async def stand_down(self) -> None:
        self.said.append("ends")

    async def hand_in(self) -> int:
        self.said.append("hands in")
        return 0

    async def look(self) -> StoredState:
        return await self._tables.look()

    def wake(self) -> None:
        pass


class One:
    """One replica behind a proxy. `hears` says whether the others' answers reach it."""

    def __init__(self, name: str, server: PostgresServer, database: str, everyone: dict[str, One]) -> None:
        self.proxy = CutProxy(f"{server.socket_dir}/.s.PGSQL.5432")
        self.hears = True
        self._everyone = everyone
        clock = SystemClock()
        url = self.proxy.url(database)
        self._database = Database(url, clock)
        self.session = LeaderSession(url, clock, Replica(name, name, f"http://{name}"), lease_s=LEASE_S)
        self.turns = Turns(PostgresAlertStore(self._database, self.session))
        self.registry = CollectorRegistry()
        self.faults: list[BaseException] = []
        self.replicas = Replicas(
            self.session,
            self.turns,
            self._ask,
            clock,
            ReplicaMetrics(self.registry),
            on_fault=lambda _, error: self.faults.append(error),
        )
        self._task: asyncio.Task[None] | None = None
        everyone[name] = self

    async def _ask(self, other: Replica, timeout_s: float) -> Claim | None:
        found = self._everyone.get(other.name)
        if not self.hears or found is None or found._task is None:
            return None
        return found.replicas.claim()

    async def start(self) -> None:
        await self.replicas.begin()
        self._task = asyncio.create_task(self.replicas.run())

    async def die(self) -> None:
        """Without a word: the system closes its connections."""
        await self._cancel()
        if self.session._connection is not None:
            self.session._connection.terminate()

    async def stop(self) -> None:
        await self._cancel()
        await self.replicas.close()
        await self._database.close()
        self.proxy.close()
        assert not self.faults

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def running(server: PostgresServer, names: Sequence[str]) -> AsyncIterator[list[One]]:
    """Replicas that start one after another."""
    database = server.create_database(server.migrated_template())
    everyone: dict[str, One] = {}
    found = [One(name, server, database, everyone) for name in names]
    try:
        for one in found:
            await one.start()
        yield found
    finally:
        for one in found:
            await one.stop()


async def until(check: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


def notifying(found: list[One]) -> list[str]:
    return [one.session.me.name for one in found if one.replicas.notifies]


async def test_one_notifies_and_another_goes_on_when_it_dies(postgres_server: PostgresServer) -> None:
    """The first to come notifies; when it is gone the other begins with the stored state."""
    async with running(postgres_server, ["a", "b"]) as (a, b):
        assert notifying([a, b]) == ["a"]
        assert a.replicas.permitted()
        assert not b.replicas.permitted()
        assert b.replicas.leader == a.session.me
        assert "a notifies" in b.replicas.describe()
        await until(lambda: a.session.others, "a sees b")
        assert a.registry.get_sample_value("quantum_leader") == 1
        await a.die()
        await until(b.replicas.permitted, "b notifies")
        assert b.turns.said == ["hands in", "begins"] or b.turns.said == ["hands in", "hands in", "begins"]
        assert b.session.office.term == 2


async def test_alone_it_notifies_whatever_the_database_does(own_postgres: PostgresServer) -> None:
    """Cut off, swallowed or stopped: no turn ends, and sending is permitted all the time."""
    async with running(own_postgres, ["a"]) as (a,):
        lapses = []

        async def watch() -> None:
            while True:
                if not a.replicas.permitted():
                    lapses.append(time.monotonic())
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        a.proxy.refuse()
        await until(lambda: not a.session.has_lock, "the loss is noticed")
        await asyncio.sleep(LEASE_S)
        a.proxy.restore()
        await until(lambda: a.session.in_office, "the lock is back")
        a.proxy.swallow()
        await until(lambda: not a.session.has_lock, "the silence is noticed")
        await asyncio.sleep(LEASE_S)
        a.proxy.restore()
        await until(lambda: a.session.in_office, "the lock is back")
        await asyncio.to_thread(own_postgres.stop)
        await until(lambda: not a.session.has_lock, "the stop is noticed")
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: a.session.in_office, "the lock is back")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert a.turns.said == ["begins"]
        assert a.session.office.term == 1
        assert not lapses


@pytest.mark.parametrize("how", ["refuse", "swallow"])
async def test_a_leader_that_is_cut_off_gives_way(postgres_server: PostgresServer, how: str) -> None:
    """It hears that the other reaches the database and stops before the other begins; when it is back it
    follows, and hands in what it could not record."""
    async with running(postgres_server, ["a", "b"]) as (a, b):
        await until(lambda: a.session.others, "a sees b")
        getattr(a.proxy, how)()
        both = []
        while not b.replicas.notifies:
            both.append(a.replicas.permitted() and b.replicas.permitted())
            await asyncio.sleep(0.01)
        await until(lambda: not a.replicas.notifies, "a gave way")
        assert not any(both)
        assert not a.replicas.permitted()
        a.proxy.restore()
        await until(lambda: a.turns.said[-1] == "hands in", "a handed in")
        await asyncio.sleep(LEASE_S)
        assert notifying([a, b]) == ["b"]


async def test_without_a_database_one_of_those_who_hear_each_other_notifies(
    own_postgres: PostgresServer,
) -> None:
    """The last leader goes on, the other keeps silent; when it dies the other begins from what it knew."""
    async with running(own_postgres, ["a", "b"]) as (a, b):
        await until(lambda: a.session.others, "a sees b")
        await asyncio.to_thread(own_postgres.stop)
        await until(lambda: not a.session.connected and not b.session.connected, "both are cut off")
        await asyncio.sleep(2 * LEASE_S)
        assert notifying([a, b]) == ["a"]
        assert a.replicas.permitted()
        await a.die()
        await until(b.replicas.permitted, "b notifies")
        assert b.turns.said[-1] == "begins from what it knew"
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: b.session.in_office, "b has the lock")
        assert b.turns.said[-1] == "begins from what it knew", "its turn goes on"


async def test_without_a_database_and_without_each_other_both_notify(own_postgres: PostgresServer) -> None:
    """A message sent twice is better than none. When the database is back, one of them is left."""
    async with running(own_postgres, ["a", "b"]) as (a, b):
        a.hears = b.hears = False
        await until(lambda: a.session.others, "a sees b")
        await asyncio.to_thread(own_postgres.stop)
        await until(lambda: notifying([a, b]) == ["a", "b"], "both notify")
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: len(notifying([a, b])) == 1, "one is left")


async def test_a_replica_that_hung_sends_nothing_when_it_wakes(postgres_server: PostgresServer) -> None:
    """Its loop stood still for longer than the lease: at the very first moment after, it may not send."""
    async with running(postgres_server, ["a", "b"]) as (a, b):
        await until(lambda: a.session.others, "a sees b")
        await a._cancel()  # its loop stands still; nobody confirms the lock
        await until(b.replicas.permitted, "b notifies")
        assert a.replicas.notifies
        assert not a.replicas.permitted()
        with pytest.raises(StorageError):
            await a.turns._tables.commit(Changes())
        a._task = asyncio.create_task(a.replicas.run())
        await until(lambda: not a.replicas.notifies, "a gave way")
        assert notifying([a, b]) == ["b"]


async def test_a_busy_replica_claims_what_it_knows(postgres_server: PostgresServer) -> None:
    """It reaches the database until it has seen that it does not, however late its loop is: else the one that
    is cut off would notify beside it."""
    async with running(postgres_server, ["a", "b"]) as (_, b):
        await b._cancel()
        await asyncio.sleep(1.5 * LEASE_S)
        assert not b.session.connected
        assert b.replicas.claim().connected


async def test_a_leader_that_is_cut_off_waits_for_an_answer(postgres_server: PostgresServer) -> None:
    """One answer may be late: it asks for as long as the lease before it goes on without the database."""
    async with running(postgres_server, ["a", "b"]) as (a, b):
        await until(lambda: a.session.others, "a sees b")
        a.hears = False
        a.proxy.refuse()
        began = time.monotonic()
        await until(lambda: not a.session.has_lock, "the loss is noticed")
        await until(a.replicas.permitted, "a goes on")
        assert time.monotonic() - began >= 0.9 * LEASE_S
        await until(lambda: b.replicas.notifies, "b begins too")
        a.hears = True
        await until(lambda: not a.replicas.notifies, "a has heard of b")


async def test_a_takeover_that_loses_the_lock_is_none(postgres_server: PostgresServer) -> None:
    """What was read may not be the tables' any more: the turn ends before anything was sent, and begins anew
    with the lock."""
    async with running(postgres_server, ["a", "b"]) as (a, b):
        await until(lambda: b.session.others, "b sees a")
        b.turns.meanwhile = [lambda: b.session._drop("cut off")]
        await a.die()
        await until(lambda: "ends" in b.turns.said, "the turn ends")
        await until(b.replicas.permitted, "b notifies")
        assert b.turns.said[-3:] in (["begins", "ends", "begins"], ["ends", "hands in", "begins"])
