"""Alertmanagers outside: every firing and resolved instance, as Prometheus' notifier tells them.

No cooldown stands before them: an Alertmanager groups and repeats itself, and takes silence for recovery.
Each instance is sent when it fires and when it resolves, and again every minute; a firing one has an end so
far ahead (four times the longer of minute and interval) that it outlives lost requests. What waits for an
Alertmanager is kept by instance, the newest only, so that an outage costs no memory and ends with the truth.

Source: Prometheus' rule manager and notifier; Alertmanager's API v2, postAlerts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Any
from urllib.parse import urlsplit

from exporter import __version__
from exporter.clock import Clock
from exporter.config.receivers import AlertmanagerConfig
from exporter.errors import DeliveryError
from exporter.model.labels import LabelSet
from exporter.notify.message import bounded
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.outbox import retry_delay_s
from exporter.notify.receivers.http import HttpPoster
from exporter.notify.silences import rfc3339
from exporter.notify.steps import sliced
from exporter.rules.alert import RESOLVED_RETENTION_MS, AlertInstance, AlertState
from exporter.rules.evaluation import GroupEvaluation, RuleHealth
from exporter.rules.model import AlertingRule

_log = logging.getLogger(__name__)

RESEND_MS = 60_000
MAX_BATCH = 64
MAX_WAITING = 10_000
_HEADERS = {"Content-Type": "application/json", "User-Agent": f"quantum-exporter/{__version__}"}


class Alertmanagers:
    """All configured Alertmanagers; `handle` each evaluation, `run` as a task."""

    def __init__(
        self,
        configs: Sequence[AlertmanagerConfig],
        clock: Clock,
        metrics: NotifyMetrics,
        *,
        external_labels: LabelSet,
        default_interval_ms: int,
        link: Callable[[AlertingRule], str],
        rng: Random | None = None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._external = external_labels
        self._default_interval_ms = default_interval_ms
        self._link = link
        self._rng = rng or Random()
        self._sent_ms: dict[str, dict[LabelSet, int]] = {}
        self._running: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._targets = self._make_targets(configs)

    def __len__(self) -> int:
        return len(self._targets)

    async def handle(self, evaluation: GroupEvaluation) -> None:
        """Queue what of an evaluation is to be sent; lets others run in between where that is much."""
        if not self._targets:
            return
        interval_ms = evaluation.group.interval_ms or self._default_interval_ms
        ends_ms = evaluation.ts_ms + 4 * max(interval_ms, RESEND_MS)
        for found in evaluation.rules:
            if not isinstance(found.rule, AlertingRule):
                continue
            if found.health is RuleHealth.ERR and not found.is_current:
                continue  # what is not known anew is not said anew
            firing = [one for one in found.active if one.state is AlertState.FIRING]
            before = self._sent_ms.get(found.rule.key, {})
            sent: dict[LabelSet, int] = {}
            over = (
                one for one in found.resolved if evaluation.ts_ms - one.resolved_at_ms < RESOLVED_RETENTION_MS
            )
            for some in sliced((*over, *firing)):  # one that fires again follows its own end
                for instance in some:
                    last_ms = before.get(instance.labels)
                    if (
                        last_ms is None
                        or instance.resolved_at_ms > last_ms
                        or last_ms + RESEND_MS <= evaluation.ts_ms
                    ):
                        last_ms = evaluation.ts_ms
                        self._queue(found.rule, instance, instance.resolved_at_ms or ends_ms)
                    elif instance.fired_at_ms > last_ms:
                        last_ms = evaluation.ts_ms
                        self._queue(found.rule, instance, ends_ms)
                    sent[instance.labels] = last_ms
                await asyncio.sleep(0)
            self._sent_ms[found.rule.key] = sent

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._running = group
            self._tasks = [group.create_task(target.run()) for target in self._targets]
            await asyncio.Event().wait()

    async def configure(self, configs: Sequence[AlertmanagerConfig]) -> None:
        """After a reload: tell these from now on, and all that fires anew."""
        old, tasks = self._targets, self._tasks
        self._targets, self._tasks, self._sent_ms = self._make_targets(configs), [], {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for target in old:
            await target.close()
        if self._running is not None:
            self._tasks = [self._running.create_task(target.run()) for target in self._targets]

    def forget(self) -> None:
        """Nothing more is said: another replica speaks from now on. What fires later is told anew."""
        self._sent_ms = {}
        for target in self._targets:
            target.forget()

    async def close(self) -> None:
        """Close the connections."""
        for target in self._targets:
            await target.close()

    def _make_targets(self, configs: Sequence[AlertmanagerConfig]) -> list[_Target]:
        targets = [
            _Target(url, config, self._clock, self._metrics, self._rng)
            for config in configs
            for url in config.urls
        ]
        self._metrics.add_alertmanagers(target.name for target in targets)
        return targets

    def _queue(self, rule: AlertingRule, instance: AlertInstance, ends_ms: int) -> None:
        labels = self._external.merged(instance.labels) if self._external else instance.labels
        document = {
            "labels": bounded(labels),
            "annotations": bounded(instance.annotations),
            "startsAt": rfc3339(instance.fired_at_ms),
            "endsAt": rfc3339(ends_ms),
            "generatorURL": self._link(rule),
        }
        for target in self._targets:
            target.put(labels, document)


class _Target:
    """One Alertmanager and what waits for it, the newest of each instance."""

    def __init__(
        self, url: str, config: AlertmanagerConfig, clock: Clock, metrics: NotifyMetrics, rng: Random
    ) -> None:
        self.name = urlsplit(url).netloc
        self._url = f"{url}/api/v2/alerts"
        self._poster = HttpPoster(config.http, clock, timeout_s=config.timeout_ms / 1000)
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._waiting: dict[LabelSet, Mapping[str, Any]] = {}
        self._wake = asyncio.Event()
        self._failures = 0

    def put(self, labels: LabelSet, document: Mapping[str, Any]) -> None:
        """Queue one alert in the place of an older state of it; the oldest goes where too many wait."""
        self._waiting.pop(labels, None)
        if len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._metrics.alertmanager_dropped.labels(self.name).inc()
        self._waiting[labels] = document
        self._wake.set()

    def forget(self) -> None:
        """Drop what waits."""
        self._waiting = {}

    async def run(self) -> None:
        """Send what waits, in batches, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = dict(islice(self._waiting.items(), MAX_BATCH))
                try:
                    await self._poster.post(self._url, json.dumps(list(batch.values())).encode(), _HEADERS)
                except DeliveryError as error:
                    await self._after_failure(batch, error)
                    continue
                self._after_success(batch)

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()

    def _after_success(self, batch: Mapping[LabelSet, Mapping[str, Any]]) -> None:
        if self._failures:
            _log.info("alertmanager %s takes alerts again", self.name)
        self._failures = 0
        self._metrics.alertmanager_sent.labels(self.name).inc(len(batch))
        self._forget(batch)

    async def _after_failure(self, batch: Mapping[LabelSet, Mapping[str, Any]], error: DeliveryError) -> None:
        self._metrics.alertmanager_errors.labels(self.name).inc()
        self._failures += 1
        if self._failures == 1:
            _log.warning("alertmanager %s did not take alerts: %s", self.name, error.reason)
        if not error.retryable:  # the same batch would be refused again; each alert comes anew in a minute
            self._metrics.alertmanager_dropped.labels(self.name).inc(len(batch))
            self._forget(batch)
            return
        delay_s = max(retry_delay_s(self._failures, self._rng), min(error.retry_after_s or 0.0, 300.0))
        await self._clock.sleep(delay_s)

    def _forget(self, batch: Mapping[LabelSet, Mapping[str, Any]]) -> None:
        """Drop what was sent, unless a newer state of it has come meanwhile."""
        for labels, document in batch.items():
            with contextlib.suppress(KeyError):
                if self._waiting[labels] is document:
                    del self._waiting[labels]
