"""The engine behind the rules: the embedded one, or a remote one asked from the rules' worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from exporter.promql.engine import Engine, EvaluationMemo
from exporter.promql.values import InstantVector, ScalarValue
from exporter.query.remote import RemoteApi
from exporter.query.remote_values import to_value
from exporter.rules.group import QueryFn


def embedded_query(engine: Engine) -> Callable[[], QueryFn]:
    """For each evaluation of a group a query function whose equal sub-expressions are computed once."""

    def start() -> QueryFn:
        memo = EvaluationMemo()

        def query(text: str, ts_ms: int) -> object:
            return engine.query(text, ts_ms, memo=memo).value

        return query

    return start


def remote_query(api: RemoteApi, loop: asyncio.AbstractEventLoop) -> Callable[[], QueryFn]:
    """Query functions for a worker thread that ask a remote API on the event loop."""

    def query(text: str, ts_ms: int) -> InstantVector | ScalarValue:
        answer = asyncio.run_coroutine_threadsafe(api.instant(text, ts_ms), loop).result()
        return to_value(answer.data, ts_ms)

    return lambda: query
