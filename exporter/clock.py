"""The clock port: every reading of time and every wait goes through it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time in Unix milliseconds, monotonic seconds, and waiting."""

    def now_ms(self) -> int:
        """Wall time, Unix milliseconds."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait that long; 0 or less yields once."""


class SystemClock:
    """The machine's clock and the running event loop's timer."""

    def now_ms(self) -> int:
        """Wall time, Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on the machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """`asyncio.sleep`."""
        await asyncio.sleep(max(0.0, seconds))
