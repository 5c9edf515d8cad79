"""Functions of one value: arithmetic, trigonometry, parts of dates.

Source: Prometheus' functions page. Dates are UTC and proleptic Gregorian.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from exporter.model.samples import Float64s, Int64s

Days = npt.NDArray[np.datetime64]

_DAY: Final = 86_400
_TOO_LATE: Final = 2**63


def _sgn(values: Float64s) -> Float64s:
    return np.where(values < 0, -1.0, np.where(values > 0, 1.0, values))


UNARY: Final[Mapping[str, Callable[[Float64s], Float64s]]] = MappingProxyType(
    {
        "abs": np.abs,
        "ceil": np.ceil,
        "floor": np.floor,
        "exp": np.exp,
        "sqrt": np.sqrt,
        "ln": np.log,
        "log2": np.log2,
        "log10": np.log10,
        "sin": np.sin,
        "cos": np.cos,
        "tan": np.tan,
        "asin": np.arcsin,
        "acos": np.arccos,
        "atan": np.arctan,
        "sinh": np.sinh,
        "cosh": np.cosh,
        "tanh": np.tanh,
        "asinh": np.arcsinh,
        "acosh": np.arccosh,
        "atanh": np.arctanh,
        "rad": lambda values: values * np.pi / 180,
        "deg": lambda values: values * 180 / np.pi,
        "sgn": _sgn,
    }
)


def clamp(values: Float64s, least: Float64s, most: Float64s) -> Float64s:
    """Values held between two bounds (T,); NaN anywhere gives NaN."""
    held: Float64s = np.maximum(least, np.minimum(most, values))
    return held


def round_to(values: Float64s, nearest: Float64s | float) -> Float64s:
    """Values rounded to a multiple, halves up."""
    inverse = 1.0 / np.asarray(nearest, np.float64)
    rounded: Float64s = np.floor(values * inverse + 0.5) / inverse
    return rounded


def _floats(values: npt.NDArray[np.int64]) -> Float64s:
    return values.astype(np.float64)


def _split(values: Float64s) -> tuple[Int64s, Int64s]:
    """Whole Unix seconds, towards zero, as days and seconds of the day.

    What does not fit 64 bits, NaN too, counts as 2^63 s, as in Prometheus on most machines.
    """
    fits = np.abs(values) < _TOO_LATE
    days, seconds = np.divmod(np.where(fits, np.trunc(values), 0.0).astype(np.int64), _DAY)
    return np.where(fits, days, _TOO_LATE // _DAY), np.where(fits, seconds, _TOO_LATE % _DAY)


def _days(values: Float64s) -> Days:
    return _split(values)[0].astype("datetime64[D]")


def _year(values: Float64s) -> Float64s:
    return _floats(_days(values).astype("datetime64[Y]").astype(np.int64) + 1970)


def _month(values: Float64s) -> Float64s:
    return _floats(_days(values).astype("datetime64[M]").astype(np.int64) % 12 + 1)


def _day_of_month(values: Float64s) -> Float64s:
    days = _days(values)
    return _floats((days - days.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64) + 1)


def _day_of_year(values: Float64s) -> Float64s:
    days = _days(values)
    return _floats((days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1)


def _day_of_week(values: Float64s) -> Float64s:
    return _floats((_split(values)[0] + 4) % 7)


def _days_in_month(values: Float64s) -> Float64s:
    months = _days(values).astype("datetime64[M]")
    following = (months + np.timedelta64(1, "M")).astype("datetime64[D]")
    return _floats((following - months.astype("datetime64[D]")).astype(np.int64))


DATES: Final[Mapping[str, Callable[[Float64s], Float64s]]] = MappingProxyType(
    {
        "minute": lambda values: _floats(_split(values)[1] // 60 % 60),
        "hour": lambda values: _floats(_split(values)[1] // 3600),
        "day_of_week": _day_of_week,
        "day_of_month": _day_of_month,
        "day_of_year": _day_of_year,
        "days_in_month": _days_in_month,
        "month": _month,
        "year": _year,
    }
)
