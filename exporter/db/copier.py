"""Sample batches put into `quantum_samples`: COPY first, and what to do where that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from exporter.db.batch import CopyData, CopyEncoder, SampleRows, gather
from exporter.db.partitions import DayPartitions
from exporter.db.pool import Database, Purpose
from exporter.db.series_ids import SeriesIds
from exporter.errors import WriteError
from exporter.model.samples import SampleBatch

_COLUMNS = ["ts", "series_id", "value"]
_TABLE = "quantum_samples"
_INCOMING = "quantum_incoming_samples"
_THREAD_ABOVE = 5000  # rows from which encoding leaves the event loop
# Restored, made anew or truncated: each changes one of these, and the same ids may then be other series.
_IDENTITY = """
select pg_postmaster_start_time(), (select oid from pg_database where datname = current_database()),
    to_regclass('quantum_series')::oid, pg_relation_filenode(to_regclass('quantum_series'))
"""


class RejectedError(WriteError):
    """The database will never take these rows: trying again is no use."""


class SampleCopier:
    """Writes batches, all or none of each call. One call at a time.

    The ladder: plain COPY; rows that are there already (a repeated write) -> COPY into a temporary table and
    insert what is new; a day without partition -> make it and try again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._series = SeriesIds()
        self._encoder = CopyEncoder()
        self._partitions = DayPartitions(_TABLE)
        self._identity: tuple[Any, ...] | None = None
        self.refused_rows = 0  # of the last write: series that text columns cannot hold

    async def write(self, batches: Sequence[SampleBatch]) -> int:
        """Rows that are in the database now.

        Raises: WriteError, and nothing is written: spool them; RejectedError: give them up.
        """
        try:
            async with self._database.acquire(Purpose.WRITE) as connection:
                return await self._write(connection, batches)
        except RejectedError:
            raise
        except (ValueError, OverflowError, TypeError) as error:  # such as a time beyond all calendars
            raise RejectedError(f"{type(error).__name__}: {error}") from error
        except WriteError as error:
            if isinstance(error.__cause__, asyncpg.DataError):
                raise RejectedError(str(error)) from error
            self._identity = None
            raise

    async def _write(self, connection: Any, batches: Sequence[SampleBatch]) -> int:
        await self._recognise(connection)
        parts = []
        refused = 0
        for batch in batches:
            numbers = await self._series.resolve(connection, batch.labels)
            parts.append((numbers, batch.ts_ms, batch.values))
            refused += numbers.refused
        if sum(map(len, batches)) > _THREAD_ABOVE:
            rows, data = await asyncio.to_thread(self._encode, parts)
        else:
            rows, data = self._encode(parts)
        await self._partitions.ensure(connection, rows.days())
        if len(rows):
            try:
                await self._copy(connection, data)
            except asyncpg.CheckViolationError:  # the partition was dropped since we saw it
                self._partitions.forget()
                await self._partitions.ensure(connection, rows.days())
                await self._copy(connection, data)
        self.refused_rows = refused
        return len(rows)

    async def _recognise(self, connection: Any) -> None:
        """Forget what was learned from another database than this one."""
        identity = tuple(await connection.fetchrow(_IDENTITY))
        if identity != self._identity:
            self._series.forget()
            self._partitions.forget()
            self._identity = identity

    def _encode(self, parts: Any) -> tuple[SampleRows, CopyData]:
        rows = gather(parts)
        return rows, self._encoder.encode(rows)

    async def _copy(self, connection: Any, data: CopyData) -> None:
        try:
            await connection.copy_to_table(_TABLE, source=_chunks(data), columns=_COLUMNS, format="binary")
        except asyncpg.UniqueViolationError:
            async with connection.transaction():
                await connection.execute(
                    f"create temporary table {_INCOMING} (ts timestamptz, series_id integer, "
                    "value double precision) on commit drop"
                )
                await connection.copy_to_table(
                    _INCOMING, source=_chunks(data), columns=_COLUMNS, format="binary"
                )
                await connection.execute(
                    f"insert into {_TABLE} (ts, series_id, value) select ts, series_id, value "
                    f"from {_INCOMING} order by series_id, ts on conflict do nothing"
                )


async def _chunks(data: CopyData) -> AsyncIterator[bytes | memoryview]:
    for chunk in data:
        yield chunk
        await asyncio.sleep(0)  # writing to a socket that is ready never yields by itself
