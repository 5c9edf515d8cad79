"""Queries over days whose samples are gone, packed days, rows and the head, against one whole store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from exporter.clock import SystemClock
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.metrics import PackingMetrics
from exporter.db.packing import Packing
from exporter.db.pool import Database
from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.model.rollups import Rollup
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.promql.engine import Engine
from exporter.query.local import Limits, LocalQueries
from exporter.query.metrics import QueryMetrics
from exporter.query.older import OlderSamples
from exporter.storage import MemoryStorage

DAY = 86_400_000
FIVE = 300_000
MIDNIGHT = 1_772_323_200_000  # 2026-03-01: its samples are gone; the next day is packed, the third begins
END = MIDNIGHT + 2 * DAY + 3 * 3_600_000
FLOOR = MIDNIGHT + 2 * DAY + 3_600_000
SERIES = tuple(LabelSet.of({"__name__": "load", "job": job}) for job in ("a", "b"))
FLAKY = LabelSet.of({"__name__": "flaky", "job": "a"})
MINUTE = 60_000


class FixedClock(SystemClock):
    """Stands two hours into the third day; waits are not."""

    def now_ms(self) -> int:
        return MIDNIGHT + 2 * DAY + 7_200_000

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)


def batches() -> list[SampleBatch]:
    """One a minute, at second 13; the flaky series is there for 40 minutes of each hour."""
    random = np.random.default_rng(11)
    out = []
    for at in range(0, END - MIDNIGHT, MINUTE):
        values = {one: float(random.integers(-500, 500)) for one in SERIES}
        minute = at // MINUTE % 60
        if minute <= 40:
            values[FLAKY] = float(minute) if minute < 40 else STALE_NAN
        ts_ms = MIDNIGHT + at + 13_000
        out.append(SampleBatch(ts_ms, tuple(values), np.array(list(values.values()))))
    return out


class Stores:
    def __init__(self, url: str) -> None:
        self.database = Database(url, SystemClock())
        self.history = History(self.database)
        self.whole, self.head = MemoryStorage(), MemoryStorage()
        self.queries = self.service(Limits())

    def service(self, limits: Limits) -> LocalQueries:
        return LocalQueries(
            self.head,
            Engine(self.head, max_samples=limits.max_samples),
            limits=limits,
            clock=SystemClock(),
            metrics=QueryMetrics(CollectorRegistry()),
            older=OlderSamples(self.head, lambda: self.history),
        )


@pytest.fixture
async def stores(migrated_url: str) -> AsyncIterator[Stores]:
    one = Stores(migrated_url)
    everything = batches()
    await SampleCopier(one.database).write(everything)
    for batch in everything:
        one.whole.append_batch(batch)
        if batch.ts_ms >= FLOOR:
            one.head.append_batch(batch)
    await Packing(one.database, PackingMetrics(CollectorRegistry()), FixedClock()).pack()
    connection = await asyncpg.connect(migrated_url)
    await connection.execute("drop table quantum_chunks_20260301")
    await connection.close()
    yield one
    one.queries.close()
    await one.database.close()


@pytest.mark.parametrize(
    "text",
    [
        "min_over_time(load[1h])",
        "max_over_time(load[30m])",
        "sum_over_time(load[2h])",
        "count_over_time(flaky[1h])",
        "avg_over_time(load[1d])",
        "sum by (job) (avg_over_time({__name__=~'load|flaky'}[3h]))",
        "max_over_time(load[6h]) - min_over_time(load[6h])",
        "count_over_time(load[1d]) + sum_over_time(load[1d])",
        "last_over_time(load[10m])",
        "load",
        "flaky or load offset 6h",
    ],
)
async def test_old_days_give_what_their_samples_would(stores: Stores, text: str) -> None:
    """At ends of five minutes, over the day that is gone, across its end, and after it."""
    one = Engine(stores.whole)
    for start, end, step in (
        (MIDNIGHT + 3_600_000 - 1, END, 1_800_000),
        (MIDNIGHT + DAY - 3 * FIVE - 1, MIDNIGHT + DAY + 4 * FIVE, FIVE),
    ):
        got = await stores.queries.range(text, start, end, step)
        assert got.to_json() == one.query_range(text, start, end, step).to_json()
        assert got.warnings == ()


async def test_a_counter_is_read_with_the_height_of_its_falls(stores: Stores) -> None:
    """`resets` sees a fall inside five minutes, of which the last values alone would tell nothing."""
    text = 'resets(load{job="a"}[2h])'
    got = (await stores.queries.instant(text, MIDNIGHT + DAY - 1)).to_json()["result"][0]["value"][1]
    known = await stores.history.remembered(
        [Matcher("job", MatchOp.EQUAL, "a"), Matcher("__name__", MatchOp.EQUAL, "load")],
        MIDNIGHT + DAY - 7_200_000, MIDNIGHT + DAY - 1, [Rollup.LAST, Rollup.MAXIMUM],
    )  # fmt: skip
    last, most = (known.rollups[kind].values for kind in (Rollup.LAST, Rollup.MAXIMUM))
    assert len(last) == 24
    between = int((most[1:] < last[:-1]).sum())  # falls from one five minutes to the next
    assert int(got) == between + int((most > last).sum())


async def test_a_range_too_narrow_is_told(stores: Stores) -> None:
    """A rate over five minutes has gaps on old days: the answer says which range has none."""
    got = await stores.queries.range("rate(load[5m])", MIDNIGHT, END, 1_800_000)
    assert any("rate needs a range of 10m or more there" in warning for warning in got.warnings)
    recent = await stores.queries.range("rate(load[5m])", MIDNIGHT + DAY + FIVE, END, 1_800_000)
    assert recent.warnings == ()


async def test_rollups_count_against_the_limit(stores: Stores) -> None:
    """288 numbers of each kind for a series and day: one too many is refused before it is fetched."""
    queries = stores.service(Limits(max_samples=2 * 288 - 1))
    with pytest.raises(QueryError, match="too many samples") as caught:
        await queries.instant("sum_over_time(load[1d])", MIDNIGHT + DAY - 1)
    assert caught.value.kind is QueryErrorKind.LIMIT
    queries.close()
