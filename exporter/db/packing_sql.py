"""What packing asks of the database, for one day: rows in, chunks out, the exchange of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import Any, Final

import asyncpg
import numpy as np

from exporter.db.chunk_rows import COLUMNS
from exporter.db.partitions import DayPartitions
from exporter.model.samples import Float64s, Int64s

_LOCK: Final = 0x7061636B  # an arbitrary number of our own
_LOCK_TIMEOUT: Final = "100ms"
_SERIES_MAX: Final = 256
_EPOCH_DAY: Final = date(1970, 1, 1)
_PG_EPOCH_US: Final = 946_684_800_000_000
_ROW: Final = np.dtype(
    [
        ("fields", ">i2"),
        ("id_length", ">i4"),
        ("id", ">i4"),
        ("ts_length", ">i4"),
        ("ts", ">i8"),
        ("value_length", ">i4"),
        ("value", ">u8"),
    ]
)
_FRAME: Final = 21  # bytes of a COPY's header and trailer
_HEADER: Final = 19
_ROLLUP_COLUMNS: Final = (*COLUMNS, "stat")
_DUE: Final = "select day from quantum_day_partitions_before('quantum_samples', $1::date)"
_DROP_ROLLUPS: Final = """
delete from quantum_rollups
where start_ts >= $1::date and start_ts < $1::date + 1 and series_id = any($2::int[])
"""


class PackedDay:
    """The tables of one day. All methods want a connection; those that change something a transaction."""

    def __init__(self, day: date) -> None:
        self.day = day
        suffix = f"{day:%Y%m%d}"
        self.hot = f"quantum_samples_{suffix}"
        self.packed = f"quantum_chunks_{suffix}"
        self.staging = f"quantum_packing_{suffix}"

    @staticmethod
    async def due(connection: Any, before: date) -> list[date]:
        """The days before `before` that have a table of rows, oldest first."""
        return [row["day"] for row in await connection.fetch(_DUE, before)]

    async def lock(self, connection: Any) -> bool:
        """Whether nobody else packs; held until the transaction ends."""
        return bool(await connection.fetchval("select pg_try_advisory_xact_lock($1)", _LOCK))

    async def progress(self, connection: Any) -> int:
        """The last series that was packed; begins the day where it has not been begun."""
        last = await connection.fetchval("select last_series from quantum_packing where day = $1", self.day)
        if last is not None and await self._exists(connection, self.staging):
            return int(last)
        await self._begin_anew(connection)
        # compressed above this size: five-minute rows and short days too
        await connection.execute(
            f"create table {self.staging} (like quantum_chunks including all) with (toast_tuple_target = 256)"
        )
        await self._prefer_lz4(connection, self.staging)
        await connection.execute(
            "insert into quantum_packing (day, last_series, hot_rows, samples) values ($1, 0, 0, 0)", self.day
        )
        if not await self._exists(connection, f"quantum_rollups_{self.day:%Y%m%d}"):
            number = (self.day - _EPOCH_DAY).days
            await DayPartitions("quantum_rollups").ensure(connection, [number])
            name = f"quantum_rollups_{self.day:%Y%m%d}"
            await connection.execute(f"alter table {name} set (toast_tuple_target = 256)")
            await self._prefer_lz4(connection, name)
        return 0

    async def next_series(self, connection: Any, last: int, rows: int) -> list[int]:
        """The series after `last` that about that many rows belong to, ascending."""
        first = await connection.fetchval(
            f"select series_id from {self.hot} where series_id > $1 order by series_id limit 1", last
        )
        count = 0
        if first is not None:
            count = await connection.fetchval(
                f"select count(*) from (select from {self.hot} where series_id = $1 limit {rows}) r", first
            )
        limit = min(max(rows // max(count, 1500), 1), _SERIES_MAX)
        # a series at a time out of the index, not all rows
        found = await connection.fetch(
            f"""
            with recursive ids as (
                (select series_id as id from {self.hot} where series_id > $1 order by series_id limit 1)
                union all
                select (select h.series_id from {self.hot} h where h.series_id > ids.id
                    order by h.series_id limit 1)
                from ids where ids.id is not null
            ) select id from ids where id is not null limit {limit}
            """,
            last,
        )
        ids = {row["id"] for row in found}
        if await self._exists(connection, self.packed):
            old = await connection.fetch(
                f"select distinct series_id as id from {self.packed} where series_id > $1 "
                f"order by series_id limit {limit}",
                last,
            )
            ids.update(row["id"] for row in old)
        return sorted(ids)[:limit]

    async def hot_rows(self, connection: Any, last: int, upto: int) -> tuple[Int64s, Int64s, Float64s]:
        """Series, times in microseconds and values of the rows, in any order."""
        parts: list[bytes] = []

        async def take(data: bytes) -> None:
            parts.append(data)

        await connection.copy_from_query(
            f"select series_id, ts, value from {self.hot} where series_id > {last} and series_id <= {upto}",
            output=take,
            format="binary",
        )
        raw = b"".join(parts)
        rows = np.frombuffer(raw, _ROW, (len(raw) - _FRAME) // _ROW.itemsize, _HEADER)
        bits = rows["value"].astype(np.uint64)
        return rows["id"].astype(np.int64), rows["ts"].astype(np.int64) + _PG_EPOCH_US, bits.view(np.float64)

    async def old_chunks(self, connection: Any, last: int, upto: int) -> list[Any]:
        """The chunks that the day has already."""
        if not await self._exists(connection, self.packed):
            return []
        columns = ", ".join(COLUMNS)
        rows: list[Any] = await connection.fetch(
            f"select {columns} from {self.packed} where series_id > $1 and series_id <= $2", last, upto
        )
        return rows

    async def put_rollups(self, connection: Any, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert them in the place of what was made of these series before late samples came.

        Deleted first, not updated: a row begins where its first sample does, and late ones may be earlier.
        """
        ids = sorted({row[2] for row in rows})
        await connection.execute(_DROP_ROLLUPS, self.day, ids)
        await connection.copy_records_to_table("quantum_rollups", records=rows, columns=_ROLLUP_COLUMNS)

    async def advance(self, connection: Any, last: int, hot_rows: int, samples: int) -> None:
        """Note how far it is."""
        await connection.execute(
            "update quantum_packing set last_series = $2, hot_rows = hot_rows + $3, samples = samples + $4 "
            "where day = $1",
            self.day, last, hot_rows, samples,
        )  # fmt: skip

    async def swap(self, connection: Any) -> int | None:
        """Put the chunks in the place of the rows, and tell how many samples the day has.

        None where rows came in meanwhile: begin again. A day without samples has no table afterwards.

        Late samples of that day wait while its rows are counted; readers and all other writers do not.
        Raises: asyncpg.LockNotAvailableError after 100 ms in a queue.
        """
        async with connection.transaction():
            if not await self.lock(connection):
                return None
            await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
            await connection.execute(f"lock table {self.hot} in share mode")
            progress = await connection.fetchrow(
                "select hot_rows, samples from quantum_packing where day = $1", self.day
            )
            counted = await connection.fetchrow(
                f"select (select count(*) from {self.hot}) as hot_rows, "
                f"(select coalesce(sum(n), 0)::bigint from {self.staging}) as samples"
            )
            if progress != counted:
                await self._begin_anew(connection)
                return None
            # in the order in which readers of the view lock them
            await connection.execute("lock table only quantum_samples in access exclusive mode")
            await connection.execute(f"drop table {self.hot}")
            if counted["samples"]:
                await connection.execute(f"drop table if exists {self.packed}")
                await connection.execute(f"alter table {self.staging} rename to {self.packed}")
                await connection.execute(
                    f"alter table quantum_chunks attach partition {self.packed} "
                    f"for values from ('{self.day} 00:00+00') to ('{self.day + timedelta(1)} 00:00+00')"
                )
            else:
                await connection.execute(f"drop table {self.staging}")
            await connection.execute("delete from quantum_packing where day = $1", self.day)
        return int(counted["samples"])

    async def tidy(self, connection: Any) -> None:
        """Statistics for the planner and pages that need no later visit."""
        if await self._exists(connection, self.packed):
            with suppress(asyncpg.PostgresError):
                await connection.execute(f"vacuum (freeze, analyze) {self.packed}")

    async def _begin_anew(self, connection: Any) -> None:
        await connection.execute(f"drop table if exists {self.staging}")
        await connection.execute("delete from quantum_packing where day = $1", self.day)

    @staticmethod
    async def _exists(connection: Any, table: str) -> bool:
        return bool(await connection.fetchval("select to_regclass($1) is not null", table))

    @staticmethod
    async def _prefer_lz4(connection: Any, table: str) -> None:
        """Quicker than the built-in compression where the server has it."""
        try:
            async with connection.transaction():
                for column in ("t_data", "v_data"):
                    await connection.execute(f"alter table {table} alter {column} set compression lz4")
        except asyncpg.FeatureNotSupportedError:
            pass
        except asyncpg.PostgresError as error:
            if error.sqlstate != "22023":  # lz4 is no known method
                raise
