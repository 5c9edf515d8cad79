"""The rules about feeds against the simulator: real HTTP, our own gauges, a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.client import ApiClient, Priority
from exporter.client.retry import RetryPolicy
from exporter.config.providers import default_providers, simulated
from exporter.config.schema import GlobalConfig
from exporter.errors import ApiError
from exporter.loops.providers import ProviderPoller
from exporter.observe.snapshot import Snapshotter
from exporter.promql.engine import Engine
from exporter.rules.engine_query import EngineQueries
from exporter.rules.format import read_rule_files
from exporter.rules.group import GroupState, evaluate_group
from exporter.simulate.faults import Fault, FaultKind
from exporter.simulate.providers import ProviderSimulator
from exporter.storage import MemoryStorage
from tests.helpers.clock import FakeClock

_STEP_S = 15.0
_NAMES = ("kraken", "coingecko", "blockchain", "coinmarketcap", "openai")


class World:
    """Providers polled each at its own interval, snapshots and rules as the exporter takes them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.simulator = ProviderSimulator(clock=self.clock)
        self.storage = MemoryStorage()
        self._registry = CollectorRegistry()
        self._snapshotter = Snapshotter(self._registry)
        self._queries = EngineQueries(Engine(self.storage))
        path = asset_dir("rules") / "feeds.yml"
        (self._group,) = read_rule_files([(str(path), path.read_text())])
        self._state = GroupState()
        self._due: dict[tuple[str, str], float] = {}
        self._evaluated_ms = 0
        self.since: dict[tuple[str, str], float] = {}

    async def start(self) -> None:
        base_url = await self.simulator.start()
        known = simulated(default_providers(), base_url)
        self.configs = {name: known[name] for name in (*_NAMES, "lunarcrush")}
        self.client = ApiClient(
            self.configs, registry=self._registry, clock=self.clock, retry=RetryPolicy(attempts=1)
        )
        await self.client.start()
        polled = {name: self.configs[name] for name in _NAMES}
        self.poller = ProviderPoller(self.client, polled, registry=self._registry, clock=self.clock)

    async def run(self, seconds: float) -> None:
        """Poll, snapshot and judge for that long; `since` keeps when each alert was first seen firing."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            await self.clock.advance(_STEP_S)
            now = self.clock.monotonic()
            due = []
            for name in _NAMES:
                config = self.configs[name]
                for endpoint in config.spec.endpoints.values():
                    if endpoint.poll and self._due.get((name, endpoint.name), 0.0) <= now:
                        self._due[name, endpoint.name] = now + self.poller.interval_s(config, endpoint)
                        due.append(self.poller._poll(config, endpoint))
            await asyncio.gather(*due)
            ts_ms = self.clock.now_ms()
            for batch in self._snapshotter.take(ts_ms):
                self.storage.append_batch(batch)
            if ts_ms - self._evaluated_ms >= GlobalConfig().evaluation_interval_ms:
                self._evaluated_ms = ts_ms
                done = evaluate_group(
                    self._group, self._state, ts_ms, self._queries(), self.storage.append_batch
                )
                firing = {
                    (rule.rule.name, dict(instance.labels)["provider"])
                    for rule in done.rules
                    for instance in rule.active
                    if instance.state.name == "FIRING"
                }
                self.since = {key: self.since.get(key, now) for key in firing}

    async def close(self) -> None:
        self.poller.close()
        await self.client.close()
        await self.simulator.stop()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    await world.run(300)
    yield world
    await world.close()


async def test_healthy_feeds_are_silent(world: World) -> None:
    """Half an hour of all providers, each a little late and a little off: no alert."""
    await world.run(1800)
    assert world.since == {}


@pytest.mark.parametrize(
    ("provider", "interval_s"), [("kraken", 30.0), ("coingecko", 60.0), ("blockchain", 60.0)]
)
async def test_a_frozen_feed_is_named_within_two_intervals(
    world: World, provider: str, interval_s: float
) -> None:
    """With and without a time of the provider's own: named at the latest two polls after its first old
    answer; quiet again with new data."""
    world.simulator.faults.add(Fault(provider, FaultKind.FREEZE, since_ms=world.clock.now_ms()))
    frozen_at = world.clock.monotonic()
    await world.run(8 * interval_s)
    assert set(world.since) == {("FeedFrozen", provider)}
    # The first poll after the freeze still moves; the second is the first to bring nothing new.
    evaluation_s = GlobalConfig().evaluation_interval_ms / 1000
    assert world.since["FeedFrozen", provider] - frozen_at <= (2 + 2) * interval_s + evaluation_s
    world.simulator.faults.clear()
    await world.run(2 * interval_s + 30)
    assert world.since == {}


@pytest.mark.parametrize("provider", ["kraken", "coingecko"])
async def test_a_price_that_disagrees_is_named_within_two_intervals(world: World, provider: str) -> None:
    """10 % above the others: only that provider is named, and no more once it agrees."""
    world.simulator.faults.add(Fault(provider, FaultKind.SKEW))
    began = world.clock.monotonic()
    await world.run(180)
    assert set(world.since) == {("PriceDisagrees", provider)}
    assert world.since["PriceDisagrees", provider] - began <= 2 * 60.0
    world.simulator.faults.clear()
    await world.run(120)
    assert world.since == {}


async def test_a_burning_quota_is_told_before_it_is_used_up(world: World) -> None:
    """24 calls an hour of 100 a day, ahead of the pace: told while most of it is left, never refused."""
    while ("QuotaRunsOut", "lunarcrush") not in world.since and world.clock.monotonic() < 3 * 3600:
        await world.client.call("lunarcrush", "sentiment", max_age_s=0, priority=Priority.HIGH)
        await world.run(150)
    window = next(
        window for window in world.client.rate_limit_stats()["lunarcrush"].windows if window.window == "day"
    )
    assert ("QuotaRunsOut", "lunarcrush") in world.since
    assert window.used < 0.5 * window.limit
    assert world.simulator.stats()["lunarcrush"]["refused"] == 0


async def test_a_bill_is_told_until_it_is_resumed(world: World) -> None:
    """A refusal for the bill stops the provider, and the rule says so; after `resume` it ends."""
    world.simulator.faults.add(Fault("openai", FaultKind.BILLING))
    with pytest.raises(ApiError):
        await world.client.call("openai", "models", max_age_s=0, allow_stale=False)
    await world.run(60)
    assert set(world.since) == {("ProviderStopped", "openai")}
    world.simulator.faults.clear()
    world.client.resume("openai")
    await world.run(120)
    assert world.since == {}
