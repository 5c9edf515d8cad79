"""Go's time.Time (in UTC), time.Duration, time.Month and time.Weekday, as far as templates reach them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_DEFAULT_LAYOUT: Final = "2006-01-02 15:04:05.999999999 -0700 MST"
# longest first where one is the start of another, as Go's layout reader prefers
_LAYOUT: Final = re.compile(
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|2006|002|01|02|03|04|05|06|15|PM|pm"
    r"|-07:00:00|-070000|-07:00|-0700|-07|Z07:00:00|Z070000|Z07:00|Z0700|Z07"
    r"|[.,](?:0+|9+)(?!\d)|__2|_2(?!006)|1|2|3|4|5"
)


class Duration(int):
    """time.Duration: integer nanoseconds."""

    go_type = "time.Duration"

    def __str__(self) -> str:
        """As Go prints it: 1h2m3.5s, 15ms, 0s."""
        nanos = abs(int(self))
        sign = "-" if self < 0 else ""
        if nanos == 0:
            return "0s"
        for unit, size in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)):
            if nanos < size * 1000 and nanos < 1_000_000_000:
                return f"{sign}{_scaled(nanos, size)}{unit}"
        minutes, rest = divmod(nanos, 60_000_000_000)
        hours, minutes = divmod(minutes, 60)
        head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
        return f"{sign}{head}{_scaled(rest, 1_000_000_000)}s"

    __repr__ = __str__


def _scaled(nanos: int, size: int) -> str:
    whole, rest = divmod(nanos, size)
    fraction = f"{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


class Month(int):
    """time.Month, 1 to 12."""

    go_type = "time.Month"

    def __str__(self) -> str:
        return _MONTHS[self - 1] if 1 <= self <= 12 else f"%!Month({int(self)})"


class Weekday(int):
    """time.Weekday, Sunday is 0."""

    go_type = "time.Weekday"

    def __str__(self) -> str:
        return _DAYS[self] if 0 <= self <= 6 else f"%!Weekday({int(self)})"


@dataclass(frozen=True, slots=True, order=True)
class Time:
    """A *time.Time in UTC, as integer nanoseconds since the epoch."""

    nanos: int

    @property
    def go_type(self) -> str:
        """The name of the Go type."""
        return "*time.Time"

    @property
    def civil(self) -> datetime:
        """Date and time of day, whole seconds."""
        return _EPOCH + timedelta(seconds=self.nanos // 1_000_000_000)

    def __str__(self) -> str:
        return self.format(_DEFAULT_LAYOUT)

    @property
    def weekday(self) -> Weekday:
        """The day of the week."""
        return Weekday(self.civil.isoweekday() % 7)

    def format(self, layout: str) -> str:
        """The time in Go's reference layout (Mon Jan 2 15:04:05 MST 2006)."""
        return _LAYOUT.sub(lambda match: self._element(match.group()), layout)

    def _element(self, token: str) -> str:
        civil = self.civil
        if token[0] in ".,":
            digits = f"{self.nanos % 1_000_000_000:09d}"[: len(token) - 1]
            if token[1] == "9":
                digits = digits.rstrip("0")
            return token[0] + digits if digits else ""
        hour12 = civil.hour % 12 or 12
        table = {
            "2006": f"{civil.year:04d}", "06": f"{civil.year % 100:02d}",
            "January": _MONTHS[civil.month - 1], "Jan": _MONTHS[civil.month - 1][:3],
            "01": f"{civil.month:02d}", "1": str(civil.month),
            "Monday": str(self.weekday), "Mon": str(self.weekday)[:3],
            "02": f"{civil.day:02d}", "_2": f"{civil.day:2d}", "2": str(civil.day),
            "002": f"{civil.timetuple().tm_yday:03d}", "__2": f"{civil.timetuple().tm_yday:3d}",
            "15": f"{civil.hour:02d}", "03": f"{hour12:02d}", "3": str(hour12),
            "04": f"{civil.minute:02d}", "4": str(civil.minute),
            "05": f"{civil.second:02d}", "5": str(civil.second),
            "PM": "PM" if civil.hour >= 12 else "AM", "pm": "pm" if civil.hour >= 12 else "am",
            "MST": "UTC",
        }  # fmt: skip
        if token in table:
            return table[token]
        if token[0] == "Z":
            return "Z"
        return "+" + token[1:].replace("7", "0")


def from_seconds(seconds: float) -> Time:
    """A time from Unix seconds, cut to whole milliseconds.

    Raises: OverflowError where the nanoseconds leave int64.
    """
    nanos = seconds * 1e9
    if nanos > float(2**63 - 1) or nanos < -float(2**63):
        raise OverflowError
    millis = abs(int(nanos)) // 1_000_000  # Go's division cuts towards zero
    return Time((millis if nanos >= 0 else -millis) * 1_000_000)
