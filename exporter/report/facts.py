"""Figures out of answers, episodes and times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from exporter.report.model import AlertFigures, Calls, Episode, Facts, Period, Points
from exporter.report.questions import COVERAGE_STEP_MS


def facts(
    period: Period,
    answers: Mapping[str, Points],
    times: Mapping[str, Calls],
    episodes: Sequence[Episode],
) -> Facts:
    """The figures of a period; `answers` are those to `questions.figures`."""
    return Facts(
        coverage=_coverage(answers["coverage"], period),
        database_up=_one(answers["database_up"]),
        provider_up=_each(answers["provider_up"]),
        calls=_each(answers["calls"]),
        errors=_each(answers["errors"]),
        times=times,
        limit_use=_each(answers["limit_use"]),
        cache_hits=_one(answers["cache_hits"]),
        data_quality=_one(answers["data_quality"]),
        accuracy=_one(answers["accuracy"]),
        alerts=alert_figures(period, episodes),
    )


def alert_figures(period: Period, episodes: Sequence[Episode]) -> tuple[AlertFigures, ...]:
    """What each alert did, the noisiest first: most notifications, then most episodes."""
    by_name: dict[str, list[Episode]] = {}
    for one in episodes:
        by_name.setdefault(one.alert, []).append(one)
    found = [_alert(name, ones, period) for name, ones in by_name.items()]
    return tuple(sorted(found, key=lambda one: (-one.sent, -one.episodes, -one.firing_s, one.name)))


def _alert(name: str, episodes: Sequence[Episode], period: Period) -> AlertFigures:
    lengths = [
        max(0, min(one.end_ms or period.end_ms, period.end_ms) - max(one.start_ms, period.start_ms)) / 1000
        for one in episodes
    ]
    instances: dict[str, int] = {}
    for one in episodes:
        instances[one.instance] = instances.get(one.instance, 0) + 1
    return AlertFigures(
        name=name,
        severity=episodes[-1].severity,
        episodes=len(episodes),
        instances=len(instances),
        flapping=sum(count for count in instances.values() if count > 1),
        firing_s=sum(lengths),
        longest_s=max(lengths),
        sent=sum(one.sent for one in episodes),
        held_back=sum(one.held_back for one in episodes),
        by_hand=sum(one.by_hand for one in episodes),
        open=sum(one.end_ms is None for one in episodes),
    )


def begun(period: Period, episodes: Sequence[Episode]) -> Points:
    """How many episodes of each severity began in each step of a period."""
    steps = range(period.start_ms + period.step_ms, period.end_ms + 1, period.step_ms)
    counts: dict[str, dict[int, int]] = {}
    for one in episodes:
        at = (one.start_ms - period.start_ms) // period.step_ms
        if 0 <= at < len(steps):
            column = counts.setdefault(one.severity, dict.fromkeys(steps, 0))
            column[steps[at]] += 1
    return {
        severity: tuple((at, float(count)) for at, count in column.items())
        for severity, column in sorted(counts.items())
    }


def _coverage(points: Points, period: Period) -> float:
    """The share of the period that was observed, by steps of five minutes."""
    seen = max((len(series) for series in points.values()), default=0)
    return min(1.0, seen / max(1, (period.end_ms - period.start_ms) // COVERAGE_STEP_MS))


def _one(points: Points) -> float | None:
    """The newest value of the only series."""
    values = list(_each(points).values())
    return values[0] if values else None


def _each(points: Points) -> dict[str, float]:
    newest = {name: series[-1][1] for name, series in points.items() if series}
    return {name: value for name, value in sorted(newest.items()) if not math.isnan(value)}
