"""Names the rules that read a metric of which no series was ever seen: a typo, or a source that is off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from exporter.clock import Clock
from exporter.loops.metrics import PipelineMetrics
from exporter.rules.emptiness import names_awaited
from exporter.rules.evaluation import GroupView

log = logging.getLogger(__name__)

_INTERVAL_S = 60.0
_PATIENCE = 5  # checks before it is logged: collectors and providers have had their turn by then

_Missing = tuple[str, str, str]  # group, rule, metric


class UnmatchedRules:
    """Checks once a minute. A metric that was there once is never missed again while the program runs."""

    def __init__(
        self,
        groups: Callable[[], Sequence[GroupView]],
        metric_names: Callable[[], Collection[str]],
        clock: Clock,
        metrics: PipelineMetrics,
    ) -> None:
        self._groups = groups
        self._metric_names = metric_names
        self._clock = clock
        self._gauge = metrics.unmatched
        self._seen: set[str] = set()
        self._missing: dict[_Missing, int] = {}  # to the number of checks that missed it

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(_INTERVAL_S)
            self.check()

    def check(self) -> None:
        """Bring the gauge up to date."""
        self._seen.update(self._metric_names())
        missing = {
            (view.group.name, rule.name, name)
            for view in self._groups()
            for rule in view.group.rules
            for name in names_awaited(rule.expr) - self._seen
        }
        for gone in self._missing.keys() - missing:
            self._gauge.remove(*gone)
        for one in missing:
            self._gauge.labels(*one).set(1)
        self._missing = {one: self._missing.get(one, 0) + 1 for one in missing}
        told: dict[str, list[str]] = {}
        for (group, rule, name), checks in sorted(self._missing.items()):
            if checks == _PATIENCE:
                told.setdefault(name, []).append(f"{group}/{rule}")
        if told:
            listed = "; ".join(f"{name} (read by {', '.join(rules)})" for name, rules in sorted(told.items()))
            log.warning("no series yet of metrics that rules read: %s", listed)
