"""Blocking calls in daemon threads, so that one that hangs cannot hold up the end of the program."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from exporter.errors import DeliveryError

_T = TypeVar("_T")


class DaemonThreads:
    """Starts at most `most` calls at once; the event loop's own executor would be joined at exit."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._busy = 0

    def start(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        """The future of a call that runs in a thread of its own.

        Raises: DeliveryError where so many still run that no more are started.
        """
        if self._busy >= self._most:
            raise DeliveryError(f"{self._busy} earlier calls still hang", retryable=True)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._busy += 1

        def work() -> None:
            try:
                result = call()
            except Exception as error:
                outcome: Callable[[], None] = _setter(future.set_exception, error)
            else:
                outcome = _setter(future.set_result, result)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(finish, outcome)

        def finish(outcome: Callable[[], None]) -> None:
            self._busy -= 1
            if not future.cancelled():
                outcome()

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return future


def _setter(method: Callable[[_T], None], value: _T) -> Callable[[], None]:
    return lambda: method(value)
