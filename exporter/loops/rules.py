"""Evaluates each rule group at its own slots, in a worker thread, and hands the outcome on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from exporter.clock import Clock
from exporter.loops.metrics import PipelineMetrics
from exporter.model.samples import SampleBatch
from exporter.rules.carry_over import Adopted, CarryOver, adopt, carry_over
from exporter.rules.evaluation import GroupEvaluation, GroupView, RuleHealth
from exporter.rules.expand import TemplateSettings
from exporter.rules.group import GroupState, QueryFn, evaluate_group
from exporter.rules.model import RuleGroup
from exporter.rules.schedule import following_slot, next_slot

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    group: RuleGroup
    state: GroupState
    interval_ms: int
    evaluation: GroupEvaluation | None = None
    errors: dict[str, str] | None = None  # by rule key, so that each fault is logged once
    busy: asyncio.Lock | None = None


class RuleLoop:
    """Runs rule groups until cancelled. `hand_on` gets every evaluation, in order within a group."""

    def __init__(
        self,
        *,
        query: Callable[[], QueryFn],
        append: Callable[[SampleBatch], object],
        persist: Callable[[SampleBatch], None],
        hand_on: Callable[[GroupEvaluation], Awaitable[None]],
        clock: Clock,
        metrics: PipelineMetrics,
        default_interval_ms: int,
        settings: TemplateSettings,
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self._query = query
        self._append = append
        self._persist = persist
        self._hand_on = hand_on
        self._clock = clock
        self._metrics = metrics
        self._default_interval_ms = default_interval_ms
        self._settings = settings
        self._on_fault = on_fault
        # One thread: numpy and the interpreter lock gain nothing from two, and groups stay in slot order.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rules")
        self._running: dict[str, _Running] = {}
        self._changed = asyncio.Event()

    # -- groups ---------------------------------------------------------------------------------------

    def load(self, groups: Sequence[RuleGroup], states: Mapping[str, GroupState]) -> None:
        """Take the groups at the start, with restored states by group key."""
        self._running = {
            group.key: self._take(group, states.get(group.key) or GroupState()) for group in groups
        }

    async def reload(self, groups: Sequence[RuleGroup], settings: TemplateSettings) -> CarryOver:
        """Replace the groups; what stayed the same in meaning keeps its state."""
        old = self._running
        for one in old.values():
            if one.busy:
                await one.busy.acquire()  # let an evaluation under way finish; the old entry runs no more
        change = carry_over([(one.group, one.state) for one in old.values()], groups, self._clock.now_ms())
        for key, one in old.items():
            if key not in change.states:
                self._metrics.forget_group(one.group.name)
        self._settings = settings
        self._running = {group.key: self._take(group, change.states[group.key]) for group in groups}
        for key, one in self._running.items():
            if key in old and set(old[key].group.rules) == set(one.group.rules):
                one.evaluation = old[key].evaluation
        self._changed.set()
        for farewell in change.farewell:
            for batch in farewell.batches:
                self._append(batch)
                self._persist(batch)
            await self._hand_on(farewell)
        return change

    async def adopt(self, found: Adopted) -> None:
        """Go on from what another replica has stored; no evaluation of before is handed on any more."""
        for one in list(self._running.values()):
            assert one.busy is not None
            async with one.busy:
                adopt(one.group, one.state, found, self._clock.now_ms())

    def groups(self) -> Sequence[GroupView]:
        """All groups with their last evaluation."""
        return [GroupView(one.group, one.interval_ms, one.evaluation) for one in self._running.values()]

    def _take(self, group: RuleGroup, state: GroupState) -> _Running:
        interval_ms = group.interval_ms or self._default_interval_ms
        metrics = self._metrics
        for counter in (metrics.evaluations, metrics.failures, metrics.missed):
            counter.labels(group.name)
        metrics.group_interval.labels(group.name).set(interval_ms / 1000)
        metrics.group_rules.labels(group.name).set(len(group.rules))
        return _Running(group, state, interval_ms, errors={}, busy=asyncio.Lock())

    # -- running --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: one task per group, replaced when the groups are."""
        try:
            while True:
                self._changed.clear()
                tasks = [
                    asyncio.create_task(self._run_group(one), name=f"rules {one.group.name}")
                    for one in self._running.values()
                ]
                try:
                    await self._changed.wait()
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run_group(self, one: _Running) -> None:
        slot_ms = next_slot(one.group.key, one.interval_ms, self._clock.now_ms())
        while True:
            await self._clock.sleep((slot_ms - self._clock.now_ms()) / 1000)
            try:
                await self._evaluate(one, slot_ms)
            except Exception as error:
                self._on_fault("rules", error)
            slot_ms, missed = following_slot(one.group.key, one.interval_ms, slot_ms, self._clock.now_ms())
            if missed:
                self._metrics.missed.labels(one.group.name).inc(missed)
                log.warning("group %s missed %d evaluations: they take too long", one.group.name, missed)

    async def evaluate_all(self) -> list[GroupEvaluation]:
        """Every group once, now, beside the schedule."""
        groups = list(self._running.values())
        return [await self._evaluate(one, self._clock.now_ms()) for one in groups]

    async def _evaluate(self, one: _Running, ts_ms: int) -> GroupEvaluation:
        assert one.busy is not None
        async with one.busy:
            if one.evaluation is not None and ts_ms <= one.evaluation.ts_ms:
                return one.evaluation  # a check beside the schedule came first
            evaluation = await asyncio.get_running_loop().run_in_executor(self._pool, self._judge, one, ts_ms)
            one.evaluation = evaluation
            self._count(one, evaluation)
            for batch in evaluation.batches:
                self._persist(batch)
            await self._hand_on(evaluation)
            return evaluation

    def _judge(self, one: _Running, ts_ms: int) -> GroupEvaluation:
        return evaluate_group(
            one.group,
            one.state,
            ts_ms,
            self._query(),
            self._append,
            settings=self._settings,
            monotonic=self._clock.monotonic,
        )

    def _count(self, one: _Running, evaluation: GroupEvaluation) -> None:
        name = one.group.name
        failed = [rule for rule in evaluation.rules if rule.health is RuleHealth.ERR]
        self._metrics.evaluations.labels(name).inc(len(evaluation.rules))
        self._metrics.failures.labels(name).inc(len(failed))
        self._metrics.last_evaluation.labels(name).set(evaluation.ts_ms / 1000)
        self._metrics.last_duration.labels(name).set(evaluation.duration_s)
        errors = {rule.rule.key: rule.error for rule in failed}
        known = one.errors or {}
        for rule in failed:
            if known.get(rule.rule.key) != rule.error:
                log.error("rule %s in group %s failed: %s", rule.rule.name, name, rule.error)
        for key in known.keys() - errors.keys():
            log.info("rule %s works again", key)
        one.errors = errors
