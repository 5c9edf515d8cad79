"""The order in which the rules of a backtest can be evaluated: in whole stretches of time, or step by step.

A rule that reads what other rules write comes after them. Where all of those stand before it, in the order
of live evaluation, a stretch of theirs can be finished first. Where a rule reads itself, or one that stands
behind it, the rules concerned are evaluated together, step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.promql.ast import Expr
from exporter.rules.alert import ALERT_NAME, ALERTS, ALERTS_FOR_STATE
from exporter.rules.emptiness import selectors_of
from exporter.rules.model import AlertingRule, RecordingRule, Rule, RuleGroup

_ALERT_SERIES = frozenset((ALERTS, ALERTS_FOR_STATE))


@dataclass(frozen=True, slots=True)
class Unit:
    """One rule in a group of its own.

    `ahead`: a stretch can be evaluated at once. `is_read`: other rules read what it writes. `open_names`: the
    metric names that are not complete when the rule is evaluated (None: it reads names that are not known).
    """

    group: RuleGroup
    rule: Rule
    order: int
    ahead: bool
    is_read: bool
    open_names: frozenset[str]


def plan_units(groups: Sequence[RuleGroup]) -> tuple[Unit, ...]:
    """The rules that matter for alerts, in the order of live evaluation.

    Recording rules that nobody reads are left out.
    """
    rules = [(group, rule) for group in groups for rule in group.rules]
    reads = [
        {writer for writer, (_, other) in enumerate(rules) if reads_of(rule, other)} for _, rule in rules
    ]
    needed = _needed(rules, reads)
    late: set[int] = set()
    before = -1
    while len(late) != before:
        before = len(late)
        for place in sorted(needed):
            behind = {writer for writer in reads[place] if writer >= place}
            if behind or reads[place] & late:
                late.add(place)
                late |= behind
    read = {writer for place in needed for writer in reads[place]}
    units = []
    finished: set[int] = set()
    for place in sorted(needed, key=lambda place: (place in late, place)):
        group, rule = rules[place]
        unfinished = needed - finished if place not in late else late
        names = frozenset(name for other in unfinished for name in written_names(rules[other][1]))
        units.append(Unit(group, rule, place, place not in late, place in read, names))
        if place not in late:
            finished.add(place)
    return tuple(units)


def written_names(rule: Rule) -> frozenset[str]:
    """The metric names of the samples that a rule writes."""
    return frozenset((rule.record,)) if isinstance(rule, RecordingRule) else _ALERT_SERIES


def expressions(rule: Rule) -> tuple[Expr, ...]:
    """Every expression of a rule."""
    if isinstance(rule, AlertingRule) and rule.keep_firing_expr is not None:
        return rule.expr, rule.keep_firing_expr
    return (rule.expr,)


def wanted_selectors(groups: Iterable[RuleGroup]) -> tuple[tuple[Matcher, ...], ...]:
    """The selectors of all rules, each once: what a backtest reads of the history."""
    found: dict[tuple[Matcher, ...], None] = {}
    for group in groups:
        for rule in group.rules:
            for expr in expressions(rule):
                for selector in selectors_of(expr):
                    found[tuple(selector.matchers)] = None
    return tuple(found)


def asks_in_labels(rule: Rule) -> bool:
    """Whether a label's template may query: then the rule may read anything."""
    return any("query" in text and "{{" in text for text in rule.labels.values())


def _needed(rules: Sequence[tuple[RuleGroup, Rule]], reads: Sequence[set[int]]) -> set[int]:
    needed = {place for place, (_, rule) in enumerate(rules) if isinstance(rule, AlertingRule)}
    waiting = list(needed)
    while waiting:
        for writer in reads[waiting.pop()]:
            if writer not in needed:
                needed.add(writer)
                waiting.append(writer)
    return needed


def reads_of(rule: Rule, writer: Rule) -> bool:
    """Whether a rule may read what another one, or itself, writes."""
    if asks_in_labels(rule):
        return True
    selectors = [selector for expr in expressions(rule) for selector in selectors_of(expr)]
    if isinstance(writer, RecordingRule):
        return any(_may_name(selector.matchers, (writer.record,)) for selector in selectors)
    return any(_may_select_alert(selector.matchers, writer.name) for selector in selectors)


def _may_select_alert(matchers: Sequence[Matcher], alert: str) -> bool:
    if not _may_name(matchers, _ALERT_SERIES):
        return False
    return all(one.value == alert for one in matchers if one.name == ALERT_NAME and one.op is MatchOp.EQUAL)


def _may_name(matchers: Sequence[Matcher], names: Iterable[str]) -> bool:
    own = [one for one in matchers if one.name == METRIC_NAME]
    return any(all(one.matches(name) for one in own) for name in names)


def is_made_by(groups: Iterable[RuleGroup]) -> Callable[[LabelSet], bool]:
    """Whether a stored series was written by rules of these names: a backtest writes it anew."""
    rules = [rule for group in groups for rule in group.rules]
    recorded = {rule.record for rule in rules if isinstance(rule, RecordingRule)}
    alerts = {rule.name for rule in rules if isinstance(rule, AlertingRule)}

    def made(labels: LabelSet) -> bool:
        name = labels.name
        return name in recorded or (name in _ALERT_SERIES and labels.get(ALERT_NAME) in alerts)

    return made


def wanted_series(groups: Sequence[RuleGroup]) -> Callable[[LabelSet], bool]:
    """Whether a stored series is one that the rules read and do not write themselves."""
    made = is_made_by(groups)
    named: dict[str, list[tuple[Matcher, ...]]] = {}
    open_ones: list[tuple[Matcher, ...]] = []
    for matchers in wanted_selectors(groups):
        name = next(
            (one.value for one in matchers if one.name == METRIC_NAME and one.op is MatchOp.EQUAL), None
        )
        if name is None:
            open_ones.append(matchers)
        else:
            named.setdefault(name, []).append(matchers)

    def wanted(labels: LabelSet) -> bool:
        candidates = [*named.get(labels.name, ()), *open_ones]
        return any(
            all(matcher.matches(labels.get(matcher.name)) for matcher in matchers) for matchers in candidates
        ) and not made(labels)

    return wanted
