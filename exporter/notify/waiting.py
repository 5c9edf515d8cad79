"""Waiting for the first of several things."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_of(*these: Coroutine[Any, Any, object]) -> None:
    """Wait until one of these is done; the others are cancelled."""
    waits = {asyncio.ensure_future(one) for one in these}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
