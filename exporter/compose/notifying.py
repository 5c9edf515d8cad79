"""Notification as one part: stored state, dispatcher, the Alertmanagers outside, the alert service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from exporter.clock import Clock
from exporter.config.schema import Config
from exporter.db.alerts import PostgresAlertStore
from exporter.db.pool import Database
from exporter.model.labels import LabelSet
from exporter.notify.build import notifier_factory
from exporter.notify.dispatch import Dispatcher
from exporter.notify.journal import Journal
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.ports import HistoryFilter
from exporter.notify.receivers.alertmanager import Alertmanagers
from exporter.notify.service import AlertService
from exporter.notify.store import JournaledStore
from exporter.rules.carry_over import restore
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.group import GroupState
from exporter.rules.instance import from_record
from exporter.rules.model import AlertingRule, RuleGroup


class Alerts(AlertService):
    """The alert service with the history's filters as keywords, as the HTTP server asks."""

    async def find(self, **wanted: Any) -> Sequence[Mapping[str, Any]]:
        """Episodes that fit the filters. Raises: StorageError while the database is away."""
        return await self.history(HistoryFilter(**wanted))


class Notifying:
    """`open`, then `run` as a task; `handle` each evaluation; `close` at the end."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        alertmanagers: Alertmanagers,
        tables: PostgresAlertStore,
        clock: Clock,
        external_url: str,
    ) -> None:
        self._dispatcher = dispatcher
        self._alertmanagers = alertmanagers
        self._tables = tables
        self._clock = clock
        self._external_url = external_url
        self.service = Alerts(dispatcher, clock)

    @classmethod
    async def open(
        cls,
        config: Config,
        database: Database,
        *,
        registry: CollectorRegistry,
        clock: Clock,
        external_url: str,
    ) -> Notifying:
        """Build it and read the stored state."""
        tables = PostgresAlertStore(database)
        journal = Journal(config.storage.data_dir / "alerts.journal")
        metrics = NotifyMetrics(registry)
        external_labels = LabelSet.of(config.global_.external_labels)
        dispatcher = Dispatcher(
            config.notification,
            JournaledStore(tables, journal),
            notifier_factory(clock, external_url),
            clock,
            metrics,
            external_labels=external_labels,
            external_url=external_url,
        )
        alertmanagers = Alertmanagers(
            config.alerting.alertmanagers,
            clock,
            metrics,
            external_labels=external_labels,
            default_interval_ms=config.global_.evaluation_interval_ms,
            link=dispatcher.link,
        )
        await dispatcher.load()
        return cls(dispatcher, alertmanagers, tables, clock, external_url)

    def restored(self, groups: Sequence[RuleGroup], observed_since_ms: int) -> Mapping[str, GroupState]:
        """The states with which the rules go on; episodes of rules that are gone resolve."""
        stored = {
            rule.key: [from_record(record) for record in self._dispatcher.loaded_instances(rule.key)]
            for group in groups
            for rule in group.rules
            if isinstance(rule, AlertingRule)
        }
        states, _ = restore(groups, stored, self._clock.now_ms(), observed_since_ms)
        self._dispatcher.retain(groups)
        return states

    async def run(self) -> None:
        """Record and deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatcher.run())
            group.create_task(self._alertmanagers.run())

    async def handle(self, evaluation: GroupEvaluation) -> None:
        """Take one evaluation in."""
        self._alertmanagers.handle(evaluation)
        await self._dispatcher.handle(evaluation)

    def lag_ms(self) -> int:
        """Milliseconds since the notifier last did all that was to be done."""
        return self._dispatcher.lag_ms()

    async def prune(self, before_ms: int) -> int:
        """Delete finished episodes of before that time; how many rows went."""
        return await self._tables.prune(before_ms)

    async def reload(self, config: Config, groups: Sequence[RuleGroup]) -> None:
        """Route and deliver by another configuration, over another set of rules."""
        await self._dispatcher.configure(
            config.notification, notifier_factory(self._clock, self._external_url)
        )
        await self._alertmanagers.configure(config.alerting.alertmanagers)
        self._dispatcher.retain(groups)

    async def drain(self) -> None:
        """Let what is on its way arrive, for at most a second."""
        await self._dispatcher.drain(1.0)

    async def close(self) -> None:
        """Record what is known and close the receivers; what is queued stays queued."""
        await self._alertmanagers.close()
        await self._dispatcher.stop()
