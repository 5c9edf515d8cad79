"""The queue before a provider: hands out slots in order of priority as its limits allow.

Decisions are made in one synchronous method, `_pump`; one timer task at most sleeps until the next slot. A
caller that is cancelled or whose deadline passes leaves the queue at once and takes no slot.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from exporter.client.journal import NoJournal, QuotaJournal, SharedQuota
from exporter.client.limits import ProviderLimits
from exporter.clock import Clock
from exporter.errors import ApiError, ApiErrorKind, StorageError
from exporter.model.quota import SharedSlot

_log = logging.getLogger(__name__)


class Priority(IntEnum):
    """Order in the queue. HIGH also goes ahead of the pace of a quota, never of a limit."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Pause:
    """No call before `until` (monotonic seconds), and why."""

    until: float
    kind: ApiErrorKind
    reason: str


class Lease:
    """One granted slot: exactly one of `sent` and `release` takes effect, the first."""

    __slots__ = ("_at_ms", "_gate", "_open", "shared", "shared_until")

    def __init__(self, gate: Gate, at_ms: int) -> None:
        self._gate = gate
        self._at_ms = at_ms
        self._open = True
        self.shared: SharedSlot | None = None
        self.shared_until = math.inf  # monotonic: a call that goes out later needs another shared slot

    def sent(self) -> None:
        """The request goes out now."""
        if self._open:
            self._open = False
            self._gate.mark_sent(self._at_ms)

    def release(self) -> None:
        """The request never went out."""
        if self._open:
            self._open = False
            self._gate.mark_unsent(self._at_ms)
            if self.shared is not None:
                self._gate.give_back(self.shared)


class _Waiter:
    __slots__ = ("deadline", "future", "priority")

    def __init__(self, priority: Priority, deadline: float, future: asyncio.Future[Lease]) -> None:
        self.priority = priority
        self.deadline = deadline
        self.future = future


class Gate:
    """Slots of one provider. `max_queue` callers wait at most."""

    def __init__(
        self,
        provider: str,
        limits: ProviderLimits,
        clock: Clock,
        journal: QuotaJournal,
        *,
        shared: SharedQuota | None = None,
        scope: str = "",
        max_queue: int = 1000,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self.limits = limits
        self.pause: Pause | None = None
        self.max_queue = max_queue
        self._provider = provider
        self._clock = clock
        self._monotonic = clock.monotonic
        self._journal = journal
        self._remembers = type(journal) is not NoJournal
        self._shared = shared
        self._scope = scope or provider
        self._returns: set[asyncio.Task[None]] = set()
        self._observe_wait = observe_wait
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, _Waiter]] = []
        self._deadlines: list[tuple[float, int, _Waiter]] = []
        self._queued = 0
        self._journal_works = True
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = math.inf

    @property
    def queue_length(self) -> int:
        """Callers that wait."""
        return self._queued

    def acquire_now(self, priority: Priority) -> Lease | None:
        """A slot where one is free and nothing must be written or agreed upon first; else None."""
        if self._queued or self._shared is not None or self.limits.is_long:
            return None
        now = self._monotonic()
        if self._free_at(now, priority) > now:
            return None
        self._observe_wait(0.0)
        return self._grant(now)

    async def acquire(self, priority: Priority, deadline: float) -> Lease:
        """A slot, at the latest at the deadline (monotonic seconds). The caller ends the lease.

        Raises: ApiError of kind DEADLINE where no slot comes in time, QUEUE_FULL where too many wait, or the
        kind of the pause that outlasts the deadline.
        """
        now = self._monotonic()
        free = not self._queued and self._free_at(now, priority) <= now
        if not free:
            self._refuse_hopeless(now, priority, deadline)
        try:
            lease = self._grant(now) if free else await self._queue(priority, deadline)
            try:
                if self._shared is not None:
                    await self._claim(self._shared, lease, priority, deadline)
                if self.limits.is_long:
                    await self._commit()
            except BaseException:
                lease.release()
                raise
        finally:
            self._observe_wait(self._monotonic() - now)
        return lease

    def is_free(self) -> bool:
        """Whether a call would get a slot now, before anybody who waits."""
        now = self._monotonic()
        return not self._queued and self._free_at(now, Priority.NORMAL) <= now

    async def renew(self, lease: Lease, priority: Priority, deadline: float) -> None:
        """Before a call goes out: where connecting took longer than its shared slot allows, take another.

        Raises: ApiError of kind DEADLINE where none comes in time.
        """
        if self._shared is not None and self._monotonic() > lease.shared_until:
            await self._claim(self._shared, lease, priority, deadline)
            lease.shared_until = math.inf  # once: a store that is this slow would never be in time

    def pause_until(self, pause: Pause) -> None:
        """Hold all calls back; a shorter pause never replaces a longer one."""
        if self.pause is None or pause.until > self.pause.until:
            self.pause = pause
            self._pump()

    def resume(self) -> None:
        """End a pause."""
        self.pause = None
        self._pump()

    def mark_sent(self, granted_ms: int) -> None:
        """A lease's call is on the wire now; called by the lease."""
        now_ms = self._clock.now_ms()
        self.limits.sent(self._monotonic())
        if now_ms - granted_ms > 20:
            # Connecting took its time: what counts after a restart is when the call went out.
            self._remember(now_ms, released=False)
            self._remember(granted_ms, released=True)
        self._pump()

    def mark_unsent(self, granted_ms: int) -> None:
        """A lease's call never went out; called by the lease."""
        self.limits.release()
        self._remember(granted_ms, released=True)
        self._pump()

    async def close(self) -> None:
        """Stop the timer; callers that still wait are refused."""
        for _, _, waiter in self._waiting:
            if not waiter.future.done():
                waiter.future.set_exception(self._error(ApiErrorKind.DEADLINE, "the client is closed", None))
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)
        await asyncio.gather(*self._returns, return_exceptions=True)

    def give_back(self, slot: SharedSlot) -> None:
        """The call of a shared slot never went out; called by the lease."""
        if self._shared is not None:
            task = asyncio.get_running_loop().create_task(self._shared.release(self._scope, slot))
            self._returns.add(task)
            task.add_done_callback(self._returns.discard)

    async def _queue(self, priority: Priority, deadline: float) -> Lease:
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(priority, deadline, future)
        order = next(self._order)
        heapq.heappush(self._waiting, (priority, order, waiter))
        heapq.heappush(self._deadlines, (deadline, order, waiter))
        self._queued += 1
        self._pump()
        try:
            lease = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()  # granted and cancelled in the same round
            raise
        finally:
            self._queued -= 1
            if not self._queued:
                self._waiting.clear()
                self._deadlines.clear()
        return lease

    def _refuse_hopeless(self, now: float, priority: Priority, deadline: float) -> None:
        """Fail at once where even the first in the queue would be too late."""
        pause = self.pause
        if pause is not None and pause.until > deadline:
            raise self._error(pause.kind, pause.reason, pause.until - now)
        at = self._free_at(now, priority)
        if deadline < at < math.inf:
            raise self._error(
                ApiErrorKind.DEADLINE, f"the limit allows the next call in {at - now:.1f} s", at - now
            )
        if self._queued >= self.max_queue:
            raise self._error(ApiErrorKind.QUEUE_FULL, f"{self._queued} callers wait already", None)

    def _free_at(self, now: float, priority: Priority) -> float:
        at = self.limits.free_at(now, paced=priority is not Priority.HIGH)
        if self.pause is not None:
            if self.pause.until <= now:
                self.pause = None
            elif self.pause.until > at:
                at = self.pause.until
        return at

    def _grant(self, now: float) -> Lease:
        at_ms = self._clock.now_ms()
        self._remember(at_ms, released=False)
        self.limits.grant(now)
        return Lease(self, at_ms)

    def _remember(self, at_ms: int, *, released: bool) -> None:
        """Write to the journal. A disk that fails does not end the calls: the limit holds without it until a
        restart, and monitoring goes on."""
        if not self._remembers:
            return
        try:
            (self._journal.release if released else self._journal.record)(self._provider, at_ms)
        except StorageError as error:
            self._journal_failed(error)
        else:
            self._journal_works = True

    async def _commit(self) -> None:
        try:
            await self._journal.commit(self._provider)
        except StorageError as error:
            self._journal_failed(error)

    def _journal_failed(self, error: StorageError) -> None:
        if self._journal_works:
            self._journal_works = False
            _log.error("%s: sends are not remembered over a restart: %s", self._provider, error)

    def _pump(self) -> None:
        """Expire, then grant what is free, then set the timer for what comes next."""
        if not self._queued:
            return
        now = self._monotonic()
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].future.done()):
            waiter = heapq.heappop(self._deadlines)[2]
            if not waiter.future.done():
                waiter.future.set_exception(
                    self._error(ApiErrorKind.DEADLINE, "no slot before the deadline", None)
                )
        next_at = self._deadlines[0][0] if self._deadlines else math.inf
        while self._waiting:
            waiter = self._waiting[0][2]
            if waiter.future.done():
                heapq.heappop(self._waiting)
                continue
            free_at = self._free_at(now, waiter.priority)
            if free_at <= now:
                heapq.heappop(self._waiting)
                waiter.future.set_result(self._grant(now))
                continue
            pause = self.pause
            if pause is not None and pause.until > waiter.deadline:
                heapq.heappop(self._waiting)
                waiter.future.set_exception(self._error(pause.kind, pause.reason, pause.until - now))
                continue
            next_at = min(next_at, free_at)
            break
        self._set_timer(next_at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None and not self._timer.done():
            if self._timer_at <= at:
                return
            self._timer.cancel()
        if at < math.inf:
            self._timer_at = at
            self._timer = asyncio.get_running_loop().create_task(self._wake(at))

    async def _wake(self, at: float) -> None:
        # A timer may fire a moment early; less than a microsecond is no use to wait for.
        await self._clock.sleep(max(1e-6, at - self._monotonic()))
        self._timer = None
        self._pump()

    async def _claim(self, shared: SharedQuota, lease: Lease, priority: Priority, deadline: float) -> None:
        """Take a shared slot and wait for it. The one that the lease had goes back."""
        asked = self._monotonic()
        windows = self.limits.windows(paced=priority is not Priority.HIGH)
        held, lease.shared = lease.shared, None
        slot = await shared.claim(self._scope, windows, max(0.0, deadline - asked), held)
        if not slot.taken:
            raise self._error(
                ApiErrorKind.DEADLINE,
                f"the shared limit allows the next call in {slot.wait_s:.1f} s",
                slot.wait_s,
            )
        lease.shared = slot
        # Half of what the windows are lengthened by; the other half is for the network.
        lease.shared_until = asked + slot.wait_s + self.limits.margin_s / 2
        if slot.wait_s > 0:
            await self._clock.sleep(slot.wait_s)

    def _error(self, kind: ApiErrorKind, reason: str, retry_after_s: float | None) -> ApiError:
        return ApiError(
            f"{self._provider}: {reason}", kind, provider=self._provider, retry_after_s=retry_after_s
        )
