from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry

from exporter.client import ApiClient
from exporter.client.retry import RetryPolicy
from exporter.config.providers import ProviderConfig, default_providers, simulated
from exporter.errors import ApiError, ApiErrorKind
from exporter.loops.providers import ProviderPoller
from exporter.providers.declare import read_declaration
from exporter.providers.results import Declared, Model, Models, OnChain, Quote, Quotes, Result, Sentiment
from exporter.simulate.faults import Fault, FaultKind
from exporter.simulate.providers import ProviderSimulator
from tests.helpers.clock import FakeClock

_CHAIN = OnChain(1e21, 1.4e14, 900_000, 590.0, 400_000, 2e7, 4.5, 3e7, 9e9, 3e10, 60_000.0, 0)


@dataclass
class Answer:
    """What the client gives."""

    result: Result | None


@dataclass
class Client:
    """Answers or fails as the test says; counts the calls."""

    answers: dict[tuple[str, str], Result | Exception] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    gap_s: float = 0.0

    async def call(
        self,
        provider: str,
        endpoint: str,
        *,
        max_age_s: float | None,
        allow_stale: bool,
        counted: bool,
        deadline_s: float,
    ) -> Answer:
        assert not allow_stale
        assert not counted  # polls renew the cache: it serves others
        self.calls.append((provider, endpoint))
        answer = self.answers[provider, endpoint]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer)

    async def learn_limits(self) -> Mapping[str, object]:
        return {}

    def min_interval_s(self, provider: str) -> float:
        return self.gap_s


def _quotes(price: float, updated_ms: int | None = None) -> Quotes:
    return Quotes({"x": Quote("BTC", price, price * 2e7, 1e9, updated_ms)})


class World:
    """A poller of some of the seven on a fake clock."""

    def __init__(self, *names: str, configs: Mapping[str, ProviderConfig] | None = None) -> None:
        self.clock, self.client, self.registry = FakeClock(), Client(), CollectorRegistry()
        known = configs or simulated(default_providers(), "http://sim.test")
        self.poller = ProviderPoller(
            self.client, {name: known[name] for name in names}, registry=self.registry, clock=self.clock
        )
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> World:
        self.task = asyncio.create_task(self.poller.run())
        await self.clock.advance(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.poller.close()

    def value(self, name: str, provider: str = "kraken", **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"provider": provider, **labels})


_DOWN = ApiError("kraken /Ticker: api.kraken.com: no address found", ApiErrorKind.NETWORK, provider="kraken")


async def test_a_poll_sets_the_gauges() -> None:
    """Price, market cap, volume, on-chain numbers, sentiment, models, up, age."""
    world = World("kraken", "blockchain", "lunarcrush", "openai")
    now_ms = world.clock.now_ms()
    sentiment = Sentiment("BTC", 0.73, 55.0, 100, 0.25, 1e5, Quote("BTC", 61_000.0), now_ms - 4000)
    world.client.answers = {
        ("kraken", "quotes"): _quotes(60_000.0),
        ("blockchain", "quotes"): Quotes({"": Quote("BTC", 60_600.0)}),
        ("blockchain", "stats"): replace(_CHAIN, updated_ms=now_ms - 30_000),
        ("lunarcrush", "sentiment"): sentiment,
        ("openai", "models"): Models((Model("a"), Model("b", 1_800_000_000_000))),
    }
    async with world:
        assert world.value("quantum_btc_price_usd") == 60_000.0
        assert world.value("quantum_btc_market_cap_usd", "blockchain") == 60_000.0 * 2e7
        assert world.value("quantum_bitcoin_hash_rate_hashes_per_second", "blockchain") == 1e21
        assert world.value("quantum_market_sentiment_ratio", "lunarcrush") == 0.73
        assert world.value("quantum_ai_models", "openai") == 2
        shutdown = world.value("quantum_ai_model_shutdown_timestamp_seconds", "openai", model="b")
        assert shutdown == 1_800_000_000
        assert world.value("quantum_provider_data_age_seconds", "blockchain") == 30.0
        assert world.value("quantum_provider_poll_interval_seconds", "blockchain") == 60.0
        assert world.value("quantum_provider_up") == 1
        spread = world.registry.get_sample_value("quantum_btc_price_spread_ratio")
        assert spread == pytest.approx(1000 / 60_600)
        assert world.value("quantum_btc_price_deviation_ratio", "blockchain") == 0.0
    assert world.value("quantum_provider_up") is None


async def test_each_endpoint_keeps_its_interval() -> None:
    """Kraken every 30 s, Blockchain.com's two every 60 s, LunarCrush every 15 min."""
    world = World("kraken", "blockchain", "lunarcrush")
    world.client.answers = {
        ("kraken", "quotes"): _quotes(1.0),
        ("blockchain", "quotes"): _quotes(1.0),
        ("blockchain", "stats"): _CHAIN,
        ("lunarcrush", "sentiment"): _quotes(1.0),
    }
    async with world:
        await world.clock.advance(1799)
    counts = {key: world.client.calls.count(key) for key in world.client.answers}
    assert counts == {
        ("kraken", "quotes"): 60,
        ("blockchain", "quotes"): 30,
        ("blockchain", "stats"): 30,
        ("lunarcrush", "sentiment"): 2,
    }


async def test_a_paced_quota_stretches_the_interval() -> None:
    """Where a quota leaves one call in 300 s, polling is no faster."""
    world = World("kraken")
    world.client.answers = {("kraken", "quotes"): _quotes(1.0)}
    world.client.gap_s = 300.0
    async with world:
        await world.clock.advance(899)
    assert len(world.client.calls) == 3


async def test_a_provider_that_fails_goes_down_and_its_series_end(caplog: pytest.LogCaptureFixture) -> None:
    """up is 0 at once; the price stays for three intervals, then goes; the age goes on; one log line each."""
    world = World("kraken")
    world.client.answers = {("kraken", "quotes"): _quotes(60_000.0)}
    with caplog.at_level(logging.INFO):
        async with world:
            world.client.answers = {("kraken", "quotes"): _DOWN}
            await world.clock.advance(30)
            assert world.value("quantum_provider_up") == 0
            assert world.value("quantum_btc_price_usd") == 60_000.0
            await world.clock.advance(61)
            assert world.value("quantum_btc_price_usd") is None
            assert world.value("quantum_provider_data_age_seconds") == 91.0
            await world.clock.advance(3600)
            assert world.value("quantum_provider_polls_total", outcome="network") == 123
            world.client.answers = {("kraken", "quotes"): _quotes(60_500.0)}
            await world.clock.advance(30)
            assert world.value("quantum_provider_up") == 1
            assert world.value("quantum_btc_price_usd") == 60_500.0
    messages = [record.message for record in caplog.records]
    assert messages == [
        "provider kraken is down: kraken /Ticker: api.kraken.com: no address found",
        "provider kraken is up again after 3690 s",
    ]


async def test_our_own_limit_says_nothing_about_the_provider() -> None:
    """A poll that found no slot in time is counted, and the provider stays up."""
    world = World("kraken")
    world.client.answers = {("kraken", "quotes"): _quotes(1.0)}
    async with world:
        world.client.answers = {("kraken", "quotes"): ApiError("no slot", ApiErrorKind.DEADLINE)}
        await world.clock.advance(30)
        assert world.value("quantum_provider_up") == 1
        assert world.value("quantum_provider_polls_total", outcome="deadline") == 1


async def test_an_unexpected_fault_does_not_end_the_polling() -> None:
    """A fault of our own counts as internal, and the next poll is made."""
    world = World("kraken")
    world.client.answers = {("kraken", "quotes"): RuntimeError("bug")}
    async with world:
        assert world.value("quantum_provider_up") == 0
        world.client.answers = {("kraken", "quotes"): _quotes(1.0)}
        await world.clock.advance(30)
        assert world.value("quantum_provider_up") == 1
        assert world.value("quantum_provider_polls_total", outcome="internal") == 1


async def test_a_frozen_feed_shows_in_its_age_and_in_an_unchanged_price() -> None:
    """The same value with the same old time: both gauges grow, poll after poll."""
    world = World("kraken", "coingecko")
    start_ms = world.clock.now_ms()
    world.client.answers = {
        ("kraken", "quotes"): _quotes(60_000.0),
        ("coingecko", "quotes"): _quotes(60_000.0, start_ms),
    }
    async with world:
        await world.clock.advance(600)
        assert world.value("quantum_provider_data_age_seconds", "coingecko") == 600.0
        assert world.value("quantum_btc_price_unchanged_seconds", "kraken") == 600.0
        # Older than five minutes, the frozen price is left out of the comparison.
        assert world.registry.get_sample_value("quantum_btc_price_spread_ratio") is None
        world.client.answers["kraken", "quotes"] = _quotes(60_001.0)
        await world.clock.advance(30)
        assert world.value("quantum_btc_price_unchanged_seconds", "kraken") == 0.0


async def test_a_wrong_price_is_named_by_its_deviation() -> None:
    """Of three providers, the one that is off by ten percent deviates from the median."""
    world = World("kraken", "coingecko", "coinmarketcap")
    for name, price in (("kraken", 66_000.0), ("coingecko", 60_000.0), ("coinmarketcap", 60_010.0)):
        world.client.answers[name, "quotes"] = _quotes(price)
    async with world:
        assert world.value("quantum_btc_price_deviation_ratio", "kraken") == pytest.approx(0.0998, abs=1e-4)
        deviation = world.value("quantum_btc_price_deviation_ratio", "coingecko")
        assert deviation is not None
        assert deviation < 0.001


async def test_declared_metrics_are_gauges() -> None:
    """A user's declaration brings its own metric, with its help."""
    text = """
base_url: http://weather.test
endpoints:
  now: {path: /now, poll: true, metrics: [{metric: weather_temperature_celsius, path: t, help: Outside.}]}
"""
    config = ProviderConfig(spec=read_declaration("weather", text))
    world = World("weather", configs={"weather": config})
    world.client.answers = {("weather", "now"): Declared({"weather_temperature_celsius": 21.5})}
    async with world:
        assert world.value("weather_temperature_celsius", "weather") == 21.5
        helps = {family.name: family.documentation for family in world.registry.collect()}
        assert helps["weather_temperature_celsius"] == "Outside."


async def test_one_poll_of_all_on_demand() -> None:
    """`poll_once` asks every polled endpoint and keeps failures in the state."""
    world = World("kraken", "blockchain")
    world.client.answers = {
        ("kraken", "quotes"): _DOWN,
        ("blockchain", "quotes"): _quotes(1.0),
        ("blockchain", "stats"): _CHAIN,
    }
    await world.poller.poll_once()
    assert (world.poller.state.is_up("kraken"), world.poller.state.is_up("blockchain")) == (False, True)
    world.poller.close()


async def test_client_poller_and_simulator_together() -> None:
    """Real HTTP: all seven are up; a fault takes one of them down and leaves the others; then it is back."""
    clock = FakeClock()
    simulator = ProviderSimulator(clock=clock)
    configs = simulated(default_providers(), await simulator.start())
    registry = CollectorRegistry()
    retry = RetryPolicy(attempts=1)
    async with ApiClient(configs, registry=registry, clock=clock, retry=retry) as client:
        poller = ProviderPoller(client, configs, registry=registry, clock=clock)

        async def ups() -> set[str]:
            await poller.poll_once()
            await clock.advance(120)
            names = {"provider"}
            return {
                sample.labels["provider"]
                for family in registry.collect()
                for sample in family.samples
                if sample.name == "quantum_provider_up" and sample.value == 1 and set(sample.labels) == names
            }

        assert await ups() == set(configs)
        for kind, provider in ((FaultKind.STATUS_500, "kraken"), (FaultKind.DRIFT, "coingecko")):
            simulator.faults.add(Fault(provider, kind))
            assert await ups() == set(configs) - {provider}
            simulator.faults.clear()
            assert await ups() == set(configs)
        assert simulator.stats()["kraken"]["refused"] == 0
        poller.close()
    await simulator.stop()
