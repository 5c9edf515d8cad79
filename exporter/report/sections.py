"""What a report says: sentences, tables and series, whatever they are written as."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.drawing.chart import Look
from exporter.drawing.times import moment_text
from exporter.drawing.units import value_text
from exporter.report.model import AlertFigures, Facts, Points, Report

_UNKNOWN = "–"
_SHOWN = 12
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it; numeric columns are those after the first `words`."""

    title: str
    sentences: tuple[str, ...]
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plot: Points | None = None
    plot_title: str = ""
    look: Look = Look()
    words: int = 1


def title_of(report: Report) -> str:
    """The report's title."""
    return f"The {report.period.name} to {moment_text(report.period.end_ms)[:16]} UTC"


def sections(report: Report) -> list[Section]:
    """The report, the most important first."""
    found = [
        Section("In short", tuple(_short(report))),
        _availability(report),
        _budget(report),
        _latency(report),
        _alerts(report),
        _limits(report),
        _platform(report),
    ]
    return [one for one in found if one.sentences or one.rows]


# -- in short -----------------------------------------------------------------------------------------


def _short(report: Report) -> Iterator[str]:
    now, before, period = report.now, report.before, report.period
    covered = now.coverage or 0.0
    if covered < 0.99:
        yield (
            f"The exporter observed {percent(covered)} of the {period.name}; what follows is about that part."
        )
    if now.database_up is not None:
        yield (
            f"The database answered {percent(now.database_up)} of the time"
            f"{_compared(now.database_up, before.database_up, percent, period.name)}."
        )
    objective = percent(report.objective)
    missed = [name for name in now.calls if (now.budget_used(name, report.objective) or 0.0) > 1]
    known = [name for name in now.calls if now.success(name) is not None]
    if known and not missed:
        yield f"All {len(known)} providers kept to the objective of {objective} successful calls."
    elif missed:
        worst = max(missed, key=lambda name: now.budget_used(name, report.objective) or 0.0)
        names = ", ".join(sorted(missed))
        yield (
            f"{len(missed)} of {len(known)} providers missed the objective of {objective} "
            f"successful calls: {names}. Worst: {worst} with {percent(now.success(worst))}."
        )
    if now.times:
        slow = max(now.times, key=lambda name: now.times[name].p95_ms)
        worst_ms = _ms(now.times[slow].p95_ms)
        yield f"The slowest provider was {slow}: 95 of 100 calls took up to {worst_ms}."
    yield _noise(now, before, period.name)
    if now.limit_use:
        tight = max(now.limit_use, key=lambda name: now.limit_use[name])
        yield f"The tightest limit was {tight}: at most {percent(now.limit_use[tight])} of it was used."


def _noise(now: Facts, before: Facts, name: str) -> str:
    episodes = sum(one.episodes for one in now.alerts)
    if not episodes:
        return "No alert fired."
    sent, held = (sum(getattr(one, field) for one in now.alerts) for field in ("sent", "held_back"))
    loud = now.alerts[0]
    earlier = sum(one.episodes for one in before.alerts)
    compared = f" ({earlier} the {name} before)" if before.coverage else ""
    return (
        f"{_count(episodes, 'alert episode')}{compared}, {_count(sent, 'notification')} sent, "
        f"{held} held back by cooldowns. Loudest: {loud.name} with {_count(loud.episodes, 'episode')} "
        f"and {_count(loud.sent, 'notification')}."
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _compared(now: float, before: float | None, text: Callable[[float], str], name: str) -> str:
    if before is None:
        return ""
    if text(now) == text(before):
        return f", as the {name} before"
    return f", {'better' if now > before else 'worse'} than the {text(before)} of the {name} before"


# -- the tables ---------------------------------------------------------------------------------------


def _availability(report: Report) -> Section:
    now, before = report.now, report.before
    rows = []
    if now.database_up is not None:
        rows.append(
            (
                "database",
                percent(now.database_up),
                percent(before.database_up),
                _lost(report, now.database_up),
            )
        )
    rows += [
        (name, percent(up), percent(before.provider_up.get(name)), _lost(report, up))
        for name, up in sorted(now.provider_up.items(), key=lambda item: item[1])
    ]
    return Section(
        "Availability",
        ("The share of the observed time in which the last probe or poll had succeeded.",) if rows else (),
        ("what", "up", "before", "time down"),
        tuple(rows),
        report.plots.get("Availability"),
        "Availability by provider",
        Look("percentunit", highest=1.0, step_ms=report.period.step_ms, fill=0, calcs=("min", "mean")),
    )


def _lost(report: Report, up: float) -> str:
    """Time down, of what was observed."""
    seconds = (1 - up) * (report.now.coverage or 0.0) * (report.period.end_ms - report.period.start_ms) / 1000
    return "0" if seconds < 0.5 else value_text(seconds, "s")


def _budget(report: Report) -> Section:
    now, before = report.now, report.before
    names = sorted(
        (name for name in now.calls if now.success(name) is not None),
        key=lambda name: -(now.budget_used(name, report.objective) or 0.0),
    )
    rows = tuple(
        (
            name,
            f"{now.calls[name]:.0f}",
            f"{now.errors.get(name, 0.0):.0f}",
            percent(now.success(name)),
            percent(before.success(name)),
            percent(now.budget_used(name, report.objective)),
        )
        for name in names
    )
    meaning = (
        f"An objective of {percent(report.objective)} leaves {percent(1 - report.objective)} of a provider's "
        "calls to fail. Over 100 % of that budget used: the objective was missed."
    )
    return Section(
        "Error budget",
        (meaning,) if rows else (),
        ("provider", "calls", "failed", "succeeded", "before", "budget used"),
        rows,
        report.plots.get("Error budget"),
        "Failed calls by kind",
        Look(step_ms=report.period.step_ms, lowest=0, stacked=True, bars=True, calcs=("sum", "max")),
    )


def _latency(report: Report) -> Section:
    now, before = report.now.times, report.before.times
    rows = tuple(
        (
            name,
            str(calls.count),
            _ms(calls.mean_ms),
            _ms(calls.p50_ms),
            _ms(calls.p95_ms),
            _ms(before[name].p95_ms) if name in before else _UNKNOWN,
            _ms(calls.p99_ms),
        )
        for name, calls in sorted(now.items(), key=lambda item: -item[1].p95_ms)
    )
    return Section(
        "Latency",
        ("Times of the measured calls, exact, cache hits not among them.",) if rows else (),
        ("provider", "calls", "mean", "p50", "p95", "p95 before", "p99"),
        rows[:_SHOWN],
        report.plots.get("Latency"),
        "p95 by provider",
        Look("ms", lowest=0, step_ms=report.period.step_ms, fill=0, calcs=("mean", "max")),
    )


def _alerts(report: Report) -> Section:
    before = {one.name: one for one in report.before.alerts}
    rows = tuple(_alert_row(one, before.get(one.name), report) for one in report.now.alerts)
    quiet = [name for name in before if name not in {one.name for one in report.now.alerts}]
    sentences = ["Sorted by notifications sent. Flapping: episodes of instances that fired more than once."]
    if quiet:
        sentences.append(f"Fired the {report.period.name} before and not now: {', '.join(sorted(quiet))}.")
    return Section(
        "Noisiest alerts",
        tuple(sentences) if rows or quiet else (),
        (
            "alert", "severity", "episodes", "before", "flapping", "firing", "longest", "sent", "held back",
            "by hand", "open",
        ),
        rows[:_SHOWN],
        report.plots.get("Noisiest alerts"),
        "Episodes begun",
        Look(step_ms=report.period.step_ms, lowest=0, stacked=True, bars=True, calcs=("sum",)),
        words=2,
    )  # fmt: skip


def _alert_row(one: AlertFigures, before: AlertFigures | None, report: Report) -> tuple[str, ...]:
    earlier = (str(before.episodes) if before else "0") if report.before.coverage else _UNKNOWN
    return (
        one.name,
        one.severity,
        str(one.episodes),
        earlier,
        str(one.flapping),
        value_text(one.firing_s, "s"),
        value_text(one.longest_s, "s"),
        str(one.sent),
        str(one.held_back),
        str(one.by_hand),
        str(one.open),
    )


def _limits(report: Report) -> Section:
    now, before = report.now.limit_use, report.before.limit_use
    rows = tuple(
        (name, percent(use), percent(before.get(name)))
        for name, use in sorted(now.items(), key=lambda item: -item[1])
    )
    return Section(
        "Limits",
        ("The most that was used of each window's limit at any snapshot.",) if rows else (),
        ("provider / window", "highest use", "before"),
        rows,
        report.plots.get("Limits"),
        "Highest use by window",
        Look("percentunit", lowest=0, step_ms=report.period.step_ms, fill=0, calcs=("mean", "max")),
    )


def _platform(report: Report) -> Section:
    now, before = report.now, report.before
    figures = (
        ("data quality, mean", now.data_quality, before.data_quality),
        ("prediction accuracy, newest", now.accuracy, before.accuracy),
        ("cache hit ratio", now.cache_hits, before.cache_hits),
    )
    rows = tuple(
        (name, percent(value), percent(earlier)) for name, value, earlier in figures if value is not None
    )
    return Section("Platform", (), ("what", "now", "before"), rows)


def percent(ratio: float | None) -> str:
    """A ratio in percent: two digits after the point close to 100, so that 99.99 is not all."""
    if ratio is None:
        return _UNKNOWN
    value = ratio * 100
    digits = 2 if 99 < value < 100 else 1
    text = f"{value:.{digits}f}"
    if value < 100 and text.startswith("100"):
        text = "99.99"
    return text.rstrip("0").rstrip(".") + " %" if "." in text else text + " %"


def _ms(value: float) -> str:
    return value_text(value, "ms")


def spark(values: Sequence[float]) -> str:
    """Values as a row of bars from the lowest of them to the highest; NaN is a blank."""
    known = [value for value in values if not math.isnan(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(" " if math.isnan(value) else _bar(value, low, high) for value in values)


def _bar(value: float, low: float, high: float) -> str:
    return _BARS[len(_BARS) // 2 if high == low else round((value - low) / (high - low) * (len(_BARS) - 1))]


def series_of(section: Section) -> Mapping[str, tuple[tuple[int, float], ...]]:
    """The series of a section's plot that have points."""
    return {name: points for name, points in (section.plot or {}).items() if points}
