"""The stored records of alert instances: what a restarted evaluator goes on with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from exporter.notify.records import Changes, InstanceKey, fingerprint
from exporter.rules.alert import AlertInstance, to_record

Record = Mapping[str, Any]


class InstanceTable:
    """The record of each pending and firing instance, by rule and fingerprint."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Record]] = {}
        self._marks: dict[InstanceKey, tuple[object, ...]] = {}

    def load(self, instances: Mapping[InstanceKey, Record | None]) -> None:
        """Take over stored records."""
        for (rule_key, mark), record in instances.items():
            if record is not None:
                self._records.setdefault(rule_key, {})[mark] = record

    def of_rule(self, rule_key: str) -> list[Record]:
        """The records of one rule's instances."""
        return list(self._records.get(rule_key, {}).values())

    def all(self) -> dict[InstanceKey, Record | None]:
        """Every record."""
        return {
            (rule, mark): record for rule, found in self._records.items() for mark, record in found.items()
        }

    def update(self, rule_key: str, active: Iterable[AlertInstance], changes: Changes) -> None:
        """Note a rule's instances; a record is written where more than value and annotations have changed."""
        known = self._records.get(rule_key, {})
        found: dict[str, Record] = {}
        for instance in active:
            mark = fingerprint(instance.labels)
            key = (rule_key, mark)
            state = (
                instance.state, instance.peak, instance.active_at_ms, instance.fired_at_ms,
                instance.keep_firing_since_ms, instance.episode_id, instance.held, instance.expr_digest,
            )  # fmt: skip
            if mark in known and self._marks.get(key) == state:
                found[mark] = known[mark]
                continue
            self._marks[key] = state
            found[mark] = changes.instances[key] = to_record(instance)
        for mark in known.keys() - found.keys():
            self._drop((rule_key, mark), changes)
        if found:
            self._records[rule_key] = found
        else:
            self._records.pop(rule_key, None)

    def retain(self, rule_keys: Iterable[str], changes: Changes) -> None:
        """Drop the instances of all other rules."""
        for rule_key in self._records.keys() - set(rule_keys):
            for mark in self._records.pop(rule_key):
                self._drop((rule_key, mark), changes)

    def _drop(self, key: InstanceKey, changes: Changes) -> None:
        self._marks.pop(key, None)
        changes.instances[key] = None
