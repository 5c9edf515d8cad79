"""The alert state machine: instances of one alerting rule from one evaluation to the next.

Source: Prometheus' alerting rules (pending, firing, keep_firing_for, resolved instances kept 15 minutes) and
its Alert Generator Compliance Specification 1.0. Beyond it: missing_data, keep_firing_expr, the reason of
each resolve, and a `limit` that refuses new instances only, where Prometheus forgets those that fire.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from exporter.errors import QueryError
from exporter.model.labels import EMPTY_LABELS, METRIC_NAME, LabelSet
from exporter.rules.condition import condition_of
from exporter.rules.emptiness import longest_range_ms
from exporter.rules.instance import (
    RESTORED,
    AlertInstance,
    AlertState,
    ResolveReason,
    Transition,
    TransitionKind,
    episode_id,
    from_record,
    to_record,
)
from exporter.rules.model import AlertingRule, MissingData

__all__ = [
    "ALERTS",
    "ALERTS_FOR_STATE",
    "ALERT_NAME",
    "ALERT_STATE",
    "RESOLVED_RETENTION_MS",
    "Advanced",
    "AlertInstance",
    "AlertState",
    "Expand",
    "InputProbe",
    "ResolveReason",
    "Transition",
    "TransitionKind",
    "advance",
    "episode_id",
    "from_record",
    "resolved",
    "to_record",
]

ALERT_NAME = "alertname"
ALERT_STATE = "alertstate"
ALERTS = "ALERTS"
ALERTS_FOR_STATE = "ALERTS_FOR_STATE"

RESOLVED_RETENTION_MS = 15 * 60_000


class InputProbe(Protocol):
    """What the state machine asks about an instance, by the labels the expression had returned (`source`)."""

    def has_data(self, source: LabelSet) -> bool:
        """Whether the expression still has input for these labels."""

    def value_now(self, source: LabelSet) -> float | None:
        """What the measured side of the condition gives now, without the comparison; None if nothing."""

    def kept_value(self, source: LabelSet) -> float | None:
        """The value that `keep_firing_expr` returns for these labels; None if none."""


Expand = Callable[[str, str, Mapping[str, str], float], str]
"""(name, template text, labels, value) -> text; a fault becomes part of the text and never raises."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """All instances afterwards, what changed, ALERTS and ALERTS_FOR_STATE samples, a limit's error or ''."""

    instances: Mapping[LabelSet, AlertInstance]
    transitions: tuple[Transition, ...]
    samples: tuple[tuple[LabelSet, float], ...]
    error: str = ""


def advance(
    rule: AlertingRule,
    instances: Mapping[LabelSet, AlertInstance],
    vector: Sequence[tuple[LabelSet, float]],
    now_ms: int,
    *,
    expand: Expand,
    probe: InputProbe,
    limit: int = 0,
    grace_until_ms: int = 0,
) -> Advanced:
    """One evaluation of a rule: the next state from the last one and the vector that its expression gave.

    Templates are expanded, and every question to `probe` is answered, before anything is returned; the
    mapping passed in is not changed, so that a failure leaves the old state in force. With `limit`, new
    instances are refused (all those of this evaluation) once more would be active; those that run go on.
    Before `grace_until_ms` a restored instance is held as it is, until its whole input has been seen.

    Raises: QueryError where two elements have the same labels once the rule's labels are applied, or where
    a query of `probe` fails.
    """
    machine = _Machine(rule, now_ms, expand, probe, grace_until_ms)
    returned = machine.elements(vector)
    if not returned:
        returned = machine.missing(instances)
    after: dict[LabelSet, AlertInstance] = {}
    transitions: list[Transition] = []
    born: list[LabelSet] = []
    for labels in [*instances, *(labels for labels in returned if labels not in instances)]:
        before = instances.get(labels)
        if before is not None and before.state is AlertState.INACTIVE and labels in returned:
            before = None  # a new episode takes the place of the resolved one
        if before is None:
            born.append(labels)
        element = returned.get(labels)
        now = machine.seen(before, element) if element is not None else machine.vanished(before)
        if now is not None:
            after[labels] = now
    active = sum(instance.state is not AlertState.INACTIVE for instance in after.values())
    error = ""
    if 0 < limit < active:
        error = f"exceeded limit of {limit} with {active} alerts"
        for labels in born:
            after.pop(labels)
            if labels in instances:
                after[labels] = instances[labels]
    for labels in dict.fromkeys([*instances, *after]):
        change = _transition(instances.get(labels), after.get(labels), now_ms)
        if change is not None:
            transitions.append(change)
    return Advanced(after, tuple(transitions), tuple(_samples(rule, after.values())), error)


@dataclass(frozen=True, slots=True)
class _Element:
    """One element of the vector as an alert: labels and annotations expanded."""

    labels: LabelSet
    annotations: Mapping[str, str]
    value: float
    source: LabelSet
    held: str = ""


class _Machine:
    """The transition rules for one rule at one time."""

    def __init__(
        self, rule: AlertingRule, now_ms: int, expand: Expand, probe: InputProbe, grace_until_ms: int
    ) -> None:
        self._rule = rule
        self._now_ms = now_ms
        self._expand = expand
        self._probe = probe
        self._grace_until_ms = grace_until_ms
        condition = condition_of(rule.expr)
        self._lower_is_worse = condition is not None and condition.lower_is_worse

    def elements(self, vector: Sequence[tuple[LabelSet, float]]) -> dict[LabelSet, _Element]:
        found: dict[LabelSet, _Element] = {}
        for source, value in vector:
            element = self._element(source, value)
            if element.labels in found:
                raise QueryError("vector contains metrics with the same labelset after applying alert labels")
            found[element.labels] = element
        return found

    def missing(self, instances: Mapping[LabelSet, AlertInstance]) -> dict[LabelSet, _Element]:
        """With missing_data: fire, an element of no labels where the expression has no input at all."""
        if self._rule.missing_data is not MissingData.FIRE or any(
            instance.state is not AlertState.INACTIVE for instance in instances.values()
        ):
            return {}
        if self._probe.has_data(EMPTY_LABELS):
            return {}
        element = self._element(EMPTY_LABELS, math.nan, ResolveReason.NO_DATA.value)
        return {element.labels: element}

    def _element(self, source: LabelSet, value: float, held: str = "") -> _Element:
        given = source.as_dict()
        texts = {
            name: self._expand(f"label {name}", text, given, value)
            for name, text in self._rule.labels.items()
        }
        labels = {name: text for name, text in source if name != METRIC_NAME}
        labels.update(texts)
        labels[ALERT_NAME] = self._rule.name
        return _Element(LabelSet.of(labels), self._annotations(given, value), value, source, held)

    def _annotations(self, given: Mapping[str, str], value: float) -> dict[str, str]:
        return {
            name: self._expand(f"annotation {name}", text, given, value)
            for name, text in self._rule.annotations.items()
        }

    def seen(self, before: AlertInstance | None, element: _Element) -> AlertInstance:
        """The instance that the expression returns, new (before is None) or going on."""
        if before is None:
            before = AlertInstance(
                element.labels, state=AlertState.PENDING, peak=element.value, active_at_ms=self._now_ms
            )
        return self._fired(
            replace(
                before,
                annotations=element.annotations,
                value=element.value,
                peak=self._worse(before.peak, element.value),
                keep_firing_since_ms=0,
                held=element.held,
                source=element.source,
                expr_digest=self._rule.expr_digest,
            )
        )

    def vanished(self, before: AlertInstance | None) -> AlertInstance | None:
        """The instance that the expression no longer returns; None where it is to be forgotten."""
        if before is None:
            return None
        if before.state is AlertState.INACTIVE:
            return before if self._now_ms - before.resolved_at_ms <= RESOLVED_RETENTION_MS else None
        if before.state is AlertState.FIRING and self._rule.keep_firing_expr is not None:
            value = self._probe.kept_value(before.source)
            if value is not None:
                return self._kept(before, value)
        if before.held == RESTORED and self._now_ms < self._grace_until_ms and not self._judged(before):
            return before
        changed = before.expr_digest != self._rule.expr_digest
        policy = self._rule.missing_data
        if policy is not MissingData.RESOLVE and not changed and not self._probe.has_data(before.source):
            held = replace(before, held=ResolveReason.NO_DATA.value)
            return self._fired(held) if policy is MissingData.FIRE else held
        if before.state is AlertState.PENDING:
            return None
        if self._rule.keep_firing_for_ms:
            since_ms = before.keep_firing_since_ms or self._now_ms
            if self._now_ms - since_ms < self._rule.keep_firing_for_ms:
                return replace(before, keep_firing_since_ms=since_ms, held="keep_firing_for")
        reason = ResolveReason.RULE_CHANGED if changed else self._why_gone(before)
        return resolved(before, self._now_ms, reason, self._value_now(before))

    def _judged(self, before: AlertInstance) -> bool:
        """Whether the expression said no to a restored instance, and not just had too little to go on."""
        if longest_range_ms(self._rule.expr):
            return False  # its windows are not full yet
        if condition_of(self._rule.expr) is None:
            return self._probe.has_data(before.source)
        return self._probe.value_now(before.source) is not None

    def _why_gone(self, before: AlertInstance) -> ResolveReason:
        try:
            has_data = self._probe.has_data(before.source)
        except QueryError:  # the expression itself could be evaluated, and no longer returns the instance
            has_data = True
        return ResolveReason.RECOVERED if has_data else ResolveReason.NO_DATA

    def _value_now(self, before: AlertInstance) -> float | None:
        try:
            return self._probe.value_now(before.source)
        except QueryError:
            return None  # it only informs: a resolve never waits for it

    def _kept(self, before: AlertInstance, value: float) -> AlertInstance:
        return replace(
            before,
            annotations=self._annotations(before.source.as_dict(), value),
            value=value,
            peak=self._worse(before.peak, value),
            keep_firing_since_ms=0,
            held="keep_firing_expr",
        )

    def _fired(self, instance: AlertInstance) -> AlertInstance:
        waited = self._now_ms - instance.active_at_ms >= self._rule.for_ms
        if instance.state is not AlertState.PENDING or not waited:
            return instance
        return replace(
            instance,
            state=AlertState.FIRING,
            fired_at_ms=self._now_ms,
            episode_id=episode_id(self._rule.key, instance.labels, self._now_ms),
        )

    def _worse(self, peak: float, value: float) -> float:
        if math.isnan(peak) or math.isnan(value):
            return value if math.isnan(peak) else peak
        return min(peak, value) if self._lower_is_worse else max(peak, value)


def resolved(
    instance: AlertInstance, now_ms: int, reason: ResolveReason, value: float | None = None
) -> AlertInstance:
    """A firing instance, resolved; also for a removed rule or by hand, from outside an evaluation."""
    return replace(
        instance,
        state=AlertState.INACTIVE,
        resolved_at_ms=now_ms,
        resolve_reason=reason,
        resolved_value=value,
        held="",
    )


def _transition(before: AlertInstance | None, after: AlertInstance | None, now_ms: int) -> Transition | None:
    was = before.state if before is not None else AlertState.INACTIVE
    if after is None:
        if before is None or was is not AlertState.PENDING:
            return None
        return Transition(TransitionKind.CLEARED, replace(before, state=AlertState.INACTIVE), now_ms)
    if after.state is was:
        return None
    if after.state is AlertState.INACTIVE:
        return Transition(TransitionKind.RESOLVED, after, now_ms, after.resolve_reason)
    kind = TransitionKind.FIRING if after.state is AlertState.FIRING else TransitionKind.PENDING
    return Transition(kind, after, now_ms)


def _samples(rule: AlertingRule, instances: Iterable[AlertInstance]) -> Iterator[tuple[LabelSet, float]]:
    for instance in instances:
        if instance.state is AlertState.INACTIVE:
            continue
        named = {METRIC_NAME: ALERTS, ALERT_NAME: rule.name, ALERT_STATE: instance.state.text}
        yield instance.labels.merged(named), 1.0
        since = {METRIC_NAME: ALERTS_FOR_STATE, ALERT_NAME: rule.name}
        yield instance.labels.merged(since), float(instance.active_at_ms // 1000)
