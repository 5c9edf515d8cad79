"""The dead man's switch: a request to an outside URL at each interval, as long as there is progress.

Whoever listens there raises the alarm when the beat stops: because this program is gone, cannot reach the
outside, or has stalled. What cannot make progress sends no beat, and says why once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp
from prometheus_client import CollectorRegistry, Counter

from exporter import __version__
from exporter.clock import Clock
from exporter.config.schema import HeartbeatConfig

_log = logging.getLogger(__name__)
_HEADERS = {"User-Agent": f"quantum-exporter/{__version__}"}
OUTCOMES = ("sent", "failed", "withheld")


class HeartbeatMetrics:
    """Beats by outcome; withheld ones were due and not sent for want of progress."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.beats = Counter(
            "quantum_heartbeats",
            "Beats of the dead man's switch that were due, by outcome.",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES:
            self.beats.labels(outcome)


class Heartbeat:
    """Beats until `run` is cancelled. `stalled(interval_ms)` says in words what makes no progress, '' if all
    does; without a URL nothing is sent."""

    def __init__(
        self,
        config: HeartbeatConfig,
        clock: Clock,
        metrics: HeartbeatMetrics,
        stalled: Callable[[int], str],
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._stalled = stalled
        self._changed = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._fault = ""
        self._has_beaten = False

    def configure(self, config: HeartbeatConfig) -> None:
        """After a reload: beat there from now on, the first time at once where there was no URL."""
        self._config = config
        self._changed.set()

    async def run(self) -> None:
        """Beat at each interval."""
        try:
            while True:
                if not self._config.url:
                    await self._changed.wait()
                    self._changed.clear()
                    continue
                due_s = self._clock.monotonic() + self._config.interval_ms / 1000
                await self.beat()
                await self._clock.sleep(max(0.0, due_s - self._clock.monotonic()))
        finally:
            await self.close()

    async def beat(self) -> None:
        """One beat, if there is progress."""
        config = self._config
        reason = self._stalled(config.interval_ms)
        if reason:
            self._note("withheld", f"the heartbeat is withheld: {reason}")
            return
        try:
            await self._send(config)
        except TimeoutError:
            self._note("failed", f"the heartbeat got no answer within {config.timeout_ms / 1000:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._note("failed", f"the heartbeat failed: {type(error).__name__}")
        else:
            self._note("sent", "")
            self._has_beaten = True

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(self, config: HeartbeatConfig) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers=_HEADERS)
        timeout = aiohttp.ClientTimeout(total=config.timeout_ms / 1000)
        async with self._session.request(config.method, config.url, timeout=timeout) as answer:
            answer.raise_for_status()

    def _note(self, outcome: str, fault: str) -> None:
        """Count, and log a fault and its end once; the URL is a secret, its host is not."""
        self._metrics.beats.labels(outcome).inc()
        starting = outcome == "withheld" and not self._has_beaten
        if fault and fault != self._fault:
            level = logging.INFO if starting else logging.WARNING
            _log.log(level, "%s (%s)", fault, urlsplit(self._config.url).hostname)
        elif self._fault and not fault:
            _log.info("the heartbeat goes on (%s)", urlsplit(self._config.url).hostname)
        self._fault = fault
