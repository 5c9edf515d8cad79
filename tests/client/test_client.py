from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from exporter.client import ApiClient, Priority
from exporter.client.retry import RetryPolicy
from exporter.client.transport import HttpAnswer, HttpRequest, TransportError
from exporter.config.providers import default_providers, simulated
from exporter.errors import ApiError, ApiErrorKind
from exporter.model.events import MetricEvent
from exporter.providers.results import Quote, TokenUsage
from tests.client.doubles import Reply, StrictTransport, answer, config
from tests.helpers.clock import FakeClock, settle

KEY = "k-very-secret-0123456789"


class Events:
    """An event sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[MetricEvent] = []

    def put(self, event: MetricEvent) -> None:
        self.events.append(event)


class World:
    """A client of provider `test` on a strict transport and a fake clock."""

    def __init__(self, limits: str = "{}") -> None:
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.events = Events()
        self.transport = StrictTransport(self.clock)
        self.client = ApiClient(
            [config(limits, api_key=KEY)],
            clock=self.clock,
            registry=self.registry,
            events=self.events,
            transport=self.transport,
            rng=random.Random(1),
        )

    @property
    def replies(self) -> list[HttpAnswer | Exception | Reply]:
        return self.transport.replies

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"provider": "test", **labels})

    async def get(self, ttl: float | None = 30.0, stale_s: float = 0.0) -> object:
        """One GET, the clock moved on until it ends."""
        return await self.finish(
            asyncio.create_task(self.client.get_json("test", "/x", ttl=ttl, stale_s=stale_s))
        )

    async def finish(self, task: asyncio.Task[object]) -> object:
        for _ in range(400):
            await settle()
            if task.done():
                break
            await self.clock.advance(0.25)
        return await task


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with world.client:
        yield world


async def test_an_answer_is_cached_for_its_time(world: World) -> None:
    """One call, then hits until the time is over; hit and miss are counted."""
    for _ in range(3):
        assert await world.get() == {"ok": True}
    assert len(world.transport.requests) == 1
    await world.clock.advance(30)
    await world.get()
    assert len(world.transport.requests) == 2
    assert world.value("quantum_api_cache_requests_total", result="hit") == 2
    assert world.value("quantum_api_cache_requests_total", result="miss") == 2
    stats = world.client.cache_stats()
    assert (stats.hits, stats.misses, stats.hit_ratio, stats.entries, stats.mean_ttl_s) == (
        2,
        2,
        0.5,
        1,
        30.0,
    )


async def test_who_renews_is_not_counted(world: World) -> None:
    """A poll fills the cache for others: its own misses say nothing about what the cache is worth."""
    world.replies.append(answer({"value": 1}))
    await world.client.call("test", "thing", counted=False)
    await world.client.call("test", "thing", counted=False)
    assert len(world.transport.requests) == 1
    assert world.client.cache_stats().misses == world.client.cache_stats().hits == 0
    await world.client.call("test", "thing")
    assert world.value("quantum_api_cache_requests_total", result="hit") == 1
    assert world.value("quantum_api_cache_requests_total", result="miss") == 0


async def test_equal_parameters_are_one_request_in_any_order_and_type(world: World) -> None:
    """Numbers, booleans and lists are sent as text; order does not matter."""
    await world.client.get_json("test", "/x", params={"b": 1, "a": [1, 2], "c": True}, ttl=30)
    await world.client.get_json("test", "/x", params={"c": "true", "a": "1,2", "b": "1"}, ttl=30)
    assert [request.params for request in world.transport.requests] == [
        (("a", "1,2"), ("b", "1"), ("c", "true"))
    ]


async def test_a_thousand_callers_of_one_key_make_one_call(world: World) -> None:
    """One upstream call, one miss, 999 coalesced; and one shared failure."""
    calls = [asyncio.create_task(world.client.get_json("test", "/x", ttl=30)) for _ in range(1000)]
    assert len({id(found) for found in await asyncio.gather(*calls)}) == 1
    assert len(world.transport.requests) == 1
    assert world.value("quantum_api_cache_requests_total", result="coalesced") == 999
    world.replies.append(answer({"error": "gone"}, 404))
    calls = [asyncio.create_task(world.client.get_json("test", "/y", ttl=30)) for _ in range(1000)]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert len(world.transport.requests) == 2
    assert {str(failure) for failure in failures} == {"test /y: HTTP 404: gone"}


async def test_a_cancelled_caller_does_not_fail_the_others(world: World) -> None:
    """The first caller goes, the second gets the answer of the same call."""
    world.transport._delay_s = 1.0
    first = asyncio.create_task(world.client.get_json("test", "/x", ttl=30))
    second = asyncio.create_task(world.client.get_json("test", "/x", ttl=30))
    await settle()
    first.cancel()
    await world.clock.advance(1.0)
    assert await second == {"ok": True}
    assert len(world.transport.requests) == 1


async def test_a_follower_waits_no_longer_than_its_own_deadline(world: World) -> None:
    """The leader may wait long; a follower with a short deadline is told in time."""
    world.transport._delay_s = 100.0
    leader = asyncio.create_task(world.client.get_json("test", "/x", ttl=30, deadline_s=200))
    await settle()
    follower = asyncio.create_task(world.client.get_json("test", "/x", ttl=30, deadline_s=1))
    await world.clock.advance(1.0)
    with pytest.raises(ApiError) as caught:
        await follower
    assert caught.value.kind is ApiErrorKind.DEADLINE
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)


async def test_a_declared_endpoint_is_refreshed_in_the_background(world: World) -> None:
    """Past its time the old answer comes at once with its age, and one refresh runs behind it."""
    world.replies.append(answer({"value": 1}))
    assert (await world.client.call("test", "thing")).source == "upstream"
    await world.clock.advance(40)
    world.replies.append(answer({"value": 2}))
    old = await world.client.call("test", "thing")
    assert (old.data, old.stale, old.age_s, old.source) == ({"value": 1}, True, 40.0, "stale")
    await settle()
    new = await world.client.call("test", "thing")
    assert (new.data, new.stale, new.source) == ({"value": 2}, False, "cache")
    assert world.value("quantum_api_cache_requests_total", result="stale") == 1


async def test_a_stale_answer_stands_in_for_a_failure(world: World) -> None:
    """Upstream down: the old answer with its age, for 500 callers of one call; without one, equal errors."""
    world.replies.append(answer({"value": 1}))
    await world.client.call("test", "thing")
    await world.clock.advance(120)
    world.replies.extend([answer({}, 404)])
    calls = [asyncio.create_task(world.client.call("test", "thing")) for _ in range(500)]
    results = await asyncio.gather(*calls)
    assert {(result.stale, result.age_s) for result in results} == {(True, 120.0)}
    assert len(world.transport.requests) == 2
    world.replies.extend([answer({}, 404)])
    with pytest.raises(ApiError):
        await world.client.call("test", "thing", allow_stale=False)


async def test_a_failure_that_stays_is_remembered(world: World) -> None:
    """A 404 is not asked again within its time; then it is."""
    world.replies.append(answer({}, 404))
    for _ in range(3):
        with pytest.raises(ApiError):
            await world.get()
    assert len(world.transport.requests) == 1
    await world.clock.advance(30)
    assert await world.get() == {"ok": True}


async def test_invalidation_forgets(world: World) -> None:
    """By path, by provider, all."""
    await world.get()
    assert world.client.invalidate("other") == 0
    assert world.client.invalidate("test", "/x") == 1
    await world.get()
    assert len(world.transport.requests) == 2
    assert world.client.invalidate() == 1


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (answer({}, 500), ApiErrorKind.HTTP),
        (answer({}, 503), ApiErrorKind.HTTP),
        (TransportError("refused", ApiErrorKind.NETWORK), ApiErrorKind.NETWORK),
        (TransportError("slow", ApiErrorKind.TIMEOUT), ApiErrorKind.TIMEOUT),
        (HttpAnswer(200, {}, b'{"a": '), ApiErrorKind.DECODE),
        (HttpAnswer(200, {}, b"<html>error</html>"), ApiErrorKind.DECODE),
        (HttpAnswer(200, {}, b""), ApiErrorKind.DECODE),
    ],
)
async def test_what_may_pass_is_retried_and_measured(
    world: World, first: HttpAnswer | Exception, kind: ApiErrorKind
) -> None:
    """Failure, retry, answer: two calls with their outcomes, two events, one retry."""
    world.replies.append(first)
    assert await world.get() == {"ok": True}
    labels = {"endpoint": "/x", "method": "GET"}
    assert world.value("quantum_api_requests_total", outcome=kind.value, **labels) == 1
    assert world.value("quantum_api_requests_total", outcome="success", **labels) == 1
    assert world.value("quantum_api_request_duration_seconds_count", outcome="success", **labels) == 1
    assert world.value("quantum_api_retries_total") == 1
    failed, succeeded = world.events.events
    assert (failed.metric_type, failed.unit, failed.metric_name) == ("api_response", "ms", "/x")
    assert (failed.context["success"], failed.context["attempts"]) == (False, 1)
    assert str(failed.context["error"]).startswith(kind.value)
    assert (succeeded.context["success"], succeeded.context["attempts"]) == (True, 2)
    assert succeeded.context["status"] == 200
    json.dumps(dict(succeeded.context))


async def test_after_three_attempts_the_failure_is_told(world: World) -> None:
    """Three calls in all, at most 1 and 2 s apart."""
    world.replies.extend([answer({"error": "broken"}, 500)] * 4)
    with pytest.raises(ApiError, match="test /x: HTTP 500: broken"):
        await world.get()
    assert len(world.transport.requests) == 3
    assert world.clock.monotonic() <= 4.0


async def test_a_retry_that_would_miss_the_deadline_is_not_made(world: World) -> None:
    """The failure comes at once instead."""
    world.replies.append(answer({}, 429, retry_after="20"))
    with pytest.raises(ApiError) as caught:
        await world.client.get_json("test", "/x", deadline_s=10)
    assert (caught.value.kind, caught.value.retry_after_s) == (ApiErrorKind.RATE_LIMITED, 20.0)


async def test_retry_after_is_waited_for_by_all(world: World) -> None:
    """A 429 with Retry-After holds every call to the provider back for that time."""
    world.replies.append(answer({}, 429, retry_after="20"))
    task = asyncio.create_task(world.client.get_json("test", "/x", ttl=30))
    await settle()
    other = asyncio.create_task(world.client.get_json("test", "/y", ttl=30))
    await world.clock.advance(19.9)
    assert len(world.transport.requests) == 1
    assert world.client.rate_limit_stats()["test"].paused_for_s == pytest.approx(0.1)
    await world.clock.advance(5)
    assert await task == await other == {"ok": True}


async def test_a_bill_stops_the_provider_until_it_is_resumed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """402: no retry, no further call, one log line; `resume` starts again."""
    world.replies.append(answer({"error": {"message": "pay"}}, 402))
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            with pytest.raises(ApiError) as caught:
                await world.client.get_json("test", "/x")
            assert caught.value.kind is ApiErrorKind.BILLING
            await world.clock.advance(10_000)
    assert len(world.transport.requests) == 1
    assert len(caplog.records) == 1
    assert world.client.rate_limit_stats()["test"].paused_for_s == math.inf
    world.client.resume("test")
    assert await world.get() == {"ok": True}


async def test_a_wrong_key_is_tried_again_after_an_hour(world: World) -> None:
    """401: calls fail at once for an hour, then one is made."""
    world.replies.append(answer({}, 401))
    for _ in range(3):
        with pytest.raises(ApiError) as caught:
            await world.client.get_json("test", "/x")
        assert caught.value.kind is ApiErrorKind.AUTH
    assert len(world.transport.requests) == 1
    await world.clock.advance(3600)
    assert await world.get() == {"ok": True}


async def test_failures_in_a_row_open_the_breaker_and_a_probe_closes_it(world: World) -> None:
    """Five failures; then no call for 30 s, then one, and all is well. The true failure is told."""
    world.replies.extend([TransportError("refused", ApiErrorKind.NETWORK)] * 5)
    kinds = []
    for _ in range(4):
        try:
            await world.get(ttl=0)
        except ApiError as error:
            kinds.append(error.kind)
    assert len(world.transport.requests) == 5
    assert kinds[:2] == [ApiErrorKind.NETWORK, ApiErrorKind.NETWORK]
    assert kinds[-1] is ApiErrorKind.BREAKER_OPEN
    assert world.value("quantum_api_breaker_state") == 2
    await world.clock.advance(30)
    assert world.value("quantum_api_breaker_state") == 1
    assert await world.get(ttl=0) == {"ok": True}
    assert world.value("quantum_api_breaker_state") == 0


async def test_a_drifted_answer_names_the_field_and_is_not_retried(world: World) -> None:
    """One call, kind schema."""
    world.replies.append(answer({"value_v2": 1}))
    with pytest.raises(ApiError, match='field "value" is missing') as caught:
        await world.client.call("test", "thing")
    assert caught.value.kind is ApiErrorKind.SCHEMA
    assert len(world.transport.requests) == 1


async def test_keys_are_in_no_message_event_metric_or_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider that repeats the key in its error does not make us tell it."""
    world.replies.append(answer({"error": f"your key {KEY} is bad"}, 401))
    with caplog.at_level(logging.DEBUG), pytest.raises(ApiError) as caught:
        await world.client.get_json("test", "/x")
    shown = [str(caught.value), repr(caught.value), caplog.text, repr(config(api_key=KEY))]
    shown += [repr(event) for event in world.events.events]
    shown += [repr(family) for family in world.registry.collect()]
    shown += [repr(world.client.rate_limit_stats())]
    assert world.transport.requests[0].headers["x-key"] == KEY
    assert not any(KEY in text for text in shown)
    assert "<key>" in str(caught.value)


async def test_a_redirect_stays_on_its_host_and_takes_a_slot(world: World) -> None:
    """Within the host it is followed as a call of its own; to another host it is refused, the key unsent."""

    def moved(to: str) -> HttpAnswer:
        return HttpAnswer(302, {"location": to}, b"")

    world.replies.append(moved("/new?page=2"))
    assert await world.client.get_json("test", "/x") == {"ok": True}
    assert [request.url for request in world.transport.requests] == [
        "http://api.test/x",
        "http://api.test/new?page=2",
    ]
    for target in ("http://evil.test/x", "https://api.test/x", "//evil.test"):
        world.replies.append(moved(target))
        with pytest.raises(ApiError, match="another host"):
            await world.client.get_json("test", "/y")
    world.replies.extend([moved("/loop")] * 3)
    with pytest.raises(ApiError, match="too often"):
        await world.client.get_json("test", "/z")
    assert all(request.url.startswith("http://api.test/") for request in world.transport.requests)


async def test_a_call_that_never_went_out_takes_no_slot() -> None:
    """Offline, a day's quota is not used up."""

    class Offline(StrictTransport):
        async def send(self, request: HttpRequest, wire: object) -> HttpAnswer:
            raise TransportError("no address found", ApiErrorKind.NETWORK)

    clock = FakeClock()
    client = ApiClient(
        [config("{day: 4}")], clock=clock, transport=Offline(clock), retry=RetryPolicy(attempts=1)
    )
    async with client:
        for _ in range(20):
            with pytest.raises(ApiError):
                await client.get_json("test", "/x", priority=Priority.HIGH)
            await clock.advance(600)
        assert client.rate_limit_stats()["test"].windows[0].used == 0


async def test_headers_lower_the_limit_and_count_other_users() -> None:
    """x-ratelimit headers as declared: the lower limit is in force, and what others used counts."""
    clock = FakeClock()
    base = config("{minute: 50}")
    declared = replace(
        default_providers({"COINMARKETCAP_API_KEY": "key"})["coinmarketcap"].spec.headers
        or pytest.fail("headers")
    )
    transport = StrictTransport(clock)
    transport.replies.append(answer(None, 200, x_ratelimit_limit="20", x_ratelimit_remaining="5"))
    provider = replace(base, spec=replace(base.spec, headers=declared))
    async with ApiClient([provider], clock=clock, transport=transport) as client:
        await client.get_json("test", "/x")
        window = client.rate_limit_stats()["test"].windows[0]
        assert (window.limit, window.used) == (20, 15)


async def test_undeclared_headers_pause_only_when_nothing_is_left(world: World) -> None:
    """Without a declaration the common names are obeyed where they say: none left, wait."""
    world.replies.append(answer(None, 200, x_ratelimit_remaining="0", x_ratelimit_reset="40"))
    await world.client.get_json("test", "/x")
    with pytest.raises(ApiError) as caught:
        await world.client.get_json("test", "/y", deadline_s=10)
    assert caught.value.kind is ApiErrorKind.RATE_LIMITED


async def test_paths_beyond_a_hundred_share_a_label(world: World) -> None:
    """Labels are bounded whatever paths a caller makes up."""
    for number in range(150):
        await world.client.get_json("test", f"/p{number}")
    labels = {
        sample.labels["endpoint"]
        for family in world.registry.collect()
        if family.name == "quantum_api_requests"
        for sample in family.samples
    }
    assert len(labels) == 101
    assert "(other)" in labels


async def test_an_unknown_or_disabled_provider_is_told() -> None:
    """The error names the provider and what is enabled."""
    async with ApiClient([replace(config(), enabled=False)]) as client:
        with pytest.raises(ApiError, match="test: not an enabled provider"):
            await client.get_json("test", "/x")


async def test_a_post_is_neither_cached_nor_merged_and_its_tokens_count(world: World) -> None:
    """Two posts are two calls; token use is measured by kind."""
    specs = default_providers({"OPENAI_API_KEY": KEY})
    registry = CollectorRegistry()
    usage = {"model": "m", "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}}
    transport = StrictTransport(world.clock, replies=[answer(usage), answer(usage)])
    async with ApiClient(
        [specs["openai"]], clock=world.clock, transport=transport, registry=registry
    ) as client:
        for _ in range(2):
            result = await client.post_json("openai", "/chat/completions", {"model": "m"})
        assert isinstance(result.result, TokenUsage)
    assert [request.json for request in transport.requests] == [{"model": "m"}] * 2
    labels = {"provider": "openai", "kind": "prompt"}
    assert registry.get_sample_value("quantum_api_tokens_total", labels) == 24


async def test_symbols_asked_together_go_out_as_one_call() -> None:
    """Two assets, asked by many, within a moment: one call with both ids; an unknown asset is an error."""
    clock = FakeClock()
    body = {"bitcoin": {"usd": 65000.0}, "ethereum": {"usd": 2700.0}}
    transport = StrictTransport(clock, replies=[answer(body)])
    async with ApiClient(default_providers(), clock=clock, transport=transport) as client:
        asked = [asyncio.create_task(client.quote("coingecko", s)) for s in ("BTC", "ETH") * 10]
        await clock.advance(0.02)
        found = await asyncio.gather(*asked)
        with pytest.raises(KeyError):
            await client.quote("coingecko", "DOGE")
    assert found[:2] == [Quote("BTC", 65000.0), Quote("ETH", 2700.0)]
    assert len(transport.requests) == 1
    assert dict(transport.requests[0].params)["ids"] == "bitcoin,ethereum"


async def test_a_chain_falls_back_and_prefers_fresh_to_stale() -> None:
    """The first provider fails, the second answers; it is told which one it was."""
    clock = FakeClock()
    ticker = {"error": [], "result": {"XXBTZUSD": {"c": ["1.5", "1"], "v": ["1", "2"], "p": ["1", "2"]}}}
    transport = StrictTransport(clock, replies=[answer({}, 404), answer(ticker)])
    async with ApiClient(default_providers(), clock=clock, transport=transport) as client:
        name, result = await client.first_of([("coingecko", "quotes"), ("kraken", "quotes")])
        assert name == "kraken"
        assert result.source == "upstream"
        with pytest.raises(ApiError, match="no provider"):
            await client.first_of([("nobody", "quotes")])


async def test_label_sets_are_born_at_zero_and_leave_with_the_client() -> None:
    """Each declared endpoint has its series from the start; limits and breaker are shown.

    Those of failures too: rules on their share have an answer before the first call fails.
    """
    registry = CollectorRegistry()
    client = ApiClient(simulated(default_providers(), "http://sim.test"), registry=registry)
    for outcome in ("success", "network", "timeout", "http", "decode", "schema", "rate_limited", "auth"):
        labels = {"provider": "kraken", "endpoint": "/Ticker", "method": "GET", "outcome": outcome}
        assert registry.get_sample_value("quantum_api_requests_total", labels) == 0
    assert (
        registry.get_sample_value("quantum_rate_limit_limit", {"provider": "kraken", "window": "second"}) == 1
    )
    assert (
        registry.get_sample_value("quantum_rate_limit_used", {"provider": "lunarcrush", "window": "day"}) == 0
    )
    await client.close()
    assert (
        registry.get_sample_value("quantum_rate_limit_limit", {"provider": "kraken", "window": "second"})
        is None
    )


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a": NaN}', b"1" * 10_000, b"\xff\xfe", b'"text"', b"null"]
)
async def test_odd_json_is_never_a_crash(world: World, body: bytes) -> None:
    """Whatever comes back, the caller gets an answer or an ApiError."""
    world.replies.extend([HttpAnswer(200, {}, body)] * 4)
    with contextlib.suppress(ApiError):
        await world.get(ttl=0)
    labels = {"endpoint": "/x", "method": "GET"}
    outcomes = [
        world.value("quantum_api_requests_total", outcome=name, **labels) for name in ("success", "decode")
    ]
    assert sum(count or 0 for count in outcomes) == len(world.transport.requests)
