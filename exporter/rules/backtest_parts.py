"""Rules divided among workers, so that each reads only the series that its rules need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from exporter.model.labels import LabelSet
from exporter.rules.backtest_plan import reads_of, wanted_series
from exporter.rules.model import RuleGroup


def keep_rules(groups: Sequence[RuleGroup], keys: frozenset[str]) -> tuple[RuleGroup, ...]:
    """The groups with only the rules of these keys."""
    kept = (replace(group, rules=tuple(rule for rule in group.rules if rule.key in keys)) for group in groups)
    return tuple(group for group in kept if group.rules)


def divide(
    groups: Sequence[RuleGroup], sizes: Mapping[LabelSet, int], workers: int
) -> tuple[frozenset[str], ...]:
    """Rule keys for each worker; rules that read each other stay together.

    `sizes` says how much reading each series costs. The largest component first, each to the worker whose
    work it then makes the least; series that the worker reads anyway cost nothing.
    """
    costs: list[tuple[frozenset[str], dict[LabelSet, int]]] = []
    for keys in components(groups):
        wanted: Callable[[LabelSet], bool] = wanted_series(keep_rules(groups, keys))
        costs.append((keys, {labels: size for labels, size in sizes.items() if wanted(labels)}))
    parts: list[set[str]] = [set() for _ in range(workers)]
    loads: list[dict[LabelSet, int]] = [{} for _ in range(workers)]
    for keys, cost in sorted(costs, key=lambda one: -sum(one[1].values())):
        chosen = min(range(workers), key=lambda worker: sum({**loads[worker], **cost}.values()))
        parts[chosen] |= keys
        loads[chosen].update(cost)
    return tuple(frozenset(part) for part in parts if part)


def components(groups: Sequence[RuleGroup]) -> list[frozenset[str]]:
    """The keys of rules that read each other, directly or not."""
    rules = [rule for group in groups for rule in group.rules]
    root = list(range(len(rules)))

    def find(place: int) -> int:
        while root[place] != place:
            place = root[place]
        return place

    for place, rule in enumerate(rules):
        for other, writer in enumerate(rules):
            if place != other and reads_of(rule, writer):
                root[find(place)] = find(other)
    found: dict[int, set[str]] = {}
    for place, rule in enumerate(rules):
        found.setdefault(find(place), set()).add(rule.key)
    return [frozenset(keys) for keys in found.values()]
