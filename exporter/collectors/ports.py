"""What collectors need from the rest of the program."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class QueryDatabase(Protocol):
    """Lends connections of one database. `exporter.db.pool.Database` is one."""

    def acquire(self) -> AbstractAsyncContextManager[Any]:
        """An asyncpg connection for the length of the block. Raises: StorageError where there is none."""


class ProbedDatabase(QueryDatabase, Protocol):
    """A database that can tell whether it answers."""

    async def probe(self, timeout_s: float = 5.0) -> bool:
        """Whether it answers a query within the time-out. Never raises."""


class QueryTimer(Protocol):
    """Takes the time of each query: `Monitor.record_db_query`."""

    def __call__(
        self, operation: str, table: str, seconds: float, error: BaseException | None = None, /
    ) -> None:
        """Record one query; `error` is what it raised."""
