"""The embedded engine behind an asynchronous face: worker threads, a concurrency gate, a query log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from exporter.clock import Clock
from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import LabelSet, Matcher
from exporter.promql.engine import Engine
from exporter.promql.values import Result
from exporter.storage import MemoryStorage

log = logging.getLogger("exporter.query")
T = TypeVar("T")


class QueryMetrics:
    """How the query API is used."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "quantum_query_duration_seconds",
            "Time to evaluate a query of the HTTP API, waiting included.",
            ["kind"],
            registry=registry,
            buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30),
        )
        self.failures = Counter(
            "quantum_query_failures_total",
            "Queries of the HTTP API that failed.",
            ["kind"],
            registry=registry,
        )
        self.running = Gauge(
            "quantum_queries_running", "Queries under evaluation or waiting for a place.", registry=registry
        )
        for kind in ("instant", "range", "labels"):
            self.duration.labels(kind)
            self.failures.labels(kind)


class LocalQueries:
    """Evaluates on the embedded engine, `max_concurrency` at once; the others wait inside their timeout."""

    def __init__(
        self,
        storage: MemoryStorage,
        engine: Engine,
        *,
        timeout_s: float,
        max_concurrency: int,
        clock: Clock,
        metrics: QueryMetrics,
        log_queries: bool = False,
    ) -> None:
        self._storage = storage
        self._engine = engine
        self._timeout_s = timeout_s
        self._gate = asyncio.Semaphore(max_concurrency)
        self._pool = ThreadPoolExecutor(max_concurrency, thread_name_prefix="query")
        self._clock = clock
        self._metrics = metrics
        self._log_queries = log_queries

    def close(self) -> None:
        """Take no more queries."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def instant(
        self, text: str, ts_ms: int, *, timeout_s: float | None = None, lookback_delta_ms: int | None = None
    ) -> Result:
        """Evaluate at one time. Raises: QueryError."""
        return await self._run(
            "instant",
            text,
            timeout_s,
            lambda left: self._engine.query(text, ts_ms, timeout_s=left, lookback_delta_ms=lookback_delta_ms),
        )

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
        return await self._run(
            "range",
            text,
            timeout_s,
            lambda left: self._engine.query_range(
                text, start_ms, end_ms, step_ms, timeout_s=left, lookback_delta_ms=lookback_delta_ms
            ),
        )

    async def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Sequence[LabelSet]:
        """The series that match any set, in label order."""
        return await self._run(
            "labels", "series", None, lambda _: self._storage.series(matcher_sets, start_ms, end_ms)
        )

    async def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Sequence[str]:
        """The label names of the matching series, sorted."""
        return await self._run(
            "labels", "labels", None, lambda _: self._storage.label_names(matcher_sets, start_ms, end_ms)
        )

    async def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Sequence[str]:
        """The values of one label, sorted."""
        return await self._run(
            "labels", name, None, lambda _: self._storage.label_values(name, matcher_sets, start_ms, end_ms)
        )

    async def _run(self, kind: str, text: str, timeout_s: float | None, evaluate: Callable[[float], T]) -> T:
        allowed_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        started = self._clock.monotonic()
        self._metrics.running.inc()
        try:
            try:
                async with asyncio.timeout(allowed_s):
                    await self._gate.acquire()
            except TimeoutError:
                raise QueryError("query timed out in query queue", QueryErrorKind.TIMEOUT) from None
            left_s = allowed_s - (self._clock.monotonic() - started)
            future = asyncio.get_running_loop().run_in_executor(self._pool, evaluate, left_s)
            # A client that goes away does not free the place while the thread still works.
            future.add_done_callback(lambda _: self._gate.release())
            return await asyncio.shield(future)
        except QueryError:
            self._metrics.failures.labels(kind).inc()
            raise
        finally:
            self._metrics.running.dec()
            took_s = self._clock.monotonic() - started
            self._metrics.duration.labels(kind).observe(took_s)
            if self._log_queries:
                log.info("query kind=%s duration_s=%.4f query=%r", kind, took_s, text)
