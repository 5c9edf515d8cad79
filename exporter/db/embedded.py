"""The embedded Postgres of an exporter without `database.url`: started, watched, restarted, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from exporter.clock import Clock
from exporter.db.cluster import Cluster, running_url
from exporter.errors import StorageError

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_BACKOFF_MAX_S = 300.0


class EmbeddedPostgres:
    """A Postgres under `data_dir` that lives as long as the exporter.

    When the server dies it stays down for `restart_after_s` (doubled after each failed restart, up to five
    minutes), so that the rules see the outage before it is mended; if somebody else starts it earlier, that
    server is taken over.
    """

    def __init__(self, data_dir: Path | str, clock: Clock, *, restart_after_s: float = 60.0) -> None:
        self._cluster = Cluster(Path(data_dir))
        self._clock = clock
        self._restart_after_s = restart_after_s
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id, None while it is down."""
        return self._cluster.pid

    @property
    def url(self) -> str:
        """The database's URL: a Unix socket, the same for the life of the data directory."""
        return self._cluster.url

    async def start(self, deadline_s: float = 60.0) -> str:
        """Create the files if needed, start or take over the server, watch it; returns the URL.

        Raises: StorageError where it does not come up.
        """
        try:
            await asyncio.to_thread(self._cluster.prepare)
            await asyncio.to_thread(self._cluster.launch, deadline_s)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._cluster.stop, 2.0))
            raise
        self._watcher = asyncio.create_task(self._watch(), name="embedded-postgres")
        return self.url

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Stop watching, then stop the server within the deadline."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        await asyncio.to_thread(self._cluster.stop, deadline_s)

    async def _watch(self) -> None:
        delay = self._restart_after_s
        while True:
            await self._clock.sleep(_POLL_S)
            if self._cluster.pid is not None:
                continue
            _log.error("the embedded Postgres is gone; restarting it in %.0f s unless it comes back", delay)
            if await self._comes_back(delay):
                _log.info("the embedded Postgres was started by somebody else")
                delay = self._restart_after_s
                continue
            try:
                await asyncio.to_thread(self._cluster.launch)
            except (StorageError, OSError) as error:
                delay = min(2 * max(delay, 1.0), _BACKOFF_MAX_S)
                _log.error("restarting the embedded Postgres failed: %s", error)
            else:
                delay = self._restart_after_s
                _log.info("the embedded Postgres runs again")

    async def _comes_back(self, seconds: float) -> bool:
        until = self._clock.monotonic() + seconds
        while self._clock.monotonic() < until:
            await self._clock.sleep(min(_POLL_S, until - self._clock.monotonic()))
            if self._cluster.adopt_running():
                return True
        return False


@contextlib.asynccontextmanager
async def reachable_url(url: str, data_dir: Path, clock: Clock) -> AsyncIterator[str]:
    """Where a command finds the database: `url` if there is one, else the embedded server of `data_dir`.

    A server that runs (an exporter is at work) is used as it is; else one is started, and stopped at the end.
    Raises: StorageError where it does not come up.
    """
    running = None if url else await asyncio.to_thread(running_url, data_dir)
    found = url or running
    if found:
        yield found
        return
    server = EmbeddedPostgres(data_dir, clock)
    started = await server.start()
    try:
        yield started
    finally:
        await server.stop()
