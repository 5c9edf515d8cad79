"""A database that answers and takes no writes: a standby, or one set read-only (here the latter)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.db.metrics import WriteMetrics
from exporter.db.migrate import migrate_up
from exporter.db.pool import Database
from exporter.db.sample_codec import SampleCodec
from exporter.db.spool import Spool
from exporter.db.writer import SampleWriter
from exporter.errors import MigrationError
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from tests.helpers.postgres import PostgresServer

NOON = 1_772_366_400_000
SERIES = tuple(LabelSet.of({"__name__": "m", "n": str(n)}) for n in range(20))


def set_read_only(server: PostgresServer, on: bool) -> None:
    """For every session, those that are open too, as a standby is until it is promoted."""
    server.psql(f"alter system set default_transaction_read_only = {'on' if on else 'off'}")
    server.psql("select pg_reload_conf()")


async def test_what_is_missing_cannot_be_applied_and_nothing_missing_is_fine(
    own_postgres: PostgresServer,
) -> None:
    """A start against a standby goes on where the primary was migrated; else the error names the way out."""
    empty, migrated = own_postgres.url(own_postgres.create_database()), own_postgres.migrated_url()
    set_read_only(own_postgres, on=True)
    assert await migrate_up(migrated, asset_dir("sql")) == ()
    with pytest.raises(
        MigrationError, match=r"takes no writes .* from 001_users on: database\.url must name"
    ):
        await migrate_up(empty, asset_dir("sql"))
    connection = await asyncpg.connect(empty)
    assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
    await connection.close()


async def test_samples_wait_in_the_spool_until_it_takes_writes(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """The database is up for readers all the while; afterwards each sample is there once."""
    url = own_postgres.migrated_url()
    set_read_only(own_postgres, on=True)
    clock, registry = SystemClock(), CollectorRegistry()
    database = Database(url, clock)
    spool = Spool(tmp_path, SampleCodec(), clock)
    writer = SampleWriter(database, spool, WriteMetrics(registry), clock)
    task = asyncio.create_task(writer.run())

    async def until(metric: str, value: float) -> None:
        async with asyncio.timeout(30):
            while registry.get_sample_value(metric) != value:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    for at in range(10):
        writer.put(SampleBatch(NOON + 1000 * at, SERIES, np.full(20, float(at))))
    await until("quantum_samples_spooled_total", 200)
    assert await database.probe()
    async with database.acquire() as connection:
        assert await connection.fetchval("select count(*) from quantum_samples") == 0
    set_read_only(own_postgres, on=False)
    await until("quantum_samples_persisted_total", 200)
    await until("quantum_spool_batches", 0)
    async with database.acquire() as connection:
        counted = await connection.fetchrow("select count(*), sum(value) from quantum_samples")
    assert tuple(counted) == (200, 20 * 45)
    await writer.close()
    await task
    await database.close()
