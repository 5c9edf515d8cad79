"""What a backtest draws: one lane per alert, firing spans, and where notifications left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.rules.backtest import AlertReplay, Replay
from exporter.rules.backtest_notify import notifications


@dataclass(frozen=True, slots=True)
class Lane:
    """One alert's line. `spans` are (start, end) in Unix ms; `sent_ms` are times of firing notifications.

    `has_data` False: the history lacks what the rule reads, so that its silence says nothing.
    """

    name: str
    severity: str
    spans: tuple[tuple[int, int], ...]
    sent_ms: tuple[int, ...]
    episodes: int
    firing_ms: int
    has_data: bool = True

    @property
    def silence(self) -> str:
        """What to say where it never fires."""
        return "never" if self.has_data else "no data"

    def share(self, start_ms: int, end_ms: int) -> float:
        """Which part of a time range it fires, by any instance."""
        inside = sum(max(0, min(end, end_ms) - max(start, start_ms)) for start, end in self.spans)
        return min(1.0, inside / max(1, end_ms - start_ms))


def lanes(result: Replay) -> tuple[Lane, ...]:
    """One lane for each alert, in the order of the rule files."""
    return tuple(_lane(alert, result.end_ms) for alert in result.alerts)


def _lane(alert: AlertReplay, end_ms: int) -> Lane:
    spans = merged([(one.start_ms, one.end_ms or end_ms) for one in alert.episodes])
    return Lane(
        name=alert.rule.name,
        severity=alert.rule.severity,
        spans=spans,
        sent_ms=tuple(one.at_ms for one in notifications(alert, end_ms) if one.is_firing),
        episodes=len(alert.episodes),
        firing_ms=sum(end - start for start, end in spans),
        has_data=not alert.missing,
    )


def merged(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans joined where they touch or overlap, in order."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


_CELLS = " ▁▂▃▄▅▆▇█"


def cells(lane: Lane, start_ms: int, end_ms: int, width: int) -> str:
    """A lane as characters, each as high as the share of its time that the alert fires.

    Any firing shows: the lowest bar stands for everything above nothing.
    """
    edges = [start_ms + (end_ms - start_ms) * column // width for column in range(width + 1)]
    out = []
    for low, high in pairwise(edges):
        fires = any(start < high and end >= low for start, end in lane.spans)
        share = lane.share(low, high)
        out.append(_CELLS[max(1, round(share * 8))] if fires else "·")
    return "".join(out)
