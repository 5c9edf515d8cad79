from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import QueryError
from exporter.model.labels import LabelSet
from exporter.rules.alert import Advanced, advance, from_record, resolved, to_record
from exporter.rules.instance import (
    RESTORED,
    AlertInstance,
    AlertState,
    ResolveReason,
    TransitionKind,
)
from exporter.rules.model import AlertingRule
from tests.rules.build import MINUTE, Probe, alerting, kinds, plain, states, vector

A = {"instance": "a"}
B = {"instance": "b"}


class Walk:
    """A rule walked through time, one evaluation per call."""

    def __init__(self, rule: AlertingRule, limit: int = 0) -> None:
        self.rule = rule
        self.limit = limit
        self.instances: dict[LabelSet, AlertInstance] = {}
        self.log: list[tuple[float, str]] = []
        self.reasons: list[ResolveReason | None] = []

    def at(
        self,
        minute: float,
        *elements: tuple[dict[str, str], float],
        probe: Probe | None = None,
        grace: float = 0,
    ) -> Advanced:
        after = advance(
            self.rule,
            self.instances,
            vector(*elements),
            round(minute * MINUTE),
            expand=plain,
            probe=probe or Probe(),
            limit=self.limit,
            grace_until_ms=round(grace * MINUTE),
        )
        self.instances = dict(after.instances)
        self.log += [(minute, kind) for kind in kinds(after.transitions)]
        self.reasons += [one.reason for one in after.transitions if one.kind is TransitionKind.RESOLVED]
        return after

    @property
    def one(self) -> AlertInstance:
        (instance,) = self.instances.values()
        return instance


def test_without_for_an_instance_fires_at_once() -> None:
    """`for` of 0: the first evaluation that returns an element makes it fire."""
    walk = Walk(alerting())
    walk.at(0, (A, 2))
    assert walk.log == [(0, "firing")]
    assert walk.one.fired_at_ms == 0
    assert walk.one.episode_id


def test_for_is_waited_out_in_pending() -> None:
    """An instance is pending until `for` has passed since its first evaluation, inclusively."""
    walk = Walk(alerting(for_="5m"))
    for minute in range(7):
        walk.at(minute, (A, 2))
    assert walk.log == [(0, "pending"), (5, "firing")]


def test_a_pending_instance_that_goes_is_cleared() -> None:
    """Pending to inactive tells nobody: no resolve, and `for` starts anew."""
    walk = Walk(alerting(for_="2m"))
    walk.at(0, (A, 2))
    walk.at(1)
    walk.at(2, (A, 2))
    walk.at(3, (A, 2))
    assert walk.log == [(0, "pending"), (1, "cleared"), (2, "pending")]


def test_keep_firing_for_holds_and_starts_anew_on_return() -> None:
    """The clock of keep_firing_for starts when the expression stops and is reset when it returns."""
    walk = Walk(alerting(keep_firing_for="2m"))
    walk.at(0, (A, 2))
    walk.at(1)
    assert walk.one.held == "keep_firing_for"
    walk.at(2, (A, 3))
    assert walk.one.keep_firing_since_ms == 0
    walk.at(3)
    walk.at(4)
    assert walk.one.state is AlertState.FIRING
    walk.at(5)
    assert walk.log == [(0, "firing"), (5, "resolved")]


def test_a_resolved_instance_stays_fifteen_minutes() -> None:
    """Resolved instances are kept for 15 minutes, then forgotten."""
    walk = Walk(alerting())
    walk.at(0, (A, 2))
    walk.at(1)
    walk.at(16)
    assert walk.one.state is AlertState.INACTIVE
    walk.at(16.01)
    assert walk.instances == {}


def test_firing_again_is_a_new_episode() -> None:
    """A resolved instance that comes back starts at pending with a new episode id."""
    walk = Walk(alerting(for_="1m"))
    walk.at(0, (A, 2))
    walk.at(1, (A, 2))
    first = walk.one.episode_id
    walk.at(2)
    walk.at(3, (A, 2))
    assert walk.one.state is AlertState.PENDING
    walk.at(4, (A, 2))
    assert walk.one.episode_id != first
    assert [kind for _, kind in walk.log] == ["pending", "firing", "resolved", "pending", "firing"]


def test_labels_of_the_rule_override_and_empty_ones_remove() -> None:
    """Rule labels win, an empty one removes; alertname is the rule's name, the metric name goes."""
    rule = alerting(labels="{instance: other, job: '', severity: page, alertname: no}")
    walk = Walk(rule)
    walk.at(0, ({"__name__": "up", "instance": "a", "job": "j"}, 2))
    assert walk.one.labels.as_dict() == {"alertname": "A", "instance": "other", "severity": "page"}
    assert walk.one.source.name == "up"


def test_equal_labels_after_rule_labels_are_an_error() -> None:
    """Two elements with the same labels are an error, and the old state stays in force."""
    walk = Walk(alerting(labels="{instance: one}"))
    with pytest.raises(QueryError, match="same labelset after applying alert labels"):
        walk.at(0, (A, 2), (B, 2))
    assert walk.instances == {}


def test_value_and_annotations_follow_the_expression() -> None:
    """Each evaluation updates value and annotations; the peak is the worst value since it became active."""
    walk = Walk(alerting(annotations="{summary: 'v {{$value}} of {{$labels.instance}}'}"))
    walk.at(0, (A, 2))
    walk.at(1, (A, 9))
    walk.at(2, (A, 3))
    assert (walk.one.value, walk.one.peak) == (3, 9)
    assert walk.one.annotations == {"summary": "v 3 of a"}


def test_peak_of_a_low_threshold_is_the_lowest_value() -> None:
    """Where the rule asks for less than something, worse is lower."""
    walk = Walk(alerting("x < 5"))
    walk.at(0, (A, 2))
    walk.at(1, (A, math.nan))
    walk.at(2, (A, 4))
    assert walk.one.peak == 2


def test_samples_tell_state_and_since_when() -> None:
    """ALERTS is 1 with the state, ALERTS_FOR_STATE the Unix seconds since which the instance is active."""
    walk = Walk(alerting(for_="5m", labels="{severity: page}"))
    walk.at(10, (A, 2))
    after = walk.at(11, (A, 2))
    assert {str(labels): value for labels, value in after.samples} == {
        'ALERTS{alertname="A", alertstate="pending", instance="a", severity="page"}': 1.0,
        'ALERTS_FOR_STATE{alertname="A", instance="a", severity="page"}': 600.0,
    }
    assert walk.at(12).samples == ()


def test_limit_refuses_new_instances_only() -> None:
    """Over the limit the rule fails with Prometheus' words; what fires goes on, new ones are refused."""
    walk = Walk(alerting(), limit=1)
    assert walk.at(0, (A, 2), (B, 2)).error == "exceeded limit of 1 with 2 alerts"
    assert walk.instances == {}
    assert walk.at(1, (A, 2)).error == ""
    assert walk.at(2, (A, 2), (B, 2)).error
    assert states(walk.instances) == {'{alertname="A", instance="a"}': "firing"}
    assert walk.log == [(1, "firing")]


@pytest.mark.parametrize(
    ("policy", "data", "expected", "held"),
    [
        ("resolve", False, "inactive", ""),
        ("resolve", True, "inactive", ""),
        ("keep", False, "firing", "no data"),
        ("keep", True, "inactive", ""),
        ("fire", False, "firing", "no data"),
        ("fire", True, "inactive", ""),
    ],
)
def test_missing_data_policies(policy: str, data: bool, expected: str, held: str) -> None:
    """keep and fire hold a firing instance while its input is gone, and resolve it once it has recovered."""
    walk = Walk(alerting(missing_data=policy))
    walk.at(0, (A, 2))
    walk.at(1, probe=Probe(data, now=0.5))
    assert (walk.one.state.text, walk.one.held) == (expected, held)
    if expected == "inactive":
        assert walk.reasons == [ResolveReason.RECOVERED if data else ResolveReason.NO_DATA]
        assert walk.one.resolved_value == 0.5


def test_keep_leaves_a_pending_instance_pending() -> None:
    """With keep nothing starts to fire without data; the clock of `for` has gone on when data return."""
    walk = Walk(alerting(missing_data="keep", for_="2m"))
    walk.at(0, (A, 2))
    walk.at(3, probe=Probe(False))
    assert walk.one.state is AlertState.PENDING
    walk.at(4, (A, 2))
    assert walk.log == [(0, "pending"), (4, "firing")]


def test_fire_counts_missing_data_as_the_condition() -> None:
    """With fire a pending instance goes on to firing without data."""
    walk = Walk(alerting(missing_data="fire", for_="2m"))
    walk.at(0, (A, 2))
    walk.at(2, probe=Probe(False))
    assert walk.log == [(0, "pending"), (2, "firing")]


def test_fire_makes_an_instance_where_there_is_no_input_at_all() -> None:
    """With fire a rule whose input never came, or went while inactive, fires with its own labels."""
    walk = Walk(alerting(missing_data="fire", for_="1m", labels="{severity: page}"))
    walk.at(0, probe=Probe(False))
    walk.at(1, probe=Probe(False))
    assert walk.one.labels.as_dict() == {"alertname": "A", "severity": "page"}
    assert walk.one.held == "no data"
    assert math.isnan(walk.one.value)
    walk.at(2, probe=Probe(True))
    assert walk.log == [(0, "pending"), (1, "firing"), (2, "resolved")]


def test_keep_firing_expr_is_hysteresis() -> None:
    """A sawtooth between the two thresholds is one episode; the value is that of the second expression."""
    walk = Walk(alerting("x > 90", keep_firing_expr="x > 80", annotations="{summary: '{{$value}}'}"))
    walk.at(0, (A, 95))
    for minute, value in enumerate([85, 91, 85, 95, 81], start=1):
        elements = [(A, value)] if value > 90 else []
        walk.at(minute, *elements, probe=Probe(kept=value))
    assert walk.one.held == "keep_firing_expr"
    assert walk.one.annotations == {"summary": "81"}
    walk.at(6, probe=Probe(kept=None, now=79))
    assert walk.log == [(0, "firing"), (6, "resolved")]
    assert (walk.one.peak, walk.one.resolved_value) == (95, 79)


def test_keep_firing_expr_does_not_hold_a_pending_instance() -> None:
    """Hysteresis begins with firing."""
    walk = Walk(alerting("x > 90", keep_firing_expr="x > 80", for_="5m"))
    walk.at(0, (A, 95))
    walk.at(1, probe=Probe(kept=85))
    assert walk.log == [(0, "pending"), (1, "cleared")]


def test_a_changed_expression_gives_its_own_reason() -> None:
    """What a new expression does not return resolves because the rule changed, whatever missing_data says."""
    walk = Walk(alerting("x > 1", missing_data="keep"))
    walk.at(0, (A, 2))
    walk.rule = alerting("x > 5", missing_data="keep")
    walk.at(1, probe=Probe(False))
    assert walk.reasons == [ResolveReason.RULE_CHANGED]


@pytest.mark.parametrize(
    ("expr", "data", "now", "resolves_at"),
    [
        ("x > 1", False, None, 5),  # nothing seen: held until the grace ends
        ("x > 1", True, 0.5, 1),  # seen, and below the threshold
        ("x", True, None, 1),
        ("rate(x[5m]) > 1", True, 0.5, 5),  # the window is not full before
    ],
)
def test_a_restored_instance_waits_for_its_whole_input(
    expr: str, data: bool, now: float | None, resolves_at: int
) -> None:
    """After a start an instance is held until its rule has seen enough to say no, or the grace ends."""
    walk = Walk(alerting(expr))
    walk.at(0, (A, 2))
    walk.instances = {labels: replace(one, held=RESTORED) for labels, one in walk.instances.items()}
    for minute in range(1, 7):
        walk.at(minute, probe=Probe(data, now), grace=5)
    assert walk.log == [(0, "firing"), (resolves_at, "resolved")]


def test_resolved_by_hand() -> None:
    """A resolve from outside an evaluation carries its reason and keeps the episode."""
    walk = Walk(alerting())
    walk.at(0, (A, 2))
    gone = resolved(walk.one, 5, ResolveReason.BY_HAND)
    assert (gone.state, gone.resolve_reason, gone.episode_id) == (
        AlertState.INACTIVE,
        ResolveReason.BY_HAND,
        walk.one.episode_id,
    )


def test_a_failing_probe_never_stops_a_resolve() -> None:
    """With missing_data: resolve, the reason is only information: its query may fail."""

    class Failing(Probe):
        def has_data(self, source: LabelSet) -> bool:
            raise QueryError("too many samples")

        value_now = has_data

    walk = Walk(alerting())
    walk.at(0, (A, 2))
    walk.at(1, probe=Failing())
    assert walk.reasons == [ResolveReason.RECOVERED]


steps = st.lists(
    st.tuples(st.sampled_from(["A", "B", "AB", ""]), st.booleans(), st.booleans()), min_size=1, max_size=25
)


@settings(max_examples=60)
@given(
    script=steps,
    restart_at=st.integers(0, 25),
    hold=st.sampled_from(["0s", "2m"]),
    keep=st.sampled_from(["0s", "3m"]),
    policy=st.sampled_from(["resolve", "keep", "fire"]),
)
def test_a_restart_at_any_step_changes_nothing(
    script: list[tuple[str, bool, bool]], restart_at: int, hold: str, keep: str, policy: str
) -> None:
    """The state written to JSON and read back at any step gives the same transitions afterwards."""
    rule = alerting(for_=hold, keep_firing_for=keep, missing_data=policy)
    undisturbed, restarted = Walk(rule), Walk(rule)
    for step, (present, data, _) in enumerate(script):
        elements = [(labels, 2.0) for name, labels in (("A", A), ("B", B)) if name in present]
        if step == restart_at:
            records = json.loads(json.dumps([to_record(one) for one in restarted.instances.values()]))
            restarted.instances = {one.labels: one for one in map(from_record, records)}
            assert restarted.instances.keys() == undisturbed.instances.keys()
        for walk in (undisturbed, restarted):
            walk.at(step, *elements, probe=Probe(data))
    assert restarted.log == undisturbed.log
    assert states(restarted.instances) == states(undisturbed.instances)


@settings(max_examples=60)
@given(script=steps, hold=st.sampled_from(["0s", "2m"]), keep=st.sampled_from(["0s", "3m"]))
def test_every_episode_has_one_start_and_one_end(
    script: list[tuple[str, bool, bool]], hold: str, keep: str
) -> None:
    """Per label set, firing and resolved alternate, starting with firing; ids pair them."""
    walk = Walk(alerting(for_=hold, keep_firing_for=keep))
    open_episodes: dict[LabelSet, str] = {}
    for step, (present, data, _) in enumerate(script):
        elements = [(labels, 2.0) for name, labels in (("A", A), ("B", B)) if name in present]
        for one in walk.at(step, *elements, probe=Probe(data)).transitions:
            labels, episode = one.instance.labels, one.instance.episode_id
            if one.kind is TransitionKind.FIRING:
                assert labels not in open_episodes
                open_episodes[labels] = episode
            elif one.kind is TransitionKind.RESOLVED:
                assert open_episodes.pop(labels) == episode


@pytest.mark.parametrize("record", [{}, {"labels": 1}, {"state": "x"}])
def test_a_foreign_record_is_refused(record: dict[str, object]) -> None:
    """A record that was not written by to_record is a ValueError."""
    with pytest.raises(ValueError, match="record of an alert instance"):
        from_record(record)
