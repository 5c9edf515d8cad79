"""One evaluation of a rule group: its rules in order, each seeing the samples of those before it.

A rule that fails keeps its state and its series as they were, and the rules after it run. PURE: the query
function, the append function and the monotonic clock are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.errors import ExporterError, QueryError
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.model.samples import Float64s, SampleBatch
from exporter.promql.values import InstantVector, ScalarValue
from exporter.rules.alert import ALERTS, ALERTS_FOR_STATE, advance
from exporter.rules.emptiness import longest_range_ms, names_read
from exporter.rules.evaluation import GroupEvaluation, RuleEvaluation, RuleHealth
from exporter.rules.expand import Expander, TemplateSettings
from exporter.rules.instance import AlertInstance, AlertState, Transition
from exporter.rules.model import AlertingRule, RecordingRule, Rule, RuleGroup
from exporter.rules.probe import QueryProbe
from exporter.rules.recording import Written, recorded_labels, with_markers
from exporter.template import Template

QueryFn = Callable[[str, int], object]
"""(expression, Unix ms) -> InstantVector or ScalarValue; raises QueryError. The embedded engine, a remote
Prometheus, rule tests and backtests all stand behind it. A method `forget()`, where it has one, is called
when samples were written that a later rule reads."""


Append = Callable[[SampleBatch], object]

RESTORE_GRACE_MS = 5 * 60_000
"""How long a restored instance waits for its input: the default lookback delta, the longest time that a
series is silent without being gone. Longer where the expression reads a longer window, up to an hour: an
alert that is over should not seem to go on for a day because of a restart."""
RESTORE_LONGEST_MS = 60 * 60_000


@dataclass(frozen=True, slots=True)
class RuleState:
    """What a rule carries from one evaluation to the next; replaced as a whole, never changed."""

    instances: Mapping[LabelSet, AlertInstance] = field(default_factory=dict)
    written: Written = Written()
    health: RuleHealth = RuleHealth.UNKNOWN
    error: str = ""
    duration_s: float = 0.0
    evaluated_at_ms: int = 0


@dataclass(slots=True)
class GroupState:
    """The states of a group's rules by rule key. Only `evaluate_group` and reloads write it.

    A reader in another thread sees each rule's state whole. `observed_since_ms` is set after a start: the
    time from which on samples are in the head. Instances restored then are held until the windows of their
    rule are full, so that a restart does not look like a recovery.
    """

    rules: dict[str, RuleState] = field(default_factory=dict)
    last_ts_ms: int = 0
    duration_s: float = 0.0
    observed_since_ms: int = 0
    templates: dict[tuple[str, str], Template] = field(default_factory=dict)
    _names: frozenset[str] | None = None
    _names_of: RuleGroup | None = None

    def names_read(self, group: RuleGroup) -> frozenset[str] | None:
        """The metric names that the group's rules read; None where a selector leaves the name open."""
        if self._names_of is not group:
            self._names = names_read(rule.expr for rule in group.rules)
            self._names_of = group
        return self._names

    def of(self, rule: Rule) -> RuleState:
        """The state of a rule; an empty one for a rule that was never evaluated."""
        return self.rules.get(rule.key, _FRESH)


_FRESH = RuleState()
_Alerting = tuple[RuleState, tuple[Transition, ...], tuple[str, ...], bool]


def evaluate_group(
    group: RuleGroup,
    state: GroupState,
    ts_ms: int,
    query: QueryFn,
    append: Append,
    *,
    settings: TemplateSettings | None = None,
    query_offset_ms: int = 0,
    monotonic: Callable[[], float] = lambda: 0.0,
) -> GroupEvaluation:
    """Run every rule of a group at `ts_ms` and move `state` on.

    `query_offset_ms` is the global one; the group's own goes before it. Expressions are evaluated, and their
    samples written, that much before `ts_ms`. `append` gets one batch per rule before the next rule runs.
    """
    started = monotonic()
    offset_ms = query_offset_ms if group.query_offset_ms is None else group.query_offset_ms
    run = _Run(
        group, state, ts_ms, ts_ms - offset_ms, query, append, settings or TemplateSettings(), monotonic
    )
    evaluations = tuple(run.rule(rule) for rule in group.rules)
    state.last_ts_ms = ts_ms
    state.duration_s = monotonic() - started
    return GroupEvaluation(group, ts_ms, evaluations, state.duration_s, tuple(run.batches))


class _Run:
    """One evaluation in progress."""

    def __init__(
        self,
        group: RuleGroup,
        state: GroupState,
        ts_ms: int,
        sample_ts_ms: int,
        query: QueryFn,
        append: Append,
        settings: TemplateSettings,
        monotonic: Callable[[], float],
    ) -> None:
        self._group = group
        self._state = state
        self._ts_ms = ts_ms
        self._sample_ts_ms = sample_ts_ms
        self._query = query
        self._append = append
        self._settings = settings
        self._monotonic = monotonic
        self._read = state.names_read(group)
        self._forget: Callable[[], None] | None = getattr(query, "forget", None)
        self.batches: list[SampleBatch] = []

    def rule(self, rule: Rule) -> RuleEvaluation:
        started = self._monotonic()
        last = self._state.of(rule)
        transitions: tuple[Transition, ...] = ()
        faults: tuple[str, ...] = ()
        limited = False
        try:
            if isinstance(rule, AlertingRule):
                state, transitions, faults, limited = self._alerting(rule, last)
            else:
                state = self._recording(rule, last)
        except ExporterError as error:
            state = replace(last, health=RuleHealth.ERR, error=str(error))
        state = replace(state, duration_s=self._monotonic() - started, evaluated_at_ms=self._ts_ms)
        self._state.rules[rule.key] = state
        return _evaluation(rule, state, transitions, faults, limited=limited)

    def _recording(self, rule: RecordingRule, last: RuleState) -> RuleState:
        labels, values = self._vector(rule.expr_text)
        written = recorded_labels(rule, labels, last.written, self._group.limit)
        self._write((rule.record,), written, values, last.written)
        return RuleState({}, written, RuleHealth.OK)

    def _alerting(self, rule: AlertingRule, last: RuleState) -> _Alerting:
        labels, values = self._vector(rule.expr_text)
        expander = Expander(
            rule.name, self._settings, self._template_query, self._ts_ms, self._state.templates
        )
        advanced = advance(
            rule,
            last.instances,
            list(zip(labels, values.tolist(), strict=True)),
            self._ts_ms,
            expand=expander,
            probe=QueryProbe(rule, self._pairs),
            limit=self._group.limit,
            grace_until_ms=self._grace_until_ms(rule),
        )
        written = Written(tuple(sample_labels for sample_labels, _ in advanced.samples))
        if written.labels == last.written.labels:
            written = last.written
        values = np.array([value for _, value in advanced.samples], np.float64)
        self._write((ALERTS, ALERTS_FOR_STATE), written, values, last.written)
        faults = tuple(f"template of {fault}" for fault in expander.faults)
        error = advanced.error or "; ".join(faults[:3])
        health = RuleHealth.ERR if error else RuleHealth.OK
        state = RuleState(advanced.instances, written, health, error)
        return state, advanced.transitions, () if advanced.error else faults, bool(advanced.error)

    def _grace_until_ms(self, rule: AlertingRule) -> int:
        since_ms = self._state.observed_since_ms
        window_ms = min(max(RESTORE_GRACE_MS, longest_range_ms(rule.expr)), RESTORE_LONGEST_MS)
        return since_ms + window_ms if since_ms else 0

    def _vector(self, text: str) -> tuple[tuple[LabelSet, ...], Float64s]:
        result = self._query(text, self._sample_ts_ms)
        if isinstance(result, ScalarValue):
            return (EMPTY_LABELS,), np.array([result.value], np.float64)
        if isinstance(result, InstantVector):
            return tuple(result.labels), result.values
        raise QueryError("rule result is not a vector or scalar")

    def _pairs(self, text: str) -> list[tuple[LabelSet, float]]:
        labels, values = self._vector(text)
        return list(zip(labels, values.tolist(), strict=True))

    def _template_query(self, text: str) -> list[tuple[dict[str, str], float]]:
        return [(labels.as_dict(), value) for labels, value in self._pairs(text)]

    def _write(self, names: tuple[str, ...], written: Written, values: Float64s, last: Written) -> None:
        batch = with_markers(self._sample_ts_ms, written, values, last)
        if len(batch):
            self._append(batch)
            self.batches.append(batch)
            if self._forget is not None and (self._read is None or not self._read.isdisjoint(names)):
                self._forget()


def _evaluation(
    rule: Rule,
    state: RuleState,
    transitions: tuple[Transition, ...],
    faults: tuple[str, ...],
    *,
    limited: bool,
) -> RuleEvaluation:
    instances = state.instances.values()
    return RuleEvaluation(
        rule=rule,
        health=state.health,
        error=state.error,
        duration_s=state.duration_s,
        evaluated_at_ms=state.evaluated_at_ms,
        transitions=transitions,
        active=tuple(one for one in instances if one.state is not AlertState.INACTIVE),
        resolved=tuple(one for one in instances if one.state is AlertState.INACTIVE),
        samples=len(state.written.labels),
        template_faults=faults,
        limited=limited,
    )
