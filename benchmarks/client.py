"""The upstream client against bare aiohttp and two HTTP caches, in one run.

    python benchmarks/client.py [hit|overhead|day|peers ...]

`hit`: cost of a cache hit that gives a parsed object. `overhead`: an uncached call through the client less a
bare aiohttp GET of the same body, in turn. `day`: a day of traffic replayed on a moved clock: 20 users ask 18
endpoints, chosen by a seeded Zipf law, in waves of the day; upstream calls with and without the cache.
`peers`: ten busy minutes of that day in twenty seconds of real time over loopback HTTP, without a cache, with
the client, aiohttp-client-cache and hishel. The peers read the real clock, and hishel counts whole seconds:
no clock can be moved for them, so that every time is a thirtieth. Peers take part where they are installed.
Medians with [min..max]: compare ratios.
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
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1]))

from exporter.client import ApiClient
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
                    found.append(await per_call_us(call, 1))
            rounds.append((statistics.median(times[0]), statistics.median(times[1])))
        print(f"{'bare aiohttp GET + json, median call':48s} {shown([a for a, _ in rounds])} us")
        print(f"{'the client, uncached, median call':48s} {shown([b for _, b in rounds])} us")
        print(f"{'difference':48s} {shown([b - a for a, b in rounds])} us")


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


def think_s(rng: random.Random, now: float, requests_a_minute: float) -> float:
    """Pause of one user: exponential, around the wave of the day (a fifth at night, all at noon)."""
    wave = 0.2 + 0.8 * (0.5 - 0.5 * math.cos(2 * math.pi * now / 86_400))
    return rng.expovariate(requests_a_minute / 60 * wave)


async def one_day(requests_a_minute: float, *, cached: bool) -> tuple[int, int, float]:
    """(requests, upstream calls, hit ratio) of 20 users over a day."""
    clock = DayClock()
    transport = CountingTransport(clock)
    weights = [1.0 / rank**1.1 for rank in range(1, len(TTLS) + 1)]
    requests = 0
    order = list(range(len(TTLS)))
    random.Random(5).shuffle(order)

    async with ApiClient([provider("http://bench.test")], clock=clock, transport=transport) as client:

        async def user(seed: int) -> None:
            nonlocal requests
            rng = random.Random(seed)
            while True:
                await clock.sleep(think_s(rng, clock.now, requests_a_minute))
                endpoint = order[rng.choices(range(len(TTLS)), weights)[0]]
                requests += 1
                ttl = TTLS[endpoint] if cached else 0.0
                params = {} if cached else {"nonce": requests}  # without a cache nothing is merged either
                await client.get_json("bench", f"/e{endpoint}", params=params, ttl=ttl)

        users = [asyncio.create_task(user(seed)) for seed in range(20)]
        await clock.run(86_400)
        for task in users:
            task.cancel()
        await asyncio.gather(*users, return_exceptions=True)
        return requests, transport.calls, client.cache_stats().hit_ratio


async def day() -> None:
    for rate in (1.0, 6.0, 12.0):
        requests, calls, ratio = await one_day(rate, cached=True)
        plain_requests, plain_calls, _ = await one_day(rate, cached=False)
        per_request = (calls / requests) / (plain_calls / plain_requests)
        print(
            f"20 users, up to {rate:g} requests a minute each: {requests} requests, {calls} upstream calls"
            f" ({plain_calls} without cache), hit ratio {ratio:.1%}, {1 - per_request:.1%} fewer calls"
        )


_SCALE = 30.0
_MINUTES = 10.0
_RATE = 12.0


def schedule() -> list[tuple[float, int]]:
    """(real second, endpoint) of every request of 20 users around noon, in order."""
    weights = [1.0 / rank**1.1 for rank in range(1, len(TTLS) + 1)]
    order = list(range(len(TTLS)))
    random.Random(5).shuffle(order)
    found = []
    for seed in range(20):
        rng, now = random.Random(seed), 0.0
        while (now := now + rng.expovariate(_RATE / 60)) < _MINUTES * 60:
            found.append((now / _SCALE, order[rng.choices(range(len(TTLS)), weights)[0]]))
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
    calls = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.2 / _SCALE)
        ttl_s = round(TTLS[int(request.match_info["endpoint"])] / _SCALE)
        headers = {"Cache-Control": f"max-age={ttl_s}"}
        return web.Response(body=BODY, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_get("/{endpoint}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    requests = len(schedule())

    async def row(name: str, get: Callable[[int], Awaitable[object]]) -> None:
        nonlocal calls
        calls = 0
        took = await replayed(get)
        print(
            f"{name:24s} {requests} requests, {calls} upstream calls, {1 - calls / requests:.1%} fewer,"
            f" median {statistics.median(took):.0f} us"
        )

    async with aiohttp.ClientSession() as plain:

        async def bare(endpoint: int) -> object:
            async with plain.get(f"{base}/{endpoint}") as response:
                return await response.json()

        await row("no cache", bare)
    async with ApiClient([provider(base)]) as client:
        await row(
            "the client",
            lambda endpoint: client.get_json("bench", f"/{endpoint}", ttl=TTLS[endpoint] / _SCALE),
        )
    if find_spec("aiohttp_client_cache"):
        from aiohttp_client_cache import CacheBackend, CachedSession

        async with CachedSession(cache=CacheBackend(cache_control=True)) as session:

            async def cached(endpoint: int) -> object:
                async with session.get(f"{base}/{endpoint}") as response:
                    return await response.json()

            await row("aiohttp-client-cache", cached)
    if find_spec("hishel") and find_spec("anysqlite"):
        import anysqlite
        import hishel
        from hishel.httpx import AsyncCacheClient

        connection = await anysqlite.connect(":memory:", isolation_level=None)
        async with AsyncCacheClient(storage=hishel.AsyncSqliteStorage(connection=connection)) as peer:

            async def stored(endpoint: int) -> object:
                return (await peer.get(f"{base}/{endpoint}")).json()

            await row("hishel", stored)
    await runner.cleanup()


if __name__ == "__main__":
    for part in sys.argv[1:] or ["hit", "overhead", "day", "peers"]:
        print(f"-- {part}")
        asyncio.run({"hit": hit, "overhead": overhead, "day": day, "peers": peers}[part]())
