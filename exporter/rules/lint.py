"""Findings about rules beyond the format: what loads, and still is not what its author means.

An error is a rule that cannot do its work (it never fires, or every evaluation makes a new alert); a warning
is advice. Every finding has a code, so that it can be looked up, counted and left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from exporter.config.positions import nearest
from exporter.model.durations import format_duration
from exporter.promql.ast import Expr, ValueType
from exporter.promql.printer import to_text
from exporter.promql.typecheck import type_of
from exporter.rules.bounds import bounds_of
from exporter.rules.emptiness import metric_names
from exporter.rules.model import AlertingRule, RecordingRule, Rule, RuleGroup
from exporter.rules.shape import shape_of
from exporter.template import Template, asks_value, prints_value, referenced_labels

SEVERITIES = ("critical", "warning", "info")
LONG_COOLDOWN_MS = 24 * 3_600_000
_SERIES_OF = re.compile(r"_(bucket|sum|count|total|created)$")  # a list may give families
_WRITTEN = ("ALERTS", "ALERTS_FOR_STATE")


class Level(Enum):
    """How much a finding matters; the values are SARIF's."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, with the place of its rule."""

    code: str
    level: Level
    message: str
    file: str
    line: int
    column: int
    group: str
    rule: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.level.value}: {self.rule}: {self.message} [{self.code}]"


CODES: dict[str, str] = {
    "duplicate-rule": "Two rules of a group have the same name and labels.",
    "wrong-type": "The expression is no instant vector or scalar, so every evaluation fails.",
    "never-true": "The expression can never return anything.",
    "value-in-label": "A label holds the value, so that every evaluation makes a new alert.",
    "value-decides-label": "A label depends on the value: where it changes, another alert begins.",
    "label-dropped": "A template uses a label that the expression does not return.",
    "severity-missing": "The label severity is missing.",
    "severity-unknown": "The label severity is not critical, warning or info.",
    "summary-missing": "The annotation summary is missing.",
    "runbook-missing": "The annotation runbook_url is missing.",
    "cooldown-short": "The cooldown is shorter than the evaluation interval.",
    "cooldown-long": "The cooldown is longer than a day.",
    "cooldown-label": "cooldown_by names a label that the alert does not have.",
    "metric-unknown": "No known series has the metric name.",
}


@dataclass(frozen=True, slots=True)
class LintOptions:
    """`known_metrics` None: metric names are not judged. `ignore` holds codes to leave out."""

    known_metrics: Collection[str] | None = None
    default_interval_ms: int = 15_000
    ignore: frozenset[str] = field(default_factory=frozenset)


def lint(groups: Sequence[RuleGroup], options: LintOptions | None = None) -> list[Finding]:
    """All findings about the groups, in file order."""
    options = options or LintOptions()
    known: set[str] | None = None
    if options.known_metrics is not None:
        recorded = (
            rule.record for group in groups for rule in group.rules if isinstance(rule, RecordingRule)
        )
        known = {*options.known_metrics, *recorded, *_WRITTEN}
    findings: list[Finding] = []
    for group in groups:
        interval_ms = group.interval_ms or options.default_interval_ms
        seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        for rule in group.rules:
            about = _About(group, rule)
            identity = rule.name, frozenset(rule.labels.items())
            if identity in seen:
                findings.append(about.warning("duplicate-rule", "this group has the same rule already"))
            seen.add(identity)
            findings.extend(_expression(about, rule.expr, known))
            if isinstance(rule, AlertingRule):
                findings.extend(_alert(about, rule))
                findings.extend(_templates(about, rule))
                findings.extend(_cooldown(about, rule, interval_ms))
    return [finding for finding in findings if finding.code not in options.ignore]


class _About:
    """Makes findings about one rule."""

    def __init__(self, group: RuleGroup, rule: Rule) -> None:
        self._group, self._rule = group, rule

    def error(self, code: str, message: str) -> Finding:
        return self._finding(code, Level.ERROR, message)

    def warning(self, code: str, message: str) -> Finding:
        return self._finding(code, Level.WARNING, message)

    def _finding(self, code: str, level: Level, message: str) -> Finding:
        rule = self._rule
        return Finding(
            code, level, message, self._group.file, rule.line, rule.column, self._group.name, rule.name
        )


def _expression(about: _About, expr: Expr, known: Collection[str] | None) -> Iterator[Finding]:
    kind = type_of(expr)
    if kind not in (ValueType.VECTOR, ValueType.SCALAR):
        yield about.error("wrong-type", f"the expression is a {kind.value}, a rule needs a vector or scalar")
        return
    if bounds_of(expr).is_empty:
        yield about.error("never-true", f"can never return anything: {to_text(expr)}")
    for name in sorted(metric_names(expr)) if known is not None else ():
        if known is not None and name not in known and _SERIES_OF.sub("", name) not in known:
            close = nearest(name, known)
            hint = f', did you mean "{close}"?' if close else ""
            yield about.warning("metric-unknown", f'no series is named "{name}"{hint}')


def _alert(about: _About, rule: AlertingRule) -> Iterator[Finding]:
    if not rule.severity:
        yield about.warning("severity-missing", f"no label severity (one of {', '.join(SEVERITIES)})")
    elif "{{" not in rule.severity and rule.severity not in SEVERITIES:
        message = f'severity "{rule.severity}" is none of {", ".join(SEVERITIES)}'
        yield about.warning("severity-unknown", message)
    if not rule.annotations.get("summary"):
        yield about.warning("summary-missing", "no annotation summary: notifications have no headline")
    if not rule.annotations.get("runbook_url"):
        yield about.warning("runbook-missing", "no annotation runbook_url: nobody learns what to do")


def _templates(about: _About, rule: AlertingRule) -> Iterator[Finding]:
    shape = shape_of(rule.expr)
    for kind, texts in (("label", rule.labels), ("annotation", rule.annotations)):
        for name, text in texts.items():
            if "{{" not in text:
                continue
            template = Template.parse(text, name)
            if kind == "label" and prints_value(template):
                yield about.error(
                    "value-in-label",
                    f'label "{name}" holds $value: each new value is a new alert, and `for` never ends; '
                    "put it into an annotation",
                )
            elif kind == "label" and asks_value(template):
                yield about.warning(
                    "value-decides-label",
                    f'label "{name}" depends on $value: where it changes, the alert resolves and another '
                    "begins, with a `for` and a cooldown of its own; two rules do that on purpose",
                )
            for label in sorted(referenced_labels(template)):
                if not shape.may_have(label):
                    why = "it is set by the rule, $labels holds what the expression returns"
                    if label not in rule.labels and label != "alertname":
                        why = "the expression drops it"
                    yield about.warning("label-dropped", f'{kind} "{name}" uses $labels.{label}, but {why}')


def _cooldown(about: _About, rule: AlertingRule, interval_ms: int) -> Iterator[Finding]:
    shown = format_duration(rule.cooldown_ms)
    if 0 < rule.cooldown_ms < interval_ms:
        interval = format_duration(interval_ms)
        message = f"a cooldown of {shown} has no effect at an evaluation interval of {interval}"
        yield about.warning("cooldown-short", message)
    if rule.cooldown_ms > LONG_COOLDOWN_MS:
        message = f"a cooldown of {shown}: an alert that comes back within it is not told for that long"
        yield about.warning("cooldown-long", message)
    shape = shape_of(rule.expr)
    for label in rule.cooldown_by or ():
        if not shape.may_have(label) and label not in rule.labels and label != "alertname":
            yield about.warning("cooldown-label", f'cooldown_by "{label}": the alert has no such label')
