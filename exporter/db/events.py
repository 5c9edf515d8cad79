"""Measured events on their way into `performance_metrics`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from exporter.clock import Clock
from exporter.db.copier import RejectedError
from exporter.db.metrics import WriteMetrics
from exporter.db.partitions import DAY_MS, DayPartitions
from exporter.db.pool import Database, Purpose
from exporter.db.spool import Decoder, Encoder, Frame, Spool
from exporter.db.write_behind import WriteBehind
from exporter.errors import WriteError
from exporter.model.events import MetricEvent

_TABLE: Final = "performance_metrics"
_COLUMNS: Final = ["id", "metric_type", "metric_name", "value", "unit", "context", "timestamp"]
_INSERT: Final = (
    "insert into performance_metrics (id, metric_type, metric_name, value, unit, context, timestamp) "
    "values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EVENTS: Final = 1  # the one kind of frame: JSON, a list of rows
_MAX_ROWS: Final = 5000
_LINGER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with the id that makes writing it twice harmless."""

    id: uuid.UUID
    event: MetricEvent

    def row(self) -> tuple[Any, ...]:
        """The columns of `performance_metrics`; names cut to what these hold."""
        event = self.event
        return (
            self.id,
            event.metric_type[:50],
            event.metric_name[:255],
            float(event.value),
            event.unit[:20],
            json.dumps(dict(event.context), default=str),
            _EPOCH + timedelta(milliseconds=event.ts_ms),
        )


class EventCodec:
    """Events as frames of a spool segment: one frame for each group, nothing shared between frames."""

    def encoder(self) -> Encoder[StoredEvent]:
        """Stateless."""
        return _EventEncoder()

    def decoder(self) -> Decoder[StoredEvent]:
        """Stateless."""
        return _EventDecoder()


class _EventEncoder:
    def encode(self, items: Sequence[StoredEvent]) -> Iterator[Frame]:
        rows = [
            (str(item.id), e.metric_type, e.metric_name, e.value, e.unit, e.ts_ms, dict(e.context))
            for item in items
            for e in (item.event,)
        ]
        yield Frame(_EVENTS, len(rows), json.dumps(rows, default=str).encode())


class _EventDecoder:
    def decode(self, frame: Frame) -> Sequence[StoredEvent]:
        try:
            return [
                StoredEvent(uuid.UUID(key), MetricEvent(kind, name, float(value), unit, int(ts_ms), context))
                for key, kind, name, value, unit, ts_ms, context in json.loads(frame.payload)
            ]
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a spooled event makes no sense: {error}") from error


class _EventStore:
    """Writes groups of events: COPY, and INSERT ... ON CONFLICT where some are there already."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._partitions = DayPartitions(_TABLE)

    async def write(self, items: Sequence[StoredEvent]) -> int:
        try:
            rows = [item.row() for item in items]
            days = sorted({item.event.ts_ms // DAY_MS for item in items})
        except (TypeError, ValueError, OverflowError) as error:
            raise RejectedError(f"an event cannot be stored: {error}") from error
        try:
            async with self._database.acquire(Purpose.WRITE) as connection:
                await self._partitions.ensure(connection, days)
                try:
                    await self._copy(connection, rows)
                except asyncpg.CheckViolationError:  # the partition was dropped since we saw it
                    self._partitions.forget()
                    await self._partitions.ensure(connection, days)
                    await self._copy(connection, rows)
        except WriteError as error:
            if isinstance(error.__cause__, asyncpg.DataError):
                raise RejectedError(str(error)) from error
            self._partitions.forget()
            raise
        return len(rows)

    async def available(self) -> bool:
        return await self._database.probe()

    @staticmethod
    async def _copy(connection: Any, rows: list[tuple[Any, ...]]) -> None:
        try:
            await connection.copy_records_to_table(_TABLE, records=rows, columns=_COLUMNS)
        except asyncpg.UniqueViolationError:
            await connection.executemany(_INSERT, rows)


class EventWriter:
    """Takes events at once and brings them into `performance_metrics`, each once. An `EventSink`.

    Of the successful events of one `metric_type` at most `keep_per_second` are stored in each second, so that
    a busy application does not fill its own database; the others are counted as dropped for the reason
    `sampled`. Failures are always kept.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool[StoredEvent],
        metrics: WriteMetrics,
        clock: Clock,
        *,
        keep_per_second: int = 200,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._metrics = metrics
        self._keep_per_second = keep_per_second
        self._new_id = new_id
        self._second = -1
        self._kept: dict[str, int] = {}
        metrics.dropped.labels("sampled")
        self._behind: WriteBehind[StoredEvent] = WriteBehind(
            "events",
            _EventStore(database),
            spool,
            metrics,
            clock,
            rows_of=lambda _: 1,
            linger_s=_LINGER_S,
            max_rows=_MAX_ROWS,
            max_pending_rows=200_000,
        )

    def __repr__(self) -> str:
        return repr(self._behind)

    def put(self, event: MetricEvent) -> None:
        """Hand over an event: never blocks, never raises."""
        if _succeeded(event.context) and not self._sample(event):
            self._metrics.dropped.labels("sampled").inc()
            return
        self._behind.put(StoredEvent(self._new_id(), event))

    async def run(self) -> None:
        """Write until `close`."""
        await self._behind.run()

    async def close(self, deadline_s: float = 2.0) -> None:
        """Bring what is in memory into Postgres or the spool within the deadline."""
        await self._behind.close(deadline_s)

    def _sample(self, event: MetricEvent) -> bool:
        second = event.ts_ms // 1000
        if second != self._second:
            self._second = second
            self._kept.clear()
        kept = self._kept.get(event.metric_type, 0)
        self._kept[event.metric_type] = kept + 1
        return kept < self._keep_per_second


def _succeeded(context: Mapping[str, object]) -> bool:
    return context.get("success", True) is not False and not context.get("error")
