"""What `--simulate` adds: simulated providers, and a trading platform that works and is visited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from exporter.client import ApiClient
from exporter.clock import Clock
from exporter.config.providers import ProviderConfig, simulated
from exporter.db.pool import Database
from exporter.errors import ApiError, StorageError
from exporter.observe.monitor import Monitor
from exporter.simulate.prices import PriceFeed
from exporter.simulate.providers import ProviderSimulator
from exporter.simulate.trading import TradingSimulator

_TRADING_STEP_S = 5.0
_VISIT_S = 0.5


class Simulation:
    """The world of a demonstration. `start` first; `trade` and `visit` are loops for tasks of their own."""

    def __init__(self, database: Database, clock: Clock, feed: PriceFeed | None) -> None:
        """`feed` is the price of Bitcoin; None is a random walk."""
        self._clock = clock
        self._upstream = ProviderSimulator(clock=clock, feed=feed)
        self._trading = TradingSimulator(database, clock)
        self.url = ""

    async def start(self) -> None:
        """Seed the trading database and serve the providers; `url` is where."""
        await self._trading.start()
        self._upstream.add_switches(self._trading.controls())
        self.url = await self._upstream.start_at_default()

    async def stop(self) -> None:
        """End the server of the providers."""
        await self._upstream.stop()

    def providers(self, configured: Mapping[str, ProviderConfig]) -> Mapping[str, ProviderConfig]:
        """The configured providers, asked here instead of where they are."""
        return simulated(configured, self.url)

    async def trade(self, monitor: Monitor) -> None:
        """The platform's own work, measured as an app measures its queries."""
        while True:
            await self._clock.sleep(_TRADING_STEP_S)
            with contextlib.suppress(StorageError):  # the next step makes it up; the database's rule tells
                await monitor.db_query("INSERT", "btc_trades", self._trading.step)

    async def visit(self, client: ApiClient, providers: Mapping[str, ProviderConfig]) -> None:
        """The platform's pages, which show what the providers say; the cache serves most of them."""
        pages = [
            (name, endpoint.name)
            for name, config in providers.items()
            for endpoint in config.spec.endpoints.values()
            if config.enabled and endpoint.poll and endpoint.policy.ttl_s > 0
        ]
        if not pages:
            await asyncio.Event().wait()
        while True:
            for name, endpoint in pages:
                await self._clock.sleep(_VISIT_S)
                with contextlib.suppress(ApiError):  # a page without a price; the rules tell
                    await client.call(name, endpoint)
