from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from exporter.clock import SystemClock
from exporter.db.event_history import EventHistory
from exporter.db.events import EventCodec, EventWriter, StoredEvent
from exporter.db.metrics import WriteMetrics
from exporter.db.pool import Database
from exporter.db.spool import Spool
from exporter.model.events import MetricEvent
from tests.helpers.postgres import PostgresServer

NOON = 1_772_366_400_000  # 2026-03-01 12:00 UTC


class World:
    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.clock = SystemClock()
        self.database = Database(url, self.clock)
        self.spool: Spool[StoredEvent] = Spool(folder, EventCodec(), self.clock)
        metrics = WriteMetrics(self.registry, "events")
        self.writer = EventWriter(self.database, self.spool, metrics, self.clock, **options)
        self.task = asyncio.create_task(self.writer.run())

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"quantum_events_{name}", labels)
        assert value is not None, name
        return value

    async def until(self, name: str, value: float) -> None:
        for _ in range(2000):
            if self.metric(name) >= value:
                return
            await self.clock.sleep(0.01)
        raise AssertionError(f"{name} stays {self.metric(name)}: {self.writer!r}")

    async def close(self) -> None:
        await self.writer.close()
        await self.task
        await self.database.close()


@asynccontextmanager
async def world(url: str, folder: Path, **options: Any) -> AsyncIterator[World]:
    one = World(url, folder, **options)
    try:
        yield one
    finally:
        await one.close()


def call(endpoint: str = "/a", ms: float = 10.0, ts_ms: int = NOON, **context: object) -> MetricEvent:
    return MetricEvent("api_response", endpoint, ms, "ms", ts_ms, {"success": True, **context})


async def _rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_events_become_rows(migrated_url: str, tmp_path: Path) -> None:
    """Every field arrives; names longer than their column are cut; any day gets its partition."""
    async with world(migrated_url, tmp_path) as one:
        one.writer.put(call("/x", 12.5, provider="kraken", status=200))
        one.writer.put(MetricEvent("db_query", "q" * 300, 1.0, "ms", NOON + 86_400_000))
        await one.until("persisted_total", 2)
    rows = await _rows(
        migrated_url,
        "select metric_type, metric_name, value, unit, context, timestamp from performance_metrics "
        "order by timestamp",
    )
    assert rows[0][:4] == ("api_response", "/x", 12.5, "ms")
    assert json.loads(rows[0][4]) == {"success": True, "provider": "kraken", "status": 200}
    assert rows[0][5].isoformat() == "2026-03-01T12:00:00+00:00"
    assert rows[1][1] == "q" * 255


async def test_an_outage_loses_and_doubles_nothing(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """Events of an outage come back from the spool, each once."""
    url = own_postgres.migrated_url()
    own_postgres.stop()
    async with world(url, tmp_path) as one:
        for number in range(30):
            one.writer.put(call(ms=number))
        await one.until("spooled_total", 30)
        own_postgres.start()
        await one.until("persisted_total", 30)
    assert await _rows(
        url, "select count(*), count(distinct id), sum(value)::int from performance_metrics"
    ) == [(30, 30, 435)]


async def test_writing_twice_is_harmless(migrated_url: str, tmp_path: Path) -> None:
    """Events that are drained again after a crash meet their own rows and change nothing."""
    item = StoredEvent(uuid.UUID(int=7), call())
    for folder in ("a", "b"):
        spool: Spool[StoredEvent] = Spool(tmp_path / folder, EventCodec(), SystemClock())
        spool.append([item])
        spool.close()
        async with world(migrated_url, tmp_path / folder) as one:
            await one.until("persisted_total", 1)
    assert await _rows(migrated_url, "select count(*) from performance_metrics") == [(1,)]


async def test_one_event_that_postgres_rejects_costs_only_itself(migrated_url: str, tmp_path: Path) -> None:
    """A context that jsonb cannot hold is given up and counted; the events around it are stored."""
    async with world(migrated_url, tmp_path) as one:
        for number in range(9):
            one.writer.put(call(ms=number, text="a\x00b" if number == 4 else "ok"))
        await one.until("persisted_total", 8)
        assert one.metric("dropped_total", reason="rejected") == 1
    assert len(await _rows(migrated_url, "select 1 from performance_metrics")) == 8


async def test_busy_kinds_are_sampled_and_failures_are_not(migrated_url: str, tmp_path: Path) -> None:
    """In one second at most the bound of successes of a kind is kept, every failure, and the rest counted."""
    async with world(migrated_url, tmp_path, keep_per_second=5) as one:
        for number in range(20):
            one.writer.put(call(ms=number))
            one.writer.put(call(ms=number, success=False, error="TimeoutError"))
        one.writer.put(call(ts_ms=NOON + 1000))
        await one.until("persisted_total", 26)
        assert one.metric("dropped_total", reason="sampled") == 15


async def test_questions_about_a_period(migrated_url: str, tmp_path: Path) -> None:
    """Mean time of one endpoint or all, and the error rate, of a period open at its start."""
    async with world(migrated_url, tmp_path) as one:
        one.writer.put(call("/a", 10.0))
        one.writer.put(call("/a", 30.0, NOON + 1000))
        one.writer.put(call("/b", 80.0, NOON + 1000, success=False, outcome="timeout"))
        one.writer.put(call("/b", 40.0, NOON + 2000, success=False, outcome="cancelled"))
        await one.until("persisted_total", 4)
        history = EventHistory(one.database)
        assert await history.average_response_time_ms("/a", NOON - 1, NOON + 5000) == 20.0
        assert await history.average_response_time_ms("/a", NOON, NOON + 5000) == 30.0
        assert await history.average_response_time_ms(None, NOON - 1, NOON + 5000) == 40.0
        assert await history.average_response_time_ms("/none", NOON - 1, NOON + 5000) is None
        assert await history.error_rate(NOON - 1, NOON + 5000) == pytest.approx(0.25)
        assert await history.error_rate(NOON + 5000, NOON + 6000) is None
