"""Alert instances as values: states, transitions, and the record that outlives a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.rules.model import digest

RESTORED = "restored, its input has not been seen yet"
"""`held` of an instance that was read back at start."""


class AlertState(IntEnum):
    """Ordered, so that the state of a rule is the maximum over its instances."""

    INACTIVE = 0
    PENDING = 1
    FIRING = 2

    @property
    def text(self) -> str:
        """Prometheus' spelling: inactive, pending, firing."""
        return self.name.lower()


class ResolveReason(Enum):
    """Why an instance stopped firing."""

    RECOVERED = "recovered"
    NO_DATA = "no data"
    RULE_CHANGED = "rule changed"
    RULE_REMOVED = "rule removed"
    BY_HAND = "by hand"


class TransitionKind(Enum):
    """What happened to an instance; CLEARED is a pending one that never fired."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class AlertInstance:
    """One label set of an alerting rule and where it stands. Times are Unix milliseconds, 0 means never.

    `labels` have alertname and the rule's labels; `source` are the labels that the expression returned.
    `value` is the last value that the expression returned, `peak` the worst since it became active (the
    lowest where the expression asks for less than something), `resolved_value` what the left side of the
    expression gave when the instance resolved, None if nothing. `episode_id` is '' until it fires. `held`
    says in words why an instance is kept that the expression no longer returns ('' if it is returned).
    """

    labels: LabelSet
    annotations: Mapping[str, str] = field(default_factory=dict)
    state: AlertState = AlertState.PENDING
    value: float = 0.0
    peak: float = 0.0
    active_at_ms: int = 0
    fired_at_ms: int = 0
    resolved_at_ms: int = 0
    keep_firing_since_ms: int = 0
    episode_id: str = ""
    held: str = ""
    resolve_reason: ResolveReason | None = None
    resolved_value: float | None = None
    source: LabelSet = EMPTY_LABELS
    expr_digest: str = ""

    @property
    def severity(self) -> str:
        """The label `severity`, '' without one."""
        return self.labels.get("severity")


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state, with the instance as it is afterwards; `reason` is set for RESOLVED."""

    kind: TransitionKind
    instance: AlertInstance
    at_ms: int
    reason: ResolveReason | None = None


def episode_id(rule_key: str, labels: LabelSet, fired_at_ms: int) -> str:
    """Stable name of one episode: the same after a restart and on every replica."""
    return digest(f"{rule_key}|{labels}|{fired_at_ms}")


def to_record(instance: AlertInstance) -> dict[str, object]:
    """The whole instance as JSON values; floats as text, so that NaN and infinities survive."""
    return {
        "labels": instance.labels.as_dict(),
        "annotations": dict(instance.annotations),
        "state": instance.state.text,
        "value": repr(instance.value),
        "peak": repr(instance.peak),
        "active_at_ms": instance.active_at_ms,
        "fired_at_ms": instance.fired_at_ms,
        "resolved_at_ms": instance.resolved_at_ms,
        "keep_firing_since_ms": instance.keep_firing_since_ms,
        "episode_id": instance.episode_id,
        "held": instance.held,
        "resolve_reason": instance.resolve_reason.value if instance.resolve_reason else None,
        "resolved_value": None if instance.resolved_value is None else repr(instance.resolved_value),
        "source": instance.source.as_dict(),
        "expr_digest": instance.expr_digest,
    }


def from_record(record: Mapping[str, object]) -> AlertInstance:
    """The inverse of `to_record`.

    Raises: ValueError for a record that `to_record` did not make.
    """
    try:
        return _from_record(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the record of an alert instance: {error!r}") from error


def _from_record(record: Mapping[str, object]) -> AlertInstance:
    reason, resolved_value = record["resolve_reason"], record["resolved_value"]
    return AlertInstance(
        labels=LabelSet.of(_texts(record["labels"])),
        annotations=_texts(record["annotations"]),
        state=AlertState[str(record["state"]).upper()],
        value=float(str(record["value"])),
        peak=float(str(record["peak"])),
        active_at_ms=_integer(record["active_at_ms"]),
        fired_at_ms=_integer(record["fired_at_ms"]),
        resolved_at_ms=_integer(record["resolved_at_ms"]),
        keep_firing_since_ms=_integer(record["keep_firing_since_ms"]),
        episode_id=str(record["episode_id"]),
        held=str(record["held"]),
        resolve_reason=None if reason is None else ResolveReason(reason),
        resolved_value=None if resolved_value is None else float(str(resolved_value)),
        source=LabelSet.of(_texts(record["source"])),
        expr_digest=str(record["expr_digest"]),
    )


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"a mapping is needed, not {value!r}")
    return {str(name): str(text) for name, text in value.items()}


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a whole number is needed, not {value!r}")
    return value
