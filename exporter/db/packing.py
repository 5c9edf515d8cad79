"""Packing: the rows of days that are over become chunks, a few series at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import numpy as np

from exporter.clock import Clock
from exporter.db.chunk_codec import encode, same
from exporter.db.chunk_rows import COLUMNS, rollups, to_row, unpacked
from exporter.db.metrics import PackingMetrics
from exporter.db.packing_sql import PackedDay
from exporter.db.partitions import DAY_MS, date_of
from exporter.db.pool import Database, Purpose
from exporter.errors import StorageError
from exporter.model.samples import Float64s, Int64s

_log = logging.getLogger(__name__)
_SETTLED_MS: Final = 3_600_000  # after midnight, when late samples of the day have come
_EVERY_S: Final = 600.0
_RETRY_S: Final = 60.0
_STEP_ROWS: Final = 400_000  # some 14 MB in memory, half a second of work
_SWAP_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class PackingReport:
    """What one run did: days whose samples are packed now, days left because they were in use or grew."""

    packed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Packing:
    """Packs every day that has been over for an hour, also again when late samples of it came.

    A step takes some 400,000 samples in a transaction of its own, then rests as long as it took, so that a
    core is half free. Readers go on seeing the rows until chunk table and row table change places in one
    transaction, after their numbers of samples have been compared. Stopped midway, it goes on where it was.
    """

    def __init__(self, database: Database, metrics: PackingMetrics, clock: Clock) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Pack now and then every ten minutes, for ever."""
        failing = False
        while True:
            try:
                report = await self.pack()
            except StorageError as error:
                self._metrics.failures.inc()
                if not failing:
                    _log.warning("packing waits for the database: %s", error)
                failing = True
                await self._clock.sleep(_RETRY_S)
                continue
            failing = False
            if report.packed:
                _log.info("packed the samples of %s", ", ".join(report.packed))
            await self._clock.sleep(_RETRY_S if report.left else _EVERY_S)

    async def pack(self) -> PackingReport:
        """One run over all days that are due, oldest first. Raises: StorageError."""
        before = date_of((self._clock.now_ms() - _SETTLED_MS) // DAY_MS)
        async with self._database.acquire(Purpose.MAINTAIN) as connection:
            days = await PackedDay.due(connection, before)
        packed: list[str] = []
        left: list[str] = []
        for day in days:
            samples = await self._pack(PackedDay(day))
            if samples is None:
                left.append(f"{day:%Y-%m-%d}")
            elif samples:
                packed.append(f"{day:%Y-%m-%d}")
        if not left:
            self._metrics.last_run.set(self._clock.now_ms() / 1000)
        return PackingReport(tuple(packed), tuple(left))

    async def _pack(self, day: PackedDay) -> int | None:
        """How many samples the day has, None where it was left for the next run."""
        while True:
            started = self._clock.monotonic()
            async with self._database.acquire(Purpose.MAINTAIN) as connection:
                more = await self._step(connection, day)
            if more is None:
                return None  # another process packs
            self._metrics.steps.inc()
            if not more:
                break
            await self._clock.sleep(self._clock.monotonic() - started)
        for attempt in range(_SWAP_ATTEMPTS):
            async with self._database.acquire(Purpose.MAINTAIN) as connection:
                try:
                    samples = await day.swap(connection)
                    if samples:
                        await day.tidy(connection)
                    break
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                    pass
            await self._clock.sleep(0.1 * 2**attempt)
        else:
            return None  # in use
        if samples is None:
            self._metrics.restarts.inc()
        elif samples:
            self._metrics.days.inc()
        return samples

    async def _step(self, connection: Any, day: PackedDay) -> bool | None:
        """Whether there is more to do; None where another process is at it."""
        async with connection.transaction():
            if not await day.lock(connection):
                return None
            last = await day.progress(connection)
            ids = await day.next_series(connection, last, _STEP_ROWS)
            if not ids:
                return False
            hot = await day.hot_rows(connection, last, ids[-1])
            old = await day.old_chunks(connection, last, ids[-1])
            chunks, five_minutes, samples = await asyncio.to_thread(_packed, hot, old)
            await connection.copy_records_to_table(day.staging, records=chunks, columns=COLUMNS)
            await day.put_rollups(connection, five_minutes)
            await day.advance(connection, ids[-1], len(hot[0]), samples)
        self._metrics.samples.inc(samples)
        return True


def _packed(
    hot: tuple[Int64s, Int64s, Float64s], old: list[Any]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], int]:
    """Rows of chunks and of rollups, and the number of samples; a late sample replaces the packed one."""
    ids, ts_us, values = hot
    if old:
        parts = (unpacked(old), hot)
        ids, ts_us, values = (np.concatenate([part[at] for part in parts]) for at in range(3))
    order = np.lexsort((ts_us, ids))  # stable: of equal times the hot one comes last
    ids, ts_us, values = ids[order], ts_us[order], values[order]
    if old and len(ids):
        kept = np.append((ids[1:] != ids[:-1]) | (ts_us[1:] != ts_us[:-1]), True)
        ids, ts_us, values = ids[kept], ts_us[kept], values[kept]
    chunks: list[tuple[Any, ...]] = []
    five_minutes: list[tuple[Any, ...]] = []
    edges = np.flatnonzero(np.diff(ids, prepend=-1, append=-1))
    for lo, hi in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        series, ts, column = int(ids[lo]), ts_us[lo:hi], values[lo:hi]
        made = encode(ts, column)
        if not same(ts, column, made):
            raise StorageError(f"the samples of series {series} do not come out of their chunks as they were")
        chunks.extend(to_row(series, chunk) for chunk in made)
        five_minutes.extend(rollups(series, ts, column))
    return chunks, five_minutes, len(ids)
