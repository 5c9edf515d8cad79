"""A second call where the first is slow: whichever answers first is the answer.

The slower one is not cancelled: its slot is spent, its connection stays usable, and its time is measured.
Without that the 99th percentile would learn nothing from slow calls.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from exporter.clock import Clock

Value = TypeVar("Value")
_FEWEST = 20
_KEPT = 200


class Latencies:
    """The last durations of successful calls, in seconds."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_KEPT)

    def add(self, seconds: float) -> None:
        """One call took that long."""
        self._seconds.append(seconds)

    def p99(self) -> float | None:
        """The 99th percentile (nearest rank); None before 20 calls."""
        count = len(self._seconds)
        return sorted(self._seconds)[math.ceil(0.99 * count) - 1] if count >= _FEWEST else None


class Hedger(Generic[Value]):
    """Races two calls. `may_hedge` is asked right before the second one is made."""

    def __init__(self, clock: Clock, may_hedge: Callable[[], bool]) -> None:
        self._clock = clock
        self._may_hedge = may_hedge
        self._slower: set[asyncio.Task[Value]] = set()

    async def run(
        self,
        call: Callable[[Callable[[], None]], Coroutine[Any, Any, Value]],
        delay_s: float,
        is_good: Callable[[Value], bool],
    ) -> Value:
        """The first good answer of a call and, `delay_s` after it went out, a second one.

        `call` gets a function to be called when the request goes out, so that waiting for a slot does not
        count as slow. Where neither is good the first one's end is told.

        Raises: what the first call raised, where the second brought nothing good either.
        """
        out = asyncio.Event()
        loop = asyncio.get_running_loop()
        first = loop.create_task(call(out.set))
        calls = {first}
        timer = loop.create_task(self._after(out, delay_s))
        try:
            await asyncio.wait((first, timer), return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and self._may_hedge():
                calls.add(loop.create_task(call(_nothing)))
            pending = calls
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task.exception() is None and is_good(task.result()):
                        self._let_end(pending)
                        return task.result()
            return first.result()
        except asyncio.CancelledError:
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            raise
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Cancel the slower ones that still run."""
        slower = list(self._slower)
        for task in slower:
            task.cancel()
        await asyncio.gather(*slower, return_exceptions=True)

    async def _after(self, out: asyncio.Event, delay_s: float) -> None:
        await out.wait()
        await self._clock.sleep(delay_s)

    def _let_end(self, tasks: set[asyncio.Task[Value]]) -> None:
        for task in tasks:
            self._slower.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Value]) -> None:
        self._slower.discard(task)
        if not task.cancelled():
            task.exception()  # seen: it is nobody's any more


def _nothing() -> None:
    return
