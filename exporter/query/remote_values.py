"""A remote API's answer as values of ours, and as the query service of the HTTP server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.found import Found
from exporter.model.labels import LabelSet, Matcher
from exporter.promql.explain import Step
from exporter.promql.values import InstantVector, RangeMatrix, Result, ScalarValue, StringValue, Value
from exporter.query.remote import Answer, RemoteApi, seconds


def to_value(data: Any, ts_ms: int) -> InstantVector | ScalarValue:
    """The instant vector or scalar of an answer's `data`.

    Raises: QueryError for another type, or data that is none.
    """
    value = _value(data, ts_ms)
    if isinstance(value, (InstantVector, ScalarValue)):
        return value
    raise QueryError("rule result is not a vector or scalar")


def _value(data: Any, ts_ms: int) -> Value:
    try:
        kind, result = data["resultType"], data["result"]
        if kind == "vector":
            labels = tuple(LabelSet.of(row["metric"]) for row in result)
            values = np.array([float(row["value"][1]) for row in result], np.float64)
            return InstantVector(labels, values, ts_ms)
        if kind == "scalar":
            return ScalarValue(ts_ms, float(result[1]))
        if kind == "string":
            return StringValue(ts_ms, str(result[1]))
        points = [[(round(ts * 1000), float(text)) for ts, text in row["values"]] for row in result]
        offsets = np.cumsum([0, *map(len, points)]).astype(np.int64)
        flat = [point for row in points for point in row]
        return RangeMatrix(
            tuple(LabelSet.of(row["metric"]) for row in result),
            np.array([ts for ts, _ in flat], np.int64),
            np.array([value for _, value in flat], np.float64),
            offsets=offsets,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise QueryError(
            "the remote engine's answer is not as documented", QueryErrorKind.UNAVAILABLE
        ) from error


@dataclass(frozen=True, slots=True)
class RemoteQueries:
    """The query service over a remote API."""

    api: RemoteApi

    def close(self) -> None:
        """Nothing is held."""

    def instant_now(self, *_: object, **__: object) -> Result | None:
        """None: nothing is known without asking."""
        return None

    async def instant(
        self, text: str, ts_ms: int, *, timeout_s: float | None = None, lookback_delta_ms: int | None = None
    ) -> Result:
        """Evaluate at one time. Raises: QueryError."""
        params = [("query", text), ("time", seconds(ts_ms)), *_options(timeout_s, lookback_delta_ms)]
        return _result(await self.api.ask("query", params), ts_ms)

    async def range(
        self,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        timeout_s: float | None = None,
        lookback_delta_ms: int | None = None,
    ) -> Result:
        """Evaluate at each step of a range. Raises: QueryError."""
        times = [
            (name, seconds(ms)) for name, ms in (("start", start_ms), ("end", end_ms), ("step", step_ms))
        ]
        params = [("query", text), *times, *_options(timeout_s, lookback_delta_ms)]
        return _result(await self.api.ask("query_range", params), end_ms)

    async def explain(self, text: str, ts_ms: int, *, timeout_s: float | None = None) -> tuple[Result, Step]:
        """Raises: QueryError: only the embedded engine can tell."""
        raise QueryError(
            f'"{text}" is not explained (at {seconds(ts_ms)}, timeout {timeout_s}): query.url names another '
            "engine, and only the embedded one can",
            QueryErrorKind.UNSUPPORTED,
        )

    async def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[LabelSet]:
        """The series that match any set."""
        answer = await self.api.ask("series", _selection(matcher_sets, start_ms, end_ms))
        return Found([LabelSet.of(labels) for labels in answer.data], answer.warnings)

    async def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[str]:
        """The label names of the matching series."""
        answer = await self.api.ask("labels", _selection(matcher_sets, start_ms, end_ms))
        return Found(list(answer.data), answer.warnings)

    async def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[str]:
        """The values of one label."""
        params = _selection(matcher_sets, start_ms, end_ms)
        answer = await self.api.ask(f"label/{quote(name, safe='')}/values", params, post=False)
        return Found(list(answer.data), answer.warnings)


def _result(answer: Answer, ts_ms: int) -> Result:
    return Result(_value(answer.data, ts_ms), answer.warnings, answer.infos)


def _options(timeout_s: float | None, lookback_delta_ms: int | None) -> list[tuple[str, str]]:
    pairs = [("timeout", f"{timeout_s}s")] if timeout_s is not None else []
    return pairs + ([("lookback_delta", f"{lookback_delta_ms}ms")] if lookback_delta_ms is not None else [])


def _selection(
    matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
) -> list[tuple[str, str]]:
    pairs = [("match[]", "{" + ",".join(map(str, matchers)) + "}") for matchers in matcher_sets]
    bounds: Mapping[str, int] = {"start": start_ms, "end": end_ms}
    # the ends of time are left out: they mean "no bound"
    return pairs + [(name, seconds(ms)) for name, ms in bounds.items() if abs(ms) < 2**52]
