"""The dispatcher: takes evaluations, records what the book decides, and lets the lanes deliver.

Order of things: the book decides (synchronously), the store commits, only then a lane gets the notification.
Commits are grouped: what was decided while one runs goes into the next, so that an evaluation never waits
for the database. Between evaluations the book is asked once a second what has fallen due: a cooldown that
ends for something that still fires (by the last evaluation) is sent then, not at the next evaluation.
Ten thousand alerts at once are decided in steps, so that the event loop is never held for long: one decision
at a time, reports of the lanes in between, and what came of it is taken when it is whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any
from urllib.parse import quote

from exporter.clock import Clock
from exporter.config.receivers import NotificationConfig
from exporter.model.labels import LabelSet
from exporter.notify.book import AlertBook
from exporter.notify.metrics import QUIET_REASONS, SILENCE_STATES, NotifyMetrics
from exporter.notify.outbox import Lane, LanePolicy
from exporter.notify.outcome import Outcome
from exporter.notify.ports import Notifier
from exporter.notify.records import Changes, Notification
from exporter.notify.route import Destination
from exporter.notify.silences import RETENTION_MS
from exporter.notify.steps import Steps, sliced
from exporter.notify.store import JournaledStore
from exporter.notify.waiting import first_of, in_steps
from exporter.rules.alert import AlertState
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.model import AlertingRule, RuleGroup

_log = logging.getLogger(__name__)

TICK_S = 1.0
_HOUSEKEEPING_TICKS = 60
_CENSUS_TICKS = 15
_SHOWN_AT_ONCE = 1000
_MANY = 100  # queued notifications from which deliveries are recorded at this pause
_LINGER_S = 0.05

MakeNotifier = Callable[[Destination], Notifier]


class Dispatcher:
    """See the module. Use: `load()`, `run()` as a task, `handle` each evaluation, at the end `stop()`."""

    def __init__(
        self,
        config: NotificationConfig,
        store: JournaledStore,
        make_notifier: MakeNotifier,
        clock: Clock,
        metrics: NotifyMetrics,
        *,
        external_labels: LabelSet,
        external_url: str = "",
        rng: Random | None = None,
        policy: LanePolicy | None = None,
        permitted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.store = store
        self._make_notifier = make_notifier
        self._clock = clock
        self._metrics = metrics
        self._rng = rng or Random()
        self._policy = policy or LanePolicy()
        self._permitted = permitted
        self._external_url = external_url.rstrip("/")
        self.book = AlertBook(config, external_labels=external_labels, link=self.link)
        self._lanes: dict[str, Lane] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: asyncio.TaskGroup | None = None
        self._changes = Changes()
        self._to_send: list[Notification] = []
        self._wake = asyncio.Event()
        self._flushing = 0
        self._hurry = asyncio.Event()  # while somebody waits for what is to be recorded
        self._idle = asyncio.Event()
        self._idle.set()
        self._deciding = asyncio.Lock()  # held by whoever changes the book in steps
        self._ticked_s = clock.monotonic()
        self._waits_since_s: float | None = None  # the oldest decision that is not recorded
        self._seen_alerts: dict[str, set[tuple[str, str, str]]] = {}
        store.snapshot = self._snapshot
        self._make_lanes()

    # life

    async def load(self) -> Changes:
        """Read the stored state, once, before the first evaluation; returns it and raises nothing."""
        state = await self.store.load()
        self.book.load(state, self._clock.now_ms())
        self._take()
        return state

    def loaded_instances(self, rule_key: str) -> list[Mapping[str, Any]]:
        """The stored records of a rule's alert instances, for the evaluator to go on with."""
        return self.book.loaded_instances(rule_key)

    async def run(self) -> None:
        """Commit, tick and deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._running = group
            for name, lane in self._lanes.items():
                self._tasks[name] = group.create_task(lane.run())
            group.create_task(self._tick_loop())
            await self._commit_loop()

    async def stop(self) -> None:
        """After `run` was cancelled: record what is known, close the receivers. The queue stays."""
        self._take()
        if self._changes:
            changes, self._changes = self._changes, Changes()
            await self.store.commit(changes)
        await self.store.close()
        for lane in self._lanes.values():
            await lane.notifier.close()

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Before `run` is cancelled: let what is on its way arrive, for at most so long."""
        await asyncio.gather(*(lane.drain(timeout_s) for lane in self._lanes.values()))

    # what others call

    async def handle(self, evaluation: GroupEvaluation) -> None:
        """Take in one evaluation; returns as soon as it is decided, the rest goes on in the background."""
        await self._decide(lambda: self.book.evaluate(evaluation, self._clock.now_ms()))
        await self._show(evaluation)

    async def tick(self) -> None:
        """Decide what has fallen due."""
        await self._decide(lambda: self.book.tick(self._clock.now_ms()))

    async def flush(self) -> None:
        """Wait until everything decided so far is recorded and handed to the lanes."""
        async with self._deciding:
            pass
        self._take()
        self._flushing += 1
        self._hurry.set()
        try:
            await self._idle.wait()
            await self.store.barrier()
        finally:
            self._flushing -= 1
            if not self._flushing:
                self._hurry.clear()

    async def retain(self, groups: Iterable[RuleGroup]) -> None:
        """After a reload: these are the rule groups now; episodes of rules that are gone resolve."""
        rules = [rule for group in groups for rule in group.rules if isinstance(rule, AlertingRule)]
        await self._decide(lambda: self.book.retain(rules, self._clock.now_ms()))
        kept = {rule.key for rule in rules}
        for key in [key for key in self._seen_alerts if key not in kept]:
            for labels in self._seen_alerts.pop(key):
                if not any(labels in others for others in self._seen_alerts.values()):
                    self._metrics.alerts.remove(*labels)

    def resume(self, groups: Iterable[RuleGroup]) -> None:
        """After `load` and `retain`, where the last evaluation was just now: what fired then still does,
        until the next one says otherwise."""
        rules = [rule for group in groups for rule in group.rules if isinstance(rule, AlertingRule)]
        self.book.resume(rules, self._clock.now_ms())
        self._take()

    async def configure(self, config: NotificationConfig, make_notifier: MakeNotifier) -> None:
        """After a reload: route and deliver by another configuration; queued notifications are kept."""
        self._make_notifier = make_notifier
        old, tasks = self._lanes, self._tasks
        self._lanes, self._tasks = {}, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for lane in old.values():
            await lane.notifier.close()
        async with self._deciding:
            self.book.configure(config)
        self._make_lanes()
        for name in old.keys() - self._lanes.keys():
            self._metrics.remove_receiver(name)
        await self._hand_over_all(self.book.queued)
        if self._running is not None:
            for name, lane in self._lanes.items():
                self._tasks[name] = self._running.create_task(lane.run())
        self._take()

    def wake(self) -> None:
        """Sending may be permitted again."""
        for lane in self._lanes.values():
            lane.wake()

    def changed(self) -> None:
        """After a change of the book from outside (a silence): record and send what came of it."""
        self._take()

    def lag_ms(self) -> int:
        """Milliseconds since the notifier last ticked, or since the oldest decision that is not recorded."""
        since_s = self._ticked_s if self._waits_since_s is None else min(self._ticked_s, self._waits_since_s)
        return round(max(0.0, self._clock.monotonic() - since_s) * 1000)

    # reports of the lanes

    def delivered(self, notification: Notification, *, via: str, attempts: int) -> None:
        """A destination took a notification."""
        self.book.delivered(notification.id, self._clock.now_ms(), via=via, attempts=attempts)
        self._take()

    def failed(self, notification: Notification, error: str, *, attempts: int, next_try_ms: int) -> None:
        """A try failed and another follows."""
        self.book.failed(notification.id, error, attempts=attempts, next_try_ms=next_try_ms)
        self._take()

    def dead(self, notification: Notification, error: str, *, attempts: int) -> None:
        """A notification is given up."""
        self.book.dead(notification.id, self._clock.now_ms(), error, attempts=attempts)
        self._take()

    # inside

    async def _decide(self, decision: Callable[[], Steps[None]]) -> None:
        """Take a decision step by step, others running in between; once begun it is brought to its end."""
        async with self._deciding:
            await in_steps(decision())
        self._take()

    def _take(self) -> None:
        if self._deciding.locked():
            return  # it is taken when the decision is whole
        outcome: Outcome = self.book.take()
        for receiver, count in outcome.suppressed.items():
            self._metrics.suppressed.labels(receiver).inc(count)
        for receiver, count in outcome.flapping.items():
            self._metrics.flapping.labels(receiver).inc(count)
        if not outcome.changes and not outcome.notifications:
            return
        self._changes.merge(outcome.changes)
        self._to_send.extend(outcome.notifications)
        if self._waits_since_s is None:
            self._waits_since_s = self._clock.monotonic()
        self._idle.clear()
        self._wake.set()

    async def _commit_loop(self) -> None:
        while True:
            await self._wake.wait()
            if not self._to_send and len(self.book.queued) > _MANY:
                # what arrives one by one is recorded together
                await first_of(self._clock.sleep(_LINGER_S), self._hurry.wait())
            self._wake.clear()
            self._waits_since_s = self._clock.monotonic()
            changes, self._changes = self._changes, Changes()
            to_send, self._to_send = self._to_send, []
            try:
                await self.store.commit(changes)
            except asyncio.CancelledError:
                changes.merge(self._changes)
                self._changes = changes
                raise
            except Exception:  # what cannot be recorded must still be told
                self._metrics.faults.inc()
                _log.exception("alert state was not recorded")
            self._metrics.journaling.set(self.store.journaling)
            await self._hand_over_all(to_send)
            if not self._wake.is_set():
                self._waits_since_s = None
                self._idle.set()

    async def _tick_loop(self) -> None:
        ticks = 0
        while True:
            await self._clock.sleep(TICK_S)
            ticks += 1
            try:
                await self.tick()
                if self.store.journaling and ticks % 2 == 0:
                    await self.store.settle()
                    self._metrics.journaling.set(self.store.journaling)
                if ticks % _CENSUS_TICKS == 0:
                    await self._take_census()
                if ticks % _HOUSEKEEPING_TICKS == 0:
                    now_ms = self._clock.now_ms()
                    self.book.forget_old(now_ms, now_ms - RETENTION_MS)
                    self._take()
                self._ticked_s = self._clock.monotonic()
            except Exception:
                self._metrics.faults.inc()
                _log.exception("unexpected error in the notifier")

    async def _take_census(self) -> None:
        """Set the gauges of what is quiet, and of silences."""
        async with self._deciding:
            census = await in_steps(self.book.census(self._clock.now_ms()))
        for reason in QUIET_REASONS:
            self._metrics.quiet.labels(reason).set(census.quiet[reason])
        counts = Counter({**census.silences, "idle": len(census.idle)})
        for state in SILENCE_STATES:
            self._metrics.silences.labels(state).set(counts[state])

    async def _hand_over_all(self, notifications: Iterable[Notification]) -> None:
        for some in sliced(notifications):
            for notification in some:
                self._hand_over(notification)
            await asyncio.sleep(0)

    def _hand_over(self, notification: Notification) -> None:
        lane = self._lanes.get(notification.destination)
        current = self.book.queued.get(notification.id)
        if current is None:  # delivered or given up meanwhile
            return
        if lane is None:
            self.dead(notification, "its receiver is configured no more", attempts=notification.attempts)
        else:
            lane.put(current)

    def _make_lanes(self) -> None:
        found = self.book.destinations
        notifiers = {key: self._make_notifier(destination) for key, destination in found.items()}
        self._metrics.add_receivers(found)
        for key, destination in found.items():
            receiver = self.book.config.receiver(destination.receiver)
            fallbacks = [
                notifiers[other] for other, one in found.items() if one.receiver == receiver.fallback
            ]
            timeout_ms = getattr(destination.config, "timeout_ms", 0)
            self._lanes[key] = Lane(
                key,
                notifiers[key],
                self,
                self._clock,
                self._metrics,
                policy=LanePolicy(
                    timeout_s=timeout_ms / 1000 + 1 if timeout_ms else self._policy.timeout_s,
                    max_age_s=self._policy.max_age_s,
                    max_queued=self._policy.max_queued,
                    concurrency=self._policy.concurrency,
                    fallback_after=receiver.fallback_after if fallbacks else 1 << 30,
                ),
                rng=self._rng,
                fallback_name=receiver.fallback,
                fallbacks=fallbacks,
                permitted=self._permitted,
            )

    def _snapshot(self) -> Changes | None:
        """Everything live; None in the middle of a decision."""
        return None if self._deciding.locked() else self.book.snapshot()

    async def _show(self, evaluation: GroupEvaluation) -> None:
        """Set the gauges of the rules' instances."""
        for found in evaluation.rules:
            rule = found.rule
            if not isinstance(rule, AlertingRule):
                continue
            counts = {(rule.name, rule.severity, state): 0 for state in ("pending", "firing")}
            for some in sliced(found.active, _SHOWN_AT_ONCE):
                for instance in some:
                    if instance.state is AlertState.INACTIVE:
                        continue
                    key = (rule.name, instance.severity, instance.state.text)
                    counts[key] = counts.get(key, 0) + 1
                if len(some) == _SHOWN_AT_ONCE:
                    await asyncio.sleep(0)
            before = self._seen_alerts.get(rule.key, set())
            self._seen_alerts[rule.key] = before | counts.keys()
            for labels in self._seen_alerts[rule.key]:
                self._metrics.alerts.labels(*labels).set(counts.get(labels, 0))

    def link(self, rule: AlertingRule) -> str:
        """The URL of a rule's expression; '' without an external URL."""
        query = quote(rule.expr_text, safe="")
        return f"{self._external_url}/graph?g0.expr={query}&g0.tab=1" if self._external_url else ""
