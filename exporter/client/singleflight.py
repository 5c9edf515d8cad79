"""Equal concurrent requests share one call.

The call runs in a task of its own, so that no caller's cancellation reaches the others; when the last caller
is gone the task is cancelled too. A failure is shared like an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class _Flight(Generic[Value]):
    __slots__ = ("callers", "detached", "task")

    def __init__(self, task: asyncio.Task[Value], detached: bool) -> None:
        self.task = task
        self.callers = 0
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

    async def run(self, key: Hashable, call: Callable[[], Awaitable[Value]]) -> Value:
        """The result of the call of this key that is in flight, or of a new one."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, call, detached=False)
        flight.callers += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.callers -= 1
            if not flight.callers and not flight.detached and not flight.task.done():
                # Nobody waits any more. The key is free at once: a caller that comes now starts anew.
                flight.task.cancel()
                self._forget(key, flight)

    def start(self, key: Hashable, call: Callable[[], Awaitable[Value]]) -> bool:
        """Start a call that nobody waits for (a refresh); False where one is in flight already."""
        if key in self._flights:
            return False
        self._start(key, call, detached=True)
        return True

    async def close(self) -> None:
        """Cancel everything in flight and wait for its end."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self, key: Hashable, call: Callable[[], Awaitable[Value]], *, detached: bool
    ) -> _Flight[Value]:
        async def fly() -> Value:
            return await call()

        task = asyncio.get_running_loop().create_task(fly())
        flight = _Flight(task, detached)
        self._flights[key] = flight
        task.add_done_callback(lambda done: self._landed(key, flight, done))
        return flight

    def _landed(self, key: Hashable, flight: _Flight[Value], task: asyncio.Task[Value]) -> None:
        self._forget(key, flight)
        if not task.cancelled():
            task.exception()  # seen: a refresh has no caller who would fetch it

    def _forget(self, key: Hashable, flight: _Flight[Value]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
