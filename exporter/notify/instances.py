"""The stored records of alert instances: what a restarted evaluator goes on with. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from exporter.notify.records import Changes, InstanceKey, dumps, fingerprint
from exporter.notify.steps import SLICE, Steps
from exporter.rules.alert import AlertInstance, to_record

_Kept = tuple[
    tuple[object, ...], str
]  # what a record was made of (nothing known where it was read back), its JSON


class InstanceTable:
    """The record of each pending and firing instance as JSON, by rule and fingerprint."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, _Kept]] = {}

    def load(self, instances: Mapping[InstanceKey, str | None]) -> None:
        """Take over stored records."""
        for (rule_key, mark), text in instances.items():
            if text is not None:
                self._records.setdefault(rule_key, {})[mark] = ((), text)

    def of_rule(self, rule_key: str) -> list[Mapping[str, Any]]:
        """The records of one rule's instances."""
        return [json.loads(text) for _, text in self._records.get(rule_key, {}).values()]

    def all(self) -> dict[InstanceKey, str | None]:
        """Every record."""
        return {
            (rule, mark): text for rule, found in self._records.items() for mark, (_, text) in found.items()
        }

    def update(self, rule_key: str, active: Iterable[AlertInstance], changes: Changes) -> Steps[None]:
        """Note a rule's instances; a record is written where more than value and annotations have changed."""
        known = self._records.get(rule_key, {})
        found: dict[str, _Kept] = {}
        for number, instance in enumerate(active):
            if number % SLICE == SLICE - 1:
                yield
            mark = fingerprint(instance.labels)
            state = (
                instance.state.value, instance.peak, instance.active_at_ms, instance.fired_at_ms,
                instance.keep_firing_since_ms, instance.episode_id, instance.held, instance.expr_digest,
            )  # fmt: skip
            kept = known.get(mark)
            if kept is None or kept[0] != state:
                text = dumps(to_record(instance))
                kept = (state, text)
                changes.instances[rule_key, mark] = text
            found[mark] = kept
        for mark in known.keys() - found.keys():
            changes.instances[rule_key, mark] = None
        if found:
            self._records[rule_key] = found
        else:
            self._records.pop(rule_key, None)

    def retain(self, rule_keys: Iterable[str], changes: Changes) -> None:
        """Drop the instances of all other rules."""
        for rule_key in self._records.keys() - set(rule_keys):
            for mark in self._records.pop(rule_key):
                changes.instances[rule_key, mark] = None
