"""Rules that read a metric nobody has."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from prometheus_client import CollectorRegistry

from exporter.loops.metrics import PipelineMetrics
from exporter.loops.unmatched import UnmatchedRules
from exporter.rules.evaluation import GroupView
from exporter.rules.model import RuleGroup
from exporter.storage import MemoryStorage
from tests.helpers.clock import FakeClock
from tests.rules.build import groups

TEXT = """
groups:
- name: g
  rules:
  - {alert: Both, expr: here > 1 or gone > 1}
  - {alert: Silence, expr: absent(nothing)}
  - {record: 'a:b', expr: 'sum(rate(gone[5m])) / sum(rate(other{x="y"}[5m]))'}
  - {alert: Any, expr: '{__name__=~"no.*"} > 1'}
"""


class World:
    def __init__(self, text: str = TEXT) -> None:
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.storage = MemoryStorage()
        self.loaded: tuple[RuleGroup, ...] = groups(text)
        self.unmatched = UnmatchedRules(
            lambda: [GroupView(group, 15_000, None) for group in self.loaded],
            lambda: self.storage.label_values("__name__"),
            self.clock,
            PipelineMetrics(self.registry),
        )
        self.add("here")

    def add(self, name: str) -> None:
        self.storage.append({"__name__": name, "x": "z"}, self.clock.now_ms(), 1.0)

    def found(self) -> set[tuple[str, str]]:
        for family in self.registry.collect():
            if family.name == "quantum_rule_unmatched":
                assert all(sample.value == 1 for sample in family.samples)
                return {(sample.labels["rule"], sample.labels["metric"]) for sample in family.samples}
        return set()


def test_each_metric_without_a_series_is_named() -> None:
    """By rule and metric; what `absent` asks for and open names are left out."""
    world = World()
    world.unmatched.check()
    assert world.found() == {("Both", "gone"), ("a:b", "gone"), ("a:b", "other")}


def test_a_metric_that_appears_is_named_no_more() -> None:
    """Even after its series has left the head again."""
    world = World()
    world.unmatched.check()
    world.add("gone")
    world.unmatched.check()
    assert world.found() == {("a:b", "other")}
    world.storage.truncate(world.clock.now_ms() + 3_600_000)
    world.unmatched.check()
    assert world.found() == {("a:b", "other")}


def test_a_reload_takes_the_series_of_removed_rules_away() -> None:
    """And names what new rules miss."""
    world = World()
    world.unmatched.check()
    world.loaded = groups("groups: [{name: g, rules: [{alert: New, expr: more > 1}]}]")
    world.unmatched.check()
    assert world.found() == {("New", "more")}


async def test_it_is_logged_once_after_five_minutes(caplog: pytest.LogCaptureFixture) -> None:
    """One line for all; the check runs each minute."""
    world = World()
    task = asyncio.create_task(world.unmatched.run())
    try:
        await world.clock.advance(60)
        assert world.found()
        assert caplog.messages == []
        await world.clock.advance(540)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert caplog.messages == [
        "no series yet of metrics that rules read: gone (read by g/Both, g/a:b); other (read by g/a:b)"
    ]
