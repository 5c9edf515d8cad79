"""Questions about stored events: mean times and error rates of any period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from exporter.db.pool import Database, Purpose

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AVERAGE = """
select avg(value) from performance_metrics
where metric_type = 'api_response' and ($1::text is null or metric_name = $1)
    and "timestamp" > $2 and "timestamp" <= $3
"""
_ERROR_RATE = """
select avg((coalesce(context ->> 'success', 'true') = 'false'
    and coalesce(context ->> 'outcome', '') <> 'cancelled')::int)::float8
from performance_metrics
where metric_type in ('api_response', 'db_query') and "timestamp" > $1 and "timestamp" <= $2
"""


class EventHistory:
    """Reads `performance_metrics`; periods are open at the start and closed at the end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def average_response_time_ms(
        self, endpoint: str | None, start_ms: int, end_ms: int
    ) -> float | None:
        """Mean time of the API calls of a period (all endpoints for None), None where there were none.

        Raises: StorageError where the database does not answer.
        """
        async with self._database.acquire(Purpose.READ) as connection:
            value = await connection.fetchval(_AVERAGE, endpoint, _time(start_ms), _time(end_ms))
        return None if value is None else float(value)

    async def error_rate(self, start_ms: int, end_ms: int) -> float | None:
        """Share of the API calls and queries of a period that failed, 0..1; None where there were none.

        A cancelled call is no failure. Raises: StorageError where the database does not answer.
        """
        async with self._database.acquire(Purpose.READ) as connection:
            value = await connection.fetchval(_ERROR_RATE, _time(start_ms), _time(end_ms))
        return None if value is None else float(value)


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
