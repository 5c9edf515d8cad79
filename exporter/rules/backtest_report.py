"""The figures of a backtest, and of a comparison of two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.rules.backtest import AlertReplay, Episode, Replay
from exporter.rules.backtest_notify import Sent, notifications
from exporter.rules.timeline import merged

_WEEK_MS = 604_800_000


@dataclass(frozen=True, slots=True)
class AlertFigures:
    """One alert in numbers.

    `sent` counts firing notifications with the rule's cooldown, `sent_without` those without one (one for
    each episode), `resolved` the notifications of an end. `held_back` counts episodes that began inside a
    cooldown and were not sent at once. `firing_ms` is the time in which any instance fires, `longest_ms` that
    of the longest episode.
    """

    name: str
    severity: str
    episodes: int
    cleared: int
    firing_ms: int
    longest_ms: int
    sent: int
    sent_without: int
    resolved: int
    held_back: int
    failed: int
    error: str

    def per_week(self, span_ms: int) -> float:
        """Firing notifications per week."""
        return self.sent * _WEEK_MS / max(1, span_ms)


def figures(result: Replay) -> tuple[AlertFigures, ...]:
    """The figures of every alert, in the order of the rule files."""
    return tuple(_figures(alert, result.end_ms) for alert in result.alerts)


def _figures(alert: AlertReplay, end_ms: int) -> AlertFigures:
    sent = notifications(alert, end_ms)
    firing = [one for one in sent if one.is_firing]
    starts = {one.id: one.start_ms for one in alert.episodes}
    at_once = {one.episode_id for one in firing if starts[one.episode_id] == one.at_ms}
    spans = merged([(one.start_ms, one.end_ms or end_ms) for one in alert.episodes])
    return AlertFigures(
        name=alert.rule.name,
        severity=alert.rule.severity,
        episodes=len(alert.episodes),
        cleared=alert.cleared,
        firing_ms=sum(end - start for start, end in spans),
        longest_ms=max(((one.end_ms or end_ms) - one.start_ms for one in alert.episodes), default=0),
        sent=len(firing),
        sent_without=len(alert.episodes),
        resolved=len(sent) - len(firing),
        held_back=len(alert.episodes) - len(at_once),
        failed=alert.failed,
        error=alert.error,
    )


def to_json(result: Replay) -> dict[str, object]:
    """The whole result as JSON values; times are RFC 3339."""
    return {
        "from": iso(result.start_ms),
        "to": iso(result.end_ms),
        "alerts": [
            _alert_json(alert, one, result.end_ms)
            for alert, one in zip(result.alerts, figures(result), strict=True)
        ],
    }


def _alert_json(alert: AlertReplay, one: AlertFigures, end_ms: int) -> dict[str, object]:
    return {
        "alert": one.name,
        "group": alert.group.name,
        "file": alert.group.file,
        "severity": one.severity,
        "firingSeconds": one.firing_ms / 1000,
        "notifications": {
            "withCooldown": one.sent,
            "withoutCooldown": one.sent_without,
            "resolved": one.resolved,
            "heldBack": one.held_back,
        },
        "pendingOnly": one.cleared,
        "failedEvaluations": one.failed,
        "error": one.error,
        "missing": list(alert.missing),
        "episodes": [_episode_json(episode, end_ms) for episode in alert.episodes],
        "sent": [_sent_json(sent) for sent in notifications(alert, end_ms)],
    }


def _episode_json(one: Episode, end_ms: int) -> dict[str, object]:
    return {
        "id": one.id,
        "labels": one.labels.as_dict(),
        "pendingSince": iso(one.since_ms),
        "start": iso(one.start_ms),
        "end": iso(one.end_ms) if one.end_ms else None,
        "seconds": ((one.end_ms or end_ms) - one.start_ms) / 1000,
        "peak": one.peak if math.isfinite(one.peak) else str(one.peak),
        "resolveReason": one.reason.value if one.reason else None,
    }


def _sent_json(one: Sent) -> dict[str, object]:
    return {
        "at": iso(one.at_ms),
        "episode": one.episode_id,
        "why": one.reason.value,
        "suppressed": one.suppressed,
    }


@dataclass(frozen=True, slots=True)
class Difference:
    """One alert under the rules and under the other ones; None where it is not among them.

    `added` are episodes that only the other rules have, `gone` those that only these have: an episode is the
    same where one of equal labels overlaps it.
    """

    name: str
    before: AlertFigures | None
    after: AlertFigures | None
    added: tuple[Episode, ...]
    gone: tuple[Episode, ...]

    @property
    def is_same(self) -> bool:
        """Whether nothing that is counted differs."""
        return self.before == self.after and not self.added and not self.gone


def compare(result: Replay, other: Replay) -> tuple[Difference, ...]:
    """What other rules would have changed, by alert name; those of the other rules alone come last."""
    ours, theirs = _by_name(result), _by_name(other)
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        mine, its = ours.get(name, []), theirs.get(name, [])
        episodes = [one for alert in mine for one in alert.episodes]
        others = [one for alert in its for one in alert.episodes]
        found.append(
            Difference(
                name,
                _total(mine, result.end_ms),
                _total(its, other.end_ms),
                tuple(_unmatched(others, episodes, result.end_ms)),
                tuple(_unmatched(episodes, others, result.end_ms)),
            )
        )
    return tuple(found)


def _by_name(result: Replay) -> dict[str, list[AlertReplay]]:
    found: dict[str, list[AlertReplay]] = {}
    for alert in result.alerts:
        found.setdefault(alert.rule.name, []).append(alert)
    return found


def _total(alerts: list[AlertReplay], end_ms: int) -> AlertFigures | None:
    parts = [_figures(alert, end_ms) for alert in alerts]
    if len(parts) < 2:
        return parts[0] if parts else None
    first = parts[0]
    return AlertFigures(
        first.name,
        first.severity,
        sum(one.episodes for one in parts),
        sum(one.cleared for one in parts),
        sum(one.firing_ms for one in parts),
        max(one.longest_ms for one in parts),
        sum(one.sent for one in parts),
        sum(one.sent_without for one in parts),
        sum(one.resolved for one in parts),
        sum(one.held_back for one in parts),
        sum(one.failed for one in parts),
        next((one.error for one in parts if one.error), ""),
    )


def _unmatched(episodes: Iterable[Episode], others: Iterable[Episode], end_ms: int) -> list[Episode]:
    by_labels: dict[object, list[Episode]] = {}
    for other in others:
        by_labels.setdefault(_identity(other), []).append(other)
    return [
        one
        for one in episodes
        if not any(
            other.start_ms <= (one.end_ms or end_ms) and (other.end_ms or end_ms) >= one.start_ms
            for other in by_labels.get(_identity(one), ())
        )
    ]


def _identity(one: Episode) -> object:
    return one.labels.without(("severity",))  # a change of severity is no other episode


def difference_json(differences: Iterable[Difference]) -> list[Mapping[str, object]]:
    """A comparison as JSON values."""
    return [
        {
            "alert": one.name,
            "before": _counts(one.before),
            "after": _counts(one.after),
            "added": [_episode_json(episode, episode.end_ms or episode.start_ms) for episode in one.added],
            "gone": [_episode_json(episode, episode.end_ms or episode.start_ms) for episode in one.gone],
        }
        for one in differences
    ]


def _counts(one: AlertFigures | None) -> dict[str, object] | None:
    if one is None:
        return None
    return {"episodes": one.episodes, "firingSeconds": one.firing_ms / 1000, "notifications": one.sent}


def iso(at_ms: int) -> str:
    """RFC 3339, UTC, with milliseconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
