"""Day partitions: made before they are needed, dropped when they are old."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

DAY_MS = 86_400_000
_EPOCH = datetime.date(1970, 1, 1)
_ENSURE = "select quantum_ensure_day_partitions($1::text::regclass, $2::date, $2::date)"


def date_of(day: int) -> datetime.date:
    """The date of a day counted from 1970-01-01."""
    return _EPOCH + datetime.timedelta(days=day)


class DayPartitions:
    """Remembers for one table which days have their partition."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._days: set[int] = set()

    def forget(self) -> None:
        """Look again: partitions were dropped, or this is another database."""
        self._days.clear()

    async def ensure(self, connection: Any, days: Iterable[int]) -> None:
        """Make the missing partitions of these days (days since 1970-01-01, UTC)."""
        for day in days:
            if day not in self._days:
                await connection.execute(_ENSURE, self.table, date_of(day))
                self._days.add(day)
