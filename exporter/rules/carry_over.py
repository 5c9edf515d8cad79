"""State across a reload or a restart: what stays the same goes on, what is gone resolves with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.rules.alert import resolved
from exporter.rules.evaluation import GroupEvaluation, RuleEvaluation, RuleHealth
from exporter.rules.group import GroupState, RuleState
from exporter.rules.instance import (
    RESTORED,
    AlertInstance,
    AlertState,
    ResolveReason,
    Transition,
    TransitionKind,
    episode_id,
)
from exporter.rules.model import AlertingRule, Rule, RuleGroup


@dataclass(frozen=True, slots=True)
class CarryOver:
    """What a reload did. `states` by group key is for the new groups; the rules are named `group/rule`.

    `farewell` holds, per old group, the removed rules with their instances resolved (reason: rule removed)
    and the staleness markers of their series; hand it to notification and storage as an evaluation.
    """

    states: Mapping[str, GroupState]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    farewell: tuple[GroupEvaluation, ...]

    @property
    def summary(self) -> str:
        """One line for the log: what was added, changed and removed."""
        parts = [
            f"{word}: {', '.join(names)}"
            for word, names in (("added", self.added), ("changed", self.changed), ("removed", self.removed))
            if names
        ]
        return "; ".join(parts) or "no rule changed"


def carry_over(
    old: Sequence[tuple[RuleGroup, GroupState]], new: Sequence[RuleGroup], now_ms: int
) -> CarryOver:
    """Move state to the new groups by group key and rule key.

    A rule whose key stays keeps its instances, whatever else of it changed: a new `for`, annotation or
    threshold neither resolves nor fires again. Instances that a new expression does not return resolve at
    its first evaluation, with the reason "rule changed".
    """
    old_by_key = {group.key: (group, state) for group, state in old}
    states: dict[str, GroupState] = {}
    added: list[str] = []
    changed: list[str] = []
    for group in new:
        was, was_state = old_by_key.get(group.key, (None, GroupState()))
        was_rules = {rule.key: rule for rule in was.rules} if was else {}
        state = GroupState(
            last_ts_ms=was_state.last_ts_ms,
            duration_s=was_state.duration_s,
            observed_since_ms=was_state.observed_since_ms,
        )
        for rule in group.rules:
            before = was_rules.get(rule.key)
            if before is None:
                added.append(_title(group, rule))
                continue
            if rule.key in was_state.rules:
                state.rules[rule.key] = was_state.rules[rule.key]
            if _meaning(before) != _meaning(rule):
                changed.append(_title(group, rule))
        states[group.key] = state
    kept = {rule.key for group in new for rule in group.rules}
    farewell: list[GroupEvaluation] = []
    removed: list[str] = []
    for group, state in old:
        gone = [rule for rule in group.rules if rule.key not in kept]
        if gone:
            removed.extend(_title(group, rule) for rule in gone)
            farewell.append(_farewell(group, state, gone, now_ms))
    return CarryOver(states, tuple(added), tuple(changed), tuple(removed), tuple(farewell))


def restore(
    groups: Iterable[RuleGroup],
    stored: Mapping[str, Sequence[AlertInstance]],
    now_ms: int,
    observed_since_ms: int | None = None,
) -> tuple[dict[str, GroupState], dict[str, tuple[Transition, ...]]]:
    """States after a start from stored instances by rule key, and for the keys that no rule has any more
    the transitions that resolve their firing instances (reason: rule removed).

    The clocks of `for` and keep_firing_for go on from where they stood. A restored instance stays as it is
    until its rule has seen its whole input: `observed_since_ms` is the time from which on samples are in the
    head, now unless older ones were loaded.
    """
    states: dict[str, GroupState] = {}
    known: set[str] = set()
    since_ms = now_ms if observed_since_ms is None else observed_since_ms
    for group in groups:
        state = states[group.key] = GroupState(observed_since_ms=since_ms)
        for rule in group.rules:
            known.add(rule.key)
            if isinstance(rule, AlertingRule) and stored.get(rule.key):
                instances = {
                    one.labels: one if one.state is AlertState.INACTIVE else replace(one, held=RESTORED)
                    for one in stored[rule.key]
                }
                state.rules[rule.key] = RuleState(instances)
    orphans = {key: _goodbyes(stored[key], now_ms) for key in stored if key not in known}
    return states, {key: transitions for key, transitions in orphans.items() if transitions}


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a replica that takes over finds stored: instances by rule key, and the ids of ended episodes."""

    stored: Mapping[str, Sequence[AlertInstance]]
    ended: frozenset[str] = frozenset()


def adopt(group: RuleGroup, state: GroupState, found: Adopted, now_ms: int) -> None:
    """Let rules that have been evaluated all along go on from what another replica has stored.

    An instance that both know keeps the episode, and the start of its waiting, that is stored: what was told
    of it holds. One that only the store knows is judged by the next evaluation. One that fires here alone
    goes on, as a new episode where its own has ended in the store. `state` is changed.
    """
    for rule in group.rules:
        if isinstance(rule, AlertingRule):
            before = state.of(rule)
            after = _adopted(rule, before.instances, found, now_ms)
            if after != before.instances:
                state.rules[rule.key] = replace(before, instances=after)


def _adopted(
    rule: AlertingRule, own: Mapping[LabelSet, AlertInstance], found: Adopted, now_ms: int
) -> Mapping[LabelSet, AlertInstance]:
    after = dict(own)
    stored = {
        one.labels: one for one in found.stored.get(rule.key, ()) if one.state is not AlertState.INACTIVE
    }
    for labels, theirs in stored.items():
        ours = own.get(labels)
        if ours is None or ours.state is AlertState.INACTIVE:
            after[labels] = replace(theirs, held=RESTORED)
            continue
        after[labels] = replace(ours, active_at_ms=min(ours.active_at_ms, theirs.active_at_ms))
        if theirs.state is AlertState.FIRING:
            after[labels] = replace(
                ours,
                state=AlertState.FIRING,
                peak=theirs.peak,
                active_at_ms=theirs.active_at_ms,
                fired_at_ms=theirs.fired_at_ms,
                episode_id=theirs.episode_id,
            )
    for labels, one in after.items():
        if one.state is AlertState.FIRING and one.episode_id in found.ended:
            after[labels] = replace(one, fired_at_ms=now_ms, episode_id=episode_id(rule.key, labels, now_ms))
    return after


def _farewell(group: RuleGroup, state: GroupState, gone: Sequence[Rule], now_ms: int) -> GroupEvaluation:
    evaluations = []
    batches = []
    for rule in gone:
        last = state.of(rule)
        transitions = _goodbyes(last.instances.values(), now_ms)
        evaluations.append(
            RuleEvaluation(
                rule=rule,
                health=RuleHealth.UNKNOWN,
                evaluated_at_ms=now_ms,
                transitions=transitions,
                resolved=tuple(one.instance for one in transitions if one.kind is TransitionKind.RESOLVED),
            )
        )
        if last.written.labels:
            markers = np.full(len(last.written.labels), STALE_NAN)
            batches.append(SampleBatch(now_ms, last.written.labels, markers))
    return GroupEvaluation(group, now_ms, tuple(evaluations), 0.0, tuple(batches))


def _goodbyes(instances: Iterable[AlertInstance], now_ms: int) -> tuple[Transition, ...]:
    reason = ResolveReason.RULE_REMOVED
    found = []
    for instance in instances:
        if instance.state is AlertState.FIRING:
            gone = resolved(instance, now_ms, reason)
            found.append(Transition(TransitionKind.RESOLVED, gone, now_ms, reason))
        elif instance.state is AlertState.PENDING:
            gone = replace(instance, state=AlertState.INACTIVE)
            found.append(Transition(TransitionKind.CLEARED, gone, now_ms))
    return tuple(found)


def _title(group: RuleGroup, rule: Rule) -> str:
    return f"{group.name}/{rule.name}"


def _meaning(rule: Rule) -> tuple[object, ...]:
    if not isinstance(rule, AlertingRule):
        return rule.expr_text, dict(rule.labels)
    return (
        rule.expr_text,
        rule.for_ms,
        rule.keep_firing_for_ms,
        dict(rule.annotations),
        rule.cooldown_ms,
        rule.cooldown_by,
        rule.missing_data,
        rule.keep_firing_text,
    )
