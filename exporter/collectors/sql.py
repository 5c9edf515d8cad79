"""SQL collectors: a declared query becomes metrics, read-only and bounded in time and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from exporter.clock import Clock
from exporter.collectors.base import Collected, CollectorError, CollectorTimeoutError
from exporter.collectors.ports import QueryDatabase, QueryTimer
from exporter.collectors.rows import MissingColumnError, to_families
from exporter.collectors.sqlconfig import SqlCollectorSpec

# the run also waits for a connection; the statement itself is bounded on the server
_CONNECTION_WAIT_S = 5.0


class SqlCollector:
    """One declared query on one database."""

    def __init__(
        self,
        spec: SqlCollectorSpec,
        database: QueryDatabase,
        clock: Clock,
        *,
        default_interval_s: float = 15.0,
        timer: QueryTimer | None = None,
    ) -> None:
        self._spec = spec
        self._database = database
        self._clock = clock
        self._timer = timer
        self._interval_s = default_interval_s if spec.interval_ms is None else spec.interval_ms / 1000

    def __repr__(self) -> str:
        return f"SqlCollector({self._spec.name})"

    @property
    def name(self) -> str:
        """The declared name."""
        return self._spec.name

    @property
    def interval_s(self) -> float:
        """Seconds between runs."""
        return self._interval_s

    @property
    def timeout_s(self) -> float:
        """Seconds for one run, the wait for a connection included."""
        return self._spec.timeout_ms / 1000 + _CONNECTION_WAIT_S

    async def collect(self) -> Collected:
        """Run the query and turn its rows into families.

        The transaction is read-only, with the declared time-out as statement_timeout, and at most
        `max_rows` + 1 rows leave the server.
        Raises: CollectorError for too many rows or a missing column; CollectorTimeoutError for the statement
            time-out; StorageError for what the database says.
        """
        async with self._database.acquire() as connection:
            columns, rows = await self._fetch(connection)
        if len(rows) > self._spec.max_rows:
            raise CollectorError(f"the query returns more than {self._spec.max_rows} rows (max_rows)")
        try:
            families, refused, faults = to_families(self._spec.metrics, columns, rows)
        except MissingColumnError as error:
            raise CollectorError(str(error)) from error
        return Collected(families, refused, faults)

    async def _fetch(self, connection: Any) -> tuple[Sequence[str], Sequence[Any]]:
        spec, clock = self._spec, self._clock
        async with connection.transaction(readonly=True):
            await connection.execute(f"set local statement_timeout = {spec.timeout_ms}")
            start = clock.monotonic()
            try:
                # prepared: the columns are known even where no row comes back
                statement = await connection.prepare(spec.query)
                cursor = await statement.cursor()
                rows = await cursor.fetch(spec.max_rows + 1)
            except BaseException as error:
                self._record(clock.monotonic() - start, error)
                if getattr(error, "sqlstate", "") == "57014" and not isinstance(
                    error, asyncio.CancelledError
                ):
                    raise CollectorTimeoutError(
                        f"the statement took longer than {spec.timeout_ms} ms"
                    ) from error
                raise
            self._record(clock.monotonic() - start, None)
            return [attribute.name for attribute in statement.get_attributes()], rows

    def _record(self, seconds: float, error: BaseException | None) -> None:
        if self._timer is not None:
            self._timer("SELECT", self._spec.table, seconds, error)
