"""When a used-up quota comes back: midnight UTC, midnight Pacific time, the first of the month."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from exporter.providers.failures import Reset


def next_reset_ms(reset: Reset, now_ms: int) -> int:
    """Unix milliseconds of the next reset after `now_ms`."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if reset is Reset.UTC_MONTH:
        following = midnight.replace(day=1) + timedelta(days=32)
        return _ms(following.replace(day=1))
    if reset is Reset.UTC_DAY:
        return _ms(midnight + timedelta(days=1))
    # Midnight Pacific is 08:00 UTC in winter and 07:00 UTC in summer; the offset is the one at that moment.
    for days in range(3):
        at_08 = midnight + timedelta(days=days, hours=8)
        at = at_08 - timedelta(hours=1) if _pacific_summer(at_08 - timedelta(hours=1)) else at_08
        if at > now:
            return _ms(at)
    raise AssertionError("no midnight within three days")


def _pacific_summer(moment: datetime) -> bool:
    """Whether Pacific daylight time holds: second Sunday of March 10:00 to first of November 09:00 UTC."""
    start = _sunday(moment.year, 3, 2).replace(hour=10)
    end = _sunday(moment.year, 11, 1).replace(hour=9)
    return start <= moment < end


def _sunday(year: int, month: int, nth: int) -> datetime:
    first = datetime(year, month, 1, tzinfo=UTC)
    return first + timedelta(days=(6 - first.weekday()) % 7 + 7 * (nth - 1))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
