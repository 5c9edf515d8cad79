from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from exporter.client import ApiClient
from exporter.client.hedge import Latencies
from exporter.client.transport import HttpAnswer, HttpRequest, Wire
from exporter.errors import ApiError
from exporter.providers.spec import HedgeSpec
from tests.client.doubles import StrictTransport, answer, config
from tests.helpers.clock import FakeClock, settle


class Slow(StrictTransport):
    """Each call takes the next of `delays`, or ten milliseconds."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.delays: list[float] = []
        self.cancelled = 0
        self._moved = clock

    async def send(self, request: HttpRequest, wire: Wire) -> HttpAnswer:
        found = await super().send(request, wire)
        try:
            await self._moved.sleep(self.delays.pop(0) if self.delays else 0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return found


class World:
    """A client that hedges after a time, or after the 99th percentile (None)."""

    def __init__(self, after_s: float | None, limits: str = "{}") -> None:
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.transport = Slow(self.clock)
        hedged = replace(config(limits), hedge=HedgeSpec(after_s))
        self.client = ApiClient([hedged], clock=self.clock, registry=self.registry, transport=self.transport)

    def ask(self) -> asyncio.Task[object]:
        return asyncio.create_task(self.client.get_json("test", "/x"))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"provider": "test", **labels})

    def calls(self, outcome: str = "success") -> float | None:
        return self.value("quantum_api_requests_total", endpoint="/x", method="GET", outcome=outcome)


async def test_a_slow_call_gets_a_second_and_the_faster_answers() -> None:
    """After 0.5 s a second call goes out; its answer is given, and the first ends and is measured too."""
    world = World(0.5)
    async with world.client:
        world.transport.delays = [3.0, 0.1]
        task = world.ask()
        await world.clock.advance(0.49)
        assert len(world.transport.requests) == 1
        await world.clock.advance(0.12)
        assert await task == {"ok": True}
        assert len(world.transport.requests) == 2
        assert world.value("quantum_api_hedges_total") == 1
        assert world.calls() == 1
        await world.clock.advance(3.0)
        assert world.calls() == 2


async def test_a_quick_call_gets_none() -> None:
    """An answer within the time leaves no timer behind."""
    world = World(0.5)
    async with world.client:
        world.transport.delays = [0.4]
        task = world.ask()
        await world.clock.advance(0.4)
        assert await task == {"ok": True}
        await world.clock.advance(5.0)
        assert len(world.transport.requests) == 1
        assert world.value("quantum_api_hedges_total") == 0


async def test_the_99th_percentile_is_learned_first() -> None:
    """No second call before twenty answers are known; then after their 99th percentile."""
    world = World(None)
    async with world.client:
        for count in range(20):
            world.transport.delays = [5.0] if count == 0 else [0.2]
            task = world.ask()
            await world.clock.advance(5.0)
            await task
        assert len(world.transport.requests) == 20
        world.transport.delays = [60.0, 0.1]
        task = world.ask()
        await world.clock.advance(4.9)
        assert len(world.transport.requests) == 20 + 1
        await world.clock.advance(0.3)
        assert await task == {"ok": True}


def test_the_percentile_is_the_nearest_rank() -> None:
    """Of 1 to 100 it is 99; below twenty values there is none; the last two hundred count."""
    latencies = Latencies()
    for value in range(1, 20):
        latencies.add(float(value))
    assert latencies.p99() is None
    for value in range(20, 101):
        latencies.add(float(value))
    assert latencies.p99() == 99.0
    for _ in range(200):
        latencies.add(1.0)
    assert latencies.p99() == 1.0


async def test_no_second_call_where_the_limit_has_no_slot() -> None:
    """It never waits for a slot, nor takes one from a caller that waits."""
    world = World(0.5, "{minute: 1}")
    async with world.client:
        world.transport.delays = [3.0]
        task = world.ask()
        await world.clock.advance(3.0)
        assert await task == {"ok": True}
        assert len(world.transport.requests) == 1


async def test_second_calls_share_the_budget_of_retries() -> None:
    """Where every call is slow they do not double the load: ten saved up, then one for five calls."""
    world = World(0.5)
    async with world.client:
        for _ in range(40):
            world.transport.delays = [1.0, 1.0]
            task = world.ask()
            await world.clock.advance(2.0)
            await task
        made = world.value("quantum_api_hedges_total")
        assert made is not None
        assert 10 <= made <= 18


async def test_a_failure_of_one_waits_for_the_other() -> None:
    """The second fails at once, the first still answers; where both fail the failure is told."""
    world = World(0.5)
    async with world.client:
        world.transport.delays = [2.0, 0.1]
        world.transport.replies = [answer({"value": 1}), answer({}, 404)]
        task = world.ask()
        await world.clock.advance(2.0)
        assert await task == {"value": 1}
        world.transport.delays = [2.0, 0.1]
        world.transport.replies = [answer({}, 404), answer({}, 404)]
        task = world.ask()
        await world.clock.advance(2.0)
        with pytest.raises(ApiError, match="HTTP 404"):
            await task


async def test_a_cancelled_caller_cancels_both() -> None:
    """Nothing goes on for nobody; and closing ends the slower one of a race."""
    world = World(0.5)
    async with world.client:
        world.transport.delays = [5.0, 5.0]
        task = world.ask()
        await world.clock.advance(1.0)
        assert len(world.transport.requests) == 2
        task.cancel()
        await settle()
        assert world.transport.cancelled == 2
        world.transport.delays = [50.0, 0.1]
        task = world.ask()
        await world.clock.advance(1.0)
        await task
    assert world.transport.cancelled == 3


async def test_off_by_default() -> None:
    """Nobody makes a second call unless it is configured."""
    assert config().hedge is None
    clock = FakeClock()
    transport = Slow(clock)
    async with ApiClient([config()], clock=clock, transport=transport) as client:
        transport.delays = [14.0]
        task = asyncio.create_task(client.get_json("test", "/x"))
        await clock.advance(14.0)
        await task
    assert len(transport.requests) == 1
