"""Rules as a rule file declares them, after validation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from exporter.model.labels import quote
from exporter.promql.ast import Expr


class MissingData(Enum):
    """What becomes of an alert instance whose input series have vanished."""

    RESOLVE = "resolve"
    KEEP = "keep"
    FIRE = "fire"


@dataclass(frozen=True, slots=True)
class AlertingRule:
    """One alerting rule, the defaults of its group applied.

    `labels` (the group's labels among them) and `annotations` hold template text. `cooldown_by` is None for a
    cooldown of each instance, () for one of the whole rule. `key` names the rule in stored state: file base,
    group, name and labels, so that a changed `for`, annotation or threshold keeps what runs; `expr_digest`
    tells whether the expression is another one.
    """

    name: str
    expr: Expr = field(compare=False)  # its text tells; the places in it do not matter
    expr_text: str
    for_ms: int = 0
    keep_firing_for_ms: int = 0
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    cooldown_ms: int = 0
    cooldown_by: tuple[str, ...] | None = None
    missing_data: MissingData = MissingData.RESOLVE
    keep_firing_expr: Expr | None = field(default=None, compare=False)
    keep_firing_text: str = ""
    key: str = ""
    expr_digest: str = ""
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", rule_key("", "", self.name, self.labels))
        if not self.expr_digest:
            object.__setattr__(self, "expr_digest", digest(self.expr_text))

    @property
    def severity(self) -> str:
        """The label `severity` as written; '' without one."""
        return self.labels.get("severity", "")


@dataclass(frozen=True, slots=True)
class RecordingRule:
    """One recording rule; `record` is the metric name of its samples, `labels` are set on each."""

    record: str
    expr: Expr = field(compare=False)
    expr_text: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    key: str = ""
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", rule_key("", "", self.record, self.labels))

    @property
    def name(self) -> str:
        """The metric name, so that both kinds of rule have one."""
        return self.record


Rule = AlertingRule | RecordingRule


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules with one interval and an order. `interval_ms` and `query_offset_ms` None mean the global ones.

    `limit` 0 means none. `key` is unique among the groups loaded together, the same after a move of the
    files to another folder.
    """

    name: str
    file: str
    rules: tuple[Rule, ...]
    interval_ms: int | None = None
    limit: int = 0
    query_offset_ms: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    key: str = ""
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", group_key(self.file, self.name))


def group_key(file: str, name: str) -> str:
    """Stable name of a group: the file's base name and the group's name."""
    return f"{file.rpartition('/')[2]};{name}"


def rule_key(file: str, group: str, name: str, labels: Mapping[str, str]) -> str:
    """Stable name of a rule for stored state; a repeat in its group gets a number behind it (`format`)."""
    text = ",".join(f"{label}={quote(value)}" for label, value in sorted(labels.items()))
    return f"{group_key(file, group)};{name}{{{text}}}"


def digest(text: str) -> str:
    """Sixteen hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
