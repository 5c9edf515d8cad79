"""Equal concurrent requests share one call.

The call runs in a task of its own, so that no caller's cancellation reaches the others; when the last caller
is gone the task is cancelled too. A failure is shared like an answer.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class _Flight(Generic[Value]):
    __slots__ = ("deadline", "detached", "task", "waiting")

    def __init__(self, deadline: float, detached: bool) -> None:
        self.task: asyncio.Task[None] | None = None
        self.waiting: set[asyncio.Future[Value]] = set()
        self.deadline = deadline
        self.detached = detached


class SingleFlight(Generic[Value]):
    """Calls in flight by key."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[Value]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    async def run(
        self,
        key: Hashable,
        call: Callable[[], Awaitable[Value]],
        *,
        deadline: float = math.inf,
        timer: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> Value:
        """The result of the call of this key that is in flight, or of a new one.

        A call keeps its own deadline. Where the call in flight has a later one than this caller, the caller
        leaves it when its `timer` ends.

        Raises: TimeoutError at the end of the timer; what the call raised.
        """
        future: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, call, deadline, future)
        else:
            flight.waiting.add(future)
        try:
            if timer is not None and deadline < flight.deadline:
                await _first(future, timer())
            return await future
        finally:
            flight.waiting.discard(future)
            task = flight.task
            if future.done() and not future.cancelled():
                future.exception()  # seen, even by a caller that is cancelled in the same round
            elif not flight.waiting and not flight.detached and task is not None and not task.done():
                # Nobody waits any more. The key is free at once: a caller that comes now starts anew.
                task.cancel()
                self._forget(key, flight)

    def start(self, key: Hashable, call: Callable[[], Awaitable[Value]]) -> bool:
        """Start a call that nobody waits for (a refresh); False where one is in flight already."""
        if key in self._flights:
            return False
        self._start(key, call, math.inf, None)
        return True

    async def close(self) -> None:
        """Cancel everything in flight and wait for its end."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self,
        key: Hashable,
        call: Callable[[], Awaitable[Value]],
        deadline: float,
        caller: asyncio.Future[Value] | None,
    ) -> _Flight[Value]:
        flight: _Flight[Value] = _Flight(deadline, caller is None)
        if caller is not None:
            flight.waiting.add(caller)
        self._flights[key] = flight
        flight.task = _task(self._fly(key, flight, call))
        return flight

    async def _fly(self, key: Hashable, flight: _Flight[Value], call: Callable[[], Awaitable[Value]]) -> None:
        """Run the call and hand its end to all callers; the key is free before the first of them runs."""
        try:
            value = await call()
        except Exception as error:  # whatever it is, it is the callers'
            self._forget(key, flight)
            for future in flight.waiting:
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            self._forget(key, flight)
            for future in flight.waiting:
                future.cancel()
            raise
        else:
            self._forget(key, flight)
            for future in flight.waiting:
                if not future.done():
                    future.set_result(value)

    def _forget(self, key: Hashable, flight: _Flight[Value]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _task(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that runs at once, up to where it waits, where Python can do that (3.12).

    It saves a round of the event loop before the request goes out.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return asyncio.Task(coroutine, loop=loop)


async def _first(future: asyncio.Future[Value], timer: Coroutine[Any, Any, None]) -> None:
    """Return when the future is done; TimeoutError when the timer ends before it."""
    task = asyncio.get_running_loop().create_task(timer)
    try:
        await asyncio.wait((future, task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
    if not future.done():
        raise TimeoutError
