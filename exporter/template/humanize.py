"""Numbers for people: Prometheus' humanize functions."""

from __future__ import annotations

import math
from typing import Final

from exporter.template import gofloat
from exporter.template.gotime import Duration, Time, from_seconds
from exporter.template.signature import CallError
from exporter.template.values import Html, type_name

_LARGE: Final = ("k", "M", "G", "T", "P", "E", "Z", "Y")
_LARGE_1024: Final = ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi")
_SMALL: Final = ("m", "u", "n", "p", "f", "a", "z", "y")


def to_float(value: object) -> float:
    """A number, a text that holds one, or a duration (in seconds), as float64. Raises: CallError."""
    if isinstance(value, Duration):
        return int(value) / 1e9
    if isinstance(value, float):
        return value
    if isinstance(value, int) and type_name(value) in ("int", "int64"):
        return float(value)
    if isinstance(value, str) and not isinstance(value, Html):
        try:
            return gofloat.parse_float(value)
        except ValueError as error:
            raise CallError(str(error)) from error
    raise CallError(f"can't convert {type_name(value)} to float")


def significant(value: float) -> str:
    """Four significant digits, as %.4g."""
    return gofloat.special(value) or f"{value:.4g}"


def _scaled_up(value: float, base: float, prefixes: tuple[str, ...]) -> str:
    prefix = ""
    for larger in prefixes:
        if abs(value) < base:
            break
        prefix = larger
        value /= base
    return significant(value) + prefix


def _scaled_down(value: float) -> str:
    prefix = ""
    for smaller in _SMALL:
        if abs(value) >= 1:
            break
        prefix = smaller
        value *= 1000
    return significant(value) + prefix


def humanize(raw: object) -> str:
    """A number with a metric prefix: 1234 is 1.234k, 0.005 is 5m."""
    value = to_float(raw)
    if value == 0 or not math.isfinite(value):
        return significant(value)
    return _scaled_up(value, 1000, _LARGE) if abs(value) >= 1 else _scaled_down(value)


def humanize1024(raw: object) -> str:
    """A number with a binary prefix: 2048 is 2ki."""
    value = to_float(raw)
    if abs(value) <= 1 or not math.isfinite(value):
        return significant(value)
    return _scaled_up(value, 1024, _LARGE_1024)


def humanize_duration(raw: object) -> str:
    """Seconds as days, hours, minutes and seconds; under a second with a metric prefix."""
    value = to_float(raw)
    if not math.isfinite(value):
        return significant(value)
    if value == 0:
        return significant(value) + "s"
    if abs(value) < 1:
        return _scaled_down(value) + "s"
    sign, value = ("-", -value) if value < 0 else ("", value)
    whole = int(value) if value < 2**63 else -(2**63)
    minutes, seconds = _divided(whole, 60)
    hours, minutes_left = _divided(minutes, 60)
    days, hours_left = _divided(hours, 24)
    if days:
        return f"{sign}{days}d {hours_left}h {minutes_left}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes_left}m {seconds}s"
    if minutes:
        return f"{sign}{minutes}m {seconds}s"
    return f"{sign}{significant(value)}s"


def _divided(number: int, by: int) -> tuple[int, int]:
    """Quotient and rest, cut towards zero as in Go (a time beyond int64 turns negative there)."""
    quotient, rest = divmod(abs(number), by)
    return (-quotient, -rest) if number < 0 else (quotient, rest)


def humanize_percentage(raw: object) -> str:
    """A ratio as a percentage: 0.1234 is 12.34%."""
    return significant(to_float(raw) * 100) + "%"


def humanize_timestamp(raw: object) -> str:
    """Unix seconds as a date and time in UTC."""
    value = to_float(raw)
    return str(to_time(value)) if math.isfinite(value) else significant(value)


def to_time(value: float) -> Time:
    """Unix seconds as a time, cut to milliseconds. Raises: CallError."""
    if not math.isfinite(value):
        raise CallError("value is NaN or Inf")
    try:
        return from_seconds(value)
    except OverflowError:
        shown = gofloat.general(value)
        raise CallError(
            f"{shown} cannot be represented as a nanoseconds timestamp since it overflows int64"
        ) from None
