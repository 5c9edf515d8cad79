"""Monitor.connect: events in Postgres, questions answered from there, outages survived."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from exporter.monitoring import Monitor
from tests.helpers.clock import FakeClock
from tests.helpers.postgres import PostgresServer

pytestmark = pytest.mark.postgres


async def stored(url: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        found: list[asyncpg.Record] = await connection.fetch(
            "select metric_type, metric_name, unit from performance_metrics order by metric_name"
        )
        return found
    finally:
        await connection.close()


async def test_events_are_stored_and_asked(migrated_url: str) -> None:
    """The contract's example: a call, a query, then the questions."""

    async def fetch() -> str:
        return "data"

    async with Monitor.connect(migrated_url) as monitor:
        assert await monitor.api_call("/api/market-data", "GET", fetch) == "data"
        async with monitor.db_query("SELECT", "btc_trades"):
            pass
        with pytest.raises(ValueError, match="no"):
            await monitor.api_call("/api/market-data", "GET", lambda: int("no"))
        # before anything is stored the events in memory answer
        assert await monitor.error_rate("1h") == pytest.approx(1 / 3)
        for _ in range(100):
            if len(await stored(migrated_url)) == 3:
                break
            await asyncio.sleep(0.05)
        average = await monitor.average_response_time("/api/market-data", "1h")
        assert average is not None
        assert 0 <= average < 1000
        assert await monitor.error_rate("1h") == pytest.approx(1 / 3)
        assert await monitor.average_response_time("/other", "1h") is None
    rows = await stored(migrated_url)
    assert [(row["metric_type"], row["metric_name"], row["unit"]) for row in rows] == [
        ("api_response", "/api/market-data", "ms"),
        ("api_response", "/api/market-data", "ms"),
        ("db_query", "SELECT btc_trades", "ms"),
    ]


async def test_leaving_writes_what_is_left(migrated_url: str) -> None:
    """Events recorded just before the end are in the table after it."""
    async with Monitor.connect(migrated_url) as monitor:
        for _ in range(10):
            monitor.record_db_query("SELECT", "t", 0.01)
    assert len(await stored(migrated_url)) == 10


async def test_the_table_is_made_where_it_is_missing(database_url: str) -> None:
    """An empty database gets the exporter's tables; the first events are not lost."""
    async with Monitor.connect(database_url) as monitor:
        monitor.record_db_query("SELECT", "t", 0.01)
        for _ in range(200):
            connection = await asyncpg.connect(database_url)
            there = await connection.fetchval("select to_regclass('performance_metrics') is not null")
            count = await connection.fetchval("select count(*) from performance_metrics") if there else 0
            await connection.close()
            if count:
                break
            await asyncio.sleep(0.05)
    assert len(await stored(database_url)) == 1


async def test_a_database_that_is_away_stops_nothing(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """Without a database the app runs on; the events wait in the spool for the next start."""
    url = own_postgres.url("postgres")
    own_postgres.stop()
    async with Monitor.connect(url, spool_dir=tmp_path) as monitor:
        assert await monitor.db_query("SELECT", "t", lambda: 1) == 1
    own_postgres.start()
    async with Monitor.connect(url, spool_dir=tmp_path) as monitor:
        for _ in range(200):
            connection = await asyncpg.connect(url)
            there = await connection.fetchval("select to_regclass('performance_metrics') is not null")
            count = await connection.fetchval("select count(*) from performance_metrics") if there else 0
            await connection.close()
            if count:
                break
            await asyncio.sleep(0.05)
    assert [row["metric_name"] for row in await stored(url)] == ["SELECT t"]


async def test_idle_label_sets_go_by_themselves(tmp_path: Path) -> None:
    """With expire_idle the connected Monitor drops and counts them; a duration of 0 is refused."""
    clock = FakeClock()
    with pytest.raises(ValueError, match="not above 0"):
        Monitor.connect("postgresql://nobody@127.0.0.1:1/none", expire_idle="0s")
    connected = Monitor.connect(
        "postgresql://nobody@127.0.0.1:1/none",
        spool_dir=tmp_path, migrate=False, expire_idle="100s", clock=clock,
    )  # fmt: skip
    async with connected as monitor:
        monitor.record_api_call("/old", "GET", 0.1)
        await clock.advance(60)
        monitor.record_api_call("/x", "GET", 0.1)
        await clock.advance(55)
        assert monitor.registry.get_sample_value("quantum_label_sets_expired_total") == 1
        names = {"provider": "app", "method": "GET", "outcome": "success"}
        found = [
            monitor.registry.get_sample_value("quantum_api_requests_total", {**names, "endpoint": endpoint})
            for endpoint in ("/old", "/x")
        ]
        assert found == [None, 1]
