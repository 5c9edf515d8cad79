"""The seven providers on one port: `/<provider>/...` in shape, with strict limits and faults on request.

Control: POST, GET and DELETE /_control/faults, GET /_control/stats, POST and GET /_control/scenarios.
A limit holds in every window: calls are logged by their arrival, and one too many is refused as the real
provider refuses it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from aiohttp import web

from exporter.clock import Clock, SystemClock
from exporter.errors import ExporterError
from exporter.providers import builtin_providers
from exporter.providers.spec import WINDOWS_S, ProviderSpec
from exporter.simulate.faults import Fault, FaultKind, Faults, parse_fault
from exporter.simulate.prices import MarketPoint, PriceFeed, RandomWalk
from exporter.simulate.shapes import ANSWERS, Moment, drifted, refusal

DEFAULT_PORT = 9465
_HTML = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>Bad gateway</body></html>"
_PLAN_LIMITS: Mapping[str, Mapping[str, int]] = {
    "coinmarketcap": {"minute": 300, "month": 500_000},
    "coingecko": {"minute": 50, "month": 500_000},
}
Switch = Callable[[bool], Awaitable[None]]
_LAG_MS: Mapping[str, int] = {"coingecko": 20_000, "coinmarketcap": 10_000, "blockchain": 30_000}


@dataclass(slots=True)
class _Window:
    """The strict log of one limit: arrivals that were let in, at most `limit` in any period."""

    name: str
    limit: int
    period_s: float
    arrivals: deque[float]
    most: int = 0

    def is_full(self, now: float) -> bool:
        while self.arrivals and self.arrivals[0] <= now - self.period_s:
            self.arrivals.popleft()
        return len(self.arrivals) >= self.limit

    def wait_s(self, now: float) -> float:
        return self.arrivals[0] + self.period_s - now


class _Provider:
    def __init__(self, spec: ProviderSpec, limits: Mapping[str, int], scale: float) -> None:
        self.spec = spec
        self.windows = [
            _Window(name, limit, WINDOWS_S[name] / scale, deque()) for name, limit in limits.items()
        ]
        self.requests = 0
        self.accepted = 0
        self.refused = 0
        self.frozen: tuple[int, MarketPoint, int] | None = None

    def admit(self, now: float) -> _Window | None:
        """Let a call in, or tell the window that is full."""
        self.requests += 1
        for window in self.windows:
            if window.is_full(now):
                self.refused += 1
                return window
        for window in self.windows:
            window.arrivals.append(now)
            window.most = max(window.most, len(window.arrivals))
        self.accepted += 1
        return None


class ProviderSimulator:
    """The server. Limits are the ones in force by default; `limits` replaces them, provider by provider.

    `time_scale` shortens every window by that factor, so that a day's quota can be watched in minutes. `seed`
    fixes prices and dice; `feed` replaces the random walk.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: int = 1,
        feed: PriceFeed | None = None,
        limits: Mapping[str, Mapping[str, int]] | None = None,
        time_scale: float = 1.0,
    ) -> None:
        self._clock = clock or SystemClock()
        self._rng = random.Random(seed)
        self._feed = feed or RandomWalk(seed)
        self.faults = Faults(random.Random(seed + 1))
        given = limits or {}
        self._providers = {
            name: _Provider(spec, given.get(name, _default_limits(spec)), time_scale)
            for name, spec in builtin_providers().items()
        }
        self._runner: web.AppRunner | None = None
        self._switches: Mapping[str, Switch] = {}
        self.base_url = ""

    def add_switches(self, switches: Mapping[str, Switch]) -> None:
        """Scenarios of others that /_control/scenarios turns on and off; before `start`."""
        self._switches = {**self._switches, **switches}

    async def start_at_default(self) -> str:
        """Listen on the default port, or on any where that one is taken; returns the base URL."""
        try:
            return await self.start(port=DEFAULT_PORT)
        except ExporterError:
            return await self.start()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; returns the base URL, to which `/<provider>` is added.

        Raises: ExporterError where the address is in use.
        """
        app = web.Application()
        app.router.add_post("/_control/faults", self._add_fault)
        app.router.add_get("/_control/faults", self._list_faults)
        app.router.add_delete("/_control/faults", self._clear_faults)
        app.router.add_get("/_control/stats", self._stats)
        app.router.add_get("/_control/scenarios", self._list_scenarios)
        app.router.add_post("/_control/scenarios", self._switch_scenario)
        app.router.add_route("*", "/{provider}/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise ExporterError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        bound = self._runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in str(bound[0]) else bound[0]
        self.base_url = f"http://{shown}:{bound[1]}"
        return self.base_url

    async def stop(self) -> None:
        """Close the server; calls that hang are cancelled."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def stats(self) -> dict[str, dict[str, object]]:
        """Calls of each provider, and the most that ever were in one window."""
        return {
            name: {
                "requests": provider.requests,
                "accepted": provider.accepted,
                "refused": provider.refused,
                "windows": {
                    window.name: {"limit": window.limit, "most": window.most} for window in provider.windows
                },
            }
            for name, provider in self._providers.items()
        }

    async def _list_scenarios(self, _: web.Request) -> web.Response:
        return _json({"scenarios": sorted(self._switches)})

    async def _switch_scenario(self, request: web.Request) -> web.Response:
        allowed = {"error": f'wants {{"name": one of {sorted(self._switches)}, "on": true or false}}'}
        try:
            wanted = await request.json()
        except ValueError:
            return _json(allowed, 400)
        name, on = (str(wanted.get("name")), wanted.get("on")) if isinstance(wanted, dict) else ("", None)
        if name not in self._switches or not isinstance(on, bool):
            return _json(allowed, 400)
        try:
            await self._switches[name](on)
        except ExporterError as error:
            return _json({"error": str(error)}, 503)
        return _json({"name": name, "on": on})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["provider"]
        provider = self._providers.get(name)
        if provider is None:
            return _json({"error": f"unknown provider; known: {', '.join(self._providers)}"}, 404)
        now_ms = self._clock.now_ms()
        hits = self.faults.hits(name, now_ms)
        full = provider.admit(self._clock.monotonic())
        if (fault := hits.get(FaultKind.LATENCY)) is not None:
            await self._clock.sleep(fault.latency_ms / 1000)
        if full is not None:
            wait_s = max(1, round(full.wait_s(self._clock.monotonic()) + 0.5))
            why = "quota" if full.period_s >= WINDOWS_S["day"] else "rate"
            return _refused(name, why, wait_s, now_ms)
        auth = provider.spec.auth
        if auth.required and not request.headers.get(auth.header, "").removeprefix(auth.prefix):
            return _refused(name, "auth", 0, now_ms)
        replaced = await self._replaced(request, name, hits, now_ms)
        if replaced is not None:
            return replaced
        moment = self._moment(provider, hits, now_ms)
        body = ANSWERS[name](f"/{request.match_info['path']}", request.query, moment)
        if body is None:
            return _json({"error": "no such endpoint"}, 404)
        return _json(drifted(body, name) if FaultKind.DRIFT in hits else body)

    async def _replaced(
        self, request: web.Request, name: str, hits: Mapping[FaultKind, Fault], now_ms: int
    ) -> web.StreamResponse | None:
        """The answer of a fault that replaces the real one, if any hits."""
        for kind, why in (
            (FaultKind.RATE_LIMIT_429, "rate"),
            (FaultKind.QUOTA, "quota"),
            (FaultKind.BILLING, "billing"),
            (FaultKind.AUTH, "auth"),
        ):
            if kind in hits:
                return _refused(name, why, hits[kind].wait_s, now_ms)
        if FaultKind.STATUS_500 in hits:
            return _json({"error": "internal"}, 500)
        if FaultKind.HTML in hits:
            return web.Response(text=_HTML, status=502, content_type="text/html")
        if FaultKind.MALFORMED in hits:
            return web.Response(text='{"data": {"price": 64', content_type="application/json")
        if FaultKind.GZIP_BOMB in hits:
            bomb = await asyncio.to_thread(gzip.compress, b" " * (64 << 20), 1)
            headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
            return web.Response(body=bomb, headers=headers)
        if FaultKind.TIMEOUT in hits:
            await self._clock.sleep(hits[FaultKind.TIMEOUT].latency_ms / 1000 or 3600.0)
            return _json({"error": "late"}, 504)
        if FaultKind.RESET in hits and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if FaultKind.ENDLESS in hits:
            return await _endless(request)
        return None

    def _moment(self, provider: _Provider, hits: Mapping[FaultKind, Fault], now_ms: int) -> Moment:
        """The market as this provider sees it: a little off, a little late, frozen or skewed by faults."""
        name = provider.spec.name
        market = self._feed.at(now_ms)
        market = replace(market, price_usd=market.price_usd * (1.0 + self._rng.uniform(-2e-4, 2e-4)))
        updated_ms = now_ms - _LAG_MS.get(name, 2000)
        freeze = hits.get(FaultKind.FREEZE)
        if freeze is None:
            provider.frozen = None
        else:
            if provider.frozen is None or provider.frozen[0] != freeze.since_ms:
                provider.frozen = (freeze.since_ms, market, updated_ms)
            _, market, updated_ms = provider.frozen
        if FaultKind.SKEW in hits:
            market = replace(market, price_usd=market.price_usd * 1.1)
        return Moment(now_ms, market, updated_ms)

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            given = await request.json()
            items = given if isinstance(given, list) else [given]
            faults = [parse_fault(item, self._providers, self._clock.now_ms()) for item in items]
        except ValueError as error:  # json.JSONDecodeError is one
            return _json({"error": str(error)}, 400)
        for fault in faults:
            self.faults.add(fault)
        return _json([fault.to_json() for fault in faults])

    async def _list_faults(self, request: web.Request) -> web.Response:
        del request
        return _json([fault.to_json() for fault in self.faults.active(self._clock.now_ms())])

    async def _clear_faults(self, request: web.Request) -> web.Response:
        return _json({"cleared": self.faults.clear(request.query.get("provider"))})

    async def _stats(self, request: web.Request) -> web.Response:
        del request
        return _json(self.stats())


def _default_limits(spec: ProviderSpec) -> dict[str, int]:
    """The plan that the simulator's key has, else what is in force by default."""
    found = {limit.window: in_force for limit in spec.limits if (in_force := limit.in_force()) is not None}
    return {**found, **_PLAN_LIMITS.get(spec.name, {})}


def _refused(provider: str, why: str, wait_s: int, now_ms: int) -> web.Response:
    status, body = refusal(provider, why, wait_s, now_ms)
    headers = {"Retry-After": str(wait_s)} if status == 429 and why == "rate" else {}
    if body is None:
        return web.Response(
            text="Too many requests" if status == 429 else "Refused", status=status, headers=headers
        )
    return _json(body, status, headers)


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b" " * 65_536)
    except (ConnectionError, asyncio.CancelledError):
        return response


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        text=json.dumps(body), status=status, headers=headers, content_type="application/json"
    )
