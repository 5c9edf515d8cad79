"""Rows that a report reads beside the samples: episodes of alerts, and times of calls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.db.pool import Database, Purpose
from exporter.report.model import Calls, Episode, Period, Points

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_EPISODES = 100_000
_EPISODES = """
select type, lower(severity) as severity, coalesce(fingerprint, id::text) as instance,
    triggered_at, resolved_at, notification_count, suppressed_count,
    coalesce(resolve_reason = 'by hand', false) as by_hand
from system_alerts
where triggered_at < $2 and coalesce(resolved_at, 'infinity') > $1
    and coalesce(labels ->> 'role', '') <> 'heartbeat'
order by triggered_at limit $3
"""
_WHO = "coalesce(nullif(context ->> 'provider', ''), metric_name)"
_CALLS = f"""
select {_WHO} as who, count(*) as n, avg(value) as mean,
    percentile_cont(array[0.5, 0.95, 0.99]) within group (order by value) as quantiles
from performance_metrics
where metric_type = 'api_response' and "timestamp" > $1 and "timestamp" <= $2
group by 1
"""
# the step's end names it, as a PromQL query over the step would
_P95 = f"""
select {_WHO} as who,
    floor((extract(epoch from "timestamp" - $1) * 1000) / $3)::bigint as step,
    percentile_cont(0.95) within group (order by value) as p95
from performance_metrics
where metric_type = 'api_response' and "timestamp" > $1 and "timestamp" < $2
group by 1, 2 order by 1, 2
"""


class ReportRows:
    """Reads whole periods. All methods raise StorageError where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def episodes(self, period: Period) -> list[Episode]:
        """The episodes that touch a period, by their begin; the dead man's switch is none."""
        rows = await self._fetch(_EPISODES, period, _MOST_EPISODES)
        return [
            Episode(
                row["type"],
                row["severity"],
                row["instance"],
                _ms(row["triggered_at"]),
                None if row["resolved_at"] is None else _ms(row["resolved_at"]),
                row["notification_count"],
                row["suppressed_count"],
                row["by_hand"],
            )
            for row in rows
        ]

    async def times(self, period: Period) -> Mapping[str, Calls]:
        """The times of the measured API calls, by provider, by endpoint where none is named."""
        return {
            row["who"]: Calls(row["n"], row["mean"], *row["quantiles"])
            for row in await self._fetch(_CALLS, period)
        }

    async def p95(self, period: Period) -> Points:
        """The 95th percentile in milliseconds over the steps of a period."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in await self._fetch(_P95, period, float(period.step_ms)):
            at = period.start_ms + (row["step"] + 1) * period.step_ms
            found.setdefault(row["who"], []).append((at, row["p95"]))
        return {who: tuple(points) for who, points in found.items()}

    async def _fetch(self, query: str, period: Period, *more: object) -> list[Any]:
        async with self._database.acquire(Purpose.READ) as connection:
            found = await connection.fetch(query, _time(period.start_ms), _time(period.end_ms), *more)
        return list(found)


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _ms(time: datetime) -> int:
    return round((time - _EPOCH) / timedelta(milliseconds=1))
