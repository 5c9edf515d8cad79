"""Targets are scraped, judged and bounded as Prometheus does it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from exporter.config.targets import ScrapeJob, TargetGroup
from exporter.ingest.relabel import RelabelAction, RelabelRule
from exporter.ingest.target import Limits
from exporter.loops.scrape import ScrapeLoop
from exporter.loops.scrape_metrics import ScrapeMetrics
from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.samples import SampleBatch
from exporter.model.staleness import is_stale
from exporter.storage import MemoryStorage
from tests.helpers.clock import FakeClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class World:
    """A loop with a clock that stands still, and targets whose answers a test sets."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = FakeClock()
        self.storage = MemoryStorage()
        self.persisted: list[SampleBatch] = []
        self.registry = CollectorRegistry()
        self.faults: list[BaseException] = []
        self.loop = ScrapeLoop(
            append=self.storage.append_batch,
            persist=self.persisted.append,
            clock=self.clock,
            metrics=ScrapeMetrics(self.registry),
            on_fault=lambda _, error: self.faults.append(error),
            base=tmp_path,
            user_agent="test",
        )
        self._runners: list[web.AppRunner] = []

    async def serve(self, answer: bytes | Handler, content_type: str = "text/plain") -> str:
        """A target; returns HOST:PORT."""

        async def fixed(request: web.Request) -> web.StreamResponse:
            assert isinstance(answer, bytes)
            return web.Response(body=answer, headers={"Content-Type": content_type})

        app = web.Application()
        app.router.add_get("/{path:.*}", fixed if isinstance(answer, bytes) else answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    async def scrape(self) -> None:
        """One scrape of every target, a second after the last."""
        self.clock.jump(1)
        now_ms = self.clock.now_ms()
        await asyncio.gather(*(one.scrape(now_ms) for one in self.loop.loops()))

    def last(self, name: str, **labels: str) -> dict[str, float]:
        """The newest value of each series, by its text without job and instance."""
        matchers = [
            Matcher(key, MatchOp.EQUAL, value) for key, value in {METRIC_NAME: name, **labels}.items()
        ]
        block = self.storage.select(matchers, 0, 2**62)
        return {
            str(one.without(["job", "instance"])): float(block.values[block.offsets[place + 1] - 1])
            for place, one in enumerate(block.labels)
        }

    def targets(self) -> list[dict[str, Any]]:
        return list(self.loop.document()["activeTargets"])

    async def close(self) -> None:
        await self.loop.close()
        for runner in self._runners:
            await runner.cleanup()
        assert self.faults == []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    built = World(tmp_path)
    yield built
    await built.close()


def job(*addresses: str, **changes: Any) -> ScrapeJob:
    base = ScrapeJob("app", static=(TargetGroup(tuple(addresses), (("zone", "z1"),)),))
    return replace(base, **changes)


async def test_samples_get_job_and_instance(world: World) -> None:
    """A scrape yields the samples with the target's labels, `up` and the reports, in head and persistence."""
    address = await world.serve(b'a{b="c"} 1\na{b="d"} 2\n')
    await world.loop.load([job(address)], 15_000)
    await world.scrape()
    assert world.last("a", job="app", instance=address) == {
        'a{b="c", zone="z1"}': 1,
        'a{b="d", zone="z1"}': 2,
    }
    assert world.last("up", job="app", instance=address) == {'up{zone="z1"}': 1}
    assert list(world.last("scrape_samples_scraped").values()) == [2]
    assert list(world.last("scrape_samples_post_metric_relabeling").values()) == [2]
    assert list(world.last("scrape_series_added").values()) == [2]
    assert list(world.last("scrape_duration_seconds").values()) == [0]  # the clock stands still
    assert sum(map(len, world.persisted)) == 7
    await world.scrape()
    assert world.persisted[0].labels is world.persisted[1].labels
    assert list(world.last("scrape_series_added").values()) == [0]


async def test_a_series_that_vanishes_ends(world: World) -> None:
    """A marker ends it at the time of the scrape that lacks it; when it comes back it goes on."""
    bodies = [b"a 1\nb 1\n", b"b 2\n", b"b 3\na 3\n"]
    seen: list[list[float]] = []

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bodies[len(seen)], content_type="text/plain")

    await world.loop.load([job(await world.serve(answer))], 15_000)
    for _ in bodies:
        await world.scrape()
        seen.append([*world.last("a").values(), *world.last("b").values()])
    assert seen[0] == [1, 1]
    assert is_stale(seen[1][0])
    assert seen[1][1] == 2
    assert seen[2] == [3, 3]


async def test_a_failed_scrape_ends_everything_once(world: World) -> None:
    """`up` is 0, what was there ends, and only the reports go on while it stays down."""
    status = [200, 500, 500, 200]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"a 1\n", status=status[0], content_type="text/plain")

    await world.loop.load([job(await world.serve(answer))], 15_000)
    await world.scrape()
    sizes = []
    for code in status[1:3]:
        status[0] = code
        before = sum(map(len, world.persisted))
        await world.scrape()
        sizes.append(sum(map(len, world.persisted)) - before)
        assert is_stale(next(iter(world.last("a").values())))
        assert list(world.last("up").values()) == [0]
    assert sizes == [6, 5]
    assert world.targets()[0]["lastError"] == "server returned HTTP status 500 Internal Server Error"
    status[0] = 200
    await world.scrape()
    assert (list(world.last("a").values()), list(world.last("up").values())) == ([1], [1])
    assert world.targets()[0]["lastError"] == ""


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    while True:  # a byte at a time, for ever
        await response.write(b"a")
        await asyncio.sleep(0.01)


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    while True:
        await response.write(b'a{b="c"} 1\n' * 1000)
        await asyncio.sleep(0)


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"a 1\n")
    assert request.transport is not None
    request.transport.close()
    return response


async def in_circles(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/again")


def fixed(body: bytes, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, headers={"Content-Type": "text/plain", **names})

    return answer


SOON, LATE = 1_700_000_000_000 + 3_600_000, 1_700_000_000_000 - 7_200_000
BAD: list[tuple[Handler, str]] = [
    (fixed(b"\xff\x00garbage\n"), "line 1"),
    (fixed(b"<html><body>hello</body></html>\n"), "line 1: "),
    (fixed(b"a 1\n", Content_Type="text/html"), 'content type "text/html" is not an exposition'),
    (fixed(b'a{b="c"} 1\na{b="d'), "line 2"),
    (fixed(b"a 1\n", Content_Type="application/openmetrics-text"), "does not end with # EOF"),
    (fixed(b"a 1\na 2\n"), "a{instance="),
    (fixed(f"a 1 {SOON}\n".encode()), "ahead of now"),
    (fixed(f"a 1 {LATE}\n".encode()), "behind now"),
    (fixed(b"a 1\n", Content_Encoding="br"), 'encoding "br" was not asked for'),
    (fixed(b"a 1\n", Content_Encoding="gzip"), "the body is not gzip"),
    (fixed(gzip.compress(b"a 1\n" * 1000)[:-20], Content_Encoding="gzip"), "cut off"),
    (fixed(gzip.compress(b"#" * 3_000_000), Content_Encoding="gzip"), "body size limit exceeded"),
    (fixed(gzip.compress(b"#" * 10_000_000) * 100, Content_Encoding="gzip"), "body size limit exceeded"),
    (fixed("".join(f'a{{b="{n}"}} 1\n' for n in range(101)).encode()), "more than 100 new series"),
    (hang, "no complete answer within 0.2 s"),
    (drip, "no complete answer within 0.2 s"),
    (endless, "body size limit exceeded: more than 1000000 bytes"),
    (cut_off, "the answer was cut off"),
    (in_circles, "stopped after 10 redirects"),
]


@pytest.mark.parametrize(("handler", "reason"), BAD, ids=[reason[:40] for _, reason in BAD])
async def test_bad_targets_are_refused(world: World, handler: Handler, reason: str) -> None:
    """`up` 0, the reason in /api/v1/targets, nothing of it stored, the target beside it unharmed."""
    bad, good = await world.serve(handler), await world.serve(b"good 1\n")
    limits = {"limits": Limits(samples=100), "body_size_limit": 1_000_000}
    patient = 5000 if handler not in (hang, drip) else 200
    bad_job = job(bad, name="bad", interval_ms=5000, timeout_ms=patient, **limits)
    await world.loop.load([bad_job, job(good)], 15_000)
    await world.scrape()
    assert reason in {one["scrapePool"]: one["lastError"] for one in world.targets()}["bad"]
    assert list(world.last("up", job="bad").values()) == [0]
    assert world.last("a") == {}
    assert (list(world.last("up", job="app").values()), list(world.last("good").values())) == ([1], [1])


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
RAW: list[tuple[bytes, str]] = [
    (b"", "Server disconnected"),
    (b"220 mail.example.org ESMTP\r\n", "the answer is not HTTP: Bad status line"),
    (b"\x00\xff\x16\x03\x01" * 100, ""),
    (OK + b"Content-Length: 100\r\n\r\na 1\n", "the answer was cut off"),
    (OK + b"Content-Length: 8\r\n\r\na 1\nb{c=", "line 2: "),
    (OK + b"Content-Length: 4\r\n\r\na 1\nb 2\n", "the answer is not HTTP"),
    (OK + b"Content-Length: -4\r\n\r\na 1\n", ""),
    (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\na 1\r\n", ""),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n", "the answer was cut off"),
    (OK + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\na 1\n", ""),
    (OK + b"X: y\r\n" * 100_000, ""),
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: zstd\r\n\r\na 1\n",
        "was not asked for",
    ),
    (b"HTTP/1.1 301 Gone\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n", ""),
    (b"HTTP/1.1 302 Away\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "cannot connect"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "server returned HTTP status 204 No Content"),
]


@pytest.mark.parametrize(("sent", "reason"), RAW, ids=range(len(RAW)))
async def test_servers_that_speak_no_http(world: World, sent: bytes, reason: str) -> None:
    """Broken heads, lengths and chunks: `up` 0 with a reason in words, the target beside it unharmed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    good = await world.serve(b"good 1\n")
    port = server.sockets[0].getsockname()[1]
    await world.loop.load([job(f"127.0.0.1:{port}", name="bad", timeout_ms=5000), job(good)], 15_000)
    await world.scrape()
    server.close()
    error = {one["scrapePool"]: one["lastError"] for one in world.targets()}["bad"]
    assert error
    assert reason in error
    assert "within 5 s" not in error
    assert (len(error) < 400, "\n" in error) == (True, False)
    assert list(world.last("up", job="bad").values()) == [0]
    assert (world.last("a"), list(world.last("good").values())) == ({}, [1])


@pytest.mark.acceptance
async def test_a_million_label_values(world: World) -> None:
    """By the default bounds the scrape is refused, nothing of it stays, the target beside it is unharmed."""
    turn = [0]

    async def answer(request: web.Request) -> web.StreamResponse:
        turn[0] += 1
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        for start in range(0, 1_000_000, 10_000):
            lines = (f'a{{b="{turn[0]}-{number}"}} 1\n' for number in range(start, start + 10_000))
            await response.write("".join(lines).encode())
        return response

    good = await world.serve(b"good 1\n")
    await world.loop.load([job(await world.serve(answer), name="bad"), job(good)], 60_000)
    sizes = []
    for _ in range(3):
        await world.scrape()
        assert {one["scrapePool"]: one["lastError"] for one in world.targets()} == {
            "bad": "more than 500000 new series in one scrape",
            "app": "",
        }
        gc.collect()
        sizes.append(psutil.Process().memory_info().rss / 1e6)
    assert world.last("a") == {}
    (counted,) = world.last("scrape_samples_scraped", job="bad").values()
    assert 400_000 < counted <= 500_000  # read up to there, in pieces
    assert sizes[2] < sizes[0] + 100


async def test_nobody_listens(world: World) -> None:
    """A refused connection is said in words."""
    await world.loop.load([job("127.0.0.1:1")], 15_000)
    await world.scrape()
    assert world.targets()[0]["lastError"] == "cannot connect to 127.0.0.1:1: Connection refused"
    assert world.targets()[0]["health"] == "down"


async def test_redirects(world: World) -> None:
    """A redirect is followed; with follow_redirects: false it is an error."""
    real = await world.serve(b"a 1\n")

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"http://{real}/metrics")

    address = await world.serve(away)
    follow = job(address)
    stay = job(address, name="stay", http=replace(follow.http, follow_redirects=False))
    await world.loop.load([follow, stay], 15_000)
    await world.scrape()
    assert [one["lastError"] for one in world.targets()] == ["", "server returned HTTP status 302 Found"]


async def test_what_is_asked_for(world: World) -> None:
    """Accept, gzip, timeout, parameters and credentials are sent as Prometheus sends them."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        body = gzip.compress(b"a 1\n# EOF\n")
        kind = "application/openmetrics-text; version=1.0.0"
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": kind})

    one = job(
        await world.serve(answer),
        metrics_path="/probe",
        params=(("module", ("http", "x y")),),
        timeout_ms=5000,
    )
    http = replace(one.http, username="u", password="p")
    await world.loop.load([replace(one, http=http)], 15_000)
    await world.scrape()
    (request,) = seen
    assert request.path_qs == "/probe?module=http&module=x+y"
    assert request.headers["Accept"].startswith("application/openmetrics-text;version=1.0.0")
    assert request.headers["Accept-Encoding"] == "gzip"
    assert request.headers["X-Prometheus-Scrape-Timeout-Seconds"] == "5"
    assert request.headers["Authorization"] == "Basic dTpw"
    assert list(world.last("a").values()) == [1]


async def test_labels_in_conflict(world: World) -> None:
    """Exposed job and instance become exported_*, or win with honor_labels."""
    address = await world.serve(b'a{job="x",instance=""} 1\n')
    await world.loop.load([job(address), job(address, name="honest", honor_labels=True)], 15_000)
    await world.scrape()
    block = world.storage.select([Matcher(METRIC_NAME, MatchOp.EQUAL, "a")], 0, 2**62)
    assert set(block.labels) == {
        LabelSet.of({"__name__": "a", "job": "app", "exported_job": "x", "instance": address, "zone": "z1"}),
        LabelSet.of({"__name__": "a", "job": "x", "zone": "z1"}),
    }


async def test_timestamps(world: World) -> None:
    """Honoured they are kept, once each; else the sample has the time of the scrape."""
    stamp = world.clock.now_ms() - 5000
    address = await world.serve(f"a 1 {stamp}\n".encode())
    await world.loop.load([job(address), job(address, name="now", honor_timestamps=False)], 15_000)
    for _ in range(2):
        await world.scrape()
    block = world.storage.select([Matcher(METRIC_NAME, MatchOp.EQUAL, "a")], 0, 2**62)
    times = {
        labels.get("job"): block.ts_ms[block.offsets[place] : block.offsets[place + 1]].tolist()
        for place, labels in enumerate(block.labels)
    }
    assert times == {"app": [stamp], "now": [world.clock.now_ms() - 1000, world.clock.now_ms()]}
    assert sum(stamp == batch.ts_ms for batch in world.persisted) == 1


async def test_metric_relabelling_and_limits(world: World) -> None:
    """Dropped samples are counted as scraped, not as kept; sample_limit refuses the whole scrape."""
    address = await world.serve(b"a 1\nb 2\nc 3\n")
    drop = RelabelRule(RelabelAction.DROP, (METRIC_NAME,), regex="b")
    await world.loop.load(
        [job(address, metric_relabel=(drop,)), job(address, name="few", limits=Limits(samples=2))], 15_000
    )
    await world.scrape()
    assert list(world.last("scrape_samples_scraped", job="app").values()) == [3]
    assert list(world.last("scrape_samples_post_metric_relabeling", job="app").values()) == [2]
    assert world.last("b") == {}
    assert list(world.last("up", job="few").values()) == [0]


async def test_repeats_with_the_same_value_pass(world: World) -> None:
    """The same line twice is one sample, as in Prometheus; other values later are still looked at."""
    bodies = [b"a 1\na 1\n", b"a 2\na 2\n", b"a 2\na 3\n"]
    turn = [0]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bodies[turn[0]], content_type="text/plain")

    await world.loop.load([job(await world.serve(answer))], 15_000)
    found = []
    for number in range(3):
        turn[0] = number
        await world.scrape()
        found.append(next(iter(world.last("up").values())))
    assert found == [1, 1, 0]


async def test_files_bring_and_take_targets(world: World, tmp_path: Path) -> None:
    """A target that goes ends with all its series, its `up` too. A bad file changes nothing."""
    first, second = await world.serve(b"a 1\n"), await world.serve(b"a 2\n")
    file = tmp_path / "t.json"
    file.write_text(f'[{{"targets": ["{first}", "{second}"], "labels": {{"from": "file"}}}}]')
    files = ScrapeJob("files", files=("*.json",))
    await world.loop.load([files], 15_000)
    await world.scrape()
    assert {one["discoveredLabels"]["__meta_filepath"] for one in world.targets()} == {str(file)}
    assert [one["health"] for one in world.targets()] == ["up", "up"]
    assert list(world.last("up", **{"from": "file", "instance": second}).values()) == [1]
    file.write_text("[{")
    await world.loop.load([files], 15_000)
    assert len(world.targets()) == 2
    file.write_text(f"- targets: [{first}]\n  labels: {{from: file}}\n  # another size\n")
    await world.loop.load([files], 15_000)
    assert [one["labels"]["instance"] for one in world.targets()] == [first]
    for name in ("a", "up", "scrape_duration_seconds"):
        assert is_stale(next(iter(world.last(name, instance=second).values())))
        assert not is_stale(next(iter(world.last(name, instance=first).values())))


async def test_a_changed_job_goes_on(world: World) -> None:
    """A reload with other settings of the same target writes no markers; relabelling may drop targets."""
    address = await world.serve(b"a 1\n")
    await world.loop.load([job(address)], 15_000)
    await world.scrape()
    await world.loop.load([job(address, timeout_ms=5000)], 15_000)
    assert not math.isnan(next(iter(world.last("a").values())))
    drop = RelabelRule(RelabelAction.DROP, ("zone",), regex="z1")
    await world.loop.load([job(address, relabel=(drop,))], 15_000)
    document = world.loop.document()
    assert (document["activeTargets"], document["droppedTargetCounts"]) == ([], {"app": 1})
    assert document["droppedTargets"][0]["discoveredLabels"]["__address__"] == address
    assert is_stale(next(iter(world.last("a").values())))


async def test_targets_are_spread_over_the_interval(world: World) -> None:
    """Each has its own place in the interval, and one scrape in each; missed slots are counted."""
    addresses = [await world.serve(b"a 1\n") for _ in range(8)]
    await world.loop.load([job(*addresses)], 15_000)
    running = asyncio.create_task(world.loop.run())
    try:
        for _ in range(30):
            await world.clock.advance(1)
            while world.clock.sleepers < len(addresses) + 1:  # noqa: ASYNC110 - until nothing is under way
                await asyncio.sleep(0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    times = sorted({batch.ts_ms % 15_000 for batch in world.persisted})
    assert len(times) > 4
    assert (
        world.registry.get_sample_value("quantum_scrapes_total", {"job": "app", "outcome": "success"}) == 16
    )


async def test_metrics_of_a_job(world: World) -> None:
    """Label sets are born with the job and go with it."""
    await world.loop.load([job("127.0.0.1:1")], 15_000)
    names = {"job": "app", "outcome": "network"}
    assert world.registry.get_sample_value("quantum_scrapes_total", names) == 0
    assert world.registry.get_sample_value("quantum_scrape_targets", {"job": "app"}) == 1
    await world.loop.load([], 15_000)
    assert world.registry.get_sample_value("quantum_scrapes_total", names) is None
