"""Samples read back from Postgres as columns, for ranges older than the head."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from exporter.db.pool import Database, Purpose
from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.samples import SeriesBlock

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PG_EPOCH_MS: Final = 946_684_800_000
_FIRST_MS: Final = -62_135_596_800_000  # the years 1 to 9999: what a datetime can hold
_LAST_MS: Final = 253_402_300_799_000
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
_HEADER_BYTES: Final = 19
_TRAILER_BYTES: Final = 2
_SERIES: Final = "select id, name, labels from quantum_series where true"
_SAMPLES: Final = """
select series_id, ts, value from quantum_samples where series_id = any($1::int[]) and ts >= $2 and ts <= $3
"""
_PRESENT: Final = """
select id from unnest($1::int[]) id
where exists (select from quantum_samples where series_id = id and ts >= $2 and ts <= $3)
"""
_DAYS: Final = """
select partition::text as name from quantum_day_partitions_before('quantum_samples', 'infinity')
"""


class History:
    """Reads the sample store.

    Name and equality matchers are answered by indexes, the others applied to the label sets that are left.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        *,
        max_samples: int | None = None,
    ) -> SeriesBlock:
        """Samples with start_ms <= ts <= end_ms of all series that satisfy every matcher, in label order.

        Series without a sample in the range are left out; staleness markers are kept bit by bit.

        Raises: StorageError where the database does not answer; QueryError (LIMIT) beyond `max_samples`.
        """
        async with self._database.acquire(Purpose.READ) as connection:
            series = await self._series(connection, matchers)
            if not series:
                return SeriesBlock.empty()
            chunks: list[bytes] = []

            async def take(data: bytes) -> None:
                chunks.append(data)

            # one more than allowed tells that there are too many, without fetching them all
            limit = "" if max_samples is None else f" limit {max_samples + 1}"
            await connection.copy_from_query(
                _SAMPLES + limit, list(series), _time(start_ms), _time(end_ms), output=take, format="binary"
            )
        raw = b"".join(chunks)
        if max_samples is not None and _count(raw) > max_samples:
            raise QueryError(
                "query processing would load too many samples into memory in query execution",
                QueryErrorKind.LIMIT,
            )
        return await asyncio.to_thread(_block, series, raw)

    async def series(self, matchers: Sequence[Matcher]) -> list[LabelSet]:
        """The label sets that satisfy every matcher, sorted. Raises: StorageError."""
        async with self._database.acquire(Purpose.READ) as connection:
            return sorted((await self._series(connection, matchers)).values())

    async def series_between(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[LabelSet]:
        """As `series`, those with a sample at start_ms <= ts <= end_ms. Raises: StorageError."""
        async with self._database.acquire(Purpose.READ) as connection:
            series = await self._series(connection, matchers)
            if not series:
                return []
            rows = await connection.fetch(_PRESENT, list(series), _time(start_ms), _time(end_ms))
        return sorted(series[row["id"]] for row in rows)

    async def time_range(self) -> tuple[int, int] | None:
        """The oldest and the newest stored time in Unix milliseconds, None where there is no sample.

        Exact to a day at the old end: the answer comes from the partitions. Raises: StorageError.
        """
        async with self._database.acquire(Purpose.READ) as connection:
            days = await connection.fetch(_DAYS)
            found = [
                row
                for name in (day["name"] for day in days)
                if (row := await connection.fetchrow(f"select min(ts), max(ts) from {name}"))["min"]
            ]
        if not found:
            return None
        return _ms(found[0]["min"]), _ms(found[-1]["max"])

    @staticmethod
    async def _series(connection: Any, matchers: Sequence[Matcher]) -> dict[int, LabelSet]:
        query, args = _series_query(matchers)
        rows = await connection.fetch(query, *args)
        found = {}
        for row in rows:
            labels = LabelSet.of({**json.loads(row["labels"]), METRIC_NAME: row["name"]})
            if all(matcher.matches(labels.get(matcher.name)) for matcher in matchers):
                found[row["id"]] = labels
        return found


def _series_query(matchers: Sequence[Matcher]) -> tuple[str, list[object]]:
    """What an index can answer; a matcher on the empty value also takes absent labels, so it cannot."""
    query, args = _SERIES, list[object]()
    equal: dict[str, str] = {}
    for matcher in matchers:
        if matcher.op is not MatchOp.EQUAL or matcher.value == "" or "\x00" in matcher.value:
            continue
        if matcher.name == METRIC_NAME:
            args.append(matcher.value)
            query += f" and name = ${len(args)}"
        elif matcher.name not in equal:
            equal[matcher.name] = matcher.value
    if equal:
        args.append(json.dumps(equal))
        query += f" and labels @> ${len(args)}::text::jsonb"
    return query, args


def _count(raw: bytes) -> int:
    return (len(raw) - _HEADER_BYTES - _TRAILER_BYTES) // _ROW.itemsize


def _block(series: dict[int, LabelSet], raw: bytes) -> SeriesBlock:
    """From rows in any order: ranked by their series' place in label order, then by time."""
    rows = np.frombuffer(raw, _ROW, _count(raw), _HEADER_BYTES)
    by_labels = sorted(series, key=lambda number: series[number])
    ids = np.array(by_labels, np.int64)
    order = np.argsort(ids)
    rank = order[np.searchsorted(ids[order], rows["id"])]
    ts_ms = rows["ts"].astype(np.int64) // 1000 + _PG_EPOCH_MS
    place = np.lexsort((ts_ms, rank))
    counts = np.bincount(rank, minlength=len(ids))
    present = np.flatnonzero(counts)
    offsets = np.zeros(len(present) + 1, np.int64)
    np.cumsum(counts[present], out=offsets[1:])
    values = rows["value"].astype(np.uint64).view(np.float64)[place]
    return SeriesBlock(tuple(series[by_labels[at]] for at in present), offsets, ts_ms[place], values)


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(ms, _FIRST_MS), _LAST_MS))


def _ms(time: datetime) -> int:
    return round((time - _EPOCH) / timedelta(milliseconds=1))
