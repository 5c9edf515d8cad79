"""The cooldown gates of all destinations, found by key and by episode. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exporter.model.labels import LabelSet
from exporter.notify.records import Changes
from exporter.rules.cooldown import Gate
from exporter.rules.model import AlertingRule

_SEPARATOR = "\x1f"


def gate_key(destination: str, rule: AlertingRule, labels: LabelSet, fingerprint: str) -> str:
    """The gate of an instance at a destination: its own, or that of its `cooldown_by` values."""
    which = fingerprint
    if rule.cooldown_by is not None:
        which = "by" + "".join(f"{_SEPARATOR}{labels.get(name)}" for name in rule.cooldown_by)
    return f"{destination}{_SEPARATOR}{rule.key}{_SEPARATOR}{which}"


def destination_of(key: str) -> str:
    """The key of the destination in a gate's key."""
    return key.partition(_SEPARATOR)[0]


class GateTable:
    """Gates by key; `set` notes each change in `changes`."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._of: dict[str, tuple[str, ...]] = {}  # few each: one for each destination

    def __iter__(self) -> Iterator[tuple[str, Gate]]:
        return iter(list(self._gates.items()))

    def __len__(self) -> int:
        return len(self._gates)

    def find(self, key: str) -> Gate | None:
        """A gate that is remembered."""
        return self._gates.get(key)

    def get(self, key: str) -> Gate:
        """A gate; a new one where none is remembered."""
        return self._gates.get(key) or Gate(key)

    def keys_of(self, episode_id: str) -> Iterable[str]:
        """The keys of the gates that know an episode, sorted."""
        return sorted(self._of.get(episode_id, ()))

    def knows(self, episode_id: str) -> bool:
        """Whether any gate knows an episode."""
        return episode_id in self._of

    def set(self, gate: Gate, changes: Changes) -> None:
        """Remember a gate; one that says nothing is forgotten, and its row deleted."""
        key = gate.key
        before = self._gates.get(key)
        for episode_id in gate.episodes:
            keys = self._of.get(episode_id, ())
            if key not in keys:
                self._of[episode_id] = (*keys, key)
        for episode_id in before.episodes if before else ():
            if episode_id not in gate.episodes:
                keys = tuple(other for other in self._of.pop(episode_id, ()) if other != key)
                if keys:
                    self._of[episode_id] = keys
        if gate != Gate(key, gate.cooldown_ms):
            self._gates[key] = changes.gates[key] = gate
        elif before is not None:
            del self._gates[key]
            changes.gates[key] = None

    def forget_idle(self, now_ms: int, changes: Changes) -> None:
        """Drop the gates that would decide as new ones do."""
        for key, gate in self:
            if gate.is_idle(now_ms):
                del self._gates[key]
                changes.gates[key] = None
