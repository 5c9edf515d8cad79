from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from exporter.client import ApiClient
from exporter.clock import SystemClock
from exporter.db.pool import Database
from exporter.db.quota import PostgresQuota
from exporter.errors import ApiError
from exporter.model.quota import SharedSlot, Windows
from exporter.simulate.providers import ProviderSimulator
from tests.client.doubles import StrictTransport, config
from tests.helpers.clock import FakeClock, settle
from tests.helpers.postgres import PostgresServer


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, SystemClock())
    yield database
    await database.close()


def _quota(database: Database, clock: FakeClock, holder: str = "a") -> PostgresQuota:
    return PostgresQuota(database, clock, holder=holder, now_ms=clock.now_ms)


async def test_the_slot_after_the_limit_is_one_window_later(database: Database) -> None:
    """Up to the limit at once; then each call one window after the one `limit` places before it."""
    quota = _quota(database, FakeClock())
    waits = [(await quota.claim("s", ((10.0, 3),), 100.0)).wait_s for _ in range(8)]
    assert waits == [0, 0, 0, 10, 10, 10, 20, 20]


async def test_beyond_the_callers_time_no_slot_is_taken(database: Database) -> None:
    """The wait is told, and the next caller finds the same."""
    quota = _quota(database, FakeClock())
    await quota.claim("s", ((10.0, 1),), 0.0)
    for _ in range(3):
        assert await quota.claim("s", ((10.0, 1),), 9.9) == SharedSlot(10.0, None, False)
    assert (await quota.claim("s", ((10.0, 1),), 10.0)).taken


async def test_every_window_counts_and_scopes_are_apart(database: Database) -> None:
    """The longest wait of all windows; another key has its own."""
    quota = _quota(database, FakeClock())
    windows: Windows = ((1.0, 1), (60.0, 2))
    assert [(await quota.claim("s", windows, 1e4)).wait_s for _ in range(4)] == [0, 1, 60, 61]
    assert (await quota.claim("t", windows, 1e4)).wait_s == 0


async def test_a_slot_given_back_is_free_again(database: Database) -> None:
    """By `release`, and by a claim that replaces it."""
    quota = _quota(database, FakeClock())
    windows: Windows = ((10.0, 1),)
    slot = await quota.claim("s", windows, 0.0)
    await quota.release("s", slot)
    slot = await quota.claim("s", windows, 0.0)
    assert slot.taken
    assert (await quota.claim("s", windows, 0.0, slot)).taken
    assert not (await quota.claim("s", windows, 0.0)).taken


@pytest.mark.parametrize("seed", range(4))
async def test_no_window_holds_more_whatever_happens(database: Database, seed: int) -> None:
    """Random claims of three processes, slots given back and replaced: strict in every window."""
    rng, clock = random.Random(seed), FakeClock()
    quotas = [_quota(database, clock, name) for name in "abc"]
    windows: Windows = ((5.0, 3), (60.0, 10))
    sends: dict[int, float] = {}
    for _ in range(120):
        clock.jump(rng.choice([0.0, 0.0, 0.5, 7.0]))
        held = None
        future = [number for number, at in sends.items() if at >= clock.monotonic()]
        if future and rng.random() < 0.3:
            number = rng.choice(future)
            held = SharedSlot(0.0, number)
            del sends[number]
            if rng.random() < 0.5:
                await quotas[0].release("s", held)
                continue
        slot = await rng.choice(quotas).claim("s", windows, 100.0, held)
        if slot.id is not None:
            sends[slot.id] = clock.monotonic() + slot.wait_s
    times = sorted(sends.values())
    for period, limit in windows:
        for first, last in zip(times, times[limit:], strict=False):
            assert last - first >= period - 1e-3


class Counted(PostgresQuota):
    """Knows whether the database is being asked, so that the clock waits for it."""

    asking = 0

    async def claim(
        self, scope: str, windows: Windows, within_s: float, replaces: SharedSlot | None = None
    ) -> SharedSlot:
        Counted.asking += 1
        try:
            return await super().claim(scope, windows, within_s, replaces)
        finally:
            Counted.asking -= 1


async def _move(clock: FakeClock, until_s: float) -> None:
    """The clock from sleeper to sleeper, standing still while the database is asked."""
    while clock.monotonic() < until_s:
        await settle()
        if Counted.asking:
            await asyncio.sleep(0)
            continue
        if not Counted.asking:
            live = [due for due, _, future in clock._sleepers if not future.done()]
            await clock.advance(max(0.0, min([until_s, *live]) - clock.monotonic()))


@pytest.mark.parametrize(("window", "limit", "period_s"), [("second", 15, 1.0), ("minute", 20, 60.0)])
async def test_two_clients_share_one_limit_and_use_it(
    migrated_url: str, window: str, limit: int, period_s: float
) -> None:
    """Two that do not know of each other, each asking all the time, up to 40 ms of jitter: no refusal in ten
    windows, and at least 95 % of the allowed calls used, by both."""
    clock = FakeClock()
    transport = StrictTransport(clock, {window: limit}, delay_s=0.04)
    databases = [Database(migrated_url, SystemClock()) for _ in range(2)]
    clients = [
        ApiClient(
            [config(f"{{{window}: {limit}}}")],
            clock=clock,
            transport=transport,
            shared=Counted(database, clock, holder=str(n), now_ms=clock.now_ms),
        )
        for n, database in enumerate(databases)
    ]
    used = [0, 0]

    async def ask(n: int, worker: int) -> None:
        while True:
            await clients[n].get_json("test", f"/{n}/{worker}", ttl=0, deadline_s=1e6)
            used[n] += 1

    workers = [asyncio.create_task(ask(n, worker)) for n in range(2) for worker in range(4)]
    await _move(clock, 10 * period_s)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    for client, database in zip(clients, databases, strict=True):
        await client.close()
        await database.close()
    assert transport.refused == 0
    assert len([at for at in transport.arrivals if at < 10 * period_s]) >= 0.95 * limit * 10
    assert min(used) > 2 * limit


_CHILD = """
import asyncio, sys
from exporter.client import ApiClient
from exporter.clock import SystemClock
from exporter.config.positions import Reader, parse_yaml
from exporter.config.providers import read_providers
from exporter.db.pool import Database
from exporter.db.quota import PostgresQuota
from exporter.errors import ApiError
reader = Reader("test")
configs = read_providers(reader, parse_yaml(
    f"gemini: {{base_url: '{sys.argv[1]}/gemini', api_key: key, limits: {{hour: 12}}}}"))
assert not reader.problems, reader.problems
async def main():
    clock = SystemClock()
    shared = PostgresQuota(Database(sys.argv[2], clock), clock, holder=sys.argv[3])
    async with ApiClient([configs["gemini"]], shared=shared) as client:
        try:
            for number in range(int(sys.argv[4])):
                await client.get_json("gemini", "/models", ttl=0, deadline_s=20)
                print("sent", flush=True)
        except ApiError as error:
            print(error.kind.value, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_processes_share_one_limit_across_kills(migrated_url: str) -> None:
    """Real processes against the strict simulator: two at once, killed, and a third: twelve calls in the hour
    together, none refused."""
    simulator = ProviderSimulator(limits={"gemini": {"hour": 12}})
    base_url = await simulator.start()
    try:

        async def process(name: str, calls: int) -> int:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _CHILD, base_url, migrated_url, name, str(calls), stdout=subprocess.PIPE
            )
            assert child.stdout is not None
            sent = 0
            async for line in child.stdout:
                if line.strip() != b"sent":
                    assert line.strip() == b"deadline"
                    break
                sent += 1
                if sent == calls:
                    break
            os.kill(child.pid, signal.SIGKILL)
            await child.wait()
            return sent

        assert list(await asyncio.gather(process("a", 4), process("b", 4))) == [4, 4]
        assert await process("c", 99) == 4
        stats = simulator.stats()["gemini"]
        assert (stats["accepted"], stats["refused"]) == (12, 0)
    finally:
        await simulator.stop()


async def test_while_the_database_is_away_each_keeps_to_its_share(
    own_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 8 calls two processes make 4 each without it; told later, they count for both. One line each."""
    clock = FakeClock()
    databases = [Database(own_postgres.migrated_url(), SystemClock())]
    databases.append(Database(databases[0].url, SystemClock()))
    quotas = [_quota(database, clock, str(n)) for n, database in enumerate(databases)]
    windows: Windows = ((60.0, 8),)

    async def taken(quota: PostgresQuota) -> int:
        count = 0
        while (await quota.claim("s", windows, 0.0)).taken:
            count += 1
        return count

    with caplog.at_level(logging.INFO):
        for quota in (*quotas, quotas[0]):
            assert (await quota.claim("s", windows, 0.0)).taken  # from now on they know of each other
        clock.jump(61)
        own_postgres.stop()
        assert [await taken(quota) for quota in quotas] == [4, 4]
        own_postgres.start()
        for database in databases:
            assert await database.probe()
        clock.jump(30)
        assert [await taken(quota) for quota in quotas] == [4, 0]  # the second's are told when it asks
        clock.jump(31)
        assert sum([await taken(quota) for quota in quotas]) <= 8
    messages = [record.message for record in caplog.records if "quota" in record.message]
    assert [message.partition(":")[0] for message in messages] == [
        "quotas are not shared while the database is away, each process keeps to its share",
        "quotas are not shared while the database is away, each process keeps to its share",
        "quotas are shared through the database again",
        "quotas are shared through the database again",
    ]
    for database in databases:
        await database.close()


async def test_a_refused_call_names_the_shared_limit(database: Database) -> None:
    """Where another process has used the limit, the caller is told when the next call may go."""
    clock = FakeClock()
    other = _quota(database, clock, "other")
    for _ in range(5):
        await other.claim("test", ((60.3, 5),), 0.0)
    transport = StrictTransport(clock)
    async with ApiClient(
        [config("{minute: 5}")], clock=clock, transport=transport, shared=_quota(database, clock)
    ) as client:
        with pytest.raises(ApiError, match=r"the shared limit allows the next call in 60\.3 s") as caught:
            await client.get_json("test", "/x", deadline_s=30)
        assert caught.value.retry_after_s == pytest.approx(60.3)
    assert transport.requests == []
