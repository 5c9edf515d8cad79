"""Notification as one part: stored state, dispatcher, the Alertmanagers outside, the alert service.

It notifies while it is this replica's turn (`compose.replicas`): each turn has a dispatcher of its own, built
from the stored state and thrown away at the end. Between turns evaluations only move the rules on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from exporter.clock import Clock
from exporter.config.schema import Config
from exporter.db.alerts import PostgresAlertStore, StoredState
from exporter.db.leader import LeaderSession
from exporter.db.pool import Database
from exporter.model.labels import LabelSet
from exporter.notify.build import notifier_factory
from exporter.notify.dispatch import Dispatcher
from exporter.notify.journal import Journal
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.ports import HistoryFilter
from exporter.notify.receivers.alertmanager import Alertmanagers
from exporter.notify.records import Changes
from exporter.notify.service import AlertService
from exporter.notify.store import JournaledStore
from exporter.rules.alert import AlertInstance
from exporter.rules.carry_over import Adopted, restore
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.group import GroupState
from exporter.rules.instance import from_record
from exporter.rules.model import AlertingRule, RuleGroup
from exporter.web.waiting import Waiting

Adopt = Callable[[Adopted], Awaitable[None]]


class Notifying:
    """`run` as a task; `take_up` and `stand_down` begin and end a turn; `handle` each evaluation; `close`."""

    def __init__(
        self,
        config: Config,
        database: Database,
        leader: LeaderSession,
        *,
        registry: CollectorRegistry,
        clock: Clock,
        external_url: str,
        groups: Sequence[RuleGroup],
        was_away: bool,
        permitted: Callable[[], bool],
        why_not: Callable[[], str],
    ) -> None:
        """`was_away`: the last evaluation was too long ago to send by it. `permitted` says whether something
        may be sent at this moment, `why_not` who notifies else."""
        self._config = config
        self._groups = groups
        self._was_away = was_away
        self._clock = clock
        self._external_url = external_url
        self._external_labels = LabelSet.of(config.global_.external_labels)
        self._permitted = permitted
        self._tables = PostgresAlertStore(database, leader)
        self._metrics = NotifyMetrics(registry)
        self._alertmanagers = self._make_alertmanagers()
        self._waiting = Waiting(lambda **wanted: self._tables.history(HistoryFilter(**wanted)), why_not)
        self._dispatcher: Dispatcher | None = None
        self._service: AlertService | None = None
        self._running: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._state = Changes()
        self.adopt: Adopt | None = None  # hands what is stored to rules that run already

    @property
    def service(self) -> AlertService | Waiting:
        """What people may ask at this moment."""
        return self._service or self._waiting

    # -- turns ----------------------------------------------------------------------------------------

    async def take_up(self, known: Changes | None) -> None:
        """Begin a turn: read the stored state, let the rules go on from it, then decide and send."""
        dispatcher = Dispatcher(
            self._config.notification,
            JournaledStore(self._tables, self._journal(), fallback=known),
            notifier_factory(self._clock, self._external_url),
            self._clock,
            self._metrics,
            external_labels=self._external_labels,
            external_url=self._external_url,
            permitted=self._permitted,
        )
        self._state = await dispatcher.load()
        await dispatcher.retain(self._groups)
        if self.adopt is not None:
            await self.adopt(self._adopted())
        elif not self._was_away:
            dispatcher.resume(self._groups)
        self._dispatcher, self._service = dispatcher, AlertService(dispatcher, self._clock)
        self._begun.set()

    async def stand_down(self) -> None:
        """End the turn: what was decided and not recorded stays in the journal, nothing more is sent."""
        dispatcher, self._dispatcher, self._service = self._dispatcher, None, None
        self._begun.clear()
        self._alertmanagers.forget()
        await self._stop_running()
        if dispatcher is not None:
            await dispatcher.stop()
        self._metrics.rest()

    async def hand_in(self) -> int:
        """Add to the tables what the journal of an earlier turn holds and they lack; how many rows.

        Raises: StorageError.
        """
        store = JournaledStore(self._tables, self._journal())
        rows = await store.hand_in(self._tables.add)
        await store.close()
        return rows

    async def look(self) -> StoredState:
        """The stored state as it is now. Raises: StorageError."""
        return await self._tables.look()

    def wake(self) -> None:
        """Sending may be permitted again."""
        if self._dispatcher is not None:
            self._dispatcher.wake()

    def restored(
        self, groups: Sequence[RuleGroup], observed_since_ms: int, known: Changes | None
    ) -> Mapping[str, GroupState]:
        """The states with which the rules begin: from the turn that has begun, else from what is `known`."""
        if self._dispatcher is None and known is not None:
            self._state = known
        states, _ = restore(groups, self._adopted().stored, self._clock.now_ms(), observed_since_ms)
        return states

    # -- while it runs --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Record and deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_turns())
            group.create_task(self._alertmanagers.run())

    async def handle(self, evaluation: GroupEvaluation) -> None:
        """Take one evaluation in, if it is our turn."""
        if self._dispatcher is not None:
            await self._alertmanagers.handle(evaluation)
        if self._dispatcher is not None:
            await self._dispatcher.handle(evaluation)

    def lag_ms(self) -> int:
        """Milliseconds since the notifier last did all that was to be done."""
        return self._dispatcher.lag_ms() if self._dispatcher is not None else 0

    async def prune(self, before_ms: int) -> int:
        """Delete finished episodes of before that time; how many rows went."""
        return await self._tables.prune(before_ms)

    async def reload(self, config: Config, groups: Sequence[RuleGroup]) -> None:
        """Route and deliver by another configuration, over another set of rules."""
        self._config, self._groups = config, groups
        await self._alertmanagers.configure(config.alerting.alertmanagers)
        if self._dispatcher is not None:
            await self._dispatcher.configure(
                config.notification, notifier_factory(self._clock, self._external_url)
            )
            await self._dispatcher.retain(groups)

    async def drain(self) -> None:
        """Let what is on its way arrive, for at most a second."""
        if self._dispatcher is not None:
            await self._dispatcher.drain(1.0)

    async def close(self) -> None:
        """Record what is known and close the receivers; what is queued stays queued."""
        await self._alertmanagers.close()
        await self.stand_down()

    # -- inside ---------------------------------------------------------------------------------------

    async def _run_turns(self) -> None:
        try:
            while True:
                await self._begun.wait()
                assert self._dispatcher is not None
                running = self._running = asyncio.create_task(self._dispatcher.run(), name="dispatcher")
                await asyncio.wait([running])
                if not running.cancelled() and (fault := running.exception()) is not None:
                    raise fault
        finally:
            await self._stop_running()

    async def _stop_running(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _journal(self) -> Journal:
        return Journal(self._config.storage.data_dir / "alerts.journal")

    def _make_alertmanagers(self) -> Alertmanagers:
        return Alertmanagers(
            self._config.alerting.alertmanagers,
            self._clock,
            self._metrics,
            external_labels=self._external_labels,
            default_interval_ms=self._config.global_.evaluation_interval_ms,
            link=self._link,
        )

    def _link(self, rule: AlertingRule) -> str:
        return self._dispatcher.link(rule) if self._dispatcher is not None else ""

    def _adopted(self) -> Adopted:
        """What the loaded state says of the rules' instances."""
        stored: dict[str, list[AlertInstance]] = {}
        for (rule_key, _), record in self._state.instances.items():
            if record is not None:
                stored.setdefault(rule_key, []).append(from_record(json.loads(record)))
        ended = frozenset(one.id for one in self._state.episodes.values() if not one.active)
        return Adopted(stored, ended)
