"""What the notifier remembers: episodes, notifications, silences, and a set of changes to them. Pure.

Every value turns into JSON and back, since the journal on disk and the tables hold the same records.
Times are Unix milliseconds, 0 means never.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from typing import Any

from exporter.model.labels import EMPTY_LABELS, LabelSet, Matcher, MatchOp
from exporter.notify.steps import Steps, finish, sliced
from exporter.rules.cooldown import Gate
from exporter.rules.cooldown import from_record as gate_from_record
from exporter.rules.cooldown import to_record as gate_to_record

InstanceKey = tuple[str, str]  # rule key, fingerprint
dumps = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_TEXTS_AT_ONCE = 5  # a notification may have 200 alerts
_NAMESPACE = uuid.UUID("6f2f7a0e-6f0f-5d8e-9d0b-1f3f5f0c7a11")


@lru_cache(maxsize=65_536)
def fingerprint(labels: LabelSet) -> str:
    """Sixteen hexadecimal digits for a label set, as Alertmanager shows them."""
    return f"{labels.fingerprint():016x}"


def row_id(episode_id: str) -> uuid.UUID:
    """The id of an episode's row in `system_alerts`: always the same, so that no episode has two."""
    return uuid.uuid5(_NAMESPACE, episode_id)


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert instance from firing to resolved: one row of `system_alerts`.

    `active`: the condition still holds. `resolved_at_ms` is set while active when a person resolved it, which
    mutes it until the condition has cleared. `suppressed` is 1 once the cooldown has held its firing back.
    """

    id: str
    rule_key: str
    labels: LabelSet
    annotations: Mapping[str, str] = field(default_factory=dict)
    value: float = 0.0
    peak: float = 0.0
    triggered_at_ms: int = 0
    active: bool = True
    resolved_at_ms: int = 0
    resolved_by: str = ""
    resolve_reason: str = ""
    resolution_notes: str = ""
    resolved_value: float | None = None
    acked_at_ms: int = 0
    acked_by: str = ""
    ack_notes: str = ""
    notifications: int = 0
    suppressed: int = 0
    notified_at_ms: int = 0

    @property
    def alertname(self) -> str:
        """The label `alertname`."""
        return self.labels.get("alertname")

    @property
    def severity(self) -> str:
        """The label `severity`; '' without one."""
        return self.labels.get("severity")

    @property
    def muted_by_hand(self) -> bool:
        """Whether a person resolved it while its condition goes on."""
        return self.active and self.resolved_at_ms > 0

    def to_record(self) -> dict[str, Any]:
        """JSON values."""
        return _record(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Episode:
        """The inverse of `to_record`."""
        values = dict(record)
        values["labels"] = LabelSet.of(values["labels"])
        for name in ("value", "peak", "resolved_value"):
            values[name] = None if values[name] is None else float(values[name])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class NotifiedAlert:
    """One alert in a notification, as it stood when that was decided."""

    episode_id: str
    status: str  # firing or resolved
    labels: LabelSet
    annotations: Mapping[str, str]
    fingerprint: str
    starts_at_ms: int
    ends_at_ms: int = 0
    value: float = 0.0
    peak: float = 0.0
    resolved_value: float | None = None
    reason: str = ""  # of the decision: first, repeat due, resolved
    suppressed: int = 0
    resolve_reason: str = ""
    resolved_by: str = ""
    resolution_notes: str = ""
    flapping: int = 0  # changes of state in the window, on the one notice that says so
    held: str = ""
    generator_url: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> NotifiedAlert:
        """The inverse of the record in `Notification.to_record`."""
        values = dict(record)
        values["labels"] = LabelSet.of(values["labels"])
        for name in ("value", "peak", "resolved_value"):
            values[name] = None if values[name] is None else float(values[name])
        return cls(**values)


class Status(Enum):
    """Where a notification stands."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Notification:
    """What is sent to one destination, with the gates' slots that it stands for.

    `id` stays the same over retries and restarts. `truncated` counts alerts left out for their number.
    `via` is the receiver that took it where that was the fallback. `seq` orders what was decided at one time.
    `told` has the episodes of a delivered one, whose alerts are kept no longer.
    """

    id: str
    destination: str
    receiver: str
    status: str  # of its alerts: firing or resolved
    alerts: tuple[NotifiedAlert, ...]
    slots: tuple[tuple[str, str], ...] = ()  # (gate key, slot)
    group_key: str = ""
    group_labels: LabelSet = EMPTY_LABELS
    truncated: int = 0
    created_at_ms: int = 0
    seq: int = 0
    state: Status = Status.QUEUED
    attempts: int = 0
    next_try_ms: int = 0
    finished_at_ms: int = 0
    via: str = ""
    error: str = ""
    told: tuple[str, ...] = ()

    @property
    def episode_ids(self) -> tuple[str, ...]:
        """The episodes it tells of."""
        return self.told or tuple(alert.episode_id for alert in self.alerts)

    def arrived(self, now_ms: int, *, via: str, attempts: int) -> Notification:
        """What is kept of it once it is delivered: all but its alerts, which are not sent again."""
        return replace(
            self,
            alerts=(),
            told=self.episode_ids,
            state=Status.DELIVERED,
            finished_at_ms=now_ms,
            via=via,
            attempts=attempts,
            error="",
        )

    def to_record(self) -> dict[str, Any]:
        """JSON values."""
        record = _record(self)
        record["alerts"] = [_record(alert) for alert in self.alerts]
        record["state"] = self.state.value
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Notification:
        """The inverse of `to_record`."""
        values = dict(record)
        values["alerts"] = tuple(NotifiedAlert.from_record(alert) for alert in values["alerts"])
        values["slots"] = tuple((str(gate), str(slot)) for gate, slot in values["slots"])
        values["told"] = tuple(values.get("told", ()))
        values["group_labels"] = LabelSet.of(values["group_labels"])
        values["state"] = Status(values["state"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts that match every matcher are not notified between the two times (the end exclusive)."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at_ms: int
    ends_at_ms: int
    created_by: str
    comment: str
    updated_at_ms: int

    def state(self, now_ms: int) -> str:
        """pending, active or expired."""
        if now_ms >= self.ends_at_ms:
            return "expired"
        return "pending" if now_ms < self.starts_at_ms else "active"

    def to_record(self) -> dict[str, Any]:
        """JSON values."""
        record = _record(self)
        record["matchers"] = [[one.name, one.op.value, one.value] for one in self.matchers]
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Silence:
        """The inverse of `to_record`."""
        values = dict(record)
        values["matchers"] = tuple(
            Matcher(name, MatchOp(op), value) for name, op, value in values["matchers"]
        )
        return cls(**values)


@dataclass(frozen=True, slots=True)
class RowTexts:
    """The JSON of rows by key; `null` where the row is deleted."""

    episodes: dict[str, str]
    gates: dict[str, str]
    notifications: dict[str, str]
    silences: dict[str, str]


@dataclass(slots=True)
class Changes:
    """Rows to be written in one transaction, whole and by key, so that writing them twice does no harm.

    None in `gates` and `instances` deletes the row. A whole stored state is a `Changes` too. Once its texts
    were asked for it changes by `merge` alone.
    """

    episodes: dict[str, Episode] = field(default_factory=dict)
    gates: dict[str, Gate | None] = field(default_factory=dict)
    notifications: dict[str, Notification] = field(default_factory=dict)
    instances: dict[InstanceKey, str | None] = field(default_factory=dict)  # as JSON
    silences: dict[str, Silence] = field(default_factory=dict)
    _texts: RowTexts | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        """How many rows."""
        return (
            len(self.episodes)
            + len(self.gates)
            + len(self.notifications)
            + len(self.instances)
            + len(self.silences)
        )

    def merge(self, later: Changes) -> None:
        """Take over later changes; the later row of a key wins."""
        self.episodes.update(later.episodes)
        self.gates.update(later.gates)
        self.notifications.update(later.notifications)
        self.instances.update(later.instances)
        self.silences.update(later.silences)
        self._texts = None

    def texts(self) -> RowTexts:
        """The JSON of every row, made once: for the tables and the journal."""
        return finish(self.text_steps())

    def text_steps(self) -> Steps[RowTexts]:
        """The same, made in steps: rows may be many."""
        if self._texts is None:
            made = RowTexts({}, {}, {}, {})
            kinds: Sequence[tuple[dict[str, str], Iterable[tuple[str, Any]], Callable[[Any], Any]]] = (
                (made.episodes, self.episodes.items(), Episode.to_record),
                (made.gates, self.gates.items(), lambda gate: gate and gate_to_record(gate)),
                (made.notifications, self.notifications.items(), Notification.to_record),
                (made.silences, self.silences.items(), Silence.to_record),
            )
            for texts, rows, record_of in kinds:
                for some in sliced(rows, _TEXTS_AT_ONCE):
                    texts.update((key, dumps(record_of(one))) for key, one in some)
                    yield
            self._texts = made
        return self._texts

    def to_json(self) -> str:
        """One JSON document of all rows."""
        texts = self.texts()
        gates = (f"[{dumps(key)},{text}]" for key, text in texts.gates.items())
        instances = (
            f"[{dumps(rule)},{dumps(mark)},{text or 'null'}]" for (rule, mark), text in self.instances.items()
        )
        return (
            f'{{"episodes":[{",".join(texts.episodes.values())}],"gates":[{",".join(gates)}],'
            f'"notifications":[{",".join(texts.notifications.values())}],'
            f'"instances":[{",".join(instances)}],"silences":[{",".join(texts.silences.values())}]}}'
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Changes:
        """Changes out of the document of `to_json`, parsed.

        Raises: ValueError for a document that `to_json` did not make.
        """
        try:
            episodes = [Episode.from_record(one) for one in record["episodes"]]
            notifications = [Notification.from_record(one) for one in record["notifications"]]
            silences = [Silence.from_record(one) for one in record["silences"]]
            return cls(
                episodes={one.id: one for one in episodes},
                gates={
                    key: None if gate is None else gate_from_record(gate) for key, gate in record["gates"]
                },
                notifications={one.id: one for one in notifications},
                instances={
                    (rule, mark): None if inner is None else dumps(inner)
                    for rule, mark, inner in record["instances"]
                },
                silences={one.id: one for one in silences},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record of changes: {error!r}") from error


def _record(value: object) -> dict[str, Any]:
    """The fields of a dataclass as JSON values; floats as text, so that NaN and infinities survive."""
    names, read = _fields(type(value))  # type: ignore[arg-type]  # a class is hashable
    record: dict[str, Any] = dict(zip(names, read(value), strict=True))
    for name, content in record.items():
        kind = type(content)
        if kind in _PLAIN:
            continue
        if kind is float:
            record[name] = repr(content)
        elif kind is LabelSet:
            record[name] = content.as_dict()
        elif isinstance(content, Mapping):
            record[name] = dict(content)
    return record


_PLAIN = frozenset({str, int, bool, tuple, type(None)})


@lru_cache(maxsize=16)
def _fields(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    names = tuple(kind.__slots__)
    return names, attrgetter(*names)
