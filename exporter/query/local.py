"""The embedded engine behind an asynchronous face: long reads, worker threads, a concurrency gate, limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from exporter.births import mass_birth
from exporter.clock import Clock
from exporter.errors import QueryError, QueryErrorKind
from exporter.model.found import Found
from exporter.model.labels import LabelSet, Matcher
from exporter.promql.engine import Engine
from exporter.promql.explain import Step, explain
from exporter.promql.plan import Read
from exporter.promql.values import Result
from exporter.query.log import QueryLog, iso
from exporter.query.metrics import QueryMetrics
from exporter.query.older import OlderSamples
from exporter.storage import MemoryStorage

_SMALL = 20_000  # samples; the way to a thread and back costs more than such a query
_LONG_TEXT = 4096  # characters; parsing more may hold up the event loop
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may use, and how many may run at once; the others wait inside their timeout."""

    timeout_s: float = 30.0
    max_samples: int = 50_000_000
    max_concurrency: int = 4


@dataclass(frozen=True, slots=True)
class _Ask:
    """A query as it was asked; `step_ms` 0 is an instant query."""

    text: str
    start_ms: int
    end_ms: int
    step_ms: int
    lookback_delta_ms: int | None

    def params(self) -> dict[str, Any]:
        """As the query log writes it."""
        start, end = iso(self.start_ms), iso(self.end_ms)
        return {"end": end, "query": self.text, "start": start, "step": self.step_ms // 1000}


@dataclass(slots=True)
class _Seen:
    """What became known of a query while it ran."""

    queued_s: float = 0.0
    samples: int = 0


class _Stop:
    """Tells an evaluation in its thread that nobody waits for it any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


Evaluate = Callable[[Engine, float, _Stop], T]


class LocalQueries:
    """PromQL over the head and, for what is older, the long memory."""

    def __init__(
        self,
        storage: MemoryStorage,
        engine: Engine,
        *,
        limits: Limits,
        clock: Clock,
        metrics: QueryMetrics,
        older: OlderSamples | None = None,
        query_log: QueryLog | None = None,
    ) -> None:
        self._storage = storage
        self._engine = engine
        self._limits = limits
        self._gate = asyncio.Semaphore(limits.max_concurrency)
        self._pool = ThreadPoolExecutor(limits.max_concurrency, thread_name_prefix="query")
        self._clock = clock
        self._metrics = metrics
        self._older = older
        self._query_log = query_log

    def close(self) -> None:
        """Take no more queries."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._query_log is not None:
            self._query_log.close()

    def instant_now(
        self, text: str, ts_ms: int, *, timeout_s: float | None = None, lookback_delta_ms: int | None = None
    ) -> Result | None:
        """As `instant` where the answer takes less time than a task would, else None. Raises: QueryError."""
        ask = _Ask(text, ts_ms, ts_ms, 0, lookback_delta_ms)
        allowed_s = self._allowed_s(timeout_s)
        try:
            if not self._is_small(ask):
                return None
        except QueryError:
            return None  # told, counted and logged on the long way
        with self._watched(ask) as seen:
            result = self._engine.query(text, ts_ms, timeout_s=allowed_s, lookback_delta_ms=lookback_delta_ms)
            seen.samples = result.samples
            return result

    async def instant(
        self, text: str, ts_ms: int, *, timeout_s: float | None = None, lookback_delta_ms: int | None = None
    ) -> Result:
        """Evaluate at one time. Raises: QueryError."""
        ask = _Ask(text, ts_ms, ts_ms, 0, lookback_delta_ms)
        result, warnings = await self._query(
            ask,
            timeout_s,
            lambda engine, left_s, stop: engine.query(
                text, ts_ms, timeout_s=left_s, lookback_delta_ms=lookback_delta_ms, cancel=stop
            ),
            lambda result: result.samples,
        )
        return _warned(result, warnings)

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
        ask = _Ask(text, start_ms, end_ms, step_ms, lookback_delta_ms)
        result, warnings = await self._query(
            ask,
            timeout_s,
            lambda engine, left_s, stop: engine.query_range(
                text,
                start_ms,
                end_ms,
                step_ms,
                timeout_s=left_s,
                lookback_delta_ms=lookback_delta_ms,
                cancel=stop,
            ),
            lambda result: result.samples,
        )
        return _warned(result, warnings)

    async def explain(self, text: str, ts_ms: int, *, timeout_s: float | None = None) -> tuple[Result, Step]:
        """The answer of an instant query and the tree of its sub-expressions. Raises: QueryError."""
        (result, root), warnings = await self._query(
            _Ask(text, ts_ms, ts_ms, 0, None),
            timeout_s,
            lambda engine, left_s, stop: explain(
                engine, text, ts_ms, self._clock.monotonic, timeout_s=left_s, cancel=stop
            ),
            lambda pair: pair[0].samples,
        )
        return _warned(result, warnings), root

    async def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[LabelSet]:
        """The series that match any set, in label order."""
        recent = await self._thread(lambda: self._storage.series(matcher_sets, start_ms, end_ms))
        older = await self._older_series(matcher_sets, start_ms, end_ms)
        if not older.items:
            return Found(recent, older.warnings)
        return Found(sorted({*recent, *older.items}), older.warnings)

    async def label_names(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[str]:
        """The label names of the matching series, sorted."""
        recent = await self._thread(lambda: self._storage.label_names(matcher_sets, start_ms, end_ms))
        older = await self._older_series(matcher_sets, start_ms, end_ms)
        names = {name for labels in older.items for name, _ in labels.pairs}
        return Found(sorted(names.union(recent)), older.warnings)

    async def label_values(
        self, name: str, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[str]:
        """The values of one label, sorted."""
        recent = await self._thread(lambda: self._storage.label_values(name, matcher_sets, start_ms, end_ms))
        older = await self._older_series(matcher_sets, start_ms, end_ms)
        values = {value for labels in older.items if (value := labels.get(name))}
        return Found(sorted(values.union(recent)), older.warnings)

    async def _older_series(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[LabelSet]:
        if self._older is None:
            return Found(())
        return await self._older.series(matcher_sets, start_ms, end_ms)

    async def _thread(self, find: Callable[[], T]) -> T:
        """A label query in a thread, timed."""
        started = self._clock.monotonic()
        self._metrics.running.inc()
        try:
            return await self._in_thread(find)
        finally:
            self._metrics.running.dec()
            self._metrics.kinds["labels"][0].observe(self._clock.monotonic() - started)

    async def _query(
        self, ask: _Ask, timeout_s: float | None, evaluate: Evaluate[T], peak: Callable[[T], int]
    ) -> tuple[T, tuple[str, ...]]:
        """Evaluate, timed, counted and logged."""
        with self._watched(ask) as seen:
            value, warnings = await self._evaluate(ask, self._allowed_s(timeout_s), evaluate, seen)
            seen.samples = peak(value)
            return value, warnings

    def _allowed_s(self, timeout_s: float | None) -> float:
        return self._limits.timeout_s if timeout_s is None else min(timeout_s, self._limits.timeout_s)

    @contextmanager
    def _watched(self, ask: _Ask) -> Iterator[_Seen]:
        """Times, counts and logs what is evaluated inside."""
        duration, failures = self._metrics.kinds["range" if ask.step_ms else "instant"]
        started = self._clock.monotonic()
        seen = _Seen()
        error = "query was canceled"
        self._metrics.running.inc()
        try:
            yield seen
            error = ""
        except QueryError as failure:
            error = str(failure)
            failures.inc()
            raise
        finally:
            self._metrics.running.dec()
            took_s = self._clock.monotonic() - started
            duration.observe(took_s)
            if self._query_log is not None:
                self._query_log.write(
                    ask.params(),
                    ts_ms=self._clock.now_ms(),
                    queued_s=seen.queued_s,
                    total_s=took_s,
                    peak_samples=seen.samples,
                    error=error,
                )

    async def _evaluate(
        self, ask: _Ask, allowed_s: float, evaluate: Evaluate[T], seen: _Seen
    ) -> tuple[T, tuple[str, ...]]:
        """In place where it is small, else in a thread once there is a place; older samples come first."""
        deadline_s = self._clock.monotonic() + allowed_s
        if self._is_small(ask):
            return evaluate(self._engine, allowed_s, _Stop()), ()
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(allowed_s):
                await self._gate.acquire()
        except TimeoutError:
            raise QueryError("query timed out in query queue", QueryErrorKind.TIMEOUT) from None
        seen.queued_s = self._clock.monotonic() - started
        freed = False
        try:
            if len(ask.text) > _LONG_TEXT:
                older = await self._in_thread(lambda: self._older_reads(ask))
            else:
                older = self._older_reads(ask)
            engine, warnings = self._engine, tuple[str, ...]()
            if older and self._older is not None:
                engine, warnings = await self._with_older(older, deadline_s)
            left_s = deadline_s - self._clock.monotonic()
            stop = _Stop()
            future = asyncio.get_running_loop().run_in_executor(
                self._pool, _undisturbed, lambda: evaluate(engine, left_s, stop)
            )
            # Nobody may wait any more, but the place is taken for as long as the thread works.
            freed = True
            future.add_done_callback(self._free)
            try:
                return await asyncio.shield(future), warnings
            except asyncio.CancelledError:
                stop.set()
                raise
        finally:
            if not freed:
                self._gate.release()

    def _is_small(self, ask: _Ask) -> bool:
        """Whether a query is read from the head alone and costs less than the way to a thread and back."""
        if len(ask.text) > _LONG_TEXT or self._older_reads(ask):
            return False
        size = self._engine.estimate(ask.text, ask.start_ms, ask.end_ms, ask.step_ms)
        return size is not None and size <= _SMALL

    def _free(self, future: asyncio.Future[Any]) -> None:
        self._gate.release()
        if not future.cancelled():
            future.exception()  # of a query that nobody waits for: seen

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, _undisturbed, work)

    def _older_reads(self, ask: _Ask) -> list[Read]:
        if self._older is None:
            return []
        return self._older.needed(
            self._engine.reads(
                ask.text, ask.start_ms, ask.end_ms, ask.step_ms, lookback_delta_ms=ask.lookback_delta_ms
            )
        )

    async def _with_older(self, reads: Sequence[Read], deadline_s: float) -> tuple[Engine, tuple[str, ...]]:
        assert self._older is not None
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.monotonic())):
                source, warnings = await self._older.source(reads, self._limits.max_samples)
        except TimeoutError:
            raise QueryError("query timed out in expression evaluation", QueryErrorKind.TIMEOUT) from None
        return self._engine.over(source), warnings


def _undisturbed(work: Callable[[], T]) -> T:
    """The labels of a selection that nobody asked for yet are many objects, most of which stay."""
    with mass_birth():
        return work()


def _warned(result: Result, warnings: tuple[str, ...]) -> Result:
    return replace(result, warnings=(*result.warnings, *warnings)) if warnings else result
