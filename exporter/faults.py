"""Faults of this program itself: each kind logged once with its cause, every one counted, nothing stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from prometheus_client import Counter

from exporter.clock import Clock

log = logging.getLogger(__name__)
_RESTART_AFTER_S = 1.0
_REMEMBERED = 1000


class Faults:
    """Counts into `quantum_faults_total` and keeps background tasks alive."""

    def __init__(self, counter: Counter, clock: Clock) -> None:
        self._counter = counter
        self._clock = clock
        self._logged: set[tuple[str, str]] = set()

    def report(self, component: str, error: BaseException) -> None:
        """Count a fault; the first of its kind is logged with its traceback."""
        self._counter.labels(component).inc()
        kind = (component, f"{type(error).__name__}: {error}")
        if kind not in self._logged and len(self._logged) < _REMEMBERED:
            self._logged.add(kind)
            log.error("fault in %s: %s", *kind, exc_info=error)

    async def keep_running(self, component: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a loop until it ends by itself or is cancelled; after a fault start it again a second later."""
        self._counter.labels(component)
        while True:
            try:
                await start()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self.report(component, error)
                await self._clock.sleep(_RESTART_AFTER_S)
            else:
                return
