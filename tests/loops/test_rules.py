"""The rule loop: slots, missed slots, and what a reload keeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from typing import Any

from prometheus_client import CollectorRegistry

from exporter.loops.metrics import PipelineMetrics
from exporter.loops.rules import RuleLoop
from exporter.promql.engine import Engine
from exporter.rules.engine_query import EngineQueries
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.expand import TemplateSettings
from exporter.rules.schedule import slot_offset_ms
from exporter.storage import MemoryStorage
from tests.helpers.clock import FakeClock
from tests.rules.build import groups

START = 1_700_000_040_000  # a whole minute


class Inline(Executor):
    """Runs what it is given at once, so that the test's clock alone decides."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class World:
    def __init__(self, text: str) -> None:
        self.clock = FakeClock(START)
        self.registry = CollectorRegistry()
        self.storage = MemoryStorage()
        self.evaluations: list[tuple[int, GroupEvaluation]] = []
        self.slow_s = 0.0
        queries = EngineQueries(Engine(self.storage))

        def query() -> Any:
            if self.slow_s:
                self.clock.jump(self.slow_s)
                self.slow_s = 0.0
            return queries()

        self.loop = RuleLoop(
            query=query,
            append=self.storage.append_batch,
            persist=lambda _: None,
            hand_on=self._take,
            clock=self.clock,
            metrics=PipelineMetrics(self.registry),
            default_interval_ms=60_000,
            settings=TemplateSettings(),
            on_fault=self._fail,
        )
        self.loop._pool.shutdown()
        self.loop._pool = Inline()  # type: ignore[assignment]
        self.loop.load(groups(text), {})

    async def _take(self, evaluation: GroupEvaluation) -> None:
        self.evaluations.append((self.clock.now_ms(), evaluation))

    def _fail(self, component: str, error: BaseException) -> None:
        raise AssertionError(component) from error

    async def hold(self, seconds: int, **values: float) -> None:
        """Let time pass while series have these values."""
        for _ in range(seconds // 30):
            for name, value in values.items():
                self.storage.append({"__name__": name}, self.clock.now_ms(), value)
            await self.clock.advance(30)

    def transitions(self) -> list[str]:
        return [
            f"{one.kind.value} {one.instance.labels.get('alertname')}"
            for _, evaluation in self.evaluations
            for rule in evaluation.rules
            for one in rule.transitions
        ]

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(name, {"group": "g"})


@contextlib.asynccontextmanager
async def running(text: str) -> AsyncIterator[World]:
    world = World(text)
    task = asyncio.create_task(world.loop.run())
    try:
        yield world
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def rule(**keys: str) -> str:
    lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    return f"groups:\n- name: g\n  rules:\n  - alert: A\n{lines}"


async def test_groups_are_spread_over_the_interval() -> None:
    """Each group is judged at its own slot of the interval, on time, every time."""
    text = "groups:\n" + "".join(
        f"- {{name: g{n}, rules: [{{record: r{n}, expr: '1'}}]}}\n" for n in range(12)
    )
    async with running(text) as world:
        await world.clock.advance(120)
        for now_ms, evaluation in world.evaluations:
            assert now_ms == evaluation.ts_ms
            assert evaluation.ts_ms % 60_000 == slot_offset_ms(evaluation.group.key, 60_000)
        assert len(world.evaluations) == 24
        assert len({now_ms // 15_000 for now_ms, _ in world.evaluations}) >= 6


async def test_slots_that_pass_during_an_evaluation_are_counted() -> None:
    """An evaluation of two and a half intervals misses one slot; the newest is made up for at once."""
    async with running(rule(expr="x > 1")) as world:
        await world.clock.advance(60)
        first_ms = world.evaluations[-1][1].ts_ms
        assert world.value("quantum_rule_group_iterations_missed_total") == 0
        world.slow_s = 150
        await world.clock.advance(60)
        await world.clock.advance(1)
        times = [(evaluation.ts_ms - first_ms) // 1000 for _, evaluation in world.evaluations]
        assert times == [0, 60, 180]
        assert world.value("quantum_rule_group_iterations_missed_total") == 1


async def test_a_changed_for_or_annotation_neither_resolves_nor_fires_again() -> None:
    """The instance goes on with its episode, the new text shows, and the change is told."""
    async with running(rule(expr="x > 1", annotations="{s: old}")) as world:
        await world.hold(120, x=2)
        before = world.transitions()
        assert before[-1] == "firing A"
        (firing,) = world.evaluations[-1][1].rules[0].active
        new = groups(rule(**{"expr": "x > 1", "for": "1h", "annotations": "{s: new}"}))
        change = await world.loop.reload(new, TemplateSettings())
        assert change.summary == "changed: g/A"
        await world.hold(180, x=2)
        assert world.transitions() == before
        (after,) = world.evaluations[-1][1].rules[0].active
        assert (after.episode_id, after.fired_at_ms) == (firing.episode_id, firing.fired_at_ms)
        assert after.state is firing.state
        assert after.annotations["s"] == "new"


async def test_a_pending_instance_keeps_its_clock() -> None:
    """`for` made shorter by a reload counts from when the condition began."""
    async with running(rule(**{"expr": "x > 1", "for": "1h"})) as world:
        await world.hold(300, x=2)
        assert world.transitions() == ["pending A"]
        await world.loop.reload(groups(rule(**{"expr": "x > 1", "for": "4m"})), TemplateSettings())
        await world.hold(60, x=2)
        assert world.transitions() == ["pending A", "firing A"]


async def test_a_reload_tells_what_was_added_changed_and_removed() -> None:
    """And a removed rule resolves with its reason, once."""
    text = "groups: [{name: g, rules: [{alert: A, expr: x > 1}, {alert: B, expr: x > 1}]}]"
    async with running(text) as world:
        await world.hold(120, x=2)
        new = groups("groups: [{name: g, rules: [{alert: A, expr: x > 0}, {alert: C, expr: x > 1}]}]")
        change = await world.loop.reload(new, TemplateSettings())
        assert change.summary == "added: g/C; changed: g/A; removed: g/B"
        assert world.transitions()[-1] == "resolved B"
        await world.hold(120, x=2)
        assert world.transitions().count("resolved B") == 1
        assert "resolved A" not in world.transitions()


async def test_a_group_that_is_gone_leaves_no_metrics() -> None:
    """Its label sets leave the exposition with it."""
    async with running(rule(expr="x > 1")) as world:
        await world.clock.advance(60)
        assert world.value("quantum_rule_group_rules") == 1
        await world.loop.reload(groups("groups: []"), TemplateSettings())
        assert world.value("quantum_rule_group_rules") is None
