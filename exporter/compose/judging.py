"""A remote engine behind the rules, asked from their worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from exporter.promql.values import InstantVector, ScalarValue
from exporter.query.remote import RemoteApi
from exporter.query.remote_values import to_value
from exporter.rules.group import QueryFn


def remote_query(api: RemoteApi, loop: asyncio.AbstractEventLoop) -> Callable[[], QueryFn]:
    """Query functions for a worker thread that ask a remote API on the event loop."""

    def query(text: str, ts_ms: int) -> InstantVector | ScalarValue:
        answer = asyncio.run_coroutine_threadsafe(api.instant(text, ts_ms), loop).result()
        return to_value(answer.data, ts_ms)

    return lambda: query
