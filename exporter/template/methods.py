"""Methods that a template can call on times, durations, months and weekdays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from exporter.template.gotime import Duration, Month, Time, Weekday
from exporter.template.signature import DURATION, STRING, TIME, Function
from exporter.template.values import Int64

_Receiver = TypeVar("_Receiver")
_SECOND: Final = 1_000_000_000
_YEAR_ONE_NANOS: Final = -62_135_596_800 * _SECOND


def _bound(call: Callable[[_Receiver], object]) -> Callable[[_Receiver], Function]:
    return lambda receiver: Function(lambda _around, _values: call(receiver))


def _with(call: Callable[[_Receiver, object], object], param: str) -> Callable[[_Receiver], Function]:
    return lambda receiver: Function(lambda _around, values: call(receiver, values[0]), (param,))


def _several_results(count: int) -> Callable[[Time], Function]:
    return lambda _: Function(lambda _around, _values: None, (), None, count)


def _nanos(value: object) -> int:
    return value.nanos if isinstance(value, Time) else int(value) if isinstance(value, int) else 0


def _truncated(nanos: int, step: object, *, origin: int = 0) -> int:
    size = _nanos(step)
    return nanos if size <= 0 else nanos - (nanos - origin) % size


def _add_date(time: Time) -> Function:
    def shift(_: object, values: Sequence[object]) -> Time:
        years, months, days = (_nanos(value) for value in values)
        civil = time.civil
        month = civil.month - 1 + months
        year = civil.year + years + month // 12
        first = civil.replace(year=year, month=month % 12 + 1, day=1)
        seconds = int(first.timestamp()) + (civil.day - 1 + days) * 86_400
        return Time(seconds * _SECOND + time.nanos % _SECOND)

    return Function(shift, ("int", "int", "int"))


_TIME: Final[Mapping[str, Callable[[Time], Function]]] = MappingProxyType(
    {
        "Format": _with(lambda time, layout: time.format(str(layout)), STRING),
        "String": _bound(str),
        "Unix": _bound(lambda time: Int64(time.nanos // _SECOND)),
        "UnixMilli": _bound(lambda time: Int64(time.nanos // 1_000_000)),
        "UnixMicro": _bound(lambda time: Int64(time.nanos // 1000)),
        "UnixNano": _bound(lambda time: Int64(time.nanos)),
        "Year": _bound(lambda time: time.civil.year),
        "Month": _bound(lambda time: Month(time.civil.month)),
        "Day": _bound(lambda time: time.civil.day),
        "Hour": _bound(lambda time: time.civil.hour),
        "Minute": _bound(lambda time: time.civil.minute),
        "Second": _bound(lambda time: time.civil.second),
        "Nanosecond": _bound(lambda time: time.nanos % _SECOND),
        "YearDay": _bound(lambda time: time.civil.timetuple().tm_yday),
        "Weekday": _bound(lambda time: time.weekday),
        "UTC": _bound(lambda time: time),
        "Local": _bound(lambda time: time),
        "IsZero": _bound(lambda time: time.nanos == _YEAR_ONE_NANOS),
        "IsDST": _bound(lambda _: False),
        "Add": _with(lambda time, by: Time(time.nanos + _nanos(by)), DURATION),
        "Sub": _with(lambda time, other: Duration(time.nanos - _nanos(other)), TIME),
        "Before": _with(lambda time, other: time.nanos < _nanos(other), TIME),
        "After": _with(lambda time, other: time.nanos > _nanos(other), TIME),
        "Equal": _with(lambda time, other: time.nanos == _nanos(other), TIME),
        "Truncate": _with(
            lambda time, by: Time(_truncated(time.nanos, by, origin=_YEAR_ONE_NANOS)), DURATION
        ),
        "AddDate": _add_date,
        "Date": _several_results(3),
        "Clock": _several_results(3),
        "ISOWeek": _several_results(2),
        "Zone": _several_results(2),
    }
)


def _toward_zero(duration: Duration, step: object) -> Duration:
    nanos = _truncated(abs(int(duration)), step)
    return Duration(-nanos if duration < 0 else nanos)


def _rounded(duration: Duration, step: object) -> Duration:
    size, nanos = _nanos(step), abs(int(duration))
    if size <= 0:
        return duration
    rest = nanos % size
    nanos += -rest if rest + rest < size else size - rest
    return Duration(-nanos if duration < 0 else nanos)


_DURATION: Final[Mapping[str, Callable[[Duration], Function]]] = MappingProxyType(
    {
        "String": _bound(str),
        "Hours": _bound(lambda duration: int(duration) / (3600 * _SECOND)),
        "Minutes": _bound(lambda duration: int(duration) / (60 * _SECOND)),
        "Seconds": _bound(lambda duration: int(duration) / _SECOND),
        "Milliseconds": _bound(lambda duration: Int64(int(int(duration) / 1_000_000))),
        "Microseconds": _bound(lambda duration: Int64(int(int(duration) / 1000))),
        "Nanoseconds": _bound(lambda duration: Int64(duration)),
        "Abs": _bound(lambda duration: Duration(abs(int(duration)))),
        "Truncate": _with(_toward_zero, DURATION),
        "Round": _with(_rounded, DURATION),
    }
)


def find_method(receiver: object, name: str) -> Function | None:
    """The method of that name bound to its receiver; None where the type has none."""
    if isinstance(receiver, Time):
        bind = _TIME.get(name)
        return bind(receiver) if bind else None
    if isinstance(receiver, Duration):
        own = _DURATION.get(name)
        return own(receiver) if own else None
    if isinstance(receiver, (Month, Weekday)) and name == "String":
        return Function(lambda _around, _values: str(receiver))
    return None
