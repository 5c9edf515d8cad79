"""Retention: tomorrow's partitions made today, days that are too old dropped as a whole."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from exporter.clock import Clock
from exporter.db.metrics import RetentionMetrics
from exporter.db.partitions import DAY_MS, DayPartitions, date_of
from exporter.db.pool import Database, Purpose
from exporter.errors import StorageError

_log = logging.getLogger(__name__)
_TABLES = ("quantum_samples", "performance_metrics", "quantum_chunks")
_ROLLUPS = "quantum_rollups"
_MADE_AHEAD = ("quantum_samples", "performance_metrics")
_DAYS_AHEAD = 2
_EVERY_S = 3600.0
_RETRY_S = 60.0
_LOCK_TIMEOUT = "100ms"  # whoever waits for a lock makes others wait behind it
_ATTEMPTS = 5
_LOCK_KEY = 1_903_522_168  # of advisory locks, one for each thing that only one replica does
_OLD = """
select partition::text as name from quantum_day_partitions_before($1::text::regclass, $2::date)
"""
_HALF_DETACHED = """
select inhrelid::regclass::text as name from pg_inherits
where inhparent = $1::text::regclass and inhdetachpending
"""
# old ones only: a day that somebody detached by hand to keep it is not ours to drop before its time
_DETACHED = """
select c.oid::regclass::text as name
from pg_class c join pg_class parent on parent.relnamespace = c.relnamespace
where parent.oid = $1::text::regclass and c.relkind = 'r'
    and case when c.relname ~ ('^' || parent.relname || '_\\d{8}$')
        then to_date(right(c.relname, 8), 'YYYYMMDD') end < $2::date
    and not exists (select from pg_inherits where inhrelid = c.oid)
"""


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What one run did: partitions dropped, alerts removed, partitions left because they were in use."""

    dropped: tuple[str, ...] = ()
    alerts_removed: int = 0
    busy: tuple[str, ...] = ()


class Retention:
    """Keeps `retention_ms` of samples and events, `downsample_retention_ms` of five-minute history, and
    `alert_retention_ms` of what `prune_alerts` removes.

    A day goes when all of it is too old, by detaching and dropping its partition: nothing is deleted row by
    row, and nobody waits longer than 100 ms for us. Failures are counted and tried again within a minute.
    """

    def __init__(
        self,
        database: Database,
        metrics: RetentionMetrics,
        clock: Clock,
        *,
        retention_ms: int = 30 * DAY_MS,
        alert_retention_ms: int = 90 * DAY_MS,
        downsample_retention_ms: int = 365 * DAY_MS,
        prune_alerts: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        """`prune_alerts(before_ms)` deletes finished episodes of before that time and returns the rows."""
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._alert_retention_ms = alert_retention_ms
        self._prune_alerts = prune_alerts
        self._kept_ms = dict.fromkeys(_TABLES, retention_ms) | {_ROLLUPS: downsample_retention_ms}
        for table in self._kept_ms:
            metrics.dropped_partitions.labels(table)

    async def run(self) -> None:
        """Apply now and then every hour, for ever."""
        failing = False
        while True:
            try:
                report = await self.apply()
            except StorageError as error:
                self._metrics.failures.inc()
                if not failing:
                    _log.warning("retention waits for the database: %s", error)
                failing = True
                await self._clock.sleep(_RETRY_S)
                continue
            failing = False
            if report.dropped:
                _log.info("retention dropped %s", ", ".join(report.dropped))
            await self._clock.sleep(_RETRY_S if report.busy else _EVERY_S)

    async def apply(self) -> RetentionReport:
        """One run; the partitions are left to another replica that is at them.

        Raises: StorageError where the database does not answer.
        """
        now_ms = self._clock.now_ms()
        dropped: list[str] = []
        busy: list[str] = []
        async with self._database.acquire(Purpose.MAINTAIN) as connection, _alone(connection) as alone:
            for table in self._kept_ms if alone else ():
                await self._apply_to(connection, table, now_ms, dropped, busy)
        removed = 0
        if self._prune_alerts is not None:
            removed = await self._prune_alerts(now_ms - self._alert_retention_ms)
        return RetentionReport(tuple(dropped), removed, tuple(busy))

    async def _apply_to(
        self, connection: Any, table: str, now_ms: int, dropped: list[str], busy: list[str]
    ) -> None:
        today, cutoff = now_ms // DAY_MS, date_of((now_ms - self._kept_ms[table]) // DAY_MS)
        if table in _MADE_AHEAD:
            await DayPartitions(table).ensure(connection, range(today, today + _DAYS_AHEAD + 1))
        # what a run that was cut off left: a partition half detached, or detached and not dropped
        for row in await connection.fetch(_HALF_DETACHED, table):
            await self._patiently(connection, f"alter table {table} detach partition {row['name']} finalize")
        for row in await connection.fetch(_DETACHED, table, cutoff):
            await self._patiently(connection, f"drop table if exists {row['name']}")
        old = [row["name"] for row in await connection.fetch(_OLD, table, cutoff)]
        for at, name in enumerate(old):
            # detached first, which blocks nobody; then it belongs to no table and can go
            if not await self._detach(connection, table, name):
                busy.extend(old[at:])  # a table has one pending detachment at a time
                return
            if await self._patiently(connection, f"drop table if exists {name}"):
                dropped.append(name)
                self._metrics.dropped_partitions.labels(table).inc()
            else:
                busy.append(name)

    async def _detach(self, connection: Any, table: str, name: str) -> bool:
        """Two steps for the server; where the second has to wait for a reader, `finalize` repeats it."""
        detach = f"alter table {table} detach partition {name}"
        if await self._patiently(connection, f"{detach} concurrently", attempts=1):
            return True
        pending = await connection.fetch(_HALF_DETACHED, table)
        how = "finalize" if pending else "concurrently"
        return await self._patiently(connection, f"{detach} {how}")

    async def _patiently(self, connection: Any, statement: str, attempts: int = _ATTEMPTS) -> bool:
        """Whether the statement got its locks within a few short attempts."""
        for attempt in range(attempts):
            await connection.execute(f"set lock_timeout = '{_LOCK_TIMEOUT}'")
            try:
                await connection.execute(statement)
            except (
                asyncpg.LockNotAvailableError,
                asyncpg.DeadlockDetectedError,
                asyncpg.ObjectNotInPrerequisiteStateError,  # another partition's detachment is pending
            ):
                await self._clock.sleep(0.1 * 2**attempt)
            else:
                return True
        return False


@contextlib.asynccontextmanager
async def _alone(connection: Any) -> AsyncIterator[bool]:
    """Whether no other replica drops partitions now. A lock of the session, for detaching commits midway."""
    taken = await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK_KEY)
    try:
        yield bool(taken)
    finally:
        if taken and not connection.is_closed():
            await connection.execute(f"select pg_advisory_unlock({_LOCK_KEY})")
