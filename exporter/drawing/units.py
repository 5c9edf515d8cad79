"""Values in words, by the names of Grafana's units."""

from __future__ import annotations

import math
from typing import Final

from exporter.drawing.times import moment_text

_DECIMAL: Final = ("", " K", " Mil", " Bil", " Tri")
_BINARY: Final = (" B", " KiB", " MiB", " GiB", " TiB", " PiB")
_SI: Final = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
_RATES: Final = {"reqps": " req/s", "ops": " ops/s", "cps": " /s", "cpm": " /min", "wps": " writes/s"}


def value_text(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, about three digits of it unless `decimals` says otherwise.

    Source: the unit names of Grafana's field options; unknown ones are written behind the number.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    match unit:
        case "none" | "":
            return _plain(value, decimals)
        case "short":
            return _scaled(value, 1000.0, _DECIMAL, decimals)
        case "percentunit":
            return _plain(value * 100, decimals) + "%"
        case "percent":
            return _plain(value, decimals) + "%"
        case "s":
            return _duration(value, decimals)
        case "ms":
            return _duration(value / 1000, decimals)
        case "bytes" | "Bps":
            return _scaled(value, 1024.0, _BINARY, decimals) + ("/s" if unit == "Bps" else "")
        case "currencyUSD":
            return "$" + _scaled(value, 1000.0, _DECIMAL, decimals)
        case "Hs":
            return _scaled(value, 1000.0, tuple(f" {sign}H/s" for sign in _SI), decimals)
        case "dateTimeAsIso":
            return moment_text(round(value))
    return _scaled(value, 1000.0, _DECIMAL, decimals) + _RATES.get(unit, f" {unit}")


def _duration(seconds: float, decimals: int | None) -> str:
    size = abs(seconds)
    for least, divisor, sign in (
        (86_400.0, 86_400.0, " d"),
        (3600.0, 3600.0, " h"),
        (60.0, 60.0, " min"),
        (1.0, 1.0, " s"),
        (1e-3, 1e-3, " ms"),
        (1e-6, 1e-6, " µs"),
    ):
        if size >= least * 0.9995:
            return _plain(seconds / divisor, decimals) + sign
    return _plain(seconds, decimals) + " s"


def _scaled(value: float, base: float, signs: tuple[str, ...], decimals: int | None) -> str:
    power = 0
    while abs(value) >= base * 0.9995 and power + 1 < len(signs):
        value /= base
        power += 1
    return _plain(value, decimals) + signs[power]


def _plain(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 1000 else 0
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
