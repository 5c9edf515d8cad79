"""Whether evaluation and notification make progress: what the heartbeat stands on."""

from __future__ import annotations

from typing import Protocol

from exporter.clock import Clock
from exporter.web.ports import RuleService

_NOTIFIER_LAG_MS = 10_000  # it ticks each second; a commit may wait for a slow disk


class _Notifier(Protocol):
    def lag_ms(self) -> int:
        """Milliseconds since the notifier last did all that was to be done."""


class Progress:
    """Says what has stalled. A rule group has where its newest evaluation is older than the beat's interval
    and two of its own; a group that was not evaluated yet has so long from the start, or from its reload."""

    def __init__(self, rules: RuleService, notifier: _Notifier, clock: Clock) -> None:
        self._rules = rules
        self._notifier = notifier
        self._clock = clock
        self._first_seen: dict[str, int] = {}

    def stalled(self, interval_ms: int) -> str:
        """What makes no progress, '' if all does; `interval_ms` is the time between two beats."""
        now_ms = self._clock.now_ms()
        views = self._rules.groups()
        if not any(view.evaluation for view in views):
            return "no rule group was evaluated yet"
        self._first_seen = {view.group.key: self._first_seen.get(view.group.key, now_ms) for view in views}
        for view in views:
            last_ms = view.evaluation.ts_ms if view.evaluation else self._first_seen[view.group.key]
            if now_ms - last_ms > max(interval_ms, 2 * view.interval_ms):
                seconds = (now_ms - last_ms) // 1000
                return f"rule group {view.group.name} was not evaluated for {seconds} s"
        lag_ms = self._notifier.lag_ms()
        if lag_ms > max(interval_ms, _NOTIFIER_LAG_MS):
            return f"the notifier has stood still for {lag_ms // 1000} s"
        return ""
