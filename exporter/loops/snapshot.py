"""Takes a snapshot of the registry at each interval: into the head, and on its way to Postgres."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from exporter.births import mass_birth
from exporter.clock import Clock
from exporter.loops.metrics import PipelineMetrics
from exporter.model.samples import SampleBatch
from exporter.observe.snapshot import Snapshotter
from exporter.storage import MemoryStorage

log = logging.getLogger(__name__)
_TRUNCATE_EVERY_MS = 60_000
# A registry above this many series is read in a thread: about 20 ms of work.
_IN_THREAD_FROM = 5000


class SnapshotLoop:
    """One snapshot at each multiple of the interval; a slot that passed is counted, not made up for."""

    def __init__(
        self,
        snapshotter: Snapshotter,
        storage: MemoryStorage,
        persist: Callable[[SampleBatch], None],
        clock: Clock,
        metrics: PipelineMetrics,
        *,
        interval_ms: int,
        head_window_ms: int,
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self._snapshotter = snapshotter
        self._storage = storage
        self._persist = persist
        self._clock = clock
        self._metrics = metrics
        self._interval_ms = interval_ms
        self._head_window_ms = head_window_ms
        self._on_fault = on_fault
        self._truncated_ms = 0
        self._last_ms = 0
        self._size = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(await self.turn())

    async def turn(self) -> float:
        """One snapshot, whatever comes of it; returns the seconds to the next slot."""
        before_ms = self._last_ms
        try:
            await self.take()
        except Exception as error:
            self._on_fault("snapshot", error)
        if before_ms:
            passed = self._slot(self._last_ms) - self._slot(before_ms)
            self._metrics.snapshots_missed.inc(max(0, passed - 1))
        now_ms = self._clock.now_ms()
        return ((self._slot(now_ms) + 1) * self._interval_ms - now_ms) / 1000

    def _slot(self, ts_ms: int) -> int:
        return ts_ms // self._interval_ms

    async def take(self) -> int:
        """One snapshot now; returns its time. Two in one millisecond are one."""
        ts_ms = self._clock.now_ms()
        if ts_ms <= self._last_ms:
            return self._last_ms
        self._last_ms = ts_ms
        started = self._clock.monotonic()
        self._metrics.snapshot_last.set(ts_ms / 1000)
        if self._size >= _IN_THREAD_FROM or not self._snapshotter.quick:
            batches = await asyncio.to_thread(self._copy_many, ts_ms)
        else:
            batches = self._copy(ts_ms)
        for batch in batches:
            self._persist(batch)
        self._metrics.snapshot_duration.observe(self._clock.monotonic() - started)
        return ts_ms

    def _copy_many(self, ts_ms: int) -> list[SampleBatch]:
        with mass_birth():
            return self._copy(ts_ms)

    def _copy(self, ts_ms: int) -> list[SampleBatch]:
        batches = self._snapshotter.take(ts_ms)
        for batch in batches:
            result = self._storage.append_batch(batch)
            if result.out_of_order:
                self._metrics.rejected.labels("out_of_order").inc(result.out_of_order)
            if result.duplicate:
                self._metrics.rejected.labels("duplicate").inc(result.duplicate)
        if ts_ms - self._truncated_ms >= _TRUNCATE_EVERY_MS:
            self._truncated_ms = ts_ms
            self._storage.truncate(ts_ms - self._head_window_ms)
        stats = self._storage.stats()
        self._metrics.head_series.set(stats.series)
        self._metrics.head_samples.set(stats.samples)
        self._size = sum(map(len, batches))
        return batches
