"""Query-string values as Prometheus' API reads them: times, durations, limits. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from exporter.model.durations import parse_duration

# Prometheus' API accepts these for "as far back/ahead as it goes".
MIN_TIME_MS = -(2**63) // 1_000_000
MAX_TIME_MS = 2**63 // 1_000_000 - 1
_MIN_TIME_TEXT = "-292273086-05-16T16:47:06Z"
_MAX_TIME_TEXT = "292277025-08-18T07:12:54.999999999Z"
MAX_POINTS = 11_000
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)", re.ASCII)


class ParamError(ValueError):
    """A parameter is refused; `name` is empty for faults that concern several."""

    def __init__(self, message: str, name: str = "") -> None:
        self.name = name
        super().__init__(f'invalid parameter "{name}": {message}' if name else message)


def parse_time_ms(text: str, name: str) -> int:
    """Unix milliseconds of a Unix time in seconds (fractions allowed) or an RFC 3339 time.

    Raises: ParamError with Prometheus' words.
    Source: Prometheus web/api/v1 parseTime.
    """
    if _FLOAT.fullmatch(text):
        seconds = float(text)
        if math.isfinite(seconds) and abs(seconds) < 1e15:
            return math.floor(seconds * 1000 + 0.5)
    elif match := _RFC3339.fullmatch(text):
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        fraction, sign, off_hours, off_minutes = match.groups()[6:]
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            raise ParamError(f'cannot parse "{text}" to a valid timestamp', name) from None
        ms = int(moment.timestamp()) * 1000 + (
            int(fraction[:9].ljust(9, "0")) // 1_000_000 if fraction else 0
        )
        if sign:
            shift = (int(off_hours) * 60 + int(off_minutes)) * 60_000
            ms -= shift if sign == "+" else -shift
        return ms
    elif text == _MIN_TIME_TEXT:
        return MIN_TIME_MS
    elif text == _MAX_TIME_TEXT:
        return MAX_TIME_MS
    raise ParamError(f'cannot parse "{text}" to a valid timestamp', name)


def parse_duration_ms(text: str, name: str) -> int:
    """Milliseconds of a number of seconds or a Prometheus duration.

    Raises: ParamError with Prometheus' words.
    Source: Prometheus web/api/v1 parseDuration.
    """
    if _FLOAT.fullmatch(text):
        seconds = float(text)
        if abs(seconds) >= 2**63 / 1e9:
            raise ParamError(f'cannot parse "{text}" to a valid duration. It overflows int64', name)
        return round(seconds * 1000)
    try:
        return parse_duration(text)
    except ValueError:
        raise ParamError(f'cannot parse "{text}" to a valid duration', name) from None


def parse_limit(text: str | None) -> int:
    """A result limit; 0 (or none) means no limit.

    Raises: ParamError for what is not a whole number of 0 or more.
    """
    if not text:
        return 0
    try:
        value = int(text)
    except ValueError:
        raise ParamError(f'strconv.Atoi: parsing "{text}": invalid syntax', "limit") from None
    if value < 0:
        raise ParamError("limit must be non-negative", "limit")
    return value


def check_range(start_ms: int, end_ms: int, step_ms: int) -> None:
    """The checks of query_range.

    Raises: ParamError with Prometheus' words for an end before the start, a step of 0 or less, or more
    than 11,000 points.
    """
    if end_ms < start_ms:
        raise ParamError("end timestamp must not be before start time", "end")
    if step_ms <= 0:
        raise ParamError(
            "zero or negative query resolution step widths are not accepted. Try a positive integer", "step"
        )
    if (end_ms - start_ms) // step_ms > MAX_POINTS:
        raise ParamError(
            "exceeded maximum resolution of 11,000 points per timeseries. "
            "Try decreasing the query resolution (?step=XX)"
        )


def flag(text: str | None, name: str) -> bool:
    """A boolean parameter as Go's strconv.ParseBool reads it; empty is false."""
    if not text or text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    raise ParamError(f'strconv.ParseBool: parsing "{text}": invalid syntax', name)


def only(values: Sequence[str], allowed: Sequence[str], name: str) -> str:
    """The one value of a parameter that takes a few words, '' where it is absent."""
    value = values[0].lower() if values else ""
    if value and value not in allowed:
        raise ParamError(f'not supported value "{value}"', name)
    return value
