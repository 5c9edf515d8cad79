"""Rules replayed over stored history: the live state machine, fed by range queries over stretches of time.

Each rule's expression is evaluated for a stretch at once; `evaluate_group` then runs at the steps where
something can change, and at no others: a step at which the expression returns the same label sets as before,
all of them firing or still waiting for `for`, none with its worst value, changes nothing that is reported.
Rules that read themselves are evaluated step by step. Annotations are not expanded. PURE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.errors import QueryError
from exporter.model.labels import LabelSet, Matcher
from exporter.model.samples import Float64s, Int64s, SampleBatch, SeriesBlock
from exporter.promql.engine import Engine
from exporter.promql.printer import to_text
from exporter.promql.source import Columns
from exporter.promql.values import InstantVector, RangeMatrix, Value
from exporter.rules.ahead_query import can_run_ahead
from exporter.rules.alert import ALERT_NAME, AlertInstance, AlertState, ResolveReason, TransitionKind
from exporter.rules.backtest_history import Past, StoredSamples
from exporter.rules.backtest_plan import Unit, expressions, plan_units
from exporter.rules.condition import condition_of
from exporter.rules.emptiness import fruitful, longest_range_ms, names_awaited, selectors_of
from exporter.rules.engine_query import EngineQueries
from exporter.rules.expand import TemplateSettings
from exporter.rules.group import GroupState, evaluate_group
from exporter.rules.model import AlertingRule, MissingData, RecordingRule, RuleGroup
from exporter.rules.schedule import next_slot

STRETCH_STEPS = 1440  # of 15 s: six hours
_ASKED_OFTEN = 4  # live questions of one text in a stretch after which the stretch is evaluated at once


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert instance from firing to resolved. Unix milliseconds; `end_ms` 0: it fires at the end.

    `since_ms` is when it became pending; `peak` the worst value, the lowest where less is worse.
    """

    id: str
    labels: LabelSet
    since_ms: int
    start_ms: int
    end_ms: int
    peak: float
    reason: ResolveReason | None = None


@dataclass(frozen=True, slots=True)
class AlertReplay:
    """What one alerting rule did. `cleared` counts instances that were pending and never fired.

    `slots` is the grid of its evaluations as (first, interval), `failed` counts evaluations that failed,
    `error` says why the first of them did. `missing` are metric names that the history does not have, where
    the rule can return nothing for want of them.
    """

    rule: AlertingRule
    group: RuleGroup
    slots: tuple[int, int]
    episodes: tuple[Episode, ...]
    cleared: int = 0
    failed: int = 0
    error: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """A backtest: its time range and one entry for each alerting rule, in the order of the files."""

    start_ms: int
    end_ms: int
    alerts: tuple[AlertReplay, ...]


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Terms of a backtest. `interval_ms` is that of groups which have none of their own.

    `slots_of` gives groups of a name the evaluation times of the group with that key: what is compared is to
    differ by the rules alone.
    """

    interval_ms: int = 15_000
    lookback_delta_ms: int = 300_000
    settings: TemplateSettings = field(default_factory=TemplateSettings)
    stretch_steps: int = STRETCH_STEPS
    slots_of: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watch:
    """An expression to be looked at on the way: `take` gets its values at the slots of a rule, in order."""

    rule_key: str
    text: str
    take: Callable[[Float64s], None]


def reach_ms(groups: Sequence[RuleGroup], options: ReplayOptions | None = None) -> int:
    """How far before the start of a backtest its rules read."""
    options = options or ReplayOptions()
    longest = [
        longest_range_ms(expr) for group in groups for rule in group.rules for expr in expressions(rule)
    ]
    offsets = [group.query_offset_ms or 0 for group in groups]
    return max(longest, default=0) + max(offsets, default=0) + options.lookback_delta_ms


def replay(
    groups: Sequence[RuleGroup],
    history: StoredSamples,
    start_ms: int,
    end_ms: int,
    options: ReplayOptions | None = None,
    *,
    progress: Callable[[int], None] = lambda reached_ms: None,  # noqa: ARG005
    watch: Watch | None = None,
) -> Replay:
    """Run rules over history from `start_ms` to `end_ms`, both included, at the slots of live evaluation.

    `progress` is called with the time reached. Nothing is active at the start.
    """
    return _Backtest(groups, history, start_ms, end_ms, options or ReplayOptions(), watch).run(progress)


class _Backtest:
    """One backtest in progress."""

    def __init__(
        self,
        groups: Sequence[RuleGroup],
        history: StoredSamples,
        start_ms: int,
        end_ms: int,
        options: ReplayOptions,
        watch: Watch | None,
    ) -> None:
        self._watch = watch
        self._history = history
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._reach_ms = reach_ms(groups, options)
        self._past = Past()
        self._rules = [rule for group in groups for rule in group.rules]
        engines = _Engines(self._past, options)
        self._runners = [_Runner(unit, engines, options, start_ms) for unit in plan_units(groups)]
        intervals = [runner.interval_ms for runner in self._runners] or [options.interval_ms]
        self._stretch_ms = min(intervals) * options.stretch_steps

    def run(self, progress: Callable[[int], None]) -> Replay:
        fed_ms = self._start_ms - self._reach_ms
        at_ms = self._start_ms
        while at_ms <= self._end_ms:
            last_ms = min(self._end_ms, at_ms + self._stretch_ms - 1)
            self._past.move(self._history.read(fed_ms, last_ms), at_ms - self._reach_ms)
            fed_ms = last_ms + 1
            for runner in self._runners:
                if runner.unit.ahead:
                    runner.stretch(at_ms, last_ms)
            self._step_by_step(at_ms, last_ms)
            for runner in self._runners:
                if self._watch is not None and runner.unit.rule.key == self._watch.rule_key:
                    runner.look(self._watch)
            at_ms = last_ms + 1
            progress(last_ms)
        found = sorted(
            (one for one in (runner.result() for runner in self._runners) if one is not None),
            key=lambda one: one[0],
        )
        alerts = tuple(replace(alert, missing=self._missing(alert.rule)) for _, alert in found)
        return Replay(self._start_ms, self._end_ms, alerts)

    def _missing(self, rule: AlertingRule) -> tuple[str, ...]:
        """What the history lacks, where the rule can return nothing at all without it."""
        if rule.key in fruitful(self._rules, self._past.names):
            return ()
        recorded = {other.record for other in self._rules if isinstance(other, RecordingRule)}
        names = names_awaited(rule.expr) - self._past.names
        return tuple(sorted(names - recorded or names)) or tuple(
            dict.fromkeys(to_text(selector) for selector in selectors_of(rule.expr))
        )

    def _step_by_step(self, first_ms: int, last_ms: int) -> None:
        late = [runner for runner in self._runners if not runner.unit.ahead]
        for runner in late:
            runner.begin(first_ms, last_ms)
        steps = sorted((ts_ms, runner.unit.order, runner) for runner in late for ts_ms in runner.slots())
        for ts_ms, _, runner in steps:
            runner.step(ts_ms)


class _Until:
    """The past as it was at a time: what live queries see of a stretch that is there as a whole."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self.until_ms = 0

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        return self._past.select(matchers, start_ms, min(end_ms, self.until_ms))

    def columns(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        return self._past.columns(matchers, start_ms, min(end_ms, self.until_ms))


class _Engines:
    """The two views of the past: whole for range queries, live for single ones."""

    def __init__(self, past: Past, options: ReplayOptions) -> None:
        self.written = past.written
        self.until = _Until(past)
        self.whole = Engine(past, lookback_delta_ms=options.lookback_delta_ms)
        self.live = EngineQueries(Engine(self.until, lookback_delta_ms=options.lookback_delta_ms))


class _Stretch:
    """The values of one expression at every step of a stretch."""

    def __init__(self, matrix: RangeMatrix) -> None:
        self.labels = tuple(matrix.labels)
        self.values = np.ascontiguousarray(matrix.values.T)
        self.present = None if matrix.present is None else np.ascontiguousarray(matrix.present.T)

    def at(self, position: int, ts_ms: int) -> InstantVector:
        if self.present is None:
            return InstantVector(self.labels, self.values[position], ts_ms)
        here = np.flatnonzero(self.present[position])
        if len(here) == len(self.labels):
            return InstantVector(self.labels, self.values[position], ts_ms)
        labels = [self.labels[place] for place in here.tolist()]
        return InstantVector(labels, self.values[position][here], ts_ms)

    def changes(self) -> Int64s:
        """Positions at which other label sets are returned than at the one before."""
        if self.present is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero((self.present[1:] != self.present[:-1]).any(axis=1)).astype(np.int64) + 1

    def columns(self, position: int) -> Int64s:
        """Which series are returned at a position."""
        if self.present is None:
            return np.arange(len(self.labels))
        return np.flatnonzero(self.present[position]).astype(np.int64)


class _Query:
    """The query function of one evaluation: from stretches where they are known, live elsewhere."""

    def __init__(self, runner: _Runner) -> None:
        self._runner = runner
        self._live: Callable[[str, int], Value] | None = None

    def __call__(self, text: str, ts_ms: int) -> Value:
        known = self._runner.known(text, ts_ms)
        if known is not None:
            return known
        if self._live is None:
            self._live = self._runner.live()
        return self._live(text, ts_ms)

    def forget(self) -> None:
        self._live = None


class _Runner:
    """One rule on its way through time."""

    def __init__(self, unit: Unit, engines: _Engines, options: ReplayOptions, start_ms: int) -> None:
        self.unit = unit
        self.interval_ms = unit.group.interval_ms or options.interval_ms
        rule = unit.rule
        if isinstance(rule, AlertingRule):
            rule = replace(rule, annotations={})
        self._rule = rule
        self._group = replace(unit.group, rules=(rule,))
        self._offset_ms = unit.group.query_offset_ms or 0
        self._state = GroupState()
        self._engines = engines
        self._settings = options.settings
        key = options.slots_of.get(unit.group.name, unit.group.key)
        self.first_slot_ms = next_slot(key, self.interval_ms, start_ms - 1)
        self._next_ms = self.first_slot_ms
        self._slots = range(0)
        self._known: dict[str, _Stretch | None] = {}
        self._asked: dict[str, int] = {}
        self._episodes: dict[str, Episode] = {}
        self._cleared = 0
        self._failed = 0
        self._error = ""
        self._may_skip = (
            isinstance(rule, AlertingRule)
            and not unit.is_read
            and not any("{{" in text for text in rule.labels.values())
        )
        condition = condition_of(rule.expr)
        self._lower_is_worse = condition is not None and condition.lower_is_worse

    # -- driven by the backtest ---------------------------------------------------------------------

    def begin(self, first_ms: int, last_ms: int) -> None:
        """Take on the slots of a stretch."""
        first = self._next_ms
        self._slots = range(first, last_ms + 1, self.interval_ms) if first >= first_ms else range(0)
        self._next_ms = first + len(self._slots) * self.interval_ms
        self._known.clear()
        self._asked.clear()

    def slots(self) -> range:
        """The slots of the stretch."""
        return self._slots

    def stretch(self, first_ms: int, last_ms: int) -> None:
        """Run through a stretch."""
        self.begin(first_ms, last_ms)
        if not self._slots:
            return
        stretch = self._evaluate(self._rule.expr_text)
        position, count = 0, len(self._slots)
        changes = stretch.changes() if stretch is not None else np.zeros(0, np.int64)
        while position < count:
            if stretch is None or not self._is_idle(stretch, position):
                self.step(self._slots[position])
            position = self._following(stretch, position, changes) if stretch is not None else position + 1

    def step(self, ts_ms: int) -> None:
        """One evaluation."""
        self._engines.until.until_ms = ts_ms
        append = self._engines.written.append_batch if self.unit.is_read else _ignore
        evaluation = evaluate_group(
            self._group, self._state, ts_ms, _Query(self), append, settings=self._settings
        )
        (one,) = evaluation.rules
        if one.error and not one.template_faults:
            self._failed += 1
            self._error = self._error or one.error
        for transition in one.transitions:
            if transition.kind is TransitionKind.CLEARED:
                self._cleared += 1
            elif transition.kind in (TransitionKind.FIRING, TransitionKind.RESOLVED):
                instance = transition.instance
                self._episodes[instance.episode_id] = _episode(instance)

    def look(self, watch: Watch) -> None:
        """Hand out the values of an expression in the stretch."""
        if not self._slots:
            return
        stretch = self._evaluate(watch.text)
        if stretch is not None:
            watch.take(stretch.values.ravel() if stretch.present is None else stretch.values[stretch.present])
            return
        for ts_ms in self._slots:
            self._engines.until.until_ms = ts_ms
            try:
                value = self.live()(watch.text, ts_ms - self._offset_ms)
            except QueryError:
                continue
            if isinstance(value, InstantVector):
                watch.take(value.values)

    def result(self) -> tuple[int, AlertReplay] | None:
        """What an alerting rule did, with its place in the order; None for a recording rule."""
        rule = self.unit.rule
        if not isinstance(rule, AlertingRule):
            return None
        for instance in self._instances():
            if instance.state is AlertState.FIRING:
                self._episodes[instance.episode_id] = _episode(instance)
        episodes = sorted(self._episodes.values(), key=lambda one: (one.start_ms, one.labels))
        slots = (self.first_slot_ms, self.interval_ms)
        return self.unit.order, AlertReplay(
            rule, self.unit.group, slots, tuple(episodes), self._cleared, self._failed, self._error
        )

    # -- queries ------------------------------------------------------------------------------------

    def known(self, text: str, ts_ms: int) -> InstantVector | None:
        """The value of an expression from its stretch; None where it has to be asked live."""
        if text not in self._known:
            asked = self._asked[text] = self._asked.get(text, 0) + 1
            if asked < _ASKED_OFTEN or not self._slots:
                return None
            self._evaluate(text)
        stretch = self._known[text]
        if stretch is None:
            return None
        position, rest = divmod(ts_ms + self._offset_ms - self._slots[0], self.interval_ms)
        return None if rest or not 0 <= position < len(self._slots) else stretch.at(position, ts_ms)

    def live(self) -> Callable[[str, int], Value]:
        """A query function that sees what was there at the time of the step."""
        return self._engines.live()

    def _evaluate(self, text: str) -> _Stretch | None:
        self._known[text] = None
        try:
            prepared = self._engines.whole.prepare(text)
            if not can_run_ahead(prepared.expr, self.unit.open_names):
                return None
            first_ms, last_ms = self._slots[0] - self._offset_ms, self._slots[-1] - self._offset_ms
            value = self._engines.whole.query_range(prepared, first_ms, last_ms, self.interval_ms).value
        except QueryError:
            return None  # asked live, it says so at the step where it happens
        if isinstance(value, RangeMatrix):
            self._known[text] = _Stretch(value)
        return self._known[text]

    # -- which steps matter -------------------------------------------------------------------------

    def _instances(self) -> Iterator[AlertInstance]:
        for state in self._state.rules.values():
            yield from state.instances.values()

    def _is_idle(self, stretch: _Stretch, position: int) -> bool:
        """Whether a step has nothing to work on: nothing is returned, nothing is remembered."""
        if len(stretch.columns(position)):
            return False
        if isinstance(self._rule, AlertingRule) and self._rule.missing_data is MissingData.FIRE:
            return False
        state = self._state.rules.get(self._rule.key)
        if state is None:
            return True
        return not state.instances and not state.written.labels

    def _following(self, stretch: _Stretch, position: int, changes: Int64s) -> int:
        """The next step that has to run."""
        count = len(self._slots)
        where = int(np.searchsorted(changes, position, side="right"))
        change = int(changes[where]) if where < len(changes) else count
        if change == position + 1:
            return change
        if self._is_idle(stretch, position):
            return change
        if not self._may_skip:
            return position + 1
        returned = stretch.columns(position)
        active = {one.source: one for one in self._instances() if one.state is not AlertState.INACTIVE}
        here = [active.get(stretch.labels[place]) for place in returned.tolist()]
        if not returned.size and isinstance(self._rule, AlertingRule) and not active:
            return change if self._rule.missing_data is not MissingData.FIRE else position + 1
        if len(active) != len(here) or not here:
            return position + 1
        limit = change
        peaks = np.empty(len(here))
        for row, instance in enumerate(here):
            if instance is None or instance.held or math.isnan(instance.peak):
                return position + 1
            peaks[row] = instance.peak
            if instance.state is AlertState.PENDING:
                due = instance.active_at_ms + self._for_ms() - self._slots[0]
                limit = min(limit, -(-due // self.interval_ms))
        worst = _first_worst(stretch.values[position + 1 : limit][:, returned], peaks, self._lower_is_worse)
        return max(limit if worst is None else position + 1 + worst, position + 1)

    def _for_ms(self) -> int:
        return self._rule.for_ms if isinstance(self._rule, AlertingRule) else 0


def _first_worst(values: Float64s, peaks: Float64s, lower_is_worse: bool) -> int | None:
    """The first row in which one of the columns takes the value that will be its peak; None if none does."""
    if not len(values):
        return None
    sign = -1.0 if lower_is_worse else 1.0
    signed = np.where(np.isnan(values), -np.inf, sign * values)  # NaN is never worse
    rising = np.flatnonzero(signed.max(axis=0) > sign * peaks)
    return int(signed[:, rising].argmax(axis=0).min()) if len(rising) else None


def _ignore(batch: SampleBatch) -> None:
    """Nobody reads what the rule writes."""


def _episode(instance: AlertInstance) -> Episode:
    return Episode(
        id=instance.episode_id,
        labels=instance.labels.without((ALERT_NAME,)),
        since_ms=instance.active_at_ms,
        start_ms=instance.fired_at_ms,
        end_ms=instance.resolved_at_ms,
        peak=instance.peak,
        reason=instance.resolve_reason,
    )
