"""The dead man's switch: beats while there is progress, none when something has stalled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from exporter.compose.progress import Progress
from exporter.config.schema import HeartbeatConfig
from exporter.notify.heartbeat import Heartbeat, HeartbeatMetrics
from exporter.rules.evaluation import GroupEvaluation, GroupView
from exporter.rules.model import RuleGroup
from tests.helpers.clock import FakeClock
from tests.notify.stage import rule, running
from tests.notify.test_webhook import server

MINUTE = 60


@dataclass
class Service:
    """The service outside: remembers the methods and paths of its beats."""

    beats: list[str] = field(default_factory=list)
    status: int = 200

    async def handle(self, request: web.Request) -> web.Response:
        self.beats.append(f"{request.method} {request.path_qs}")
        return web.Response(status=self.status)


class Beating:
    """A heartbeat at a service, and a clock whose minutes wait for real sockets."""

    def __init__(self, url: str, clock: FakeClock, stalled: Callable[[int], str], **keys: object) -> None:
        self.registry = CollectorRegistry()
        config = HeartbeatConfig(url=f"{url}/ping?token=secret", **keys) if url else HeartbeatConfig()  # type: ignore[arg-type]
        self.heart = Heartbeat(config, clock, HeartbeatMetrics(self.registry), stalled)
        self.clock = clock

    def count(self, outcome: str) -> float:
        return self.registry.get_sample_value("quantum_heartbeats_total", {"outcome": outcome}) or 0

    @property
    def total(self) -> float:
        return sum(self.count(outcome) for outcome in ("sent", "failed", "withheld"))

    async def settled(self, total: float) -> None:
        """Wait for the socket: until so many beats have come to an end."""
        async with asyncio.timeout(10):
            while self.total < total:  # noqa: ASYNC110 - the other side is a socket
                await asyncio.sleep(0.005)

    async def minutes(self, count: int) -> None:
        for _ in range(count):
            before = self.total
            await self.clock.advance(MINUTE)
            await self.settled(before + 1)


@contextlib.asynccontextmanager
async def beating(
    service: Service, stalled: Callable[[int], str] = lambda _: "", **keys: object
) -> AsyncIterator[Beating]:
    async with server(service.handle) as url:
        found = Beating(url, FakeClock(), stalled, **keys)
        task = asyncio.create_task(found.heart.run())
        try:
            await found.settled(1)
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_beats_at_each_interval() -> None:
    """At once, then once a minute, by GET unless another method is configured."""
    service = Service()
    async with beating(service) as found:
        await found.minutes(3)
    assert service.beats == ["GET /ping?token=secret"] * 4
    service = Service()
    async with beating(service, method="POST", interval_ms=MINUTE * 1000) as found:
        await found.minutes(1)
    assert service.beats == ["POST /ping?token=secret"] * 2


async def test_no_beat_without_progress(caplog: pytest.LogCaptureFixture) -> None:
    """What is due is withheld, counted and logged once; it goes on when progress does."""
    reason, service = "", Service()
    caplog.set_level(logging.INFO, "exporter.notify.heartbeat")
    async with beating(service, lambda _: reason) as found:
        reason = "rule group a was not evaluated for 90 s"
        await found.minutes(3)
        assert (len(service.beats), found.count("withheld")) == (1, 3)
        reason = ""
        await found.minutes(1)
        assert (len(service.beats), found.count("sent")) == (2, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "the heartbeat is withheld: rule group a was not evaluated for 90 s (127.0.0.1)",
        "the heartbeat goes on (127.0.0.1)",
    ]


async def test_a_refused_beat_is_told_once_and_without_the_secret(caplog: pytest.LogCaptureFixture) -> None:
    """A service that answers 500 costs one line; the next beat comes all the same."""
    service = Service(status=500)
    async with beating(service) as found:
        await found.minutes(2)
        assert found.count("failed") == 3
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


async def test_a_reload_gives_it_its_url() -> None:
    """Without a URL nothing is sent; a reload that brings one beats at once."""
    service = Service()
    async with server(service.handle) as url:
        found = Beating("", FakeClock(), lambda _: "")
        task = asyncio.create_task(found.heart.run())
        await found.clock.advance(5 * MINUTE)
        assert (found.total, service.beats) == (0, [])
        found.heart.configure(HeartbeatConfig(url=f"{url}/new"))
        await found.settled(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert service.beats == ["GET /new"]


@dataclass
class World:
    """Rule groups and a notifier that stand where a test puts them."""

    clock: FakeClock
    evaluated_ms: list[int | None]
    interval_ms: int = 15_000
    lag: int = 0

    def groups(self) -> Sequence[GroupView]:
        return [
            GroupView(group, self.interval_ms, GroupEvaluation(group, at_ms, ()) if at_ms else None)
            for number, at_ms in enumerate(self.evaluated_ms)
            for group in [RuleGroup(f"g{number}", "f.yml", ())]
        ]

    def lag_ms(self) -> int:
        return self.lag


async def test_progress_is_of_every_group_and_of_the_notifier() -> None:
    """One stalled group is enough; a new group has time from when it was seen first."""
    clock = FakeClock()
    world = World(clock, [clock.now_ms(), None])
    progress = Progress(world, world, clock)
    assert progress.stalled(60_000) == ""
    clock.jump(61)
    world.evaluated_ms = [clock.now_ms(), None]
    assert progress.stalled(60_000) == "rule group g1 was not evaluated for 61 s"
    world.evaluated_ms = [clock.now_ms(), clock.now_ms()]
    assert progress.stalled(60_000) == ""
    world.lag = 61_000
    assert progress.stalled(60_000) == "the notifier has stood still for 61 s"
    assert Progress(World(clock, [None]), world, clock).stalled(60_000) == "no rule group was evaluated yet"


async def test_a_slow_group_has_two_of_its_own_intervals() -> None:
    """A group that runs each hour does not stop a beat a minute."""
    clock = FakeClock()
    world = World(clock, [clock.now_ms()], interval_ms=3_600_000)
    clock.jump(7200)
    assert Progress(world, world, clock).stalled(60_000) == ""
    clock.jump(1)
    assert Progress(world, world, clock).stalled(60_000) == "rule group g0 was not evaluated for 7201 s"


async def test_the_beat_stops_within_two_intervals() -> None:
    """From the last evaluation on, beats leave for less than two intervals."""
    clock, service = FakeClock(), Service()
    world = World(clock, [clock.now_ms()])
    progress = Progress(world, world, clock)
    async with beating(service, progress.stalled) as found:
        stopped_ms = None
        for step in range(10):
            if step < 4:
                world.evaluated_ms = [clock.now_ms()]
            elif stopped_ms is None:
                stopped_ms = clock.now_ms()
            clock.jump(60)
            before = len(service.beats)
            await found.heart.beat()
            if stopped_ms is not None and len(service.beats) > before:
                assert clock.now_ms() - stopped_ms < 120_000
        assert found.count("withheld") >= 5


async def test_the_notifier_tells_its_lag(tmp_path: Path) -> None:
    """It ticks each second; where it does not tick the lag grows."""
    async with running(tmp_path, [rule()]) as rig:
        await rig.minutes(1)
        assert rig.dispatcher.lag_ms() <= 1000
        await rig.fire("a")
        assert rig.dispatcher.lag_ms() <= 1000
        rig.clock.jump(50)
        assert rig.dispatcher.lag_ms() >= 50_000
