"""The Monitor: all forms of timing, all kinds of functions, outcomes, events, questions about the past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from exporter.errors import ApiError, ApiErrorKind, StorageError
from exporter.model.events import MetricEvent
from exporter.observe.monitor import Monitor
from tests.helpers.clock import FakeClock


class Sink:
    def __init__(self) -> None:
        self.events: list[MetricEvent] = []

    def put(self, event: MetricEvent) -> None:
        self.events.append(event)


class World:
    """A monitor on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sink = Sink()
        self.monitor = Monitor(events=self.sink, clock=self.clock)

    def count(self, outcome: str, endpoint: str = "/x", method: str = "GET") -> float:
        labels = {"provider": "app", "endpoint": endpoint, "method": method, "outcome": outcome}
        return self.monitor.registry.get_sample_value("quantum_api_requests_total", labels) or 0.0

    def queries(self, outcome: str, operation: str = "SELECT", table: str = "t") -> float:
        labels = {"operation": operation, "table": table, "outcome": outcome}
        return (
            self.monitor.registry.get_sample_value("quantum_db_query_duration_seconds_count", labels) or 0.0
        )


@pytest.fixture
def world() -> World:
    return World()


async def test_direct_call_returns_the_result_and_counts(world: World) -> None:
    """api_call(endpoint, method, fn) awaits fn and gives its result."""

    async def fetch() -> str:
        await world.clock.advance(0.25)
        return "data"

    assert await world.monitor.api_call("/x", "GET", fetch) == "data"
    assert world.count("success") == 1
    (event,) = world.sink.events
    assert (event.metric_type, event.metric_name, event.value, event.unit) == (
        "api_response",
        "/x",
        250.0,
        "ms",
    )
    assert event.ts_ms == world.clock.now_ms()
    assert event.context == {
        "provider": "app",
        "endpoint": "/x",
        "method": "GET",
        "success": True,
        "outcome": "success",
    }


async def test_direct_call_takes_plain_functions(world: World) -> None:
    """A function that is not async is called, its result given."""
    assert await world.monitor.api_call("/x", "GET", lambda: 5) == 5
    assert await world.monitor.db_query("SELECT", "t", lambda: [1]) == [1]
    assert (world.count("success"), world.queries("success")) == (1, 1)


async def test_histogram_gets_seconds(world: World) -> None:
    """The histogram holds seconds, the event milliseconds."""
    async with world.monitor.db_query("SELECT", "t"):
        await world.clock.advance(2)
    labels = {"operation": "SELECT", "table": "t", "outcome": "success"}
    total = world.monitor.registry.get_sample_value("quantum_db_query_duration_seconds_sum", labels)
    assert total == 2.0
    assert world.sink.events[0].value == 2000.0
    assert world.sink.events[0].metric_name == "SELECT t"


async def test_decorator_keeps_coroutine_functions(world: World) -> None:
    """A decorated coroutine function is one still, with its name and arguments."""

    @world.monitor.api_call("/x", "GET")
    async def fetch(a: int, *, b: int) -> int:
        """Doc."""
        return a + b

    assert asyncio.iscoroutinefunction(fetch)
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Doc.")
    assert await fetch(1, b=2) == 3
    assert world.count("success") == 1


def test_decorator_on_a_plain_function(world: World) -> None:
    """A plain function stays plain and is timed at each call."""

    @world.monitor.db_query("SELECT", "t")
    def load(n: int) -> int:
        return n * 2

    assert [load(1), load(2)] == [2, 4]
    assert world.queries("success") == 2


def test_decorator_on_a_generator(world: World) -> None:
    """A generator is timed from its first step to its end; sent values and the return value pass."""

    @world.monitor.db_query("SELECT", "t")
    def rows() -> Iterator[int]:
        got = yield 1
        yield got
        return "end"  # type: ignore[return-value]

    generator = rows()
    assert world.queries("success") == 0
    assert next(generator) == 1
    assert generator.send(7) == 7  # type: ignore[attr-defined]
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "end"
    assert world.queries("success") == 1


def test_closed_generator_is_a_success(world: World) -> None:
    """A reader who has had enough is no fault."""

    @world.monitor.db_query("SELECT", "t")
    def rows() -> Iterator[int]:
        yield 1
        yield 2

    generator = rows()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert world.queries("success") == 1


async def test_decorator_on_an_async_generator(world: World) -> None:
    """An async generator is timed to its end and forwards what is sent and thrown."""

    @world.monitor.db_query("SELECT", "t")
    async def rows() -> AsyncIterator[object]:
        got = yield 1
        try:
            yield got
        except KeyError:
            yield "caught"

    generator = rows()
    assert await generator.asend(None) == 1  # type: ignore[attr-defined]
    assert await generator.asend("sent") == "sent"  # type: ignore[attr-defined]
    assert await generator.athrow(KeyError()) == "caught"  # type: ignore[attr-defined]
    with pytest.raises(StopAsyncIteration):
        await generator.__anext__()
    assert world.queries("success") == 1
    assert [item async for item in rows()] == [1, None]
    early = rows()
    await early.__anext__()
    await early.aclose()  # type: ignore[attr-defined]
    assert world.queries("success") == 3


async def test_failing_async_generator_counts_once(world: World) -> None:
    """An exception inside an async generator reaches the reader and counts once."""

    @world.monitor.db_query("SELECT", "t")
    async def rows() -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        _ = [item async for item in rows()]
    assert (world.queries("error"), world.queries("success")) == (1, 0)


async def test_function_that_returns_an_awaitable(world: World) -> None:
    """A plain function that gives a coroutine is timed until that ends."""

    async def inner() -> int:
        await world.clock.advance(1)
        return 3

    @world.monitor.api_call("/x", "GET")
    def fetch() -> object:
        return inner()

    assert await fetch() == 3  # type: ignore[misc]
    assert world.sink.events[0].value == 1000.0


class SqlError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def wrapped(cause: BaseException) -> StorageError:
    error = StorageError("outer")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ApiError("no", ApiErrorKind.RATE_LIMITED), "rate_limited"),
        (ApiError("no", ApiErrorKind.QUOTA), "quota"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "network"),
        (OSError(), "network"),
        (SqlError("57014"), "timeout"),
        (SqlError("08006"), "network"),
        (SqlError("42P01"), "error"),
        (wrapped(SqlError("57014")), "timeout"),
        (wrapped(OSError()), "network"),
        (ValueError("secret in the text"), "error"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
async def test_outcome_is_a_word_of_a_closed_set(world: World, error: BaseException, outcome: str) -> None:
    """Each exception has one outcome, passes through as the same object, and leaves no text behind."""

    async def fails() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await world.monitor.api_call("/x", "GET", fails)
    assert raised.value is error
    assert world.count(outcome) == 1
    assert world.sink.events[0].context["error"] == type(error).__name__
    assert "secret" not in str(world.sink.events[0].context)


async def test_cancelled_task_counts_as_cancelled(world: World) -> None:
    """A task that is cancelled inside a timed call stays cancelled."""

    async def waits() -> None:
        async with world.monitor.db_query("SELECT", "t"):
            await world.clock.sleep(60)

    task = asyncio.create_task(waits())
    await world.clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.queries("cancelled") == 1
    assert world.sink.events[0].value == 1000.0


def test_with_block(world: World) -> None:
    """The plain with statement works as the async one."""
    with pytest.raises(KeyError), world.monitor.api_call("/x", "POST"):
        raise KeyError
    assert world.count("error", method="POST") == 1


async def test_average_response_time_in_memory(world: World) -> None:
    """The mean of an endpoint's calls in the period, in milliseconds; None without any."""
    monitor, clock = world.monitor, world.clock
    assert await monitor.average_response_time("/a", "1h") is None
    monitor.record_api_call("/a", "GET", 9.0)
    await clock.advance(3600)
    monitor.record_api_call("/a", "GET", 0.1)
    monitor.record_api_call("/a", "GET", 0.3)
    monitor.record_api_call("/b", "GET", 5.0)
    monitor.record_db_query("SELECT", "t", 8.0)
    assert await monitor.average_response_time("/a", "1h") == pytest.approx(200.0)
    assert await monitor.average_response_time(period="1h") == pytest.approx(1800.0)
    assert await monitor.average_response_time("/a", "2h") == pytest.approx(9400 / 3)


async def test_error_rate_in_memory(world: World) -> None:
    """The share of failed calls and queries in the period, cancelled ones being no failures."""
    monitor = world.monitor
    assert await monitor.error_rate("1h") is None
    monitor.record_api_call("/a", "GET", 0.1)
    monitor.record_api_call("/a", "GET", 0.1, error=ValueError())
    monitor.record_db_query("SELECT", "t", 0.1, asyncio.CancelledError())
    monitor.record_db_query("SELECT", "t", 0.1)
    assert await monitor.error_rate("1h") == 0.25


async def test_bad_period_is_refused(world: World) -> None:
    """A period is a Prometheus duration."""
    with pytest.raises(ValueError, match="duration"):
        await world.monitor.error_rate("an hour")


class History:
    async def average_response_time_ms(
        self, endpoint: str | None, start_ms: int, end_ms: int
    ) -> float | None:
        return float(end_ms - start_ms)

    async def error_rate(self, start_ms: int, end_ms: int) -> float | None:
        return 0.5


async def test_history_answers_when_there_is_one() -> None:
    """With stored events the questions go there, with the period as a range."""
    monitor = Monitor(history=History(), clock=FakeClock())
    assert await monitor.average_response_time("/a", "1m") == 60_000
    assert await monitor.error_rate("1m") == 0.5


def test_subjects_are_bounded() -> None:
    """Endpoints beyond the bound are counted under "other"."""
    monitor = Monitor(max_subjects=2)
    for number in range(50):
        monitor.record_api_call(f"/user/{number}", "GET", 0.1)
    endpoints = {
        sample.labels["endpoint"]: sample.value
        for metric in monitor.registry.collect()
        for sample in metric.samples
        if sample.name == "quantum_api_requests_total"
    }
    assert endpoints == {"/user/0": 1.0, "/user/1": 1.0, "other": 48.0}


def test_recent_events_are_bounded() -> None:
    """The memory of events has a length."""
    monitor = Monitor(recent=10)
    for _ in range(100):
        monitor.record_db_query("SELECT", "t", 0.1)
    assert repr(monitor) == "Monitor(1 subjects, 10 recent events)"


async def test_idle_label_sets_are_dropped(world: World) -> None:
    """A label set unused for the time given is gone and counted; one in use stays."""
    monitor, clock = world.monitor, world.clock
    monitor.record_api_call("/old", "GET", 0.1)
    monitor.record_db_query("SELECT", "old", 0.1)
    monitor.record_api_call("/x", "GET", 0.1, error=ValueError())
    await clock.advance(100)
    monitor.record_api_call("/x", "GET", 0.1)
    assert monitor.expire_idle(100) == 0
    await clock.advance(1)
    assert monitor.expire_idle(100) == 3
    assert (world.count("success", "/old"), world.queries("success", table="old"), world.count("error")) == (
        0,
        0,
        0,
    )
    assert world.count("success") == 1
    assert monitor.registry.get_sample_value("quantum_label_sets_expired_total") == 3


async def test_an_expired_decorator_begins_anew(world: World) -> None:
    """A decorated function whose label set expired is measured again, and can expire again."""
    fetch = world.monitor.api_call("/x", "GET")(lambda: None)
    for _ in range(2):
        fetch()
        assert world.count("success") == 1
        await world.clock.advance(10)
        assert world.monitor.expire_idle(5) == 1
    assert world.count("success") == 0


async def test_memory_is_flat_under_churn() -> None:
    """Label sets that come and go leave nothing behind."""
    clock = FakeClock()
    monitor = Monitor(clock=clock, max_subjects=100_000, recent=10)
    for round_number in range(20):
        for number in range(100):
            monitor.record_api_call(f"/{round_number}/{number}", "GET", 0.1)
        await clock.advance(10)
        monitor.expire_idle(5)
    assert repr(monitor).startswith("Monitor(0 subjects")
    names = [sample.name for family in monitor.registry.collect() for sample in family.samples]
    assert not [name for name in names if name.startswith("quantum_api")]
