from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from exporter.clock import SystemClock
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.metrics import PackingMetrics
from exporter.db.packing import Packing
from exporter.db.packing_sql import PackedDay
from exporter.db.partitions import date_of
from exporter.db.pool import Database
from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.model.samples import SampleBatch, SeriesBlock
from exporter.model.staleness import STALE_NAN, stale_mask

DAY = 86_400_000
MIDNIGHT = 1_772_323_200_000  # 2026-03-01 00:00 UTC
ALL = [Matcher("job", MatchOp.EQUAL, "app")]
SERIES = tuple(LabelSet.of({"__name__": f"m{n}", "job": "app"}) for n in range(6))


class FixedClock(SystemClock):
    """Stands two days after the samples; waits are not."""

    def now_ms(self) -> int:
        return MIDNIGHT + 2 * DAY + 7_200_000

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)


def values_at(at: int) -> np.ndarray:
    return np.array(
        [at, 100 + at / 100, 7.0, np.sin(at), np.inf if at == 9 else 1.0, STALE_NAN if at == 50 else at % 3]
    )


class World:
    def __init__(self, url: str) -> None:
        self.url = url
        self.registry = CollectorRegistry()
        self.database = Database(url, SystemClock())
        self.copier = SampleCopier(self.database)
        self.history = History(self.database)
        self.packing = Packing(self.database, PackingMetrics(self.registry), FixedClock())

    async def write(self, first: int, last: int) -> None:
        """A sample a minute of every series from one minute to before the other."""
        await self.copier.write(
            [SampleBatch(MIDNIGHT + 60_000 * at, SERIES, values_at(at)) for at in range(first, last)]
        )

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            rows: list[Any] = await connection.fetch(sql, *args)
            return rows
        finally:
            await connection.close()

    async def read(self) -> SeriesBlock:
        return await self.history.read(ALL, MIDNIGHT - DAY, MIDNIGHT + 2 * DAY)

    async def view(self) -> list[tuple[Any, ...]]:
        return [
            tuple(row)
            for row in await self.fetch(
                "select name, time, case when value = 'NaN' then 'nan' else value::text end as value "
                "from quantum_metrics order by 1, 2"
            )
        ]


@pytest.fixture
async def world(migrated_url: str) -> AsyncIterator[World]:
    """Two days of 100 samples for each series, of which only the first is over."""
    one = World(migrated_url)
    await one.write(0, 100)
    yield one
    await one.database.close()


def same(one: SeriesBlock, other: SeriesBlock) -> bool:
    return (
        list(one.labels) == list(other.labels)
        and np.array_equal(one.offsets, other.offsets)
        and np.array_equal(one.ts_ms, other.ts_ms)
        and np.array_equal(one.values.view(np.int64), other.values.view(np.int64))
    )


async def test_a_packed_day_reads_as_its_rows_did(world: World) -> None:
    """Through the history bit by bit, markers included; through the view as SQL shows numbers."""
    block, view = await world.read(), await world.view()
    report = await world.packing.pack()
    assert "2026-03-01" in report.packed
    assert report.left == ()
    assert await world.fetch("select from quantum_samples") == []
    again = await world.read()
    assert same(block, again)
    assert stale_mask(again.values).sum() == 1
    assert await world.view() == view
    between = await world.fetch(
        "select count(*) from quantum_metrics_between('2026-03-01 00:10+00', '2026-03-01 00:19+00')"
    )
    assert between[0]["count"] == 60
    assert world.registry.get_sample_value("quantum_packing_samples_total") == 600


async def test_a_day_without_samples_is_not_called_packed(world: World) -> None:
    """Its table goes all the same; the log and the count of days name only days that had samples."""
    await world.fetch("select quantum_ensure_day_partitions('quantum_samples', '2026-02-27', '2026-02-28')")
    report = await world.packing.pack()
    assert report.packed == ("2026-03-01",)
    assert world.registry.get_sample_value("quantum_packing_partitions_total") == 1
    left = await world.fetch("select day from quantum_day_partitions_before('quantum_samples', '2026-03-02')")
    assert left == []


async def test_late_samples_of_a_packed_day_are_taken_once(world: World) -> None:
    """They are rows again, seen beside the chunks without repeats, and the next run packs them."""
    await world.packing.pack()
    await world.write(90, 130)  # ten of them are there already
    for _ in range(2):
        block = await world.read()
        assert block.offsets.tolist() == [130 * at for at in range(7)]
        assert (np.diff(block.ts_ms[:130]) == 60_000).all()
        assert len(await world.view()) == 780
        await world.packing.pack()
    assert await world.fetch("select from quantum_samples") == []
    assert (await world.fetch("select count(*), sum(n) from quantum_chunks"))[0]["sum"] == 780
    rollups = await world.fetch("select count, last from quantum_metrics_5m where name = 'm0' order by time")
    assert [tuple(row) for row in rollups] == [(5, 5.0 * at + 4) for at in range(26)]


async def test_rows_that_come_during_packing_make_it_begin_again(world: World) -> None:
    """What was counted no longer holds: nothing is swapped, the next run takes all of it."""
    day = PackedDay(date_of(MIDNIGHT // DAY))
    async with world.database.acquire() as connection:
        while await world.packing._step(connection, day):
            pass
        await world.write(100, 101)
        assert await day.swap(connection) is None
    assert len((await world.read()).ts_ms) == 606
    await world.packing.pack()
    assert await world.fetch("select from quantum_samples") == []
    assert len((await world.read()).ts_ms) == 606


async def test_readers_see_each_sample_once_at_any_time(world: World) -> None:
    """While the tables change places, every reader of the view and of the history counts the same."""
    done = asyncio.Event()
    counts: set[int] = set()

    async def watch_view() -> None:
        connection = await asyncpg.connect(world.url)
        while not done.is_set():
            counts.add(await connection.fetchval("select count(*) from quantum_metrics"))
        await connection.close()

    async def watch_history() -> None:
        while not done.is_set():
            counts.add(len((await world.read()).ts_ms))

    watchers = [asyncio.create_task(watch()) for watch in (watch_view, watch_history, watch_history)]
    for _ in range(3):
        report = await world.packing.pack()
        while report.left:
            report = await world.packing.pack()
        await world.write(40, 60)  # late repeats: rows again
    done.set()
    await asyncio.gather(*watchers)
    assert counts == {600}


async def test_the_current_day_stays_as_rows(world: World) -> None:
    """Only days that have been over for an hour are packed."""
    await world.copier.write([SampleBatch(MIDNIGHT + 2 * DAY, SERIES, np.zeros(6))])
    await world.packing.pack()
    assert len(await world.fetch("select from quantum_samples")) == 6


async def test_five_minutes_in_one_number_each(world: World) -> None:
    """Minimum, maximum, sum, count and last; a staleness marker is no value."""
    await world.packing.pack()
    rows = await world.fetch(
        "select min, max, sum, count, last from quantum_metrics_5m "
        "where name = 'm5' and time = '2026-03-01 00:50+00'"
    )
    assert [tuple(row) for row in rows] == [(0.0, 2.0, 3.0, 4, 0.0)]


async def test_five_minutes_are_made_anew_with_late_samples(world: World) -> None:
    """Late samples of before a day's first take its history's beginning back: none of the old one stays."""
    late = [SampleBatch(MIDNIGHT + DAY + 60_000 * at, SERIES[:1], np.array([float(at)])) for at in range(20)]
    await world.copier.write(late[13:])
    await world.packing.pack()
    await world.copier.write(late[:13])
    await world.packing.pack()
    rows = await world.fetch(
        "select min, max, sum, count, last from quantum_metrics_5m where time >= '2026-03-02' order by time"
    )
    assert [tuple(row) for row in rows] == [
        (first, first + 4, 5 * first + 10, 5, first + 4) for first in (0.0, 5.0, 10.0, 15.0)
    ]
    await world.fetch("drop table quantum_chunks_20260302")
    block = await world.history.read(ALL, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY)
    assert block.values.tolist() == [4.0, 9.0, 14.0, 19.0]


async def test_days_without_samples_are_answered_by_five_minutes(world: World) -> None:
    """When retention has dropped a day, the last value of each five minutes stands at their end."""
    await world.packing.pack()
    await world.fetch("drop table quantum_chunks_20260301")
    block = await world.history.read([Matcher("__name__", MatchOp.EQUAL, "m0")], MIDNIGHT, MIDNIGHT + DAY)
    assert block.values.tolist() == [5.0 * at + 4 for at in range(20)]
    assert block.ts_ms[0] == MIDNIGHT + 299_999
    assert await world.history.series_between(ALL, MIDNIGHT, MIDNIGHT + DAY) == sorted(SERIES)


async def test_time_range_counts_packed_days(world: World) -> None:
    """The oldest sample may be in a chunk."""
    await world.packing.pack()
    assert await world.history.time_range() == (MIDNIGHT, MIDNIGHT + 99 * 60_000)
