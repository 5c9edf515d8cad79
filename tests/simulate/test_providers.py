from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from exporter.errors import ConfigError, ExporterError
from exporter.providers import builtin_providers
from exporter.providers.failures import RawAnswer
from exporter.providers.paths import SchemaError
from exporter.providers.results import Quotes
from exporter.simulate.faults import Fault, FaultKind
from exporter.simulate.prices import History, RandomWalk, read_history
from exporter.simulate.providers import ProviderSimulator
from tests.helpers.clock import FakeClock, settle
from tests.helpers.peers import shared

_FREE = {name: {"second": 1000} for name in builtin_providers()}


class World:
    """A simulator on a fake clock and a session that asks it."""

    def __init__(
        self, simulator: ProviderSimulator, clock: FakeClock, session: aiohttp.ClientSession
    ) -> None:
        self.simulator, self.clock, self.session = simulator, clock, session

    async def ask(self, provider: str, path: str, **params: str) -> tuple[int, dict[str, str], str]:
        spec = builtin_providers()[provider]
        headers = {spec.auth.header: spec.auth.prefix + "key"} if spec.auth.header else {}
        url = f"{self.simulator.base_url}/{provider}{path}"
        async with self.session.get(url, params=params, headers=headers) as response:
            named = {name.lower(): value for name, value in response.headers.items()}
            return response.status, named, await response.text()

    async def control(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        async with self.session.request(
            method, f"{self.simulator.base_url}/_control/{path}", json=body
        ) as response:
            return response.status, await response.json()

    async def price(self, provider: str) -> float:
        endpoint = builtin_providers()[provider].endpoints["quotes"]
        _, _, text = await self.ask(provider, endpoint.path, **endpoint.params)
        assert endpoint.read is not None
        result = endpoint.read(json.loads(text), endpoint.params)
        assert isinstance(result, Quotes)
        quote = result.symbol("BTC")
        assert quote is not None
        return quote.price_usd


async def _world(simulator: ProviderSimulator, clock: FakeClock) -> AsyncIterator[World]:
    await simulator.start()
    async with aiohttp.ClientSession() as session:
        yield World(simulator, clock, session)
    await simulator.stop()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Without limits."""
    clock = FakeClock()
    async for world in _world(ProviderSimulator(clock=clock, limits=_FREE), clock):
        yield world


@pytest.fixture
async def strict() -> AsyncIterator[World]:
    """With small limits."""
    clock = FakeClock()
    limits = {name: {"minute": 3, "day": 5} for name in builtin_providers()}
    async for world in _world(ProviderSimulator(clock=clock, limits=limits), clock):
        yield world


async def test_every_declared_endpoint_is_answered_in_its_shape(world: World) -> None:
    """The declarations' own readers read every answer of the simulator, and no classifier objects."""
    for spec in builtin_providers().values():
        for endpoint in spec.endpoints.values():
            status, headers, text = await world.ask(spec.name, endpoint.path, **endpoint.params)
            data = json.loads(text)
            assert spec.classify(RawAnswer(status, headers, data)) is None
            assert endpoint.read is not None
            assert endpoint.read(data, endpoint.params) is not None


async def test_prices_agree_among_providers_and_move(world: World) -> None:
    """All quote one market, a little apart; a minute later it has moved."""
    names = ("coinmarketcap", "coingecko", "kraken", "blockchain")
    before = [await world.price(name) for name in names]
    assert max(before) / min(before) < 1.001
    await world.clock.advance(3600)
    after = [await world.price(name) for name in names]
    assert before != after


async def test_a_limit_holds_in_every_window(strict: World) -> None:
    """Three a minute, sliding: the fourth is refused until the first is a minute old; five a day in all."""
    statuses = []
    for pause in (0, 20, 20, 10, 10.5, 0, 20, 3600):
        await strict.clock.advance(pause)
        statuses.append((await strict.ask("openai", "/models"))[0])
    assert statuses == [200, 200, 200, 429, 200, 429, 200, 429]
    stats = strict.simulator.stats()["openai"]
    assert (stats["requests"], stats["accepted"], stats["refused"]) == (8, 5, 3)


async def test_refusals_look_like_the_providers_own(strict: World) -> None:
    """The classifier of each provider reads its refusal as a rate, and Retry-After says when."""
    for spec in builtin_providers().values():
        path = next(iter(spec.endpoints.values())).path
        for _ in range(4):
            status, headers, text = await strict.ask(spec.name, path)
        data = json.loads(text) if text.startswith("{") else None
        failure = spec.classify(RawAnswer(status, headers, data, text))
        assert failure is not None
        assert failure.kind.value == "rate_limited"
        assert status == (200 if spec.name == "kraken" else 429)
        if status == 429:
            assert headers["retry-after"] == "60"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("rate_limit_429", "rate_limited"), ("quota", "quota"), ("billing", "billing"), ("auth", "auth")],
)
async def test_refusals_on_request_have_their_meaning(world: World, kind: str, outcome: str) -> None:
    """Each kind of refusal is told apart by the providers' own bodies (where they have one)."""
    lacking = {
        "quota": ("kraken", "blockchain", "coingecko", "openai"),
        "billing": ("kraken",),
    }
    await world.control("POST", "faults", {"kind": kind, "retry_after_s": 7})
    for spec in builtin_providers().values():
        if spec.name in lacking.get(kind, ()):
            continue
        status, headers, text = await world.ask(spec.name, next(iter(spec.endpoints.values())).path)
        data = json.loads(text) if text.startswith("{") else None
        failure = spec.classify(RawAnswer(status, headers, data, text))
        assert failure is not None, spec.name
        assert failure.kind.value == outcome, spec.name


async def test_faults_replace_the_answer(world: World) -> None:
    """500, HTML, malformed JSON, a drifted field."""
    await world.control("POST", "faults", {"provider": "kraken", "kind": "status_500"})
    assert (await world.ask("kraken", "/Ticker"))[0] == 500
    assert (await world.ask("coingecko", "/ping"))[0] == 200
    await world.control("DELETE", "faults?provider=kraken")
    await world.control("POST", "faults", {"provider": "kraken", "kind": "html"})
    assert (await world.ask("kraken", "/Ticker"))[1]["content-type"].startswith("text/html")
    await world.control("DELETE", "faults")
    await world.control("POST", "faults", {"provider": "kraken", "kind": "malformed"})
    with pytest.raises(json.JSONDecodeError):
        json.loads((await world.ask("kraken", "/Ticker"))[2])


async def test_a_drifted_answer_is_refused_by_every_reader(world: World) -> None:
    """Each provider's polled endpoints lose a field that their readers need."""
    world.simulator.faults.add(Fault("*", FaultKind.DRIFT))
    for spec in builtin_providers().values():
        for endpoint in spec.endpoints.values():
            if endpoint.poll:
                _, _, text = await world.ask(spec.name, endpoint.path, **endpoint.params)
                assert endpoint.read is not None
                with pytest.raises(SchemaError):
                    endpoint.read(json.loads(text), endpoint.params)


async def test_reset_and_timeout_end_with_the_client(world: World) -> None:
    """A reset connection; a call that hangs is no trouble when the caller leaves."""
    await world.control("POST", "faults", {"provider": "kraken", "kind": "reset"})
    with pytest.raises(aiohttp.ClientError):
        await world.ask("kraken", "/Ticker")
    await world.control("POST", "faults", {"provider": "coingecko", "kind": "timeout"})
    asking = asyncio.create_task(world.ask("coingecko", "/ping"))
    while not world.clock.sleepers:
        await settle()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_latency_delays_the_answer(world: World) -> None:
    """The answer comes when the time has passed."""
    await world.control("POST", "faults", {"provider": "kraken", "kind": "latency", "latency_ms": 1500})
    asking = asyncio.create_task(world.ask("kraken", "/Time"))
    while not world.clock.sleepers:
        await settle()
    assert not asking.done()
    await world.clock.advance(1.5)
    assert (await asking)[0] == 200


async def test_a_frozen_and_a_skewed_market(world: World) -> None:
    """Frozen: the same value with its old time. Skewed: ten percent too high."""
    await world.control("POST", "faults", {"provider": "coingecko", "kind": "freeze"})
    first = await world.ask("coingecko", "/simple/price", ids="bitcoin")
    await world.clock.advance(600)
    assert (await world.ask("coingecko", "/simple/price", ids="bitcoin"))[2] == first[2]
    await world.control("POST", "faults", {"provider": "kraken", "kind": "skew"})
    assert await world.price("kraken") / await world.price("blockchain") == pytest.approx(1.1, rel=0.002)
    await world.control("DELETE", "faults")
    assert (await world.ask("coingecko", "/simple/price", ids="bitcoin"))[2] != first[2]


async def test_a_fault_has_a_share_and_an_end(world: World) -> None:
    """A ratio hits that share of calls; after its duration the fault is gone."""
    status, shown = await world.control(
        "POST", "faults", {"provider": "kraken", "kind": "status_500", "ratio": 0.5, "duration_s": 60}
    )
    assert status == 200
    assert isinstance(shown, list)
    statuses = [(await world.ask("kraken", "/Time"))[0] for _ in range(60)]
    assert 15 < statuses.count(500) < 45
    assert (await world.control("GET", "faults"))[1] == shown
    await world.clock.advance(60)
    assert (await world.control("GET", "faults"))[1] == []
    assert (await world.ask("kraken", "/Time"))[0] == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([1], "must be an object"),
        ({"provider": "kraken"}, "unknown kind (allowed: status_500"),
        ({"kind": "status_500", "provider": "binance"}, "unknown provider (allowed: *, coinmarketcap"),
        ({"kind": "status_500", "ratio": 2}, "ratio must be a number from 0 to 1"),
        ({"kind": "status_500", "color": 1}, "unknown field color"),
        ({"kind": "latency", "latency_ms": "long"}, "latency_ms must be a number"),
    ],
)
async def test_a_wrong_fault_is_refused(world: World, body: object, message: str) -> None:
    """400 with what is wrong and what is allowed; nothing is switched on."""
    status, answer = await world.control("POST", "faults", body)
    assert status == 400
    assert isinstance(answer, dict)
    assert message in answer["error"]
    assert (await world.control("GET", "faults"))[1] == []


async def test_keys_are_demanded_where_the_provider_does(world: World) -> None:
    """Without a key: the provider's own 401."""
    async with world.session.get(f"{world.simulator.base_url}/lunarcrush/coins/list/v2") as response:
        assert response.status == 401
    assert (await world.ask("kraken", "/nowhere"))[0] == 404
    async with world.session.get(f"{world.simulator.base_url}/binance/x") as response:
        assert response.status == 404


async def test_a_port_in_use_is_told(world: World) -> None:
    """One clear error, nothing left behind."""
    port = int(world.simulator.base_url.rpartition(":")[2])
    with pytest.raises(ExporterError, match="cannot listen on"):
        await ProviderSimulator().start("127.0.0.1", port)


def test_a_walk_is_the_same_for_a_seed() -> None:
    """Deterministic, believable, never standing still for long."""
    one, two, other = RandomWalk(7), RandomWalk(7), RandomWalk(8)
    times = [1_000_000 + 1000 * second for second in range(0, 7200, 60)]
    prices = [one.at(at).price_usd for at in times]
    assert prices == [two.at(at).price_usd for at in times]
    assert prices != [other.at(at).price_usd for at in times]
    assert all(50_000 < price < 80_000 for price in prices)
    assert len(set(prices)) == len(prices)


def test_a_history_is_replayed_between_its_closes() -> None:
    """A straight line between two closes; after the end it begins again."""
    history = History([(100.0, 1.0), (200.0, 2.0), (300.0, 3.0)], candles_per_minute=1.0)
    assert history.at(0).price_usd == 100.0
    assert history.at(30_000).price_usd == 150.0
    assert history.at(90_000).price_usd == 250.0
    assert history.at(120_000).price_usd == 100.0
    assert history.at(90_000).volume_24h_btc == 3.0


def test_recorded_candles_are_read() -> None:
    """The hourly file of the shared data."""
    history = read_history(shared("data/btc"))
    assert history.at(0).price_usd == 2509.17


def test_a_replayed_price_of_five_minutes_ago_rarely_disagrees() -> None:
    """A demonstration is not noise: over the first three days less than 1 % of such prices are 2 % off."""
    history = read_history(shared("data/btc"))
    minutes = [history.at(60_000 * minute).price_usd for minute in range(3 * 24 * 60)]
    off = [abs(old - new) / new > 0.02 for old, new in zip(minutes, minutes[5:], strict=False)]
    assert sum(off) < 0.01 * len(off)


def test_a_broken_history_is_told_with_its_line(tmp_path: Path) -> None:
    """file:line and the columns wanted."""
    with pytest.raises(ConfigError, match="no price history"):
        read_history(tmp_path)
    (tmp_path / "btc_1h_x.csv").write_text("timestamp,open,high,low,close,volume\n1,1,1,1,1,1\n2,1,1,1,x,1\n")
    with pytest.raises(ConfigError, match=r"btc_1h_x\.csv:3:1: not a candle"):
        read_history(tmp_path)
