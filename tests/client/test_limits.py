from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from exporter.client import ApiClient, Priority
from exporter.client.journal import FileJournal
from exporter.client.limits import ProviderLimits
from exporter.errors import ApiError, ApiErrorKind
from exporter.providers.spec import WINDOWS_S, LimitSpec
from tests.client.doubles import StrictTransport, config
from tests.helpers.clock import FakeClock


@pytest.mark.parametrize(
    ("spec", "told", "in_force"),
    [
        (LimitSpec("minute", 333, 30, plan=True), None, 30),  # nothing known: safe
        (LimitSpec("minute", 333, 30, plan=True), 300, 300),  # the plan is known
        (LimitSpec("minute", 333, 30, plan=True), 600, 333),  # never over the ceiling
        (LimitSpec("minute", 333, 30, plan=True, configured=100), None, 100),
        (LimitSpec("minute", 333, 30, plan=True, configured=100), 60, 60),
        (LimitSpec("second", 15, 1), None, 1),  # without a plan the safe value is a ceiling too
        (LimitSpec("second", 15, 1, configured=10), 15, 1),
        (LimitSpec("day", 100), None, 100),
        (LimitSpec("month", None, 15_000, plan=True), 500_000, 500_000),
    ],
)
def test_the_lowest_limit_is_in_force(spec: LimitSpec, told: int | None, in_force: int) -> None:
    """Table, configuration, the provider's word and the safe default: the lowest of what applies."""
    assert spec.in_force(told) == in_force


def test_a_call_needs_a_slot_in_every_window() -> None:
    """Two windows: the later of the two times counts."""
    limits = ProviderLimits([LimitSpec("second", 1), LimitSpec("minute", 2)])
    for at in (0.0, 2.0):
        assert limits.free_at(at) == at
        limits.grant(at)
        limits.sent(at)
    assert limits.free_at(4.0) == pytest.approx(60.3)


def test_other_users_of_the_key_count() -> None:
    """A minute's calls that the provider has counted and we have not are taken as made now."""
    limits = ProviderLimits([LimitSpec("minute", 10)])
    limits.tell("minute", used=10, now=100.0)
    assert limits.free_at(100.0) == pytest.approx(160.3)
    assert limits.stats(100.0)[0].used == 10


def test_a_quota_that_others_used_is_spread_over_its_window() -> None:
    """Half of a day's quota used elsewhere comes back over the day, not all at once after it."""
    limits = ProviderLimits([LimitSpec("day", 100)])
    limits.tell("day", used=50, now=1e6)
    assert limits.stats(1e6)[0].used == 50
    assert limits.stats(1e6 + 43_200)[0].used == pytest.approx(25, abs=1)


def test_exhaustion_is_predicted_from_the_last_hour() -> None:
    """60 calls in an hour against 1000 a day: not lasting; 940 left last 15.7 hours."""
    limits = ProviderLimits([LimitSpec("day", 1000)])
    assert limits.stats(0.0)[0].exhaustion_s == math.inf
    for minute in range(60):
        limits.grant(minute * 60.0)
        limits.sent(minute * 60.0)
    stats = limits.stats(3599.0)[0]
    assert stats.exhaustion_s == pytest.approx(940 * 60.0)
    assert stats.utilization == 0.06


async def _saturate(clock: FakeClock, client: ApiClient, until_s: float, workers: int) -> None:
    """Callers that ask again as soon as they are answered; each call is another request."""

    async def work() -> None:
        while clock.monotonic() < until_s:
            await client.post_json("test", "/other", None, deadline_s=1e9, priority=Priority.HIGH)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    while clock.monotonic() < until_s:
        await clock.advance(max(until_s / 200, 0.01))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("window", "limit"),
    [
        ("minute", 333),  # CoinMarketCap
        ("minute", 50),  # CoinGecko
        ("second", 15),  # Kraken
        ("second", 1),  # Kraken's public endpoints
        ("minute", 100),  # Blockchain.com
        ("day", 100),  # LunarCrush
        ("minute", 1000),  # OpenAI
        ("minute", 60),  # Gemini
        ("minute", 6),
    ],
)
async def test_saturating_load_breaks_no_limit_and_uses_it(window: str, limit: int) -> None:
    """Against a strict provider with up to 40 ms of network jitter: no refusal in ten windows, and at least
    95 % of the allowed calls used."""
    clock = FakeClock()
    transport = StrictTransport(clock, {window: limit}, delay_s=0.04)
    windows = 10 if limit > 1 else 30
    until_s = windows * WINDOWS_S[window]
    async with ApiClient([config(f"{{{window}: {limit}}}")], clock=clock, transport=transport) as client:
        await _saturate(clock, client, until_s, workers=12)
    assert transport.refused == 0
    assert len([at for at in transport.arrivals if at < until_s]) >= 0.95 * limit * windows


async def test_a_quota_holds_across_kills(tmp_path: Path) -> None:
    """A client that vanishes at any moment and one that starts after it together break no limit."""
    clock = FakeClock()
    transport = StrictTransport(clock, {"minute": 10, "day": 60}, delay_s=0.02)
    for _ in range(12):
        client = ApiClient(
            [config("{minute: 10, day: 60}")], clock=clock, transport=transport, journal=FileJournal(tmp_path)
        )
        await client.start()
        await _saturate(clock, client, clock.monotonic() + 47.0, workers=3)  # no close: killed
    assert transport.refused == 0
    assert transport.arrivals  # how many of the 60 are used depends on the disk, which the journal waits for


async def test_a_day_is_paced() -> None:
    """100 calls a day for callers that always ask: spread over the day, not used up by noon."""
    clock = FakeClock()
    transport = StrictTransport(clock, {"day": 100})
    async with ApiClient([config("{day: 100}")], clock=clock, transport=transport) as client:

        async def ask() -> None:
            while True:
                await client.get_json("test", "/thing", ttl=0, deadline_s=1e9)

        task = asyncio.create_task(ask())
        await clock.advance(43_200)
        assert 48 <= len(transport.arrivals) <= 54
        await clock.advance(43_000)
        assert 97 <= len(transport.arrivals) <= 100
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_between_two_paced_calls_the_stale_answer_is_served_with_its_age() -> None:
    """Where the pace says wait, an old answer comes at once and tells how old it is."""
    clock = FakeClock()
    transport = StrictTransport(clock, {"day": 10})
    async with ApiClient([config("{day: 10}")], clock=clock, transport=transport) as client:
        first = await client.call("test", "other", max_age_s=30)
        assert (first.source, first.age_s) == ("upstream", 0.0)
        await clock.advance(200)
        later = await client.call("test", "other", max_age_s=30, deadline_s=5)
        assert (later.source, later.stale, later.age_s) == ("stale", True, 200.0)
        with pytest.raises(ApiError) as caught:
            await client.call("test", "other", max_age_s=30, deadline_s=5, allow_stale=False)
        assert caught.value.kind is ApiErrorKind.DEADLINE
        assert caught.value.retry_after_s == pytest.approx(8640.1 - 200)
    assert len(transport.arrivals) == 1
