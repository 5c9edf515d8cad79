"""What one evaluation of a rule group yields: the value that goes to notification, storage and the API."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from exporter.model.samples import SampleBatch
from exporter.rules.instance import AlertInstance, AlertState, Transition
from exporter.rules.model import Rule, RuleGroup


class RuleHealth(Enum):
    """Prometheus' spelling of how the last evaluation of a rule went."""

    UNKNOWN = "unknown"
    OK = "ok"
    ERR = "err"


@dataclass(frozen=True, slots=True)
class RuleEvaluation:
    """One rule in one evaluation.

    `active` are its pending and firing instances, `resolved` those that resolved within the last 15 minutes
    (both empty for a recording rule). `error` is '' where health is ok. `samples` counts what it wrote,
    staleness markers apart. With `template_faults`, or where a `limit` has refused new instances (`limited`),
    the health is bad though the rule was evaluated and its alerts go on. `evaluated_at_ms` is the group's
    time.
    """

    rule: Rule
    health: RuleHealth
    error: str = ""
    duration_s: float = 0.0
    evaluated_at_ms: int = 0
    transitions: tuple[Transition, ...] = ()
    active: tuple[AlertInstance, ...] = ()
    resolved: tuple[AlertInstance, ...] = ()
    samples: int = 0
    template_faults: tuple[str, ...] = ()
    limited: bool = False

    @property
    def is_current(self) -> bool:
        """Whether the instances are those of this evaluation, and not kept because it failed."""
        return self.health is RuleHealth.OK or self.limited or bool(self.template_faults)

    @property
    def state(self) -> AlertState:
        """The highest state among the instances."""
        return max((instance.state for instance in self.active), default=AlertState.INACTIVE)


@dataclass(frozen=True, slots=True)
class GroupEvaluation:
    """One evaluation of a group; `batches` are the samples it wrote, in order, already in the head."""

    group: RuleGroup
    ts_ms: int
    rules: tuple[RuleEvaluation, ...]
    duration_s: float = 0.0
    batches: tuple[SampleBatch, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupView:
    """A rule group as it runs: its interval and its last evaluation (None before the first)."""

    group: RuleGroup
    interval_ms: int
    evaluation: GroupEvaluation | None
