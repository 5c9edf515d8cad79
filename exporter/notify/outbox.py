"""One destination's lane: notifications that wait, tries with growing pauses, and what came of them.

The lane alone knows retry, pause, fallback and order; the notifier that it drives only renders and posts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from exporter.clock import Clock
from exporter.errors import DeliveryError
from exporter.notify.lanes import OrderedQueue
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.ports import Notifier
from exporter.notify.records import Notification
from exporter.notify.waiting import first_of

_log = logging.getLogger(__name__)

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
RETRY_AFTER_MAX_S = 3600.0  # a receiver may ask for more; then it is asked again after an hour
_BREAKER_AFTER = 3  # failures in a row after which the whole lane pauses, not only the notification


class Reports(Protocol):
    """Who is told what came of a notification; the calls do not block."""

    def delivered(self, notification: Notification, *, via: str, attempts: int) -> None:
        """It arrived; `via` names the fallback receiver, '' for its own."""

    def failed(self, notification: Notification, error: str, *, attempts: int, next_try_ms: int) -> None:
        """A try failed and another follows."""

    def dead(self, notification: Notification, error: str, *, attempts: int) -> None:
        """It is given up."""


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """Bounds of a lane. A try is cut after `timeout_s`; a notification is given up after `max_age_s`."""

    timeout_s: float = 10.0
    max_age_s: float = 86_400.0
    max_queued: int = 10_000
    concurrency: int = 8
    fallback_after: int = 3


def retry_delay_s(failures: int, rng: Random) -> float:
    """Seconds to the next try after so many failures: 1, 2, 4 ... 60, each cut by up to a half at random."""
    full = min(RETRY_FIRST_S * float(1 << min(max(failures, 1) - 1, 20)), RETRY_MAX_S)
    return full * rng.uniform(0.5, 1.0)


class Lane:
    """See the module. `fallbacks` are the notifiers of the receiver named `fallback_name`.

    While `permitted` says no, no try begins; `wake` once it may say yes again.
    """

    def __init__(
        self,
        name: str,
        notifier: Notifier,
        reports: Reports,
        clock: Clock,
        metrics: NotifyMetrics,
        *,
        policy: LanePolicy,
        rng: Random,
        fallback_name: str = "",
        fallbacks: Sequence[Notifier] = (),
        permitted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.notifier = notifier
        self._reports = reports
        self._clock = clock
        self._metrics = metrics
        self._policy = policy
        self._rng = rng
        self._fallback_name = fallback_name
        self._fallbacks = fallbacks
        self._permitted = permitted
        self._queue = OrderedQueue()
        self._waiting: dict[str, Notification] = {}
        self._attempts: dict[str, int] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._failures = 0  # in a row, over all notifications
        self._paused_until_s = 0.0
        self._failing = ""
        self._gave_up = ""

    def __repr__(self) -> str:
        state = f", failing: {self._failing}" if self._failing else ""
        return f"<Lane {self.name}: {len(self._waiting)} waiting{state}>"

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, notification: Notification) -> None:
        """Add a notification; the oldest is given up where too many wait."""
        if notification.id in self._waiting:
            return
        if len(self._waiting) >= self._policy.max_queued:
            oldest = self._queue.oldest(self._running)
            if oldest is not None:
                self._give_up(oldest, "too many notifications wait for this receiver")
        wait_s = (notification.next_try_ms - self._clock.now_ms()) / 1000
        not_before = self._clock.monotonic() + min(wait_s, RETRY_AFTER_MAX_S) if wait_s > 0 else 0.0
        self._waiting[notification.id] = notification
        self._attempts[notification.id] = notification.attempts
        self._queue.add(notification.id, (alert.fingerprint for alert in notification.alerts), not_before)
        self._show_length()
        self._wake.set()

    def wake(self) -> None:
        """Look again at what may be tried now."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled; what is on its way is then cancelled too, and stays queued."""
        try:
            while True:
                self._wake.clear()
                self._start_ready()
                await self._wait()
        finally:
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def drain(self, timeout_s: float) -> None:
        """Wait until nothing is on its way, at most so many seconds of the machine's time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._running:
                    await asyncio.wait(list(self._running.values()), return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(0)

    def _start_ready(self) -> None:
        now = self._clock.monotonic()
        while not self._full and now >= self._paused_until_s and self._permitted():
            notification_id = self._queue.take(now)
            if notification_id is None:
                return
            task = asyncio.create_task(self._guarded(self._waiting[notification_id]))
            self._running[notification_id] = task

    @property
    def _full(self) -> bool:
        limit = 1 if self._failures >= _BREAKER_AFTER else self._policy.concurrency
        return len(self._running) >= limit

    async def _guarded(self, notification: Notification) -> None:
        try:
            await self._try(notification)
        except Exception:
            self._metrics.faults.inc()
            _log.exception("receiver %s: unexpected error", self.name)

    async def _wait(self) -> None:
        """Until something changes, or the next time at which a try may start."""
        if self._full or not self._permitted():
            await self._wake.wait()
            return
        times = [time for time in (self._queue.next_time(),) if time is not None]
        if self._paused_until_s > self._clock.monotonic() and self._waiting:
            times = [max(self._paused_until_s, min(times, default=0.0))]
        if not times:
            await self._wake.wait()
            return
        delay_s = max(0.0, min(times) - self._clock.monotonic())
        await first_of(self._wake.wait(), self._clock.sleep(delay_s))

    async def _try(self, notification: Notification) -> None:
        if not self._permitted():  # since it was taken, this process may have stood still for long
            self._running.pop(notification.id, None)
            self._queue.retry(notification.id, 0.0)
            self._wake.set()
            return
        attempts = self._attempts[notification.id] = self._attempts[notification.id] + 1
        started = self._clock.monotonic()
        error: DeliveryError | None = None
        via = ""
        try:
            error = await self._send(self.notifier, notification)
            if error is not None and (attempts >= self._policy.fallback_after or not error.retryable):
                via = await self._send_to_fallback(notification)
        finally:
            self._running.pop(notification.id, None)
            self._wake.set()
        self._metrics.duration.labels(self.name).observe(max(0.0, self._clock.monotonic() - started))
        if notification.id not in self._waiting:  # given up meanwhile
            return
        if error is None:
            self._recovered()
        else:
            self._note_failure(error)
        if error is None or via:
            if via:
                self._metrics.fallback.labels(self.name).inc()
            self._finish(notification.id)
            self._metrics.notifications.labels(self.name, "delivered").inc()
            age_s = (self._clock.now_ms() - notification.created_at_ms) / 1000
            self._metrics.latency.labels(self.name).observe(max(0.0, age_s))
            self._reports.delivered(notification, via=via, attempts=attempts)
        else:
            self._after_failure(notification, error, attempts)

    async def _send(self, notifier: Notifier, notification: Notification) -> DeliveryError | None:
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                await notifier.send(notification)
        except DeliveryError as error:
            return error
        except TimeoutError:
            return DeliveryError(f"no answer within {self._policy.timeout_s:g} s", retryable=True)
        except Exception as error:  # a fault of ours must not end the lane
            self._metrics.faults.inc()
            _log.exception("receiver %s: unexpected error", self.name)
            return DeliveryError(f"unexpected {type(error).__name__}", retryable=True)
        return None

    async def _send_to_fallback(self, notification: Notification) -> str:
        """The fallback receiver's name where at least one of its integrations took it."""
        took = [await self._send(notifier, notification) is None for notifier in self._fallbacks]
        return self._fallback_name if any(took) else ""

    def _after_failure(self, notification: Notification, error: DeliveryError, attempts: int) -> None:
        delay_s = retry_delay_s(attempts, self._rng)
        if error.retry_after_s is not None:
            delay_s = max(delay_s, min(error.retry_after_s, RETRY_AFTER_MAX_S))
        age_s = (self._clock.now_ms() - notification.created_at_ms) / 1000
        if not error.retryable or age_s + delay_s > self._policy.max_age_s:
            self._give_up(notification.id, error.reason)
            return
        self._metrics.notifications.labels(self.name, "failed").inc()
        self._queue.retry(notification.id, self._clock.monotonic() + delay_s)
        next_try_ms = self._clock.now_ms() + round(delay_s * 1000)
        self._reports.failed(notification, error.reason, attempts=attempts, next_try_ms=next_try_ms)

    def _note_failure(self, error: DeliveryError) -> None:
        now = self._clock.monotonic()
        if error.retryable:
            self._failures += 1
            self._metrics.receiver_up.labels(self.name).set(0)
        if error.retry_after_s is not None:  # what one is told holds for all
            self._paused_until_s = max(
                self._paused_until_s, now + min(error.retry_after_s, RETRY_AFTER_MAX_S)
            )
        elif error.retryable and self._failures >= _BREAKER_AFTER:
            pause_s = retry_delay_s(self._failures - _BREAKER_AFTER + 1, self._rng)
            self._paused_until_s = max(self._paused_until_s, now + pause_s)
        if not error.retryable:
            return
        if not self._failing:
            _log.warning("receiver %s: a notification was not delivered: %s", self.name, error.reason)
        self._failing = error.reason

    def _recovered(self) -> None:
        if self._failing:
            _log.info("receiver %s: notifications are delivered again", self.name)
            self._metrics.receiver_up.labels(self.name).set(1)
        self._failing, self._gave_up, self._failures, self._paused_until_s = "", "", 0, 0.0

    def _give_up(self, notification_id: str, reason: str) -> None:
        notification, attempts = self._waiting[notification_id], self._attempts[notification_id]
        self._finish(notification_id)
        self._metrics.notifications.labels(self.name, "dead").inc()
        if reason != self._gave_up:  # each is counted and kept; the log says once in a row why
            _log.error("receiver %s: notification %s is given up: %s", self.name, notification_id, reason)
        self._gave_up = reason
        self._reports.dead(notification, reason, attempts=attempts)

    def _finish(self, notification_id: str) -> None:
        self._queue.done(notification_id)
        self._waiting.pop(notification_id, None)
        self._attempts.pop(notification_id, None)
        self._show_length()

    def _show_length(self) -> None:
        self._metrics.queue_length.labels(self.name).set(len(self._waiting))
