"""Several ids in one call: requests that come within a moment are merged.

Where the provider takes a list of ids, all ids asked for within `linger_s` go out together, in calls of at
most `max_ids`. An id that the answer lacks is absent for its caller only; a failed call fails its ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from exporter.clock import Clock

Value = TypeVar("Value")


class Batcher(Generic[Value]):
    """Merges single requests into calls of `fetch(ids) -> {id: value}`."""

    def __init__(
        self,
        fetch: Callable[[Sequence[str]], Awaitable[Mapping[str, Value]]],
        clock: Clock,
        *,
        max_ids: int,
        linger_s: float = 0.01,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._max_ids = max_ids
        self._linger_s = linger_s
        self._asked: dict[str, list[asyncio.Future[Value | None]]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Task[None] | None = None

    async def get(self, item_id: str) -> Value | None:
        """The value of an id; None where the provider does not know it.

        Raises: what the call raised.
        """
        future: asyncio.Future[Value | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(item_id, []).append(future)
        if len(self._asked) >= self._max_ids:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().create_task(self._linger())
        return await future

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [*self._calls, *([self._timer] if self._timer is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _linger(self) -> None:
        await self._clock.sleep(self._linger_s)
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        """Send what was asked; callers that are gone by now are left out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, {}
        wanted = {
            item_id: live
            for item_id, futures in asked.items()
            if (live := [future for future in futures if not future.done()])
        }
        if wanted:
            task = asyncio.get_running_loop().create_task(self._call(wanted))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, wanted: dict[str, list[asyncio.Future[Value | None]]]) -> None:
        waiting = [future for futures in wanted.values() for future in futures]
        try:
            values = await self._fetch(tuple(wanted))
        except asyncio.CancelledError:
            for future in waiting:
                future.cancel()
            raise
        except Exception as error:  # handed to the callers, whatever it is
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        for item_id, futures in wanted.items():
            for future in futures:
                if not future.done():
                    future.set_result(values.get(item_id))
