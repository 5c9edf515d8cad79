"""The head is filled from Postgres at the start."""

from __future__ import annotations

import numpy as np

from exporter.clock import SystemClock
from exporter.compose.warm import warm_head
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.pool import Database
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN, is_stale
from exporter.promql.engine import Engine
from exporter.storage import MemoryStorage

NOW = 1_700_000_000_000
ONE = LabelSet.of({"__name__": "c_total", "job": "a"})
TWO = LabelSet.of({"__name__": "c_total", "job": "b"})


async def stored(url: str, batches: list[SampleBatch]) -> Database:
    database = Database(url, SystemClock())
    await SampleCopier(database).write(batches)
    return database


def batches(last_ms: int, count: int) -> list[SampleBatch]:
    both = (ONE, TWO)
    found = [
        SampleBatch(last_ms - 15_000 * back, both, np.array([count - back, 2.0 * (count - back)]))
        for back in range(count)
    ]
    return found[::-1]


async def test_stored_samples_are_in_the_head_and_judged(migrated_url: str) -> None:
    """A rate over the hour before the start is the one that a single run would have seen."""
    database = await stored(migrated_url, batches(NOW - 15_000, 480))  # two hours, across the slices
    storage = MemoryStorage()
    since_ms = await warm_head(storage, History(database), NOW, 6 * 3_600_000)
    assert since_ms == NOW - 480 * 15_000
    result = Engine(storage).query("rate(c_total[1h])", NOW)
    assert [row["value"][1] for row in result.to_json()["result"]] == [
        "0.06666666666666667",
        "0.13333333333333333",
    ]
    assert storage.stats().samples == 960
    await database.close()


async def test_only_the_window_is_loaded_and_markers_are_kept(migrated_url: str) -> None:
    """Older samples stay in Postgres; a marker arrives bit by bit."""
    found = [*batches(NOW - 15_000, 480), SampleBatch(NOW - 5_000, (TWO,), np.array([STALE_NAN]))]
    database = await stored(migrated_url, found)
    storage = MemoryStorage()
    await warm_head(storage, History(database), NOW, 600_000)
    block = storage.select([], 0, NOW)
    assert int(block.ts_ms.min()) >= NOW - 600_000
    assert sum(is_stale(value) for value in block.values.tolist()) == 1
    await database.close()


async def test_after_a_pause_nothing_counts_as_observed(migrated_url: str) -> None:
    """Samples of before a longer stop are there, but windows have a hole: rules wait for full ones."""
    database = await stored(migrated_url, batches(NOW - 600_000, 4))
    storage = MemoryStorage()
    assert await warm_head(storage, History(database), NOW, 3_600_000) == NOW
    assert storage.stats().samples == 8
    await database.close()


async def test_a_database_that_is_away_leaves_the_head_empty() -> None:
    """The start goes on."""
    database = Database("postgresql://nobody@127.0.0.1:9/none", SystemClock())
    storage = MemoryStorage()
    assert await warm_head(storage, History(database), NOW, 3_600_000) == NOW
    assert storage.stats().samples == 0
