from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from exporter.clock import SystemClock
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.pool import Database
from exporter.errors import QueryError
from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.model.samples import SampleBatch, SeriesBlock
from exporter.model.staleness import STALE_NAN, stale_mask

NOON = 1_772_366_400_000
SERIES = tuple(
    LabelSet.of({"__name__": name, "job": job, "pod": pod})
    for name in ("up", "load")
    for job in ("a", "b")
    for pod in ("", "x", "y")
)


@pytest.fixture
async def history(migrated_url: str) -> AsyncIterator[History]:
    """Twelve series, ten samples each, one a minute across midnight; value = series number + minute / 100."""
    database = Database(migrated_url, SystemClock())
    midnight = NOON + 43_200_000
    batches = [
        SampleBatch(midnight + 60_000 * minute, SERIES, np.arange(12.0) + minute / 100)
        for minute in range(-5, 5)
    ]
    batches.append(SampleBatch(midnight + 300_000, SERIES[:1], np.array([STALE_NAN])))
    await SampleCopier(database).write(batches)
    yield History(database)
    await database.close()


def matcher(name: str, op: MatchOp, value: str) -> Matcher:
    return Matcher(name, op, value)


E, N, R, X = MatchOp.EQUAL, MatchOp.NOT_EQUAL, MatchOp.REGEX, MatchOp.NOT_REGEX
FROM, TO = NOON, NOON + 86_400_000


def plain(block: SeriesBlock) -> dict[LabelSet, list[tuple[int, float]]]:
    return {
        labels: list(zip(block.ts_ms[lo:hi].tolist(), block.values[lo:hi].tolist(), strict=True))
        for labels, lo, hi in zip(block.labels, block.offsets[:-1], block.offsets[1:], strict=True)
    }


@pytest.mark.parametrize(
    "matchers",
    [
        [matcher("__name__", E, "up")],
        [matcher("__name__", E, "up"), matcher("job", E, "a")],
        [matcher("__name__", E, "up"), matcher("pod", E, "")],
        [matcher("__name__", E, "up"), matcher("pod", N, "")],
        [matcher("__name__", R, "up|load"), matcher("pod", R, "x|")],
        [matcher("__name__", N, "up"), matcher("job", X, "a")],
        [matcher("job", E, "a"), matcher("job", E, "b")],
        [matcher("nowhere", E, "")],
        [matcher("pod", E, "\x00")],
        [],
    ],
)
async def test_matchers_choose_as_they_do_in_memory(history: History, matchers: list[Matcher]) -> None:
    """Whatever SQL answers and whatever is left to Python: the series satisfy every matcher."""
    wanted = sorted(one for one in SERIES if all(m.matches(one.get(m.name)) for m in matchers))
    block = await history.read(matchers, FROM, TO)
    assert list(block.labels) == wanted
    assert await history.series(matchers) == wanted


async def test_ranges_are_closed_and_cross_days(history: History) -> None:
    """Both ends belong to the range; samples of two day partitions form one ascending run."""
    midnight = NOON + 43_200_000
    block = await history.read(
        [matcher("__name__", E, "up"), matcher("job", E, "b")], midnight - 60_000, midnight
    )
    found = plain(block)
    assert [[ts - midnight for ts, _ in points] for points in found.values()] == [[-60_000, 0]] * 3
    assert found[SERIES[3]] == [(midnight - 60_000, 2.99), (midnight, 3.0)]


async def test_series_without_samples_in_the_range_are_left_out(history: History) -> None:
    """A range after the last sample of most series returns the one that has one, its marker intact."""
    block = await history.read([], NOON + 43_200_000 + 300_000, TO)
    assert block.labels == (SERIES[0],)
    assert stale_mask(block.values).tolist() == [True]
    assert len((await history.read([], 0, 1)).labels) == 0


async def test_the_number_of_samples_is_bounded(history: History) -> None:
    """At the bound a read succeeds; one sample beyond it is refused as a query."""
    assert len((await history.read([], FROM, TO, max_samples=121)).ts_ms) == 121
    with pytest.raises(QueryError, match="too many samples"):
        await history.read([], FROM, TO, max_samples=119)


async def test_time_range_of_the_store(history: History, database_url: str) -> None:
    """The oldest and the newest sample, across days."""
    midnight = NOON + 43_200_000
    assert await history.time_range() == (midnight - 300_000, midnight + 300_000)


async def test_reads_go_on_beside_each_other(history: History) -> None:
    """More reads at once than connections all answer."""
    blocks = await asyncio.gather(*(history.read([], FROM, TO) for _ in range(12)))
    assert {len(block.ts_ms) for block in blocks} == {121}
