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
from exporter.db.metrics import PackingMetrics, RetentionMetrics
from exporter.db.packing import Packing
from exporter.db.pool import Database
from exporter.db.retention import Retention
from exporter.errors import StorageError
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from tests.helpers.postgres import PostgresServer

DAY = 86_400_000
NOON = 1_772_366_400_000  # 2026-03-01 12:00 UTC


class FixedClock(SystemClock):
    """Stands at one wall time; waits are real and short."""

    def now_ms(self) -> int:
        return NOON

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.01))


class World:
    def __init__(self, url: str) -> None:
        self.url = url
        self.registry = CollectorRegistry()
        self.database = Database(url, SystemClock())
        self.pruned: list[int] = []
        self.retention = Retention(
            self.database,
            RetentionMetrics(self.registry),
            FixedClock(),
            retention_ms=2 * DAY,
            alert_retention_ms=90 * DAY,
            prune_alerts=self._prune,
        )

    async def _prune(self, before_ms: int) -> int:
        self.pruned.append(before_ms)
        return 3

    async def execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute(sql)
        await connection.close()

    async def tables(self) -> set[str]:
        connection = await asyncpg.connect(self.url)
        rows: list[Any] = await connection.fetch(
            "select relname from pg_class where relkind = 'r' and relname ~ '_2026(02|03)\\d\\d$'"
        )
        await connection.close()
        return {row["relname"] for row in rows}


@pytest.fixture
async def world(migrated_url: str) -> AsyncIterator[World]:
    one = World(migrated_url)
    await one.execute("select quantum_ensure_day_partitions('quantum_samples', '2026-02-20', '2026-03-01')")
    yield one
    await one.database.close()


async def test_whole_days_that_are_too_old_go(world: World) -> None:
    """A day goes only when all of it is older than the retention; coming days are made; alerts are pruned."""
    report = await world.retention.apply()
    assert report.dropped == tuple(f"quantum_samples_202602{day}" for day in range(20, 27))
    assert report.busy == ()
    assert report.alerts_removed == 3
    assert world.pruned == [NOON - 90 * DAY]
    days = {"20260227", "20260228", "20260301", "20260302", "20260303"}
    assert {name.rpartition("_")[2] for name in await world.tables() if "samples" in name} == days
    assert (await world.retention.apply()).dropped == ()
    name = "quantum_retention_partitions_dropped_total"
    assert world.registry.get_sample_value(name, {"table": "quantum_samples"}) == 7


async def test_a_day_in_use_waits_for_the_next_run(world: World) -> None:
    """A reader's lock is not waited for; what could not go now goes later."""
    reader = await asyncpg.connect(world.url)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("select * from quantum_samples_20260220")
    report = await world.retention.apply()
    assert report.busy[0] == "quantum_samples_20260220"
    assert report.dropped == ()
    await transaction.rollback()
    await reader.close()
    await world.retention.apply()
    assert not {
        name for name in await world.tables() if name < "quantum_samples_20260227" and "samples" in name
    }


async def test_what_an_interrupted_run_detached_is_dropped_and_what_is_kept_by_hand_is_not(
    world: World,
) -> None:
    """A detached day beyond the retention goes; one within it belongs to whoever detached it."""
    await world.execute("alter table quantum_samples detach partition quantum_samples_20260221")
    await world.execute("alter table quantum_samples detach partition quantum_samples_20260228")
    await world.retention.apply()
    tables = await world.tables()
    assert "quantum_samples_20260221" not in tables
    assert "quantum_samples_20260228" in tables


async def test_without_a_database_it_says_so(own_postgres: Any) -> None:
    """apply raises; run counts the failure and goes on."""
    url = own_postgres.migrated_url()
    own_postgres.stop()
    world = World(url)
    with pytest.raises(StorageError):
        await world.retention.apply()
    await world.database.close()


async def test_packed_days_go_with_the_samples_and_five_minutes_stay_longer(world: World) -> None:
    """Chunks have the age of samples, the five-minute history its own; neither is made ahead."""
    for table, days in (
        ("quantum_chunks", ("2026-02-20", "2026-03-01")),
        ("quantum_rollups", ("2026-02-20",) * 2),
    ):
        await world.execute(f"select quantum_ensure_day_partitions('{table}', '{days[0]}', '{days[1]}')")
    await world.execute("select quantum_ensure_day_partitions('quantum_rollups', '2025-02-20', '2025-02-20')")
    report = await world.retention.apply()
    assert "quantum_chunks_20260226" in report.dropped
    assert "quantum_rollups_20250220" in report.dropped
    tables = await world.tables()
    assert {name for name in tables if "chunks" in name} == {
        f"quantum_chunks_{day}" for day in ("20260227", "20260228", "20260301")
    }
    assert "quantum_rollups_20260220" in tables


async def test_two_replicas_at_once(own_postgres: PostgresServer) -> None:
    """Both apply retention and pack at the same moment: each day goes once, nothing fails, every sample that
    is young enough is still there, once."""
    url = own_postgres.migrated_url()
    days = [NOON // DAY * DAY + day * DAY for day in range(-4, 1)]
    databases = [Database(url, SystemClock()) for _ in range(2)]
    labels = tuple(LabelSet.of({"__name__": "m", "n": str(n)}) for n in range(50))
    copier = SampleCopier(databases[0])
    for day in days:
        for step in range(20):
            await copier.write([SampleBatch(day + 60_000 * step, labels, np.ones(50))])
    retentions = [
        Retention(one, RetentionMetrics(CollectorRegistry()), FixedClock(), retention_ms=2 * DAY)
        for one in databases
    ]
    packings = [Packing(one, PackingMetrics(CollectorRegistry()), FixedClock()) for one in databases]
    reports = await asyncio.gather(*(one.apply() for one in retentions))
    await asyncio.gather(*(one.pack() for one in packings))
    await asyncio.gather(*(one.pack() for one in packings))
    dropped = [name for report in reports for name in report.dropped]
    assert len(dropped) == len(set(dropped)) == 2
    async with databases[0].acquire() as connection:
        rows = await connection.fetchrow(
            "select count(*) as n, count(distinct (name, labels, time)) as apart from quantum_metrics"
        )
    assert (rows["n"], rows["apart"]) == (3000, 3000)
    for one in databases:
        await one.close()
