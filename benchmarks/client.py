"""The upstream client against bare aiohttp and two HTTP caches, in one run.

    python benchmarks/client.py [hit|overhead|day|peers ...]

`hit`: cost of a cache hit that gives a parsed object. `overhead`: an uncached call through the client less a
bare aiohttp GET of the same body, in turn. `day`: a day of 20 users who ask 18 endpoints, chosen by a seeded
Zipf law, in waves of the day, first on a moved clock with calls that take time, then beside the peers (some
minutes of work): request by request over loopback HTTP, with the clock of all moved to each by time-machine.
`peers`: ten busy minutes in twenty seconds of real time, requests at once among them: every time is a
thirtieth, and hishel counts whole seconds. Peers take part where they are installed. Medians with [min..max]:
compare ratios.

The realistic day is the one of six requests a minute: a page of a dashboard or trading app stays open, shows
three quantities and asks for them anew every half minute, which is the shortest time that an answer is fresh.
At night a fifth of that. One request a minute each is a page that hardly anybody looks at; twelve are a page
that refreshes four times a minute. A stale answer that is refreshed in the background would be a hit to its
caller and still cost a call: `hit ratio` would count it, and so would `upstream calls`. This traffic asks for
none.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1]))

from exporter.client import ApiClient
from exporter.client.client import CacheStats
from exporter.client.transport import HttpAnswer, HttpRequest, Wire
from exporter.config.providers import ProviderConfig
from exporter.providers.declare import read_declaration

BODY = json.dumps(
    {"items": [{"id": i, "name": f"item-{i}", "price": i * 1.25, "qty": i % 7} for i in range(40)]}
).encode()
ROUNDS = 7


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):9.2f} [{min(values):.2f}..{max(values):.2f}]"


async def per_call_us(call: Callable[[], Awaitable[object]], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        await call()
    return (time.perf_counter() - started) / count * 1e6


class Server:
    """A loopback server of one cacheable JSON body."""

    async def __aenter__(self) -> str:
        async def answer(_request: web.Request) -> web.Response:
            headers = {"Cache-Control": "max-age=3600"}
            return web.Response(body=BODY, content_type="application/json", headers=headers)

        app = web.Application()
        app.router.add_get("/v1/items", answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def provider(base_url: str, limits: str = "{second: 1000000}") -> ProviderConfig:
    text = f"base_url: {base_url}\nlimits: {limits}\nendpoints: {{items: {{path: /v1/items}}}}\n"
    return ProviderConfig(spec=read_declaration("bench", text))


async def hit() -> None:
    params = {"page": "1", "limit": "100"}
    async with Server() as base_url, ApiClient([provider(base_url)]) as client:
        held: dict[tuple[str, str], tuple[float, object]] = {}
        held["GET", "/v1/items"] = (time.monotonic() + 3600, json.loads(BODY))

        async def plain() -> object:
            until, value = held["GET", "/v1/items"]
            return value if until > time.monotonic() else None

        rows = {
            "dict with expiry, parsed object": (plain, 100_000),
            "get_json, hit, two parameters": (
                lambda: client.get_json("bench", "/v1/items", params=params, ttl=3600),
                30_000,
            ),
            "get_json, hit, no parameter": (lambda: client.get_json("bench", "/v1/items", ttl=3600), 30_000),
        }
        await client.get_json("bench", "/v1/items", params=params, ttl=3600)
        await client.get_json("bench", "/v1/items", ttl=3600)
        for name, (call, count) in rows.items():
            print(f"{name:48s} {shown([await per_call_us(call, count) for _ in range(ROUNDS)])} us")
        await peers_hit(f"{base_url}/v1/items?page=1&limit=100")


async def peers_hit(url: str) -> None:
    if find_spec("aiohttp_client_cache"):
        from aiohttp_client_cache import CacheBackend, CachedSession

        async with CachedSession(cache=CacheBackend(expire_after=3600)) as session:

            async def cached() -> object:
                async with session.get(url) as response:
                    return await response.json()

            await cached()
            times = [await per_call_us(cached, 1000) for _ in range(ROUNDS)]
            print(f"{'aiohttp-client-cache, memory, hit':48s} {shown(times)} us")
    if find_spec("hishel") and find_spec("anysqlite"):
        import anysqlite
        import hishel
        from hishel.httpx import AsyncCacheClient

        connection = await anysqlite.connect(":memory:", isolation_level=None)
        async with AsyncCacheClient(storage=hishel.AsyncSqliteStorage(connection=connection)) as peer:

            async def stored() -> object:
                return (await peer.get(url)).json()

            await stored()
            times = [await per_call_us(stored, 200) for _ in range(ROUNDS)]
            print(f"{'hishel, SQLite in memory, hit':48s} {shown(times)} us")


async def overhead() -> None:
    async with (
        Server() as base_url,
        ApiClient([provider(base_url, "{second: 100000, minute: 1000000}")]) as client,
        aiohttp.ClientSession() as session,
    ):

        async def bare() -> object:
            async with session.get(f"{base_url}/v1/items") as response:
                return await response.json()

        async def ours() -> object:
            return await client.get_json("bench", "/v1/items", ttl=0)

        await bare()
        await ours()
        # Call by call in turn, so that whatever else the machine does falls on both alike.
        rounds = []
        for _ in range(ROUNDS):
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(600):
                for call, found in zip((bare, ours), times, strict=True):
                    began = time.perf_counter()
                    await call()
                    found.append((time.perf_counter() - began) * 1e6)
            more = statistics.median(b - a for a, b in zip(*times, strict=True))
            rounds.append((*map(statistics.median, times), more))
        for name, values in zip(
            ("bare aiohttp GET + json", "the client, uncached", "more than the bare call before it"),
            zip(*rounds, strict=True),
            strict=True,
        ):
            print(f"{name:48s} {shown(list(values))} us")


class DayClock:
    """A clock that jumps to the next sleeper."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        return 1_760_000_000_000 + round(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.now + max(0.0, seconds), self._count, future))
        await future

    async def run(self, until: float) -> None:
        while True:
            for _ in range(8):
                await asyncio.sleep(0)
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if not self._sleepers or self._sleepers[0][0] > until:
                return
            due, _, future = heapq.heappop(self._sleepers)
            self.now = max(self.now, due)
            future.set_result(None)


class CountingTransport:
    """Answers after 200 ms of the day's clock; counts calls."""

    def __init__(self, clock: DayClock) -> None:
        self.calls = 0
        self._clock = clock

    async def send(self, request: HttpRequest, wire: Wire) -> HttpAnswer:
        await wire.sent()
        del request
        self.calls += 1
        await self._clock.sleep(0.2)
        return HttpAnswer(200, {}, b'{"ok": true}')

    async def close(self) -> None:
        return


TTLS = [30.0] * 8 + [60.0] * 6 + [120.0] * 2 + [300.0] * 2
"""18 endpoints: market, on-chain and indicators, whale, sentiment."""


RATE = 6.0
"""Requests a minute of one user at noon, on the realistic day; see the module's text."""


def think_s(rng: random.Random, now: float, requests_a_minute: float) -> float:
    """Pause of one user: exponential, around the wave of the day (a fifth at night, all at noon)."""
    wave = 0.2 + 0.8 * (0.5 - 0.5 * math.cos(2 * math.pi * now / 86_400))
    return rng.expovariate(requests_a_minute / 60 * wave)


def chooser() -> Callable[[random.Random], int]:
    """Draws an endpoint by a Zipf law whose ranks are shuffled over the kinds of data."""
    weights = [1.0 / rank**1.1 for rank in range(1, len(TTLS) + 1)]
    order = list(range(len(TTLS)))
    random.Random(5).shuffle(order)
    return lambda rng: order[rng.choices(range(len(TTLS)), weights)[0]]


async def one_day(requests_a_minute: float) -> tuple[int, int, CacheStats]:
    """(requests, upstream calls, what the cache says) of 20 users over a day, calls taking 200 ms of it."""
    clock = DayClock()
    transport = CountingTransport(clock)
    choose = chooser()
    requests = 0

    async with ApiClient([provider("http://bench.test")], clock=clock, transport=transport) as client:

        async def user(seed: int) -> None:
            nonlocal requests
            rng = random.Random(seed)
            while True:
                await clock.sleep(think_s(rng, clock.now, requests_a_minute))
                endpoint = choose(rng)
                requests += 1
                await client.get_json("bench", f"/{endpoint}", ttl=TTLS[endpoint])

        users = [asyncio.create_task(user(seed)) for seed in range(20)]
        await clock.run(86_400)
        for task in users:
            task.cancel()
        await asyncio.gather(*users, return_exceptions=True)
        return requests, transport.calls, client.cache_stats()


async def day() -> None:
    for rate in (1.0, RATE, 12.0):
        requests, calls, stats = await one_day(rate)
        print(
            f"20 users, up to {rate:g} requests a minute each: {requests} requests, {calls} upstream calls"
            f" ({1 - calls / requests:.1%} fewer), hit ratio {stats.hit_ratio:.1%}: {stats.hits} fresh hits,"
            f" {stats.stale} stale, {stats.coalesced} merged with a call in flight"
        )
    await peers_day()


def day_schedule(requests_a_minute: float) -> list[tuple[float, int]]:
    """(second, endpoint) of every request of the 20 users of a day, in order."""
    choose = chooser()
    found = []
    for seed in range(20):
        rng, now = random.Random(seed), 0.0
        while (now := now + think_s(rng, now, requests_a_minute)) < 86_400:
            found.append((now, choose(rng)))
    return sorted(found)


async def peers_day() -> None:
    """The realistic day, request by request over loopback HTTP, the clock of all moved to each."""
    if not find_spec("time_machine"):
        print("the day beside the peers needs time-machine, which moves their clock")
        return
    import time_machine

    requests = day_schedule(RATE)
    began_s = 1_760_000_000.0

    async def row(name: str, get: Callable[[int], Awaitable[object]], upstream: Upstream) -> None:
        upstream.calls = 0
        started = time.perf_counter()
        with time_machine.travel(began_s, tick=False) as traveller:
            for second, endpoint in requests:
                traveller.move_to(began_s + second)
                moved.now = second
                await get(endpoint)
        took_us = (time.perf_counter() - started) / len(requests) * 1e6
        print(
            f"{name:24s} {len(requests)} requests, {upstream.calls} upstream calls,"
            f" {1 - upstream.calls / len(requests):.1%} fewer, mean {took_us:.0f} us a request"
        )

    moved = DayClock()
    async with Upstream(delay_s=0.0, scale=1.0) as upstream:
        async with aiohttp.ClientSession() as plain:

            async def bare(endpoint: int) -> object:
                async with plain.get(f"{upstream.base}/{endpoint}") as response:
                    return await response.json()

            await row("no cache", bare, upstream)
        async with ApiClient([provider(upstream.base)], clock=moved) as client:

            async def ours(endpoint: int) -> object:
                return await client.get_json("bench", f"/{endpoint}", ttl=TTLS[endpoint])

            await row("the client", ours, upstream)
        async with peer_caches(upstream.base) as peers:
            for name, get in peers.items():
                await row(name, get, upstream)


class Upstream:
    """A loopback server of the 18 endpoints that counts calls; `scale` shortens the times it tells."""

    def __init__(self, *, delay_s: float, scale: float) -> None:
        self.calls = 0
        self._delay_s = delay_s
        self._scale = scale

    async def __aenter__(self) -> Upstream:
        app = web.Application()
        app.router.add_get("/{endpoint}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        ttl_s = round(TTLS[int(request.match_info["endpoint"])] / self._scale)
        headers = {"Cache-Control": f"max-age={ttl_s}"}
        return web.Response(body=BODY, content_type="application/json", headers=headers)


@asynccontextmanager
async def peer_caches(base: str) -> AsyncIterator[dict[str, Callable[[int], Awaitable[object]]]]:
    """How to ask through each peer that is installed."""
    async with AsyncExitStack() as stack:
        found: dict[str, Callable[[int], Awaitable[object]]] = {}
        if find_spec("aiohttp_client_cache"):
            from aiohttp_client_cache import CacheBackend, CachedSession

            session = await stack.enter_async_context(CachedSession(cache=CacheBackend(cache_control=True)))

            async def cached(endpoint: int) -> object:
                async with session.get(f"{base}/{endpoint}") as response:
                    return await response.json()

            found["aiohttp-client-cache"] = cached
        if find_spec("hishel") and find_spec("anysqlite"):
            import anysqlite
            import hishel
            from hishel.httpx import AsyncCacheClient

            connection = await anysqlite.connect(":memory:", isolation_level=None)
            storage = hishel.AsyncSqliteStorage(connection=connection)
            peer = await stack.enter_async_context(AsyncCacheClient(storage=storage))

            async def stored(endpoint: int) -> object:
                return (await peer.get(f"{base}/{endpoint}")).json()

            found["hishel"] = stored
        yield found


_SCALE = 30.0
_MINUTES = 10.0
_RATE = 12.0


def schedule() -> list[tuple[float, int]]:
    """(real second, endpoint) of every request of 20 users around noon, in order."""
    choose = chooser()
    found = []
    for seed in range(20):
        rng, now = random.Random(seed), 0.0
        while (now := now + rng.expovariate(_RATE / 60)) < _MINUTES * 60:
            found.append((now / _SCALE, choose(rng)))
    return sorted(found)


async def replayed(get: Callable[[int], Awaitable[object]]) -> list[float]:
    """Make every request at its time; microseconds of each."""
    loop = asyncio.get_running_loop()
    started, took, tasks = loop.time(), [], []

    async def one(endpoint: int) -> None:
        began = time.perf_counter()
        await get(endpoint)
        took.append((time.perf_counter() - began) * 1e6)

    for at, endpoint in schedule():
        await asyncio.sleep(max(0.0, started + at - loop.time()))
        tasks.append(asyncio.create_task(one(endpoint)))
    await asyncio.gather(*tasks)
    return took


async def peers() -> None:
    requests = len(schedule())
    async with Upstream(delay_s=0.2 / _SCALE, scale=_SCALE) as upstream:

        async def row(name: str, get: Callable[[int], Awaitable[object]]) -> None:
            upstream.calls = 0
            took = await replayed(get)
            print(
                f"{name:24s} {requests} requests, {upstream.calls} upstream calls,"
                f" {1 - upstream.calls / requests:.1%} fewer, median {statistics.median(took):.0f} us"
            )

        async with aiohttp.ClientSession() as plain:

            async def bare(endpoint: int) -> object:
                async with plain.get(f"{upstream.base}/{endpoint}") as response:
                    return await response.json()

            await row("no cache", bare)
        async with ApiClient([provider(upstream.base)]) as client:

            async def ours(endpoint: int) -> object:
                return await client.get_json("bench", f"/{endpoint}", ttl=TTLS[endpoint] / _SCALE)

            await row("the client", ours)
        async with peer_caches(upstream.base) as caches:
            for name, get in caches.items():
                await row(name, get)


if __name__ == "__main__":
    for part in sys.argv[1:] or ["hit", "overhead", "day", "peers"]:
        print(f"-- {part}")
        asyncio.run({"hit": hit, "overhead": overhead, "day": day, "peers": peers}[part]())
