from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from exporter.errors import QueryError
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.model.staleness import is_stale
from exporter.promql.engine import Engine
from exporter.rules.engine_query import EngineQueries
from exporter.rules.evaluation import GroupEvaluation, RuleEvaluation, RuleHealth
from exporter.rules.expand import TemplateSettings
from exporter.rules.group import GroupState, evaluate_group
from exporter.rules.instance import ResolveReason, TransitionKind
from exporter.rules.model import RuleGroup
from exporter.storage import MemoryStorage
from tests.rules.build import MINUTE, alerting, groups


class World:
    """A head, an engine over it, and one group evaluated minute by minute."""

    def __init__(self, text: str) -> None:
        (self.group,) = groups(text)
        self.storage = MemoryStorage()
        self.queries = EngineQueries(Engine(self.storage))
        self.state = GroupState()

    def put(self, minute: float, series: Mapping[str, float]) -> None:
        labels = tuple(LabelSet.of({"__name__": "x", "i": name}) for name in series)
        values = np.array(list(series.values()), np.float64)
        self.storage.append_batch(SampleBatch(round(minute * MINUTE), labels, values))

    def run(self, minute: float, group: RuleGroup | None = None) -> GroupEvaluation:
        return evaluate_group(
            group or self.group,
            self.state,
            round(minute * MINUTE),
            self.queries(),
            self.storage.append_batch,
            settings=TemplateSettings({"site": "here"}, "http://example.org"),
        )

    def value(self, expr: str, minute: float) -> dict[str, float]:
        vector = self.queries()(expr, round(minute * MINUTE))
        return {str(labels): value for labels, value in zip(vector.labels, vector.values, strict=True)}  # type: ignore[union-attr]


CHAIN = """
groups:
- name: g
  rules:
  - record: total
    expr: sum(x)
    labels: {from: rule}
  - record: twice
    expr: total * 2
  - alert: High
    expr: twice > 5
    labels: {severity: info}
    annotations: {summary: "{{ $value }} at {{ $externalLabels.site }}, {{ externalURL }}"}
  - record: firing
    expr: count(ALERTS{alertname="High"})
"""


def test_a_rule_sees_the_samples_of_those_before_it() -> None:
    """Results of a rule, ALERTS among them, are visible to the next one in the same evaluation."""
    world = World(CHAIN)
    world.put(0, {"a": 1, "b": 2})
    done = world.run(0)
    assert [one.health for one in done.rules] == [RuleHealth.OK] * 4
    assert world.value("twice", 0) == {'twice{from="rule"}': 6.0}
    assert world.value("firing", 0) == {"firing": 1.0}
    assert done.rules[2].active[0].annotations == {"summary": "6 at here, http://example.org"}
    assert [len(batch) for batch in done.batches] == [1, 1, 2, 1]


def test_what_vanishes_gets_a_staleness_marker() -> None:
    """A recorded series that is not written any more ends at once, not after the lookback."""
    world = World("groups:\n- name: g\n  rules:\n  - {record: y, expr: x > 1}\n")
    world.put(0, {"a": 2, "b": 2})
    world.run(0)
    world.put(1, {"a": 2, "b": 1})
    (batch,) = world.run(1).batches
    assert [is_stale(float(value)) for value in batch.values] == [False, True]
    assert world.value("y", 1) == {'y{i="a"}': 2.0}


def test_alert_samples_end_with_the_alert() -> None:
    """ALERTS moves from pending to firing and ends with markers."""
    world = World("groups:\n- name: g\n  rules:\n  - {alert: A, expr: x > 1, for: 1m}\n")
    world.put(0, {"a": 2})
    world.run(0)
    assert world.value("ALERTS", 0) == {'ALERTS{alertname="A", alertstate="pending", i="a"}': 1.0}
    world.put(1, {"a": 2})
    world.run(1)
    assert world.value("ALERTS", 1) == {'ALERTS{alertname="A", alertstate="firing", i="a"}': 1.0}
    world.put(2, {"a": 0})
    done = world.run(2)
    assert world.value("ALERTS", 2) == {}
    assert world.value("ALERTS_FOR_STATE", 2) == {}
    assert [one.reason for one in done.rules[0].transitions] == [ResolveReason.RECOVERED]
    assert done.rules[0].resolved[0].resolved_value == 0


def test_the_same_series_reuse_the_same_labels_object() -> None:
    """While the series stay, batches carry the same `labels` tuple, so that consumers can key on it."""
    world = World("groups:\n- name: g\n  rules:\n  - {record: y, expr: x * 2}\n")
    world.put(0, {"a": 2, "b": 2})
    first = world.run(0).batches[0].labels
    world.put(1, {"a": 3, "b": 3})
    assert world.run(1).batches[0].labels is first


def test_a_failing_rule_keeps_its_state_and_stops_nobody() -> None:
    """A rule that cannot be evaluated is unhealthy with its error; its alerts stay, the next rules run."""
    text = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: x > 1}\n  - {record: y, expr: sum(x)}\n"
    world = World(text)
    world.put(0, {"a": 2})
    world.run(0)

    def failing(text: str, ts_ms: int) -> object:
        if text == "x > 1":
            raise QueryError("query timed out")
        return world.queries()(text, ts_ms)

    done = evaluate_group(world.group, world.state, MINUTE, failing, world.storage.append_batch)
    alert, record = done.rules
    assert (alert.health, alert.error, len(alert.active)) == (RuleHealth.ERR, "query timed out", 1)
    assert record.health is RuleHealth.OK
    assert world.run(2).rules[0].health is RuleHealth.OK


def test_a_template_fault_shows_and_stops_no_alert() -> None:
    """The fault stands in the annotation and in the rule's health; the alert fires."""
    world = World(
        "groups:\n- name: g\n  rules:\n"
        "  - {alert: A, expr: x > 1, annotations: {summary: '{{ query \"1 +\" }}'}}\n"
    )
    world.put(0, {"a": 2})
    (rule,) = world.run(0).rules
    assert rule.health is RuleHealth.ERR
    assert rule.template_faults
    assert rule.active[0].annotations["summary"].startswith("<error expanding template: ")
    assert [one.kind for one in rule.transitions] == [TransitionKind.FIRING]


def test_query_offset_shifts_evaluation_and_samples() -> None:
    """Expressions are evaluated, and samples written, by the offset earlier."""
    world = World("groups:\n- name: g\n  query_offset: 1m\n  rules:\n  - {record: y, expr: x}\n")
    world.put(0, {"a": 1})
    world.put(1, {"a": 2})
    (batch,) = world.run(1).batches
    assert (batch.ts_ms, batch.values.tolist()) == (0, [1.0])


def test_limit_of_a_recording_rule_writes_nothing() -> None:
    """Over the limit a recording rule fails with Prometheus' words and writes no sample."""
    world = World("groups:\n- name: g\n  limit: 1\n  rules:\n  - {record: y, expr: x}\n")
    world.put(0, {"a": 1, "b": 1})
    done = world.run(0)
    assert done.rules[0].error == "exceeded limit of 1 with 2 series"
    assert done.batches == ()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{record: y, expr: 'x[5m]'}", "not a vector or scalar"),
        ("{record: y, expr: x, labels: {i: same}}", "same labelset after applying rule labels"),
        ("{alert: A, expr: x, labels: {i: same}}", "same labelset after applying alert labels"),
    ],
)
def test_what_cannot_be_written_is_an_error(rule: str, expected: str) -> None:
    """Range vectors and repeated label sets make the rule unhealthy."""
    world = World(f"groups:\n- name: g\n  rules:\n  - {rule}\n")
    world.put(0, {"a": 1, "b": 1})
    done = world.run(0)
    assert expected in done.rules[0].error
    assert done.batches == ()


def test_a_scalar_is_a_vector_without_labels() -> None:
    """Rules accept scalars: one element without labels."""
    world = World("groups:\n- name: g\n  rules:\n  - {record: y, expr: time()}\n  - {alert: A, expr: '1'}\n")
    done = world.run(1)
    assert world.value("y", 1) == {"y": 60.0}
    assert str(done.rules[1].active[0].labels) == '{alertname="A"}'


def test_no_data_is_told_from_recovery() -> None:
    """An instance whose series ended resolves for want of data; its neighbour that fell, as recovered."""
    text = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: 'sum by (i) (x) > 1'}\n"
    world = World(text)
    world.put(0, {"a": 2, "b": 2})
    world.run(0)
    world.put(6, {"a": 0})
    (rule,) = world.run(6).rules
    reasons = {one.instance.labels.get("i"): one.reason for one in rule.transitions}
    assert reasons == {"a": ResolveReason.RECOVERED, "b": ResolveReason.NO_DATA}


def test_which_evaluations_are_current() -> None:
    """A template fault or a limit leaves the instances those of this evaluation, a failed query does not."""
    rule = alerting()
    assert RuleEvaluation(rule, RuleHealth.OK).is_current
    assert RuleEvaluation(rule, RuleHealth.ERR, template_faults=("x",)).is_current
    assert RuleEvaluation(rule, RuleHealth.ERR, limited=True).is_current
    assert not RuleEvaluation(rule, RuleHealth.ERR, "query failed").is_current
