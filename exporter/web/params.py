"""Query-string values as Prometheus' API reads them: times, durations, limits. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from exporter.model.durations import parse_duration

# Prometheus' API accepts these for "as far back/ahead as it goes".
MIN_TIME_MS = -(2**63) // 1_000_000
MAX_TIME_MS = 2**63 // 1_000_000 - 1
_MIN_TIME_TEXT = "-292273086-05-16T16:47:06Z"
_MAX_TIME_TEXT = "292277025-08-18T07:12:54.999999999Z"
MAX_POINTS = 11_000
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_FLOAT = re.compile(r"[+-]?(\d+(_\d+)*\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SPECIAL = re.compile(r"[+-]?(inf|infinity)|nan", re.ASCII | re.IGNORECASE)

Params = Mapping[str, Sequence[str]]


def read_params(*texts: str) -> dict[str, list[str]]:
    """The parameters of encoded forms (a body, a query string) of ASCII text, in the order of the forms."""
    params: dict[str, list[str]] = {}
    for text in texts:
        for pair in text.split("&") if text else ():
            name, _, value = pair.partition("=")
            if pair:
                params.setdefault(_decoded(name), []).append(_decoded(value))
    return params


def _decoded(text: str) -> str:
    text = text.replace("+", " ")
    return _unquoted(text) if "%" in text else text


@lru_cache(maxsize=512)
def _unquoted(text: str) -> str:
    """Rules and dashboards ask for the same texts again and again."""
    return unquote_to_bytes(text).decode("utf-8", "replace")


def first(params: Params, name: str) -> str:
    """The first value of a parameter, '' without any."""
    values = params.get(name)
    return values[0] if values else ""


class ParamError(ValueError):
    """A parameter is refused; `name` is empty for faults that concern several."""

    def __init__(self, message: str, name: str = "") -> None:
        self.name = name
        super().__init__(f'invalid parameter "{name}": {message}' if name else message)


def go_float(text: str) -> float | None:
    """The decimal number, infinity or NaN that Go's strconv.ParseFloat reads; None for other text."""
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text) if _SPECIAL.fullmatch(text) else None


def parse_time_ms(text: str, name: str) -> int:
    """Unix milliseconds of a Unix time in seconds (fractions allowed) or an RFC 3339 time.

    Numbers that no time stands for (NaN, infinity, more than 1e15 seconds) are refused.
    Raises: ParamError with Prometheus' words.
    Source: Prometheus web/api/v1 parseTime.
    """
    if (seconds := go_float(text)) is not None:
        if math.isfinite(seconds) and abs(seconds) < 1e15:
            fraction, whole = math.modf(seconds)
            return int(whole) * 1000 + int(math.copysign(math.floor(abs(fraction) * 1000 + 0.5), fraction))
    elif match := _RFC3339.fullmatch(text):
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        digits, sign, off_hours, off_minutes = match.groups()[6:]
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            raise ParamError(f'cannot parse "{text}" to a valid timestamp', name) from None
        ms = int(moment.timestamp()) * 1000 + (int(digits[:9].ljust(9, "0")) // 1_000_000 if digits else 0)
        if sign:
            shift = (int(off_hours) * 60 + int(off_minutes)) * 60_000
            ms -= shift if sign == "+" else -shift
        return ms
    elif text == _MIN_TIME_TEXT:
        return MIN_TIME_MS
    elif text == _MAX_TIME_TEXT:
        return MAX_TIME_MS
    raise ParamError(f'cannot parse "{text}" to a valid timestamp', name)


def optional_time_ms(text: str, name: str, default: int) -> int:
    """As `parse_time_ms`, for parameters that may be left out. Raises: ParamError."""
    if not text:
        return default
    try:
        return parse_time_ms(text, "")
    except ParamError as error:
        raise ParamError(f"Invalid time value for '{name}': {error}", name) from None


def parse_duration_ms(text: str, name: str) -> int:
    """Milliseconds of a number of seconds or a Prometheus duration.

    Raises: ParamError with Prometheus' words.
    Source: Prometheus web/api/v1 parseDuration.
    """
    if (seconds := go_float(text)) is not None:
        if math.isnan(seconds):
            return -1  # to Go the least number there is
        if abs(seconds) >= 2**63 / 1e9:
            raise ParamError(f'cannot parse "{text}" to a valid duration. It overflows int64', name)
        return int(seconds * 1000) or int(math.copysign(seconds != 0, seconds))  # at least a millisecond
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
    value = go_int(text)
    if value is None:
        raise ParamError(f'strconv.Atoi: parsing "{text}": invalid syntax', "limit")
    if abs(value) >= 2**63:
        raise ParamError(f'strconv.Atoi: parsing "{text}": value out of range', "limit")
    if value < 0:
        raise ParamError("limit must be non-negative", "limit")
    return value


def go_int(text: str) -> int | None:
    """The whole number that Go's strconv.Atoi reads; None for other text."""
    return int(text) if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else None


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
