"""Monitor: times API calls and database queries of an app into metrics and events."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar, overload

from prometheus_client import CollectorRegistry

from exporter.clock import Clock, SystemClock
from exporter.model.durations import parse_duration
from exporter.model.events import EventSink, MetricEvent
from exporter.observe.metrics import ApiMetrics, QueryMetrics, expired_counter
from exporter.observe.outcome import CANCELLED, SUCCESS, outcome_of
from exporter.observe.ports import CallMetrics, EventHistory
from exporter.observe.timed import Timed

T = TypeVar("T")

API_EVENT = "api_response"
QUERY_EVENT = "db_query"
OTHER = "other"


_Key: TypeAlias = tuple[str, str, str, str]


class _Bound:
    """What one label set's measurements are written to: the children of its instruments and its context."""

    __slots__ = ("context", "inc", "observe", "used_ms")

    def __init__(
        self,
        observe: Callable[[float], None],
        inc: Callable[[], None] | None,
        context: Mapping[str, object],
    ) -> None:
        self.observe = observe
        self.inc = inc
        self.context = context
        self.used_ms = 0


class Subject:
    """What is timed: one endpoint and method, or one operation and table; outcomes are bound as they come."""

    __slots__ = ("bound", "details", "event_type", "key", "labels", "name")

    def __init__(self, key: _Key, name: str, labels: tuple[str, ...], details: dict[str, str]) -> None:
        self.key = key
        self.event_type = key[0]
        self.name = name
        self.labels = labels
        self.details = details
        self.bound: dict[str, _Bound] = {}


class Monitor:
    """Times calls into Prometheus instruments and `MetricEvent`s; every form costs under 5 us a call.

    `registry`: a new one by default, see the property. `events` takes each event (none by default).
    `history` answers questions about the past; without it they are answered from the last `recent` events
    in memory. `api` and `queries` are instruments made elsewhere on the same registry. After `max_subjects`
    endpoints or tables new ones are counted under "other", so that ids in paths cannot fill the memory.

    Outcomes: `success`; `cancelled`; the kind of an `ApiError`; `timeout`, `network` or `error` for other
    exceptions. Exceptions pass through unchanged.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        events: EventSink | None = None,
        history: EventHistory | None = None,
        clock: Clock | None = None,
        api: CallMetrics | None = None,
        queries: QueryMetrics | None = None,
        recent: int = 10_000,
        max_subjects: int = 1000,
    ) -> None:
        self._registry = registry if registry is not None else CollectorRegistry()
        self._events = events
        self._history = history
        self._clock = clock if clock is not None else SystemClock()
        self._api: Any = api if api is not None else ApiMetrics(self._registry)
        self._queries = queries if queries is not None else QueryMetrics(self._registry)
        self._expired = expired_counter(self._registry)
        self._recent: deque[MetricEvent] = deque(maxlen=recent)
        self._subjects: dict[_Key, Subject] = {}
        self._max_subjects = max_subjects

    def __repr__(self) -> str:
        return f"Monitor({len(self._subjects)} subjects, {len(self._recent)} recent events)"

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that holds the instruments."""
        return self._registry

    @overload
    def api_call(self, endpoint: str, method: str = "GET", *, provider: str = "app") -> Timed: ...

    @overload
    def api_call(
        self, endpoint: str, method: str, fn: Callable[[], Awaitable[T]], *, provider: str = "app"
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def api_call(
        self, endpoint: str, method: str, fn: Callable[[], T], *, provider: str = "app"
    ) -> Coroutine[Any, Any, T]: ...

    def api_call(
        self,
        endpoint: str,
        method: str = "GET",
        fn: Callable[[], Any] | None = None,
        *,
        provider: str = "app",
    ) -> Any:
        """Time an API call: `await api_call(e, m, fn)`, `@api_call(e, m)` or `async with api_call(e, m):`.

        `fn` takes no argument and may be async or not. The decorator keeps the kind of the function
        (sync, async, generator, async generator) and its signature; a generator is timed to its end.
        """
        timed = Timed(self, self._subject(API_EVENT, provider, endpoint, method))
        return timed if fn is None else timed.run(fn)

    @overload
    def db_query(self, operation: str, table: str) -> Timed: ...

    @overload
    def db_query(
        self, operation: str, table: str, run: Callable[[], Awaitable[T]]
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def db_query(self, operation: str, table: str, run: Callable[[], T]) -> Coroutine[Any, Any, T]: ...

    def db_query(self, operation: str, table: str, run: Callable[[], Any] | None = None) -> Any:
        """Time a database query, in the three forms of `api_call`."""
        timed = Timed(self, self._subject(QUERY_EVENT, operation, table, ""))
        return timed if run is None else timed.run(run)

    def record_api_call(
        self,
        endpoint: str,
        method: str,
        seconds: float,
        *,
        provider: str = "app",
        error: BaseException | None = None,
    ) -> None:
        """Record an API call that was timed elsewhere."""
        self.record(self._subject(API_EVENT, provider, endpoint, method), seconds, error)

    def record_db_query(
        self, operation: str, table: str, seconds: float, error: BaseException | None = None
    ) -> None:
        """Record a query that was timed elsewhere."""
        self.record(self._subject(QUERY_EVENT, operation, table, ""), seconds, error)

    def now(self) -> float:
        """Monotonic seconds, the clock of all durations."""
        return self._clock.monotonic()

    def record(self, subject: Subject, seconds: float, error: BaseException | None) -> None:
        """Write one measurement: histogram, counter, event. Never raises."""
        outcome = SUCCESS if error is None else outcome_of(error)
        bound = subject.bound.get(outcome)
        if bound is None:
            bound = self._bind(subject, outcome)
        bound.observe(seconds)
        if bound.inc is not None:
            bound.inc()
        context = bound.context
        if error is not None:  # the type only: a message may hold a URL with a key
            context = {**context, "error": type(error).__name__}
        bound.used_ms = now_ms = self._clock.now_ms()
        event = MetricEvent(subject.event_type, subject.name, seconds * 1000.0, "ms", now_ms, context)
        self._recent.append(event)
        if self._events is not None:
            self._events.put(event)

    async def average_response_time(self, endpoint: str | None = None, period: str = "1h") -> float | None:
        """Mean time in milliseconds of the API calls of the last `period` (a Prometheus duration such as 1h).

        All endpoints where none is named; None where there was no call. Read from the stored events when
        connected (an event is stored within a second or two), else from the recent ones in memory.
        Raises: ValueError for a bad period; StorageError where the stored events cannot be read.
        """
        start_ms, end_ms = self._period(period)
        if self._history is not None:
            stored = await self._history.average_response_time_ms(endpoint, start_ms, end_ms)
            if stored is not None:
                return stored
        times = [
            event.value
            for event in self._between(start_ms, end_ms)
            if event.metric_type == API_EVENT and endpoint in (None, event.metric_name)
        ]
        return sum(times) / len(times) if times else None

    async def error_rate(self, period: str = "1h") -> float | None:
        """Share, 0..1, of the API calls and queries of the last `period` that failed; None without any.

        A cancelled call is no failure. Raises: as `average_response_time`.
        """
        start_ms, end_ms = self._period(period)
        if self._history is not None:
            stored = await self._history.error_rate(start_ms, end_ms)
            if stored is not None:
                return stored
        events = self._between(start_ms, end_ms)
        failed = sum(event.context.get("outcome") not in (SUCCESS, CANCELLED) for event in events)
        return failed / len(events) if events else None

    def expire_idle(self, idle_s: float) -> int:
        """Drop the label sets that nobody used for `idle_s` seconds; returns how many.

        Their series end with the next snapshot or scrape. A later measurement begins them anew, at 0.
        """
        before_ms = self._clock.now_ms() - round(idle_s * 1000)
        dropped = 0
        for key, subject in list(self._subjects.items()):
            for outcome, bound in list(subject.bound.items()):
                if bound.used_ms < before_ms:
                    del subject.bound[outcome]
                    self._unbind(subject, outcome)
                    dropped += 1
            if not subject.bound:
                del self._subjects[key]
        self._expired.inc(dropped)
        return dropped

    def _unbind(self, subject: Subject, outcome: str) -> None:
        labels = (*subject.labels, outcome)
        if subject.event_type == API_EVENT:
            self._api.duration.remove(*labels)
            self._api.requests.remove(*labels)
        else:
            self._queries.duration.remove(*labels)

    def _period(self, period: str) -> tuple[int, int]:
        end_ms = self._clock.now_ms()
        return end_ms - parse_duration(period), end_ms

    def _between(self, start_ms: int, end_ms: int) -> list[MetricEvent]:
        return [event for event in list(self._recent) if start_ms < event.ts_ms <= end_ms]

    def _subject(self, event_type: str, first: str, second: str, third: str) -> Subject:
        key = (event_type, first, second, third)
        subject = self._subjects.get(key)
        if subject is None:
            if len(self._subjects) >= self._max_subjects and second != OTHER:
                return self._subject(event_type, first, OTHER, third)
            subject = self._subjects[key] = _new_subject(key)
        return subject

    def _bind(self, subject: Subject, outcome: str) -> _Bound:
        labels = (*subject.labels, outcome)
        context = {**subject.details, "success": outcome == SUCCESS, "outcome": outcome}
        if subject.event_type == API_EVENT:
            duration, requests = self._api.duration.labels(*labels), self._api.requests.labels(*labels)
            bound = _Bound(duration.observe, requests.inc, context)
        else:
            bound = _Bound(self._queries.duration.labels(*labels).observe, None, context)
        bound.used_ms = self._clock.now_ms()
        subject.bound[outcome] = bound
        self._subjects[subject.key] = subject  # a decorator may hold a subject that had expired
        return bound


def _new_subject(key: _Key) -> Subject:
    event_type, first, second, third = key
    if event_type == API_EVENT:
        details = {"provider": first, "endpoint": second, "method": third}
        return Subject(key, second, (first, second, third), details)
    details = {"operation": first, "table": second}
    return Subject(key, f"{first} {second}", (first, second), details)
