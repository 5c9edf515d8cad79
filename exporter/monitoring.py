"""The public Monitor: observation joined with the database, for an app that measures itself."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from exporter import observe
from exporter.assets import asset_dir
from exporter.clock import Clock, SystemClock
from exporter.db.event_history import EventHistory
from exporter.db.events import EventCodec, EventWriter
from exporter.db.metrics import WriteMetrics
from exporter.db.migrate import migrate_up
from exporter.db.pool import Database
from exporter.db.spool import Spool
from exporter.errors import MigrationError, StorageError
from exporter.model.durations import parse_duration

_LOG = logging.getLogger(__name__)
_RETRY_S = 5.0
_EXPIRE_S = 60.0
_CLOSE_S = 4.0  # half of it for the last write, which lingers a second for company


class Monitor(observe.Monitor):
    """Times API calls and database queries; `Monitor.connect(url)` also keeps them in Postgres.

    Without a database `Monitor()` works on its own: metrics in `registry`, questions answered from the
    recent events in memory.
    """

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        registry: CollectorRegistry | None = None,
        spool_dir: Path | str | None = None,
        migrate: bool = True,
        expire_idle: str | None = None,
        clock: Clock | None = None,
    ) -> AbstractAsyncContextManager[Monitor]:
        """A Monitor whose events go to `performance_metrics` of the database at `url` (postgresql://).

        Never waits for the database: while it is away the events are kept in `spool_dir` (by default a
        temporary folder that goes with the program), and follow when it is back. `migrate` makes the
        table, with the exporter's other tables, where it is missing. `expire_idle` (a duration such as 6h)
        drops label sets that nobody used for so long. On leaving, what is left is written or spooled within
        4 s.

        Raises: ValueError where `expire_idle` is no duration above 0.
        """
        idle_ms = parse_duration(expire_idle) if expire_idle is not None else 0
        if expire_idle is not None and idle_ms <= 0:
            raise ValueError(f'expire_idle: "{expire_idle}" is not above 0')
        return _connected(cls, url, registry, spool_dir, migrate, idle_ms, clock or SystemClock())


@asynccontextmanager
async def _connected(
    cls: type[Monitor],
    url: str,
    registry: CollectorRegistry | None,
    spool_dir: Path | str | None,
    migrate: bool,
    idle_ms: int,
    clock: Clock,
) -> AsyncIterator[Monitor]:
    registry = registry if registry is not None else CollectorRegistry()
    with tempfile.TemporaryDirectory(prefix="quantum-events-") as temporary:
        folder = Path(spool_dir) if spool_dir is not None else Path(temporary)
        database = Database(url, clock, max_connections=3, application_name="quantum-monitor")
        try:
            spool = Spool(folder, EventCodec(), clock)
            writer = EventWriter(database, spool, WriteMetrics(registry, "events"), clock)
            monitor = cls(registry=registry, events=writer, history=EventHistory(database), clock=clock)
            tasks = [asyncio.create_task(writer.run(), name="monitor events")]
            if migrate:
                tasks.append(asyncio.create_task(_prepare(url, database, clock), name="monitor tables"))
            if idle_ms:
                tasks.append(asyncio.create_task(_expire(monitor, idle_ms, clock), name="monitor label sets"))
            await asyncio.sleep(0)  # the writer must have begun, else closing takes its events to the spool
            try:
                yield monitor
            finally:
                await writer.close(_CLOSE_S)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await database.close()


async def _expire(monitor: Monitor, idle_ms: int, clock: Clock) -> None:
    """Drop idle label sets, often enough that none stays for a tenth longer than it may."""
    while True:
        await clock.sleep(min(_EXPIRE_S, idle_ms / 10_000))
        monitor.expire_idle(idle_ms / 1000)


async def _prepare(url: str, database: Database, clock: Clock) -> None:
    """Make the tables where they are missing; a database that is away is tried again and again."""
    told = False
    while True:
        try:
            if not await _has_table(database):
                await migrate_up(url, asset_dir("sql"), clock=clock)
            return
        except (StorageError, MigrationError) as error:
            if not told:
                _LOG.warning("events are kept on disk: %s", error)
            told = True
        await clock.sleep(_RETRY_S)


async def _has_table(database: Database) -> bool:
    async with database.acquire() as connection:
        return await connection.fetchval("select to_regclass('performance_metrics')") is not None
