"""Inhibition: which alerts are quiet because another one fires. Pure.

Source: Alertmanager's configuration page, inhibit_rule. An alert that matches both sides of a rule is not
inhibited by alerts for which the same is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.config.matchers import match_all
from exporter.config.receivers import InhibitRule
from exporter.model.labels import LabelSet

_Values = tuple[str, ...]


class Inhibitor:
    """The sources that fire at one moment, indexed by the values of each rule's equal labels."""

    def __init__(self, rules: Sequence[InhibitRule], firing: Iterable[LabelSet]) -> None:
        self._rules = rules
        # for each rule: equal values -> a source that is not a target too, or '' where all are both
        self._sources: list[dict[_Values, tuple[LabelSet, bool]]] = [{} for _ in rules]
        if not rules:
            return
        for labels in firing:
            for rule, sources in zip(rules, self._sources, strict=True):
                if not match_all(rule.source, labels):
                    continue
                both = match_all(rule.target, labels)
                values = _values(rule, labels)
                if values not in sources or not both:
                    sources[values] = (labels, both)

    def inhibited_by(self, labels: LabelSet) -> LabelSet | None:
        """The labels of an alert that inhibits this one, or None."""
        for rule, sources in zip(self._rules, self._sources, strict=True):
            found = sources.get(_values(rule, labels)) if sources else None
            if found is None or not match_all(rule.target, labels):
                continue
            source, source_is_both = found
            if source_is_both and match_all(rule.source, labels):
                continue
            return source
        return None


def _values(rule: InhibitRule, labels: LabelSet) -> _Values:
    return tuple(labels.get(name) for name in rule.equal)
