"""The endpoints query and query_range, from parameters to replies, whichever way the request came.

What takes no longer than starting a task is answered at once; for the rest the caller gets a coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from exporter.clock import Clock
from exporter.errors import QueryError
from exporter.promql.values import InstantVector, RangeMatrix, Result
from exporter.web import encode
from exporter.web.params import (
    ParamError,
    Params,
    check_range,
    first,
    optional_time_ms,
    parse_duration_ms,
    parse_limit,
    parse_time_ms,
)
from exporter.web.ports import QueryService
from exporter.web.reply import Reply, query_failure, success

_MANY = 10_000  # points that are written in a thread
Answer = Reply | Coroutine[Any, Any, Reply]
Endpoint = Callable[[Params], Answer]


class QueryEndpoints:
    """Answers queries. Both methods raise ParamError."""

    def __init__(self, queries: QueryService, clock: Clock) -> None:
        self._queries = queries
        self.clock = clock

    def by_name(self) -> Mapping[str, Endpoint]:
        """The endpoints under /api/v1/."""
        return {"query": self.query, "query_range": self.query_range}

    def query(self, params: Params) -> Answer:
        """Instant query."""
        limit = parse_limit(first(params, "limit"))
        ts_ms = optional_time_ms(first(params, "time"), "time", self.clock.now_ms())
        timeout_s, lookback = timeout_of(params), _lookback(params)
        text = first(params, "query")
        queries = self._queries
        try:
            result = queries.instant_now(text, ts_ms, timeout_s=timeout_s, lookback_delta_ms=lookback)
        except QueryError as error:
            return query_failure(error)
        if result is None:
            return _told(queries.instant(text, ts_ms, timeout_s=timeout_s, lookback_delta_ms=lookback), limit)
        return _written_in_thread(result, limit) if _points(result) > _MANY else _written(result, limit)

    def query_range(self, params: Params) -> Answer:
        """Range query."""
        limit = parse_limit(first(params, "limit"))
        start_ms = parse_time_ms(first(params, "start"), "start")
        end_ms = parse_time_ms(first(params, "end"), "end")
        if end_ms < start_ms:
            raise ParamError("end timestamp must not be before start time", "end")
        step_ms = parse_duration_ms(first(params, "step"), "step")
        check_range(start_ms, end_ms, step_ms)
        result = self._queries.range(
            first(params, "query"),
            start_ms,
            end_ms,
            step_ms,
            timeout_s=timeout_of(params),
            lookback_delta_ms=_lookback(params),
        )
        return _told(result, limit)


def timeout_of(params: Params) -> float | None:
    """The parameter timeout in seconds. Raises: ParamError."""
    text = first(params, "timeout")
    return parse_duration_ms(text, "timeout") / 1000 if text else None


def _lookback(params: Params) -> int | None:
    text = first(params, "lookback_delta")
    return parse_duration_ms(text, "lookback_delta") if text else None


async def _told(answer: Coroutine[Any, Any, Result], limit: int) -> Reply:
    try:
        result = await answer
    except QueryError as error:
        return query_failure(error)
    return await _written_in_thread(result, limit) if _points(result) > _MANY else _written(result, limit)


async def _written_in_thread(result: Result, limit: int) -> Reply:
    return await asyncio.to_thread(_written, result, limit)


def _points(result: Result) -> int:
    value = result.value
    return value.values.size if isinstance(value, (InstantVector, RangeMatrix)) else 1


def _written(result: Result, limit: int) -> Reply:
    warnings: Sequence[str] = result.warnings
    value = result.value
    if limit and isinstance(value, (InstantVector, RangeMatrix)) and len(value) > limit:
        result = replace(result, value=_head(value, limit))
        warnings = (*warnings, "results truncated due to limit")
    return success(encode.RawJson(result.to_json_bytes()), warnings, result.infos)


def _head(value: InstantVector | RangeMatrix, limit: int) -> InstantVector | RangeMatrix:
    """The first series of a value."""
    labels = value.labels[:limit]
    if isinstance(value, InstantVector):
        return InstantVector(labels, value.values[:limit], value.ts_ms)
    if value.offsets is not None:
        return RangeMatrix(labels, value.ts_ms, value.values, offsets=value.offsets[: limit + 1])
    present = None if value.present is None else value.present[:limit]
    return RangeMatrix(labels, value.ts_ms, value.values[:limit], present)
