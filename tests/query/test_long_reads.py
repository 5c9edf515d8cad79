"""Queries that reach behind the head, against one store that holds everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from exporter.clock import SystemClock
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.pool import Database
from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.promql.engine import Engine
from exporter.query.local import Limits, LocalQueries
from exporter.query.metrics import QueryMetrics
from exporter.query.older import OlderSamples
from exporter.storage import MemoryStorage
from tests.helpers.postgres import PostgresServer

MIDNIGHT = 1_772_409_600_000
STEP = 15_000
ROWS = 240  # an hour
FLOOR = MIDNIGHT + 60 * STEP  # the head holds three quarters of it
END = MIDNIGHT + (ROWS - 1) * STEP
COUNTERS = tuple(LabelSet.of({"__name__": "calls_total", "job": job}) for job in ("a", "b", "c"))
GAUGE = LabelSet.of({"__name__": "temperature", "job": "a"})
INFO = LabelSet.of({"__name__": "target_info", "job": "a", "version": "2"})
OLD = LabelSet.of({"__name__": "gone", "kind": "before"})  # ends, with a marker, before the head begins
ACROSS = LabelSet.of({"__name__": "flaky", "job": "a"})  # its marker is the head's first sample
NEW = LabelSet.of({"__name__": "born", "kind": "after"})


def batches() -> list[SampleBatch]:
    """One batch for each time; the counters fall to 0 just before the floor and once after it."""
    random = np.random.default_rng(7)
    out = []
    totals = np.array([5.0, 7.0, 9.0])
    for row in range(ROWS):
        totals = totals + random.integers(0, 9, 3)
        if row in (58, 130):
            totals = np.zeros(3)
        values = {label: float(total) for label, total in zip(COUNTERS, totals, strict=True)}
        values[GAUGE] = float(random.normal())
        values[INFO] = 1.0
        if row < 30:
            values[OLD] = float(row)
        if row == 30:
            values[OLD] = STALE_NAN
        if row != 60 and row % 7:
            values[ACROSS] = float(row)
        if row == 60:
            values[ACROSS] = STALE_NAN
        if row >= 100:
            values[NEW] = 1.0
        out.append(SampleBatch(MIDNIGHT + row * STEP, tuple(values), np.array(list(values.values()))))
    return out


@dataclass
class Stores:
    """The service over head and Postgres, and one store with all samples."""

    queries: LocalQueries
    whole: MemoryStorage
    head: MemoryStorage
    database: Database


def service(head: MemoryStorage, database: Database, limits: Limits | None = None) -> LocalQueries:
    limits = limits or Limits()
    history = History(database)
    return LocalQueries(
        head,
        Engine(head, max_samples=limits.max_samples),
        limits=limits,
        clock=SystemClock(),
        metrics=QueryMetrics(CollectorRegistry()),
        older=OlderSamples(head, lambda: history),
    )


async def open_stores(url: str) -> Stores:
    database = Database(url, SystemClock())
    whole, head = MemoryStorage(), MemoryStorage()
    everything = batches()
    await SampleCopier(database).write(everything)
    for batch in everything:
        whole.append_batch(batch)
        head.append_batch(batch)
    head.truncate(FLOOR)
    return Stores(service(head, database), whole, head, database)


@pytest.fixture
async def stores(migrated_url: str) -> AsyncIterator[Stores]:
    opened = await open_stores(migrated_url)
    yield opened
    opened.queries.close()
    await opened.database.close()


QUERIES = [
    "calls_total",
    "rate(calls_total[5m])",
    "sum by (job) (increase(calls_total[20m]))",
    "calls_total offset 30m",
    "calls_total @ 1772409700",
    "temperature - temperature offset 20m",
    "avg_over_time(temperature[50m])",
    "max_over_time(rate(calls_total[2m])[40m:1m])",
    "gone or born",
    "flaky",
    "count_over_time(flaky[10m])",
    "last_over_time(gone[1h])",
    "absent(gone)",
    "info(temperature)",
    'sum(rate({__name__=~".+_total"}[3m])) / 2',
    "resets(calls_total[45m])",
    "rate(calls_total[3m] smoothed)",
]


@pytest.mark.parametrize("text", QUERIES)
async def test_a_query_across_both_gives_what_one_store_would(stores: Stores, text: str) -> None:
    """Instants and steps before, on, just after and far behind the head's first sample."""
    engine = Engine(stores.whole)
    for at in (
        MIDNIGHT + 1,
        FLOOR - STEP,
        FLOOR - 1,
        FLOOR,
        FLOOR + 1,
        FLOOR + 299_999,
        FLOOR + 300_000,
        END,
    ):
        got = await stores.queries.instant(text, at)
        assert got.to_json() == engine.query(text, at).to_json()
        assert not got.warnings
    for step in (7_000, 15_000, 61_000):
        got = await stores.queries.range(text, MIDNIGHT - 60_000, END, step)
        assert got.to_json() == engine.query_range(text, MIDNIGHT - 60_000, END, step).to_json()


async def test_a_longer_lookback_reaches_further_back(stores: Stores) -> None:
    """`lookback_delta` of the request counts, too, in telling what is older than the head."""
    got = await stores.queries.instant("gone", FLOOR + 60_000, lookback_delta_ms=3_600_000)
    one = Engine(stores.whole).query("gone", FLOOR + 60_000, lookback_delta_ms=3_600_000)
    assert got.to_json() == one.to_json()


async def test_an_empty_head_leaves_everything_to_postgres(stores: Stores) -> None:
    """After a restart the head knows nothing yet."""
    queries = service(MemoryStorage(), stores.database)
    got = await queries.range("rate(calls_total[5m])", MIDNIGHT, END, 60_000)
    assert (
        got.to_json()
        == Engine(stores.whole).query_range("rate(calls_total[5m])", MIDNIGHT, END, 60_000).to_json()
    )
    queries.close()


async def test_a_head_that_is_cut_while_a_query_runs_loses_nothing(stores: Stores) -> None:
    """The history is read somewhat beyond the head's floor, which may rise before the head is read."""
    assert stores.queries._older is not None
    reads = stores.queries._older.needed(
        Engine(stores.head).reads("calls_total[1h]", END, END),
    )
    source, _ = await stores.queries._older.source(reads, 1_000_000)
    stores.head.truncate(FLOOR + 120_000)
    got = Engine(source).query("calls_total[1h]", END)
    assert got.to_json() == Engine(stores.whole).query("calls_total[1h]", END).to_json()


async def test_labels_of_older_ranges(stores: Stores) -> None:
    """Label queries see series of either store that have samples in the range."""
    gone = [[Matcher("__name__", MatchOp.EQUAL, "gone")]]
    queries = stores.queries
    assert (await queries.series(gone, MIDNIGHT, END)).items == [OLD]
    assert (await queries.series(gone, FLOOR, END)).items == []
    assert (await queries.series(gone, MIDNIGHT + 31 * STEP, END)).items == []
    assert (await queries.label_values("kind", (), -(2**62), 2**62)).items == ["after", "before"]
    assert (await queries.label_values("kind", (), FLOOR, END)).items == ["after"]
    names = (await queries.label_names((), MIDNIGHT, END)).items
    assert names == ["__name__", "job", "kind", "version"]
    everything = [[Matcher("__name__", MatchOp.REGEX, ".+")]]
    found = (await queries.series(everything, MIDNIGHT, END)).items
    assert found == stores.whole.series(everything, MIDNIGHT, END)


async def test_too_many_stored_samples_end_the_query(stores: Stores) -> None:
    """What the long memory would load counts as what the head would."""
    queries = service(stores.head, stores.database, Limits(max_samples=250))
    with pytest.raises(QueryError, match="would load too many samples into memory") as caught:
        await queries.instant('last_over_time({__name__=~".+"}[1h])', FLOOR)
    assert caught.value.kind is QueryErrorKind.LIMIT
    queries.close()


async def test_without_the_database_the_head_still_answers(own_postgres: PostgresServer) -> None:
    """An outage costs what is older than the head, and the answer says so."""
    stores = await open_stores(own_postgres.migrated_url())
    own_postgres.stop()
    got = await stores.queries.range("calls_total", MIDNIGHT, END, 60_000)
    assert got.to_json() == Engine(stores.head).query_range("calls_total", MIDNIGHT, END, 60_000).to_json()
    assert len(got.warnings) == 1
    assert got.warnings[0].startswith("samples before 2026-03-02T00:15:00Z are missing, the sample store")
    found = await stores.queries.label_values("kind", (), MIDNIGHT, END)
    assert found.items == ["after"]
    assert len(found.warnings) == 1
    recent = await stores.queries.instant("calls_total", END)
    assert not recent.warnings
    own_postgres.start()
    stores.queries.close()
    await stores.database.close()
