"""Polls the enabled providers, each endpoint on its own interval, through the upstream client.

The interval is the longest of: the configured one, the time for which the provider itself keeps an answer,
and what its limits leave. A provider that fails is told once, and once more when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from prometheus_client import Counter
from prometheus_client.registry import CollectorRegistry

from exporter.clock import Clock
from exporter.config.providers import ProviderConfig
from exporter.errors import ApiError, ApiErrorKind
from exporter.loops.provider_state import ProviderCollector, ProviderState, Reading
from exporter.providers.results import Result
from exporter.providers.spec import Endpoint

_log = logging.getLogger(__name__)
_LIMITS_EVERY_S = 6 * 3600.0
_MAX_DEADLINE_S = 20.0
_OWN_LIMITS = (ApiErrorKind.DEADLINE, ApiErrorKind.QUEUE_FULL)


class PolledAnswer(Protocol):
    """What a poll brings."""

    @property
    def result(self) -> Result | None:
        """The typed answer; None where the endpoint has no reader."""


class PollClient(Protocol):
    """The upstream client, as far as polling needs it."""

    async def call(
        self,
        provider: str,
        endpoint: str,
        *,
        max_age_s: float | None,
        allow_stale: bool,
        counted: bool,
        deadline_s: float,
    ) -> PolledAnswer:
        """A declared endpoint's answer; raises ApiError."""

    async def learn_limits(self) -> Mapping[str, object]:
        """Ask the key-information endpoints."""

    def min_interval_s(self, provider: str) -> float:
        """The least time between two calls that a quota leaves."""


class ProviderPoller:
    """Polls and keeps the state; its gauges are on the registry while it exists."""

    def __init__(
        self,
        client: PollClient,
        providers: Mapping[str, ProviderConfig],
        *,
        registry: CollectorRegistry,
        clock: Clock,
    ) -> None:
        self.state = ProviderState()
        self._client = client
        self._clock = clock
        self._registry = registry
        self._configs = {name: config for name, config in providers.items() if config.enabled}
        self._down_since: dict[str, float] = {}
        self._polls = Counter(
            "quantum_provider_polls",
            "Polls by outcome: success or the kind of failure.",
            ("provider", "outcome"),
            registry=registry,
        )
        declared = {
            metric.metric: metric.help
            for config in self._configs.values()
            for endpoint in config.spec.endpoints.values()
            for metric in endpoint.metrics
        }
        self._collector = ProviderCollector(self.state, clock.now_ms, declared)
        registry.register(self._collector)
        for name in self._configs:
            self._polls.labels(name, "success")

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._learn(), name="provider limits")
            for config in self._configs.values():
                for endpoint in config.spec.endpoints.values():
                    if endpoint.poll:
                        tasks.create_task(self._poll_forever(config, endpoint), name=f"poll {config.name}")

    async def poll_once(self) -> None:
        """One poll of every endpoint now; failures are kept in the state."""
        await asyncio.gather(
            *(
                self._poll(config, endpoint)
                for config in self._configs.values()
                for endpoint in config.spec.endpoints.values()
                if endpoint.poll
            )
        )

    def close(self) -> None:
        """Take the gauges from the registry."""
        for collector in (self._collector, self._polls):
            self._registry.unregister(collector)

    def interval_s(self, config: ProviderConfig, endpoint: Endpoint) -> float:
        """Seconds between two polls of an endpoint."""
        polled = sum(other.poll for other in config.spec.endpoints.values())
        shares = [
            polled * limit.period_s / in_force
            for limit in config.spec.limits
            if (in_force := limit.in_force()) is not None and not limit.paced
        ]
        quota_s = polled * self._client.min_interval_s(config.name)
        return max(config.interval_ms / 1000, endpoint.policy.ttl_s, quota_s, *shares)

    async def _poll_forever(self, config: ProviderConfig, endpoint: Endpoint) -> None:
        while True:
            started = self._clock.monotonic()
            await self._poll(config, endpoint)
            elapsed_s = self._clock.monotonic() - started
            await self._clock.sleep(max(1.0, self.interval_s(config, endpoint) - elapsed_s))

    async def _poll(self, config: ProviderConfig, endpoint: Endpoint) -> None:
        name = config.name
        interval_s = self.interval_s(config, endpoint)
        try:
            answer = await self._client.call(
                name,
                endpoint.name,
                max_age_s=min(interval_s, endpoint.policy.ttl_s or interval_s) / 2,
                allow_stale=False,
                counted=False,
                deadline_s=min(interval_s, _MAX_DEADLINE_S),
            )
        except ApiError as error:
            if error.kind in _OWN_LIMITS:
                self._polls.labels(name, error.kind.value).inc()  # says nothing about the provider
            else:
                self._failed(name, endpoint, error.kind.value, str(error))
            return
        except Exception as error:
            # One provider's trouble must not end the others' polls.
            self._failed(name, endpoint, "internal", f"{name}: {type(error).__name__}: {error}")
            return
        self._polls.labels(name, "success").inc()
        if answer.result is not None:
            reading = Reading(answer.result, self._clock.now_ms(), interval_s)
            self.state.succeeded(name, endpoint.name, reading)
        since = self._down_since.get(name)
        if since is not None and self.state.is_up(name):
            del self._down_since[name]
            _log.info("provider %s is up again after %.0f s", name, self._clock.monotonic() - since)

    def _failed(self, name: str, endpoint: Endpoint, outcome: str, message: str) -> None:
        self._polls.labels(name, outcome).inc()
        self.state.failed(name, endpoint.name)
        if name not in self._down_since:
            self._down_since[name] = self._clock.monotonic()
            _log.warning("provider %s is down: %s", name, message)

    async def _learn(self) -> None:
        while True:
            try:
                await self._client.learn_limits()
            except Exception:
                _log.exception("the providers' limits could not be asked for")
            await self._clock.sleep(_LIMITS_EVERY_S)
