"""Waiting for the first of several things, and for work that is done in steps."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from exporter.notify.steps import Steps, finish

_T = TypeVar("_T")


async def first_of(*these: Coroutine[Any, Any, object]) -> None:
    """Wait until one of these is done; the others are cancelled."""
    waits = {asyncio.ensure_future(one) for one in these}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def in_steps(steps: Steps[_T]) -> _T:
    """Do the work, others running between the steps; returns what it returns. Where this is cancelled, the
    work is done to its end first, without a break."""
    try:
        while True:
            next(steps)
            await asyncio.sleep(0)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        finish(steps)
