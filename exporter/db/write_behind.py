"""A queue in front of the database: takes at once, writes in groups, spools while the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from exporter.clock import Clock
from exporter.db.batch import LINGER_S, MAX_ROWS
from exporter.db.copier import RejectedError
from exporter.db.metrics import WriteMetrics
from exporter.db.spool import Portion, Spool
from exporter.errors import WriteError

T = TypeVar("T")
T_in = TypeVar("T_in", contravariant=True)
R = TypeVar("R")
_log = logging.getLogger(__name__)
_RETRY_FIRST_S = 0.25
_RETRY_MAX_S = 5.0


class Store(Protocol[T_in]):
    """Where items go: all or none of each call, repeated calls without effect."""

    async def write(self, items: Sequence[T_in]) -> int:
        """Rows written. Raises: WriteError (try later), RejectedError (never)."""

    async def available(self) -> bool:
        """Whether a write is worth trying now."""


class WriteBehind(Generic[T]):
    """Items go to the store in the order in which they came.

    While the spool holds anything, new items queue behind it, so that the order stays. What the store rejects
    for good is counted and given up. `put` never blocks; memory is bounded by `max_pending_rows`, beyond
    which the oldest items are dropped and counted (only a disk that hangs or refuses leads there).
    """

    def __init__(
        self,
        name: str,
        store: Store[T],
        spool: Spool[T],
        metrics: WriteMetrics,
        clock: Clock,
        *,
        rows_of: Callable[[T], int],
        linger_s: float = LINGER_S,
        max_rows: int = MAX_ROWS,
        max_pending_rows: int = 4_000_000,
    ) -> None:
        self._name = name
        self._store = store
        self._spool = spool
        self._metrics = metrics
        self._clock = clock
        self._rows_of = rows_of
        self._linger_s = linger_s
        self._max_rows = max_rows
        self._max_pending_rows = max_pending_rows
        self._queue: deque[tuple[T, int]] = deque()  # with the time of arrival
        self._pending_rows = 0
        self._inflight: list[tuple[T, int]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._disk = asyncio.Lock()  # the spool is used by one thread at a time
        self._away = False  # the fault is logged once
        self._retry_s = _RETRY_FIRST_S
        self._next_try_s = 0.0
        self._corrupt_seen = 0
        self._show()

    def __repr__(self) -> str:
        return f"<WriteBehind {self._name}: {self._pending_rows} rows in memory, {self._spool!r}>"

    def put(self, item: T) -> None:
        """Take an item. Never blocks and never raises; after `close` it is dropped and counted."""
        rows = self._rows_of(item)
        if self._closing:
            self._drop(rows, "closed")
            return
        self._queue.append((item, self._clock.now_ms()))
        self._pending_rows += rows
        self._idle.clear()
        while self._pending_rows > self._max_pending_rows and len(self._queue) > 1:
            oldest, _ = self._queue.popleft()
            self._pending_rows -= self._rows_of(oldest)
            self._drop(self._rows_of(oldest), "memory_full")
        self._wake.set()

    async def run(self) -> None:
        """Write until `close`; runs in a task of its own."""
        self._task = asyncio.current_task()
        try:
            while not (self._closing and not self._queue):
                await self._wait()
                await self._step()
                self._show()
        except Exception:
            self._put_back()  # whoever runs us again finds what was in hand
            raise
        finally:
            self._task = None

    async def close(self, deadline_s: float = 2.0) -> None:
        """Take nothing more; what is in memory goes to the database, or into the spool within the deadline.

        Call after, or without, the end of `run`; a second call does nothing.
        """
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline_s * 0.5):
                    await self._idle.wait()
            task = self._task
            if task is not None:
                if not self._idle.is_set():
                    task.cancel()
                await asyncio.wait([task], timeout=deadline_s * 0.4)
        left = [*self._inflight, *self._queue]
        self._inflight, self._pending_rows = [], 0
        self._queue.clear()
        try:
            await self._to_spool(left)
            await self._on_disk(self._spool.close)
        except OSError as error:
            _log.error("%s: the spool cannot be written: %s", self._name, error)
            self._drop(sum(self._rows_of(item) for item, _ in left), "disk")
        self._idle.set()
        self._show()

    # --- one round --------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Until there is something to do: items, or a spool that may drain again."""
        if self._queue:
            return
        self._wake.clear()
        if self._closing:
            return
        if self._spool.is_empty:
            await self._wake.wait()
        else:
            pause = self._next_try_s - self._clock.monotonic()
            if pause <= 0:
                return
            await self._wake_within(min(pause, 1.0))  # a second: the spool is forced to the disk meanwhile
        if self._queue and not self._closing:
            await self._clock.sleep(self._linger_s)

    async def _wake_within(self, seconds: float) -> None:
        waiters = [
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self._clock.sleep(seconds)),
        ]
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)

    async def _step(self) -> None:
        group = self._take()
        if group:
            if self._spool.is_empty and self._clock.monotonic() >= self._next_try_s:
                written = await self._write([item for item, _ in group])
            else:
                written = False
            if not written:
                try:
                    await self._to_spool(group)
                except OSError as error:
                    await self._disk_refused(error)
            self._inflight = []
        if not self._queue and not group:
            await self._sync_spool()
        if not self._spool.is_empty and not self._closing:
            await self._drain()
        if not self._queue:
            self._idle.set()

    def _take(self) -> list[tuple[T, int]]:
        group: list[tuple[T, int]] = []
        rows = 0
        while self._queue and rows < self._max_rows:
            item, at_ms = self._queue.popleft()
            rows += self._rows_of(item)
            group.append((item, at_ms))
        self._pending_rows -= rows
        self._inflight = group
        return group

    async def _write(self, items: Sequence[T]) -> bool:
        """Whether the items are done with: written, or rejected for good."""
        started = self._clock.monotonic()
        try:
            rows = await self._store.write(items)
        except RejectedError as error:
            if len(items) > 1:  # the bad ones must not take the others with them
                half = len(items) // 2
                front = await self._write(items[:half])
                return await self._write(items[half:]) and front
            _log.error("%s: given up, the database rejects them: %s", self._name, error)
            self._drop(self._rows_of(items[0]), "rejected")
            return True
        except WriteError as error:
            self._retry_s = min(2 * self._retry_s, _RETRY_MAX_S) if self._away else _RETRY_FIRST_S
            self._next_try_s = self._clock.monotonic() + self._retry_s
            if not self._away:
                self._away = True
                _log.warning("%s go to the spool, the database does not take them: %s", self._name, error)
            return False
        if self._away:
            self._away = False
            _log.info("%s: the database takes them again", self._name)
        refused = sum(map(self._rows_of, items)) - rows
        self._metrics.persisted.inc(rows)
        self._metrics.write_seconds.observe(self._clock.monotonic() - started)
        if refused > 0:
            self._drop(refused, "unstorable")
        self._progress()
        return True

    async def _drain(self) -> None:
        """One portion of the spool, oldest first."""
        if self._clock.monotonic() < self._next_try_s:
            return
        if not await self._store.available():
            self._next_try_s = self._clock.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_MAX_S)
            return
        try:
            portion: Portion[T] | None = await self._on_disk(self._spool.read, self._max_rows)
            self._count_corrupt()
            if portion is not None and await self._write(portion.items):
                await self._on_disk(self._spool.commit, portion)
        except OSError as error:
            _log.error("%s: the spool cannot be read: %s", self._name, error)
            self._next_try_s = self._clock.monotonic() + _RETRY_MAX_S

    async def _to_spool(self, group: Sequence[tuple[T, int]]) -> None:
        if not group:
            return
        items = [item for item, _ in group]
        dropped = await self._on_disk(self._spool.append, items)
        self._metrics.spooled.inc(sum(map(self._rows_of, items)))
        if dropped:
            self._drop(dropped, "spool_full")
        self._progress()

    async def _disk_refused(self, error: OSError) -> None:
        """Back into memory, in front; the bound on memory decides what goes if this lasts."""
        _log.error("%s: the spool cannot be written: %s", self._name, error)
        self._put_back()
        await self._clock.sleep(1.0)

    def _put_back(self) -> None:
        self._queue.extendleft(reversed(self._inflight))
        self._pending_rows += sum(self._rows_of(item) for item, _ in self._inflight)
        self._inflight = []

    async def _sync_spool(self) -> None:
        if not self._spool.is_empty:
            with contextlib.suppress(OSError):
                await self._on_disk(self._spool.sync_if_due)

    async def _on_disk(self, action: Callable[..., R], *args: object) -> R:
        """Run a call of the spool in a thread; a cancellation waits for it, lest two threads meet."""
        async with self._disk:
            call = asyncio.ensure_future(asyncio.to_thread(action, *args))
            try:
                return await asyncio.shield(call)
            except asyncio.CancelledError:
                await asyncio.wait([call])
                if not call.cancelled():
                    call.exception()  # seen: the cancellation is what goes on
                raise

    # --- counting ---------------------------------------------------------------------------------

    def _drop(self, rows: int, reason: str) -> None:
        if rows:
            self._metrics.dropped.labels(reason).inc(rows)

    def _count_corrupt(self) -> None:
        fresh = self._spool.corrupt_rows - self._corrupt_seen
        if fresh:
            self._corrupt_seen += fresh
            self._drop(fresh, "spool_corrupt")
            _log.error("%s: %d rows of the spool are unreadable and lost", self._name, fresh)

    def pass_over(self) -> None:
        """Somebody else writes: with nothing left to write this counts as progress."""
        if not self._queue and not self._inflight and self._spool.is_empty:
            self._progress()

    def _progress(self) -> None:
        if self._metrics.last_progress is not None:
            self._metrics.last_progress.set(self._clock.now_ms() / 1000)

    def _show(self) -> None:
        self._metrics.spool_bytes.set(self._spool.size_bytes)
        self._metrics.spool_batches.set(self._spool.batches)
        oldest = self._spool.oldest_ms
        if oldest is None and self._queue:
            oldest = self._queue[0][1]
        self._metrics.lag.set(0.0 if oldest is None else max(0.0, (self._clock.now_ms() - oldest) / 1000))
