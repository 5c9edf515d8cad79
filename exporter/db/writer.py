"""Samples on their way into Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.clock import Clock
from exporter.db.copier import SampleCopier
from exporter.db.metrics import WriteMetrics
from exporter.db.pool import Database
from exporter.db.spool import Spool
from exporter.db.write_behind import WriteBehind
from exporter.model.samples import SampleBatch


class _SampleStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._copier = SampleCopier(database)

    async def write(self, items: Sequence[SampleBatch]) -> int:
        return await self._copier.write(items)

    async def available(self) -> bool:
        return await self._database.probe()


class SampleWriter:
    """Takes snapshots at once and brings them into `quantum_samples`, each sample once.

    `put` is synchronous; `run` is the task that writes; `close` leaves nothing in memory. Batches that come
    within 0.1 s share one COPY of up to 100,000 rows.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool[SampleBatch],
        metrics: WriteMetrics,
        clock: Clock,
        *,
        max_pending_rows: int = 4_000_000,
    ) -> None:
        self._behind: WriteBehind[SampleBatch] = WriteBehind(
            "samples",
            _SampleStore(database),
            spool,
            metrics,
            clock,
            rows_of=len,
            max_pending_rows=max_pending_rows,
        )

    def __repr__(self) -> str:
        return repr(self._behind)

    def put(self, batch: SampleBatch) -> None:
        """Hand over a batch: never blocks, never raises."""
        if len(batch):
            self._behind.put(batch)

    def pass_over(self) -> None:
        """A batch that another replica stores: there is nothing to do, which is all the progress there is."""
        self._behind.pass_over()

    async def run(self) -> None:
        """Write until `close`."""
        await self._behind.run()

    async def close(self, deadline_s: float = 2.0) -> None:
        """Bring what is in memory into Postgres or the spool within the deadline."""
        await self._behind.close(deadline_s)
