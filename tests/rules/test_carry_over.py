from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from exporter.model.labels import LabelSet
from exporter.model.staleness import is_stale
from exporter.rules.carry_over import Adopted, adopt, carry_over, restore
from exporter.rules.group import GroupState, RuleState
from exporter.rules.instance import RESTORED, AlertInstance, AlertState, ResolveReason, TransitionKind
from exporter.rules.model import RuleGroup
from exporter.rules.recording import Written
from tests.rules.build import groups

SERIES = LabelSet.of({"__name__": "ALERTS", "alertname": "A"})
FIRING = AlertInstance(
    LabelSet.of({"alertname": "A"}), state=AlertState.FIRING, active_at_ms=1, fired_at_ms=2, episode_id="e"
)
PENDING = AlertInstance(LabelSet.of({"alertname": "A", "x": "y"}), state=AlertState.PENDING, active_at_ms=1)


def group(*rules: str, name: str = "g") -> RuleGroup:
    (one,) = groups(f"groups:\n- name: {name}\n  rules:\n" + "".join(f"  - {rule}\n" for rule in rules))
    return one


def state_of(one: RuleGroup) -> GroupState:
    instances = {instance.labels: instance for instance in (FIRING, PENDING)}
    return GroupState({one.rules[0].key: RuleState(instances, Written((SERIES,)))})


def test_a_changed_for_or_threshold_keeps_what_runs() -> None:
    """Instances stay when `for`, annotations, cooldown or the expression change; the change is reported."""
    old = group("{alert: A, expr: x > 1}")
    for rule in (
        "{alert: A, expr: x > 1, for: 1h}",
        "{alert: A, expr: x > 1, annotations: {s: t}}",
        "{alert: A, expr: x > 1, cooldown: 1h}",
        "{alert: A, expr: x > 2}",
    ):
        new = group(rule)
        done = carry_over([(old, state_of(old))], [new], 100)
        assert (done.added, done.changed, done.removed, done.farewell) == ((), ("g/A",), (), ())
        assert list(done.states[new.key].of(new.rules[0]).instances.values()) == [FIRING, PENDING]


def test_the_same_rules_report_no_change() -> None:
    """A reload of equal rules at other lines changes nothing."""
    old = group("{alert: A, expr: x > 1}")
    done = carry_over([(old, state_of(old))], [group("{alert: B, expr: y}", "{alert: A, expr: x>1}")], 100)
    assert (done.added, done.changed, done.removed) == (("g/B",), (), ())
    assert done.summary == "added: g/B"


def test_a_removed_rule_resolves_with_its_reason_and_ends_its_series() -> None:
    """Firing instances resolve as "rule removed", pending ones are cleared, recorded series get markers."""
    old = group("{alert: A, expr: x > 1}")
    done = carry_over([(old, state_of(old))], [group("{alert: B, expr: y}")], 100)
    (farewell,) = done.farewell
    (rule,) = farewell.rules
    assert [(one.kind, one.reason) for one in rule.transitions] == [
        (TransitionKind.RESOLVED, ResolveReason.RULE_REMOVED),
        (TransitionKind.CLEARED, None),
    ]
    (batch,) = farewell.batches
    assert batch.labels == (SERIES,)
    assert is_stale(float(batch.values[0]))
    assert done.removed == ("g/A",)


def test_a_removed_group_says_farewell_too() -> None:
    """All rules of a group that is gone are removed."""
    old = group("{alert: A, expr: x > 1}")
    done = carry_over([(old, state_of(old))], [], 100)
    assert done.removed == ("g/A",)
    assert done.states == {}


def test_restore_resumes_and_resolves_orphans() -> None:
    """Stored instances are taken up by rule key, held for a grace; those of unknown rules resolve."""
    one = group("{alert: A, expr: x > 1}")
    key = one.rules[0].key
    states, orphans = restore([one], {key: [FIRING], "gone": [FIRING, PENDING]}, 1000)
    state = states[one.key]
    assert state.observed_since_ms == 1000
    (instance,) = state.rules[key].instances.values()
    assert (instance.held, instance.episode_id, instance.active_at_ms) == (RESTORED, "e", 1)
    assert [one.reason for one in orphans["gone"]] == [ResolveReason.RULE_REMOVED, None]
    assert not math.isnan(instance.value)


def adopted(
    own: Iterable[AlertInstance], stored: Iterable[AlertInstance], *ended: str
) -> list[AlertInstance]:
    """The instances of rule A of a replica that has `own`, after it found `stored`."""
    one = group("{alert: A, expr: x > 1}")
    rule = one.rules[0]
    state = GroupState({rule.key: RuleState({instance.labels: instance for instance in own})})
    adopt(one, state, Adopted({rule.key: list(stored)}, frozenset(ended)), 100)
    return list(state.of(rule).instances.values())


def test_a_replica_that_takes_over_goes_on_with_the_stored_episode() -> None:
    """Both saw it fire, a slot apart: the episode that was told stays; its own values stay its own."""
    own = replace(FIRING, episode_id="mine", fired_at_ms=5, active_at_ms=4, value=7.0)
    (found,) = adopted([own], [FIRING])
    assert (found.episode_id, found.fired_at_ms, found.active_at_ms, found.value) == ("e", 2, 1, 7.0)


def test_what_waits_here_and_fires_in_the_store_fires() -> None:
    """The other has waited out its `for` and told it; one that waits in both has waited since the earlier."""
    own = replace(FIRING, state=AlertState.PENDING, episode_id="", fired_at_ms=0, active_at_ms=9)
    (found,) = adopted([own], [FIRING])
    assert (found.state, found.episode_id) == (AlertState.FIRING, "e")
    (found,) = adopted([replace(PENDING, active_at_ms=9)], [PENDING])
    assert (found.state, found.active_at_ms) == (AlertState.PENDING, 1)


def test_what_only_the_store_knows_is_judged_by_the_next_evaluation() -> None:
    """It resolves there if the expression does not return it; so does one that has resolved here."""
    (found,) = adopted([], [FIRING])
    assert found == replace(FIRING, held=RESTORED)
    gone = replace(FIRING, state=AlertState.INACTIVE, episode_id="mine", resolved_at_ms=7)
    assert adopted([gone], [FIRING]) == [found]


def test_what_fires_here_alone_is_a_new_episode_if_its_own_has_ended() -> None:
    """An episode is told of once: one that the other has told as resolved does not come back."""
    assert adopted([FIRING], []) == [FIRING]
    (found,) = adopted([FIRING], [], "e")
    assert (found.state, found.fired_at_ms, found.active_at_ms) == (AlertState.FIRING, 100, 1)
    assert found.episode_id not in ("", "e")


def test_a_replica_that_knows_all_adopts_nothing() -> None:
    """The state is left as it is."""
    one = group("{alert: A, expr: x > 1}")
    state = state_of(one)
    before = state.of(one.rules[0])
    adopt(one, state, Adopted({one.rules[0].key: [FIRING, PENDING]}), 100)
    assert state.of(one.rules[0]) is before
