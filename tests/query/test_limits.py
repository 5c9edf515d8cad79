"""Timeout, samples, concurrency, hang-ups and the query log of the embedded query service."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from exporter.errors import ConfigError, QueryError, QueryErrorKind
from exporter.model.labels import Matcher
from exporter.promql.matrix import StepMatrix
from exporter.promql.source import Columns
from exporter.query.local import Limits, LocalQueries
from exporter.query.log import QueryLog
from exporter.storage import MemoryStorage
from tests.web.api_server import api_server, local_queries

T0 = 1_772_409_600_000
# some seconds of work in many small steps, none of which holds many samples
SLOW = " + ".join(f"max_over_time(sum(rate(calls_total[{minutes}m]))[4h:100ms])" for minutes in range(5, 25))


@pytest.fixture(scope="module")
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    for at in range(240):
        for series in range(50):
            storage.append(
                {"__name__": "calls_total", "n": str(series)}, T0 + at * 15_000, float(at * series)
            )
    return storage


END = T0 + 240 * 15_000


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what happens in a thread."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def running(queries: LocalQueries) -> int:
    """Places taken."""
    return queries._limits.max_concurrency - queries._gate._value


def idle(queries: LocalQueries) -> bool:
    return running(queries) == 0


async def failure(answer: Awaitable[object]) -> QueryError:
    with pytest.raises(QueryError) as caught:
        await answer
    return caught.value


async def test_a_query_over_its_time_ends_with_the_error_and_frees_its_place(storage: MemoryStorage) -> None:
    """The request's timeout counts, and no more than the configured one."""
    for own, asked in ((30.0, 0.05), (0.05, 30.0)):
        queries = local_queries(storage, limits=Limits(timeout_s=own))
        error = await failure(queries.instant(SLOW, END, timeout_s=asked))
        assert (error.kind, str(error)) == (
            QueryErrorKind.TIMEOUT,
            "query timed out in expression evaluation",
        )
        await until(partial(idle, queries))
        queries.close()


async def test_many_steps_over_few_samples_are_no_small_query(storage: MemoryStorage) -> None:
    """What is answered in place holds the event loop: subqueries go to a thread."""
    queries = local_queries(storage, limits=Limits())
    assert queries.instant_now("count(calls_total)", END) is not None
    for text in ("count_over_time(calls_total[1h:1s])", "max_over_time(vector(1)[4h:1ms])"):
        assert queries.instant_now(text, END) is None
    queries.close()


async def test_a_query_over_max_samples_ends_and_frees_what_it_held(storage: MemoryStorage) -> None:
    """Memory is given back: what was allocated for the query is not referenced any more."""
    queries = local_queries(storage, limits=Limits(max_samples=1000))
    error = await failure(queries.range("calls_total", T0, END, 1000))
    assert error.kind is QueryErrorKind.LIMIT
    assert str(error) == "query processing would load too many samples into memory in query execution"
    del error
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, StepMatrix) and one.values.size > 1000]
    assert running(queries) == 0
    assert await queries.instant("1", END)
    queries.close()


async def test_queries_over_the_concurrency_limit_wait_within_their_timeout(storage: MemoryStorage) -> None:
    """A place that does not come free in time is Prometheus' error; one that does is taken."""
    queries = local_queries(storage, limits=Limits(max_concurrency=1))
    first = asyncio.ensure_future(queries.instant(SLOW, END))
    await until(lambda: running(queries) == 1)
    error = await failure(queries.instant("count_over_time(calls_total[1h:1s])", END, timeout_s=0.02))
    assert (error.kind, str(error)) == (QueryErrorKind.TIMEOUT, "query timed out in query queue")
    waiting = asyncio.ensure_future(queries.instant("count(count_over_time(calls_total[1h:1s]))", END))
    first.cancel()
    result = await waiting
    assert result.to_json()["result"][0]["value"][1] == "50"
    queries.close()


async def test_cancelling_stops_the_evaluation(storage: MemoryStorage) -> None:
    """The thread ends at its next look, long before the query would."""
    queries = local_queries(storage, limits=Limits(max_concurrency=1))
    task = asyncio.ensure_future(queries.instant(SLOW, END))
    await until(lambda: running(queries) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: running(queries) == 0, 1.0)
    queries.close()


async def test_no_collection_of_garbage_stops_the_event_loop_while_a_thread_works_on_labels() -> None:
    """Python's collector walks every object and stops all threads meanwhile; it goes on after the query."""
    seen = []

    class Watched(MemoryStorage):
        def newest(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
            seen.append(gc.isenabled())
            return super().newest(matchers, start_ms, end_ms)

    storage = Watched()
    storage.append({"__name__": "up"}, 1000, 1.0)
    queries = local_queries(storage)
    assert (await queries.instant("up", 1000)).to_json()["result"]
    assert seen == [False]
    assert gc.isenabled()
    queries.close()


async def test_a_client_that_hangs_up_cancels_its_query(storage: MemoryStorage) -> None:
    """Nobody waits for the answer any more, so nobody works on it."""
    queries = local_queries(storage, limits=Limits(max_concurrency=1))
    async with api_server(storage, queries=queries) as url:
        session = aiohttp.ClientSession()
        call = asyncio.ensure_future(
            session.get(f"{url}/api/v1/query", params={"query": SLOW, "time": "1772413200"})
        )
        await until(lambda: running(queries) == 1)
        call.cancel()
        await session.close()
        await until(lambda: running(queries) == 0, 1.0)
    queries.close()


@pytest.mark.parametrize(
    ("limits", "status", "kind"),
    [(Limits(timeout_s=0.02), 503, "timeout"), (Limits(max_samples=1000), 422, "execution")],
)
async def test_the_errors_of_limits_have_their_status_codes(
    storage: MemoryStorage, limits: Limits, status: int, kind: str
) -> None:
    """503 timeout, 422 execution."""
    queries = local_queries(storage, limits=limits)
    async with api_server(storage, queries=queries) as url, aiohttp.ClientSession() as session:
        params = {"query": SLOW, "time": "1772413200"}
        async with session.get(f"{url}/api/v1/query", params=params) as got:
            assert (got.status, (await got.json())["errorType"]) == (status, kind)
    queries.close()


async def test_the_query_log_has_a_line_for_each_query(storage: MemoryStorage, tmp_path: Path) -> None:
    """What was asked, how long it waited and took, what it held, and why it failed."""
    path = tmp_path / "queries.log"
    queries = local_queries(storage, query_log=QueryLog(path))
    await queries.instant("count(calls_total)", END)
    await queries.range("calls_total", T0, END, 60_000)
    path.rename(tmp_path / "old.log")  # as log rotation does
    await failure(queries.instant("sum(", END))
    queries.close()
    first, second = map(json.loads, (tmp_path / "old.log").read_text().splitlines())
    assert first["params"] == {
        "end": "2026-03-02T01:00:00.000Z",
        "query": "count(calls_total)",
        "start": "2026-03-02T01:00:00.000Z",
        "step": 0,
    }
    assert second["params"]["step"] == 60
    assert second["stats"]["samples"]["peakSamples"] >= 50 * 60
    assert set(second["stats"]["timings"]) == {"evalTotalTime", "execQueueTime", "execTotalTime"}
    assert "error" not in second
    (failed,) = map(json.loads, path.read_text().splitlines())
    assert failed["error"] == "1:5: parse error: unclosed left parenthesis"


def test_a_query_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """At the start, with the key that says so."""
    with pytest.raises(ConfigError, match=r"query\.log_file .*cannot be written"):
        QueryLog(tmp_path / "nowhere" / "queries.log")
