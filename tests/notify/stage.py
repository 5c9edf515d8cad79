"""A stage for notifier tests: rules that fire when told, a recording receiver, a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from exporter.config.positions import Reader, parse_yaml
from exporter.config.receivers import NotificationConfig, read_notification
from exporter.errors import DeliveryError, WriteError
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.notify.dispatch import Dispatcher
from exporter.notify.journal import Journal
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.outbox import LanePolicy
from exporter.notify.ports import HistoryFilter
from exporter.notify.records import Changes, Notification
from exporter.notify.store import JournaledStore
from exporter.promql.parse import parse_expr
from exporter.rules.alert import (
    AlertInstance,
    AlertState,
    ResolveReason,
    Transition,
    TransitionKind,
    episode_id,
    from_record,
)
from exporter.rules.evaluation import GroupEvaluation, RuleEvaluation, RuleHealth
from exporter.rules.model import AlertingRule, RuleGroup
from tests.helpers.clock import FakeClock, settle

MINUTE = 60_000
_EXPR = "quantum_provider_up == 0"


def rule(
    name: str = "Down", cooldown: float = 0, by: tuple[str, ...] | None = None, **labels: str
) -> AlertingRule:
    """A rule with a cooldown in minutes."""
    return AlertingRule(
        name=name,
        expr=parse_expr(_EXPR),
        expr_text=_EXPR,
        labels={"severity": "warning", **labels},
        annotations={"summary": "it is down"},
        cooldown_ms=round(cooldown * MINUTE),
        cooldown_by=by,
    )


class Stage:
    """Says which instances fire, and makes the evaluations of that; state goes over a restart by records."""

    def __init__(self, rules: Sequence[AlertingRule]) -> None:
        self.rules = tuple(rules)
        self.group = RuleGroup("group", "file.yml", self.rules)
        self.instances: dict[str, dict[LabelSet, AlertInstance]] = {one.key: {} for one in rules}

    def restore(self, dispatcher: Dispatcher) -> None:
        for one in self.rules:
            for record in dispatcher.loaded_instances(one.key):
                instance = from_record(record)
                self.instances[one.key][instance.labels] = instance

    def evaluate(
        self,
        ts_ms: int,
        firing: Iterable[str] | Mapping[str, Iterable[str]],
        *,
        value: float = 0.0,
        reason: ResolveReason = ResolveReason.RECOVERED,
    ) -> GroupEvaluation:
        """`firing` names the values of the label `instance`, by rule name where there are several rules."""
        wanted = firing if isinstance(firing, Mapping) else {self.rules[0].name: firing}
        return GroupEvaluation(
            self.group,
            ts_ms,
            tuple(self._rule(one, set(wanted.get(one.name, ())), ts_ms, value, reason) for one in self.rules),
        )

    def _rule(
        self, rule: AlertingRule, names: set[str], ts_ms: int, value: float, reason: ResolveReason
    ) -> RuleEvaluation:
        known, transitions, resolved = self.instances[rule.key], [], []
        wanted = {
            LabelSet.of({"alertname": rule.name, "instance": name, **rule.labels}): name for name in names
        }
        for labels in wanted:
            if labels in known:
                known[labels] = replace(known[labels], value=value, peak=max(value, known[labels].peak))
                continue
            known[labels] = AlertInstance(
                labels=labels,
                annotations=dict(rule.annotations),
                state=AlertState.FIRING,
                value=value,
                peak=value,
                active_at_ms=ts_ms,
                fired_at_ms=ts_ms,
                episode_id=episode_id(rule.key, labels, ts_ms),
            )
            transitions.append(Transition(TransitionKind.FIRING, known[labels], ts_ms))
        for labels in [one for one in known if one not in wanted]:
            over = replace(
                known.pop(labels),
                state=AlertState.INACTIVE,
                resolved_at_ms=ts_ms,
                resolve_reason=reason,
                resolved_value=1.0,
            )
            transitions.append(Transition(TransitionKind.RESOLVED, over, ts_ms, reason))
            resolved.append(over)
        return RuleEvaluation(
            rule,
            RuleHealth.OK,
            evaluated_at_ms=ts_ms,
            transitions=tuple(transitions),
            active=tuple(known.values()),
            resolved=tuple(resolved),
        )


class MemoryStore:
    """An `AlertStore` whose rows went through JSON, with a switch for an outage."""

    def __init__(self) -> None:
        self.rows = Changes()
        self.away = False
        self.commits = 0

    async def load(self) -> Changes:
        if self.away:
            raise WriteError("the database is away")
        return Changes.from_record(json.loads(self.rows.to_json()))

    async def commit(self, changes: Changes) -> None:
        if self.away:
            raise WriteError("the database is away")
        self.commits += 1
        self.rows.merge(Changes.from_record(json.loads(changes.to_json())))

    async def history(self, wanted: HistoryFilter) -> Sequence[Mapping[str, Any]]:
        if self.away:
            raise WriteError("the database is away")
        rows = [one.to_record() for one in self.rows.episodes.values()]
        return rows[: wanted.limit]


class Receiver:
    """A notifier that remembers what it took; `answers` are used up first: an error to raise, or None."""

    def __init__(self) -> None:
        self.took: list[Notification] = []
        self.tries: list[str] = []
        self.answers: list[DeliveryError | None] = []
        self.hang = False

    async def send(self, notification: Notification) -> None:
        self.tries.append(notification.id)
        if self.hang:
            await asyncio.Event().wait()
        if self.answers and (error := self.answers.pop(0)) is not None:
            raise error
        self.took.append(notification)

    async def close(self) -> None:
        pass

    @property
    def said(self) -> list[str]:
        """Each notification as `firing a b (2 held back)`."""
        found = []
        for one in self.took:
            names = " ".join(sorted(alert.labels.get("instance") for alert in one.alerts))
            held = max(alert.suppressed for alert in one.alerts)
            found.append(f"{one.status} {names}" + (f" ({held} held back)" if held else ""))
        return found


def config(
    text: str = "route: {receiver: ops}\nreceivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]",
) -> NotificationConfig:
    """The notification part of a configuration."""
    node, reader = parse_yaml(text), Reader("test.yml")
    found = read_notification(reader, node, node.entries or {})
    assert not reader.problems, reader.problems
    return found


class Rig:
    """A dispatcher with everything around it; `restart` throws it away and starts from the store."""

    def __init__(
        self,
        tmp_path: Path,
        rules: Sequence[AlertingRule],
        notification: NotificationConfig | None = None,
        *,
        store: Any = None,
        policy: LanePolicy | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.rules = rules
        self.notification = notification or config()
        self.tables = store or MemoryStore()
        self.journal = tmp_path / "alerts.journal"
        self.receivers: dict[str, Receiver] = {}
        self.policy = policy
        self.registry = CollectorRegistry()
        self._task: asyncio.Task[None] | None = None

    @property
    def ops(self) -> Receiver:
        return self.receivers.setdefault("ops", Receiver())

    async def start(self) -> None:
        self.registry = CollectorRegistry()
        self.dispatcher = Dispatcher(
            self.notification,
            JournaledStore(self.tables, Journal(self.journal)),
            lambda destination: self.receivers.setdefault(destination.key, Receiver()),
            self.clock,
            NotifyMetrics(self.registry),
            external_labels=EMPTY_LABELS,
            rng=Random(1),
            policy=self.policy,
        )
        await self.dispatcher.load()
        self.stage = Stage(self.rules)
        self.stage.restore(self.dispatcher)
        self._task = asyncio.create_task(self.dispatcher.run())
        await self.settle()

    async def kill(self) -> None:
        """As kill -9 would: nothing more is written."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            self.dispatcher.store._journal.close()  # the system closes files too

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self.dispatcher.stop()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def fire(self, *names: str, **options: Any) -> None:
        """One evaluation in which these instances fire."""
        await self.dispatcher.handle(self.stage.evaluate(self.clock.now_ms(), names, **options))
        await self.settle()

    async def minutes(self, minutes: float) -> None:
        await self.clock.advance(minutes * 60)
        await self.settle()

    async def settle(self) -> None:
        """Let threads (the journal's) and tasks come to rest."""
        for _ in range(3):
            await self.dispatcher.flush()
            await settle()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running(*args: Any, **options: Any) -> AsyncIterator[Rig]:
    """A rig that runs for the length of the block."""
    rig = Rig(*args, **options)
    await rig.start()
    try:
        yield rig
    finally:
        await rig.stop()
