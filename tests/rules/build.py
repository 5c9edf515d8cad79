"""Builders for rule tests: rules from text, a scripted probe, vectors from plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.model.labels import LabelSet
from exporter.rules.alert import AlertInstance
from exporter.rules.format import read_rule_file
from exporter.rules.model import AlertingRule, RuleGroup

MINUTE = 60_000


def groups(text: str, file: str = "a.yml") -> tuple[RuleGroup, ...]:
    return read_rule_file(text, file)


def alerting(expr: str = "x > 1", name: str = "A", **keys: object) -> AlertingRule:
    """One alerting rule from its YAML keys (`for_` for `for`)."""
    lines = [f"    - alert: {name}", f"      expr: {expr}"]
    lines += [f"      {key.rstrip('_')}: {value}" for key, value in keys.items()]
    (group,) = groups("groups:\n- name: g\n  rules:\n" + "\n".join(lines) + "\n")
    (rule,) = group.rules
    assert isinstance(rule, AlertingRule)
    return rule


def vector(*elements: tuple[Mapping[str, str], float]) -> list[tuple[LabelSet, float]]:
    return [(LabelSet.of(labels), value) for labels, value in elements]


class Probe:
    """Answers as told."""

    def __init__(self, data: bool = True, now: float | None = None, kept: float | None = None) -> None:
        self.data, self.now, self.kept = data, now, kept

    def has_data(self, source: LabelSet) -> bool:
        return self.data

    def value_now(self, source: LabelSet) -> float | None:
        return self.now

    def kept_value(self, source: LabelSet) -> float | None:
        return self.kept


def plain(name: str, text: str, labels: Mapping[str, str], value: float) -> str:
    """An expansion that knows {{$value}} and {{$labels.x}} only."""
    text = text.replace("{{$value}}", f"{value:g}")
    for label, content in labels.items():
        text = text.replace("{{$labels." + label + "}}", content)
    return text


def states(instances: Mapping[LabelSet, AlertInstance]) -> dict[str, str]:
    """Label text to state text."""
    return {str(labels): instance.state.text for labels, instance in instances.items()}


def kinds(transitions: Sequence[object]) -> list[str]:
    return [getattr(transition, "kind").value for transition in transitions]  # noqa: B009
