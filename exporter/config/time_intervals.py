"""Named intervals of the calendar, for routes that are muted or active at times. Pure.

Source: Alertmanager's configuration page, time_interval.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from exporter.config.positions import Reader, YamlNode

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = tuple(name.lower() for name in calendar.month_name)  # the first is empty: months count from 1
_CLOCK = re.compile(r"([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_NUMBERS = re.compile(r"(-?\d+)(?::(-?\d+))?", re.ASCII)
SPEC_KEYS = ("times", "weekdays", "days_of_month", "months", "years", "location")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class IntervalSpec:
    """One calendar pattern: each non-empty field must hold.

    Spans of minutes of the day end exclusively, all others inclusively.
    """

    minutes: tuple[Span, ...] = ()
    weekdays: tuple[Span, ...] = ()  # Sunday is 0
    days_of_month: tuple[Span, ...] = ()  # negative counts from the month's end
    months: tuple[Span, ...] = ()
    years: tuple[Span, ...] = ()
    location: str = "UTC"

    def contains(self, ts_ms: int) -> bool:
        """Whether a time (Unix milliseconds) lies in the pattern."""
        moment = datetime.fromtimestamp(ts_ms // 1000, UTC).astimezone(_zone(self.location))
        last = calendar.monthrange(moment.year, moment.month)[1]
        minute = moment.hour * 60 + moment.minute
        return (
            (not self.minutes or any(lo <= minute < hi for lo, hi in self.minutes))
            and _within(self.weekdays, (moment.weekday() + 1) % 7)
            and (
                not self.days_of_month
                or any(_in_month(span, moment.day, last) for span in self.days_of_month)
            )
            and _within(self.months, moment.month)
            and _within(self.years, moment.year)
        )


@dataclass(frozen=True, slots=True)
class TimeInterval:
    """A name for several patterns; a time lies in it when it lies in one of them."""

    name: str
    specs: tuple[IntervalSpec, ...]

    def contains(self, ts_ms: int) -> bool:
        """Whether a time (Unix milliseconds) lies in the interval."""
        return any(spec.contains(ts_ms) for spec in self.specs)


def read_time_intervals(
    reader: Reader, node: YamlNode, what: str = "time_intervals"
) -> tuple[TimeInterval, ...]:
    """The named intervals of a list."""
    found: list[TimeInterval] = []
    for item in reader.sequence(node, what):
        entries = reader.mapping(item, f"an item of {what}", ("name", "time_intervals"))
        name = reader.string(entries["name"], "name") if "name" in entries else ""
        if not name:
            reader.problem(item, "a time interval needs a name")
            continue
        if any(other.name == name for other in found):
            reader.problem(item, f'time interval "{name}" is given twice')
        specs = (
            tuple(
                _spec(reader, spec) for spec in reader.sequence(entries["time_intervals"], "time_intervals")
            )
            if "time_intervals" in entries
            else ()
        )
        found.append(TimeInterval(name, specs))
    return tuple(found)


def _spec(reader: Reader, node: YamlNode) -> IntervalSpec:
    entries = reader.mapping(node, "a time interval", SPEC_KEYS)
    location = "UTC"
    if "location" in entries:
        location = reader.string(entries["location"], "location") or "UTC"
        try:
            _zone(location)
        except (ZoneInfoNotFoundError, ValueError):
            reader.problem(
                entries["location"],
                f'unknown location "{location}"',
                "a name such as Europe/Paris, UTC or Local",
            )
            location = "UTC"

    def spans(key: str, names: Sequence[str], low: int, high: int) -> tuple[Span, ...]:
        if key not in entries:
            return ()
        found = [_span(reader, item, key, names, low, high) for item in reader.sequence(entries[key], key)]
        return tuple(span for span in found if span is not None)

    return IntervalSpec(
        minutes=_times(reader, entries["times"]) if "times" in entries else (),
        weekdays=spans("weekdays", _WEEKDAYS, 0, 6),
        days_of_month=spans("days_of_month", (), -31, 31),
        months=spans("months", _MONTHS, 1, 12),
        years=spans("years", (), 0, 9999),
        location=location,
    )


def _times(reader: Reader, node: YamlNode) -> tuple[Span, ...]:
    found = []
    for item in reader.sequence(node, "times"):
        entries = reader.mapping(item, "times", ("start_time", "end_time"))
        minutes = [_minute(reader, entries.get(key), item, key) for key in ("start_time", "end_time")]
        if minutes[0] is None or minutes[1] is None:
            continue
        if minutes[0] >= minutes[1]:
            reader.problem(
                item, "start_time must be before end_time; an interval over midnight is written as two"
            )
            continue
        found.append((minutes[0], minutes[1]))
    return tuple(found)


def _minute(reader: Reader, node: YamlNode | None, parent: YamlNode, key: str) -> int | None:
    text = reader.string(node, key) if node is not None else ""
    match = _CLOCK.fullmatch(text or "")
    minute = int(match.group(1)) * 60 + int(match.group(2)) if match else 1441
    if minute > 1440:
        reader.problem(node or parent, f"{key} must be a time of day", "HH:MM, quoted, 00:00 to 24:00")
        return None
    return minute


def _span(reader: Reader, node: YamlNode, key: str, names: Sequence[str], low: int, high: int) -> Span | None:
    text = (reader.string(node, key) or "").strip().lower()
    start, colon, end = text.partition(":")
    if names and not text.lstrip("-").replace(":", "").isdigit():
        if start not in names or (colon and end not in names) or not start:
            reader.problem(
                node, f'{key}: unknown name in "{text}"', ", ".join(name for name in names if name)
            )
            return None
        span = names.index(start), names.index(end if colon else start)
    else:
        match = _NUMBERS.fullmatch(text)
        if match is None or names is _WEEKDAYS:
            reader.problem(node, f'{key}: "{text}" is neither a number nor a range such as 1:5')
            return None
        span = int(match.group(1)), int(match.group(2) or match.group(1))
    if not (low <= span[0] <= high and low <= span[1] <= high) or (key == "days_of_month" and 0 in span):
        reader.problem(node, f'{key}: "{text}" is out of range', f"{low} to {high}")
        return None
    if span[0] > span[1] and (span[0] > 0) == (span[1] > 0):
        reader.problem(node, f'{key}: "{text}" ends before it starts')
        return None
    return span


def _within(spans: Sequence[Span], value: int) -> bool:
    return not spans or any(lo <= value <= hi for lo, hi in spans)


def _in_month(span: Span, day: int, last: int) -> bool:
    lo, hi = (bound if bound > 0 else last + 1 + bound for bound in span)
    return max(lo, 1) <= day <= min(hi, last)


def _zone(name: str) -> tzinfo | None:
    """The zone of a location; None is the machine's own."""
    return None if name == "Local" else UTC if name == "UTC" else ZoneInfo(name)
