"""Ten scripted minutes with real rules: restarted at any second, the same notifications as undisturbed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import pytest

from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.notify.book import AlertBook
from exporter.notify.records import Changes, Notification
from exporter.notify.steps import finish
from exporter.promql.engine import Engine
from exporter.rules.carry_over import restore
from exporter.rules.engine_query import EngineQueries
from exporter.rules.group import GroupState, evaluate_group
from exporter.rules.instance import from_record
from exporter.rules.model import AlertingRule
from exporter.rules.schedule import next_slot
from exporter.storage import MemoryStorage
from tests.notify.stage import config
from tests.rules.build import groups

T0 = 1_700_000_010_000
INTERVAL_MS = 15_000
SECONDS = 600
OBSERVED_MS = 3_600_000  # so long before the script begins the head is complete, as after some hours of work
ROUTES = (  # without group_interval: which moment a group was open last is not stored
    "route: {receiver: ops, routes: [{receiver: log, continue: true, repeat_interval: 90s},"
    " {receiver: ops, group_by: [alertname], group_wait: 5s}]}\n"
    "receivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]"
)
RULES = """
groups:
- name: restarts
  rules:
  - {record: "job:x:max", expr: max by (job) (x)}
  - {alert: Plain, expr: x > 0}
  - {alert: Cooled, expr: x > 0, cooldown: 100s}
  - {alert: Waits, expr: x > 0, for: 30s, cooldown: 1m}
  - {alert: Keeps, expr: x > 0, keep_firing_for: 40s}
  - {alert: Hysteresis, expr: x > 1, keep_firing_expr: x > 0}
  - {alert: Rate, expr: "rate(c[1m]) > 1", for: 15s, cooldown: 2m, cooldown_by: []}
  - {alert: Gone, expr: "absent(x{i='a'})"}
  - {alert: Held, expr: x > 1, missing_data: keep}
  - {alert: Recorded, expr: "job:x:max > 1", cooldown: 45s}
"""
Told = tuple[int, str, str, tuple[str, ...]]  # second, id, status, alerts
Sample = tuple[int, tuple[LabelSet, ...], tuple[float, ...]]


def script(seed: int) -> dict[int, Sample]:
    """A scrape each 15 s by its second: gauges that jump and vanish, a counter with fits of haste."""
    rng, found = Random(seed), dict[int, Sample]()
    values: dict[str, float | None] = {"a": 0.0, "b": 0.0, "c": 0.0}
    count = 0.0
    for second in range(0, SECONDS, 15):
        labels, column = [], []
        for name, before in values.items():
            after = before if rng.random() < 0.6 else rng.choice((0.0, 0.0, 1.0, 2.0, None))
            values[name] = after
            if after is not None or before is not None:
                labels.append(LabelSet.of({"__name__": "x", "job": "j", "i": name}))
                column.append(STALE_NAN if after is None else after)
        count += rng.choice((1, 1, 60))
        labels.append(LabelSet.of({"__name__": "c", "job": "j"}))
        column.append(count)
        found[second] = (T0 + 1000 * second, tuple(labels), tuple(column))
    return found


class Run:
    """Rules, book and receiver, a second at a time; everything is delivered at once."""

    def __init__(self, samples: Mapping[int, Sample]) -> None:
        self._samples = samples
        (self._group,) = groups(RULES)
        self.arrived: list[Told] = []
        self.rows = Changes()
        self.written: list[SampleBatch] = []  # what a start finds in the database
        self.start(0)

    def start(self, second: int) -> None:
        """As after a crash: nothing is left but what was stored."""
        now_ms = T0 + 1000 * second
        self._storage = MemoryStorage()
        for batch in self.written:
            self._storage.append_batch(batch)
        self._queries = EngineQueries(Engine(self._storage))
        self._book = AlertBook(config(ROUTES), external_labels=EMPTY_LABELS, link=lambda _: "")
        self._book.load(Changes.from_record(json.loads(self.rows.to_json())), now_ms)
        rules = [rule for rule in self._group.rules if isinstance(rule, AlertingRule)]
        stored = {
            rule.key: [from_record(one) for one in self._book.loaded_instances(rule.key)] for rule in rules
        }
        states, _ = restore([self._group], stored, now_ms, T0 - OBSERVED_MS)
        self._state: GroupState = states[self._group.key]
        finish(self._book.retain(rules, now_ms))
        self._book.resume(rules, now_ms)

    def second(self, second: int) -> None:
        """A scrape, an evaluation and what is due, where this is their second."""
        now_ms = T0 + 1000 * second
        if second in self._samples:
            ts_ms, labels, values = self._samples[second]
            self._write(SampleBatch(ts_ms, labels, np.array(values)))
        slot_ms = next_slot(self._group.key, INTERVAL_MS, now_ms - 1000)
        if slot_ms <= now_ms:
            evaluation = evaluate_group(self._group, self._state, slot_ms, self._queries(), self._write)
            finish(self._book.evaluate(evaluation, now_ms))
        finish(self._book.tick(now_ms))
        while True:
            outcome = self._book.take()
            self.rows.merge(outcome.changes)
            if not outcome.notifications:
                break
            for one in outcome.notifications:
                self.arrived.append((second, one.id, one.status, _told(one)))
                self._book.delivered(one.id, now_ms)

    def _write(self, batch: SampleBatch) -> None:
        self._storage.append_batch(batch)
        self.written.append(batch)


def _told(one: Notification) -> tuple[str, ...]:
    return tuple(
        f"{alert.labels.get('alertname')} {alert.labels.get('i')} {alert.reason} {alert.suppressed}"
        f" {alert.peak} {alert.resolve_reason} {alert.resolved_value}"
        for alert in one.alerts
    )


def notifications(samples: Mapping[int, Sample], restarts: Sequence[int]) -> list[Told]:
    """What is sent with restarts at these seconds."""
    run = Run(samples)
    for second in range(SECONDS):
        if second in restarts:
            run.start(second)
        run.second(second)
    return run.arrived


def check_each(samples: Mapping[int, Sample], restarts: Sequence[int]) -> None:
    """The same is sent with one restart at any of these seconds as with none."""
    run = Run(samples)
    stored: dict[int, tuple[str, int, int]] = {}  # what stood in the database before that second
    for second in range(SECONDS):
        if second in restarts:
            stored[second] = run.rows.to_json(), len(run.written), len(run.arrived)
        run.second(second)
    undisturbed = run.arrived
    assert len(undisturbed) > 60
    assert {status for _, _, status, _ in undisturbed} == {"firing", "resolved"}
    for begin, (rows, written, arrived) in stored.items():
        other = Run(samples)
        other.rows = Changes.from_record(json.loads(rows))
        other.written, other.arrived = run.written[:written], undisturbed[:arrived]
        other.start(begin)
        for second in range(begin, SECONDS):
            other.second(second)
        assert other.arrived == undisturbed, f"restart at second {begin}"


@pytest.mark.parametrize("part", range(2))
def test_a_restart_changes_no_notification(part: int) -> None:
    """Ids, times, contents and order are those of the undisturbed run, wherever it is restarted."""
    check_each(script(3), range(10 * part, SECONDS, 23))


@pytest.mark.acceptance
def test_a_restart_at_each_second_changes_no_notification() -> None:
    """The same for each of the six hundred seconds."""
    check_each(script(3), range(SECONDS))


def test_restarts_at_every_second_change_no_notification() -> None:
    """Nor do as many restarts in one run as there are seconds in its first part."""
    samples = script(4)
    assert notifications(samples, range(200)) == notifications(samples, ())
