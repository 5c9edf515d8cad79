"""Samples read back from Postgres as columns, for ranges older than the head.

Hot rows and packed days together; of days older than the samples the numbers kept of each five minutes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from exporter.db.chunk_codec import Steps, decode_values, integers
from exporter.db.chunk_rows import COLUMNS, LAST, MAXIMUM, MINIMUM, NUMBER, TOTAL, from_row
from exporter.db.partitions import DAY_MS
from exporter.db.pool import Database, Purpose
from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.rollups import ROLLUP_MS, Remembered, Rollup, counter_rollup
from exporter.model.samples import Float64s, Int64s, SeriesBlock

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
_SMALL: Final = 100_000  # bytes of rows that are sorted in place
_FEW: Final = 8  # chunks that are unpacked in place
_HEADER_BYTES: Final = 19
_TRAILER_BYTES: Final = 2
_SERIES: Final = "select id, name, labels from quantum_series where true"
_SAMPLES: Final = """
select series_id, ts, value from quantum_samples
where series_id = any('{{{ids}}}'::int[]) and ts >= '{first}' and ts <= '{last}'
"""
# $2 is where the day of $3 begins, $4 the end; a chunk lies within one UTC day
_CHUNKS: Final = f"""
select {", ".join(COLUMNS)} from quantum_chunks
where series_id = any($1::int[]) and start_ts >= $2 and start_ts <= $4 and end_ts >= $3
"""
# $5: the numbers wanted, $6: days of which there are samples
_OF_GONE_DAYS: Final = """
from quantum_rollups
where series_id = any($1::int[]) and stat = any($5::smallint[]) and start_ts >= $2 and start_ts <= $4
    and end_ts >= $3::timestamptz - interval '5 minutes'
    and (start_ts at time zone 'UTC')::date <> all($6::date[])
"""
_ROLLUPS: Final = f"select {', '.join(COLUMNS)}, stat {_OF_GONE_DAYS}"
_ROLLUPS_COUNT: Final = f"select coalesce(sum(n), 0) {_OF_GONE_DAYS}"
_SAMPLE_DAYS: Final = """
select day from unnest(array['quantum_samples', 'quantum_chunks']::regclass[]) parent,
    quantum_day_partitions_before(parent, 'infinity')
"""
# the part of each chunk that lies in the range; an instant takes at least one sample
_ESTIMATE: Final = """
select coalesce(sum(n * extract(epoch from least(end_ts, $4) - greatest(start_ts, $3))
    / greatest(extract(epoch from end_ts - start_ts), 0.001)), 0)::bigint
from quantum_chunks
where series_id = any($1::int[]) and start_ts >= $2 and start_ts <= $4 and end_ts >= $3
"""
_PRESENT: Final = """
select id from unnest($1::int[]) id
where exists (select from quantum_samples where series_id = id and ts >= $3 and ts <= $4)
    or exists (select from quantum_chunks where series_id = id
        and start_ts >= $2 and start_ts <= $4 and end_ts >= $3)
    or exists (select from quantum_rollups where series_id = id and stat = 5
        and start_ts >= $2 and start_ts <= $4 and end_ts >= $3::timestamptz - interval '5 minutes')
"""
_DAYS: Final = """
select partition::text as name from quantum_day_partitions_before($1::text::regclass, 'infinity')
"""
_DENSEST: Final = 86_400  # samples of a series in a day, up to which nobody counts before reading
_STATS: Final[Mapping[Rollup, tuple[int, ...]]] = MappingProxyType(
    {
        Rollup.LAST: (LAST,),
        Rollup.MINIMUM: (MINIMUM,),
        Rollup.MAXIMUM: (MAXIMUM,),
        Rollup.SUM: (TOTAL,),
        Rollup.COUNT: (NUMBER,),
        Rollup.COUNTER: (MAXIMUM, LAST),
    }
)


class History:
    """Reads the sample store, hot rows and packed days alike.

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

        Of days whose samples are gone the last value of each five minutes, at their end. Series without a
        sample in the range are left out; staleness markers are kept bit by bit.

        Raises: StorageError where the database does not answer; QueryError (LIMIT) beyond `max_samples`.
        """
        known = await self.remembered(matchers, start_ms, end_ms, (Rollup.LAST,), max_samples=max_samples)
        return known.of(Rollup.LAST)

    async def remembered(
        self,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        rollups: Collection[Rollup],
        *,
        max_samples: int | None = None,
    ) -> Remembered:
        """As `read`, but with these rollups of days whose samples are gone. Raises: as `read`."""
        stats = sorted({stat for rollup in rollups for stat in _STATS[rollup]})
        async with self._database.acquire(Purpose.READ) as connection:
            series = await self._series(connection, matchers)
            if not series:
                return Remembered(SeriesBlock.empty())
            chunks: list[bytes] = []

            async def take(data: bytes) -> None:
                chunks.append(data)

            # one more than allowed tells that there are too many, without fetching them all
            limit = "" if max_samples is None else f" limit {max_samples + 1}"
            bounds = (_time(start_ms - start_ms % DAY_MS), _time(start_ms), _time(end_ms))
            # as text: a COPY takes no parameters, and asyncpg asks the server about each it has to put in
            samples = _SAMPLES.format(ids=",".join(map(str, series)), first=bounds[1], last=bounds[2])
            await connection.copy_from_query(samples + limit, output=take, format="binary")
            raw = b"".join(chunks)
            days = len(series) * ((end_ms - start_ms) // DAY_MS + 2)
            if max_samples is not None:
                _refuse_above(max_samples, _count(raw))
                if days * _DENSEST > max_samples:
                    _refuse_above(max_samples, await connection.fetchval(_ESTIMATE, list(series), *bounds))
            # after the hot rows: what is packed in between is then seen twice, and taken once
            packed = await connection.fetch(_CHUNKS, list(series), *bounds)
            rolled: list[Any] = []
            if not _begins_on(start_ms // DAY_MS, raw, packed):
                kept = [row["day"] for row in await connection.fetch(_SAMPLE_DAYS)]
                args = (list(series), *bounds, stats, kept)
                if max_samples is not None and days * len(stats) * (DAY_MS // ROLLUP_MS) > max_samples:
                    _refuse_above(max_samples, int(await connection.fetchval(_ROLLUPS_COUNT, *args)))
                rolled = await connection.fetch(_ROLLUPS, *args)

        def decoded() -> Remembered:
            block = _merged(series, raw, packed, start_ms, end_ms)
            return Remembered(block, _rolled(series, rolled, rollups, start_ms, end_ms))

        if len(packed) + len(rolled) > _FEW or len(raw) > _SMALL:
            known = await asyncio.to_thread(decoded)
        else:
            known = decoded()
        if max_samples is not None:
            _refuse_above(max_samples, len(known))
        return known

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
            day = _time(start_ms - start_ms % DAY_MS)
            rows = await connection.fetch(_PRESENT, list(series), day, _time(start_ms), _time(end_ms))
        return sorted(series[row["id"]] for row in rows)

    async def time_range(self) -> tuple[int, int] | None:
        """The oldest and the newest stored time in Unix milliseconds, None where there is no sample.

        Exact to a day at the old end: the answer comes from the partitions. Raises: StorageError.
        """
        async with self._database.acquire(Purpose.READ) as connection:
            found = [
                (row["first"], row["last"])
                for table, last in (("quantum_chunks", "end_ts"), ("quantum_samples", "ts"))
                for day in await connection.fetch(_DAYS, table)
                if (row := await connection.fetchrow(_bounds(day["name"], last)))["first"] is not None
            ]
        if not found:
            return None
        return _ms(min(first for first, _ in found)), _ms(max(last for _, last in found))

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


def _begins_on(day: int, raw: bytes, packed: Sequence[Any]) -> bool:
    """Whether there are samples of the first day of a range: then none of it is too old for them."""
    first = _time((day + 1) * DAY_MS)
    if any(row["start_ts"] < first for row in packed):
        return True
    ts = np.frombuffer(raw, _ROW, _count(raw), _HEADER_BYTES)["ts"]
    return bool(len(ts)) and int(ts.min()) // 1000 + _PG_EPOCH_MS < (day + 1) * DAY_MS


def _merged(
    series: dict[int, LabelSet], raw: bytes, packed: Sequence[Any], start_ms: int, end_ms: int
) -> SeriesBlock:
    """Hot rows and chunks as one block; of a sample that is in both the hot one is taken."""
    hot = _block(series, raw)
    if not packed:
        return hot
    parts = _unpacked(series, packed, start_ms, end_ms)
    bounds = zip(hot.offsets[:-1].tolist(), hot.offsets[1:].tolist(), strict=True)
    for labels, (lo, hi) in zip(hot.labels, bounds, strict=True):
        parts.setdefault(labels, []).append((hot.ts_ms[lo:hi], hot.values[lo:hi]))
    return _of_parts(parts)


def _rolled(
    series: dict[int, LabelSet], rows: Sequence[Any], rollups: Collection[Rollup], start_ms: int, end_ms: int
) -> dict[Rollup, SeriesBlock]:
    """A block for each rollup; each number at the last millisecond of its five minutes."""
    if not rows:
        return {}
    late = ROLLUP_MS - 1
    by_stat: dict[int, list[Any]] = {}
    for row in rows:
        by_stat.setdefault(row["stat"], []).append(row)
    blocks = {
        stat: _of_parts(_unpacked(series, of_stat, start_ms, end_ms, late_ms=late))
        for stat, of_stat in by_stat.items()
    }
    return {
        rollup: counter_rollup(blocks[LAST], blocks[MAXIMUM])
        if rollup is Rollup.COUNTER
        else blocks[_STATS[rollup][0]]
        for rollup in rollups
    }


_Parts = dict[LabelSet, list[tuple[Int64s, Float64s]]]


def _unpacked(
    series: dict[int, LabelSet], rows: Sequence[Any], start_ms: int, end_ms: int, *, late_ms: int = 0
) -> _Parts:
    """What lies in the range of each series' rows, oldest first, each time `late_ms` later than it says."""
    times: dict[tuple[Steps, int], Int64s] = {}  # most series have the same
    parts: _Parts = {}
    for row in sorted(rows, key=itemgetter(0)):
        chunk = from_row(row)
        key = (chunk.times, chunk.n)
        ts_ms = times.get(key)
        if ts_ms is None:
            ts_ms = times[key] = integers(chunk.times, chunk.n) // 1000 + late_ms
        values = decode_values(chunk)
        lo, hi = 0, chunk.n
        if ts_ms[0] < start_ms or ts_ms[-1] > end_ms:
            lo, hi = int(np.searchsorted(ts_ms, start_ms)), int(np.searchsorted(ts_ms, end_ms, "right"))
        if lo < hi:
            parts.setdefault(series[row["series_id"]], []).append((ts_ms[lo:hi], values[lo:hi]))
    return parts


def _of_parts(parts: _Parts) -> SeriesBlock:
    """One block, series in label order."""
    found = sorted(parts)
    columns = [_in_order(parts[labels]) for labels in found]
    if not columns:
        return SeriesBlock.empty()
    offsets = np.zeros(len(columns) + 1, np.int64)
    np.cumsum([len(ts_ms) for ts_ms, _ in columns], out=offsets[1:])
    return SeriesBlock(
        tuple(found),
        offsets,
        np.concatenate([ts_ms for ts_ms, _ in columns]),
        np.concatenate([values for _, values in columns]),
    )


def _in_order(parts: list[tuple[Int64s, Float64s]]) -> tuple[Int64s, Float64s]:
    """One series' parts, each ascending, as one; of equal times the last part's sample stays."""
    if len(parts) == 1:
        return parts[0]
    ts_ms = np.concatenate([part[0] for part in parts])
    values = np.concatenate([part[1] for part in parts])
    if (np.diff(ts_ms) > 0).all():
        return ts_ms, values
    order = np.argsort(ts_ms, kind="stable")
    ts_ms, values = ts_ms[order], values[order]
    last = np.append(ts_ms[1:] != ts_ms[:-1], True)
    return ts_ms[last], values[last]


def _refuse_above(max_samples: int, count: int) -> None:
    if count > max_samples:
        raise QueryError(
            "query processing would load too many samples into memory in query execution",
            QueryErrorKind.LIMIT,
        )


def _bounds(table: str, last: str) -> str:
    return f"select min({'ts' if last == 'ts' else 'start_ts'}) as first, max({last}) as last from {table}"


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(ms, _FIRST_MS), _LAST_MS))


def _ms(time: datetime) -> int:
    return round((time - _EPOCH) / timedelta(milliseconds=1))
