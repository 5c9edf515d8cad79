"""Queries answered straight on their connection: nobody can tell, but by the time it takes."""

from __future__ import annotations

import asyncio
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.promql.values import Result
from exporter.query.local import LocalQueries
from exporter.storage import MemoryStorage
from exporter.web.auth import WebConfig
from exporter.web.direct import DirectSite, read_plain
from exporter.web.queries import QueryEndpoints
from exporter.web.server import Server
from tests.helpers.certificates import needs_openssl, self_signed
from tests.helpers.clock import FakeClock
from tests.web.api_server import api_app, local_queries

T = 1_772_409_600


def filled() -> MemoryStorage:
    storage = MemoryStorage()
    for at in range(3):
        storage.append({"__name__": "up", "job": "a"}, (T + at) * 1000, 1.0)
        storage.append({"__name__": "up", "job": "é"}, (T + at) * 1000, 0.5)
    return storage


STORAGE = filled()
CLOCK = FakeClock()


@asynccontextmanager
async def both(
    storage: MemoryStorage = STORAGE,
    *,
    headers: dict[str, str] | None = None,
    queries: LocalQueries | None = None,
) -> AsyncIterator[tuple[DirectSite, int, int]]:
    """The same application behind our site and behind aiohttp's: the site, and the ports of both."""
    queries = queries or local_queries(storage)
    app = api_app(storage, queries, clock=CLOCK)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    endpoints = QueryEndpoints(queries, CLOCK)
    site = DirectSite(runner, "127.0.0.1", 0, endpoints, headers=headers or {})
    await site.start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        ours, theirs = (address[1] for address in runner.addresses)
        yield site, ours, theirs
    finally:
        await runner.cleanup()
        queries.close()


async def told(port: int, pieces: Sequence[bytes]) -> bytes:
    """Everything a server answers to these pieces, until it is quiet or closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(LAST)
    out = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return out


LAST = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def seen(answers: bytes) -> list[tuple[bytes, list[bytes], bytes]]:
    """Status line, header names with the content's type and length, and body of each answer."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        length = int(fields.get(b"content-length", b"0"))
        told = [b"%b=%b" % (name, fields[name]) for name in sorted(fields) if name.startswith(b"content")]
        found.append((status, sorted(fields) + told, rest[:length]))
        answers = rest[length:]
    return found


def get(path: str, **params: str) -> bytes:
    return f"GET {path}?{urllib.parse.urlencode(params)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post(body: str, *, query: str = "", kind: str = "application/x-www-form-urlencoded") -> bytes:
    encoded = body.encode()
    head = f"POST /api/v1/query{query} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(encoded)}\r\n\r\n".encode() + encoded


Q, R = "/api/v1/query", "/api/v1/query_range"
AT = f"time={T}.5"
RAW = b"GET /api/v1/query?query=up&time=1772409600 HTTP/1.1\r\nHost: x\r\n"
REQUESTS = {
    "instant": get(Q, query="up", time=str(T)),
    "range": get(R, query="sum(up)", start=str(T), end=str(T + 2), step="1"),
    "many samples": get(Q, query="count(up) + vector(1)", time=str(T), timeout="5s"),
    "form": post(f"query=up&{AT}"),
    "form and query string": post("query=up", query=f"?query=down&{AT}"),
    "other form": post(f"query=up&{AT}", kind="application/x-www-form-urlencoded; charset=utf-8"),
    "multipart": post("query=up", kind="multipart/form-data; boundary=x"),
    "no form": post("query=up", kind="text/plain"),
    "unencoded form": post(f"query=up{{job='é'}}&{AT}"),
    "empty form": b"POST /api/v1/query?query=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "post without length": b"POST /api/v1/query?query=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "syntax error": get(Q, query="sum(", time=str(T)),
    "type error": get(R, query='"a"', start=str(T), end=str(T + 2), step="1"),
    "too many samples": get(Q, query="up{", time="x"),
    "bad time": get(Q, query="up", time="yesterday"),
    "bad step": get(R, query="up", start="1", end="2", step="0"),
    "nothing": get(Q),
    "twice": b"GET /api/v1/query?query=1&query=2&time=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no value": b"GET /api/v1/query?query=1&limit&time=1&&x HTTP/1.1\r\nHost: x\r\n\r\n",
    "plus and percent": b"GET /api/v1/query?query=1+%2b+1&time=%31 HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken percent": b"GET /api/v1/query?query=1%+%2&time=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no UTF-8": b"GET /api/v1/query?query=%ff%c3&time=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": b"GET /api/v1/query?query=1#2 HTTP/1.1\r\nHost: x\r\n\r\n",
    "another path": get("/api/v1/status/buildinfo"),
    "no such path": get("/api/v1/nothing", query="1"),
    "encoded path": b"GET /api/v1/que%72y?query=1&time=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "head": RAW.replace(b"GET", b"HEAD") + b"\r\n",
    "options": RAW.replace(b"GET", b"OPTIONS") + b"\r\n",
    "old version": RAW.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n\r\n",
    "keep-alive": RAW + b"Connection: Keep-Alive\r\n\r\n",
    "headers of clients": RAW
    + b"User-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\nX-Y: \t z \r\n\r\n",
    "body of a get": RAW + b"Content-Length: 3\r\n\r\nabc",
    "chunked": RAW.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "expect": RAW.replace(b"GET", b"POST") + b"Content-Length: 0\r\nExpect: 100-continue\r\n\r\n",
}


LEFT = {  # to aiohttp, for as long as the connection lasts
    *("other form", "multipart", "no form", "unencoded form", "post without length", "fragment"),
    *("another path", "no such path", "encoded path", "head", "options", "old version", "chunked", "expect"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_an_answer_is_what_aiohttp_would_send(name: str) -> None:
    """Status, headers and body, one after another on a connection; what is plain never reaches aiohttp."""
    async with both() as (site, ours, theirs):
        found = []
        for port in (ours, theirs):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answers = []
            for asked in (REQUESTS["instant"], REQUESTS[name], REQUESTS["form"]):
                writer.write(asked)
                answers.append(await one_answer(reader, asked))
                if port == ours and asked == REQUESTS[name]:
                    assert len(site.connections) == (name not in LEFT)
            found.append([seen(answer) for answer in answers])
            writer.close()
        assert found[0] == found[1]


async def one_answer(reader: asyncio.StreamReader, asked: bytes) -> bytes:
    """The bytes of one answer, what comes before it included."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return head + await one_answer(reader, asked)
    length = int((head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) or b"0")
    return head + (b"" if asked.startswith(b"HEAD") else await reader.readexactly(length))


@pytest.mark.parametrize(
    "request_bytes",
    [
        RAW + b"Connection: close\r\n\r\n",
        RAW + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        RAW + b"Content-Length: +0\r\n\r\n",
        RAW + b" folded: x\r\n\r\n",
        RAW + b"a\x00b: x\r\n\r\n",
        b"GET /api/v1/query?query=" + b"1" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  /api/v1/query?query=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
async def test_what_is_not_plain_is_left_to_aiohttp(request_bytes: bytes) -> None:
    """It decides what is malformed, and when a connection ends."""
    assert read_plain(request_bytes) is None
    async with both() as (_, ours, theirs):
        answers = [seen(await told(port, [request_bytes])) for port in (ours, theirs)]
        assert answers[0] == answers[1]
        assert answers[0]


names = st.lists(st.sampled_from([name for name in REQUESTS if name != "expect"]), min_size=1, max_size=5)


@settings(max_examples=40)
@given(names, st.lists(st.integers(0, 1500), max_size=6))
async def test_requests_may_come_in_any_pieces(chosen: list[str], cuts: list[int]) -> None:
    """Together, torn apart, one before the other is answered: the same answers in the same order."""
    stream = b"".join(REQUESTS[name] for name in chosen)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[lo:hi] for lo, hi in pairwise(edges) if lo < hi]
    async with both() as (_, ours, theirs):
        assert seen(await told(ours, pieces)) == seen(await told(theirs, [stream]))


async def test_a_client_that_does_not_read_is_asked_no_further() -> None:
    """What it asks meanwhile is answered once it reads, in order; little of it is held."""
    storage = MemoryStorage()
    for number in range(3000):
        storage.append({"__name__": "wide", "number": str(number), "pad": "x" * 200}, T * 1000, 1.0)
    request = get(Q, query="wide", time=str(T))
    async with both(storage) as (_, ours, __):
        reader, writer = await asyncio.open_connection("127.0.0.1", ours)
        for _ in range(60):
            writer.write(request)
            await asyncio.sleep(0)
        writer.write(LAST)
        answers = seen(await asyncio.wait_for(reader.read(), 30))
        writer.close()
    assert [status for status, _, _ in answers] == [b"HTTP/1.1 200 OK"] * 61
    assert len({body for _, _, body in answers[:60]}) == 1


async def test_the_headers_of_the_web_config_are_sent() -> None:
    """On direct answers as on others."""
    async with (
        both(headers={"X-Frame-Options": "deny"}) as (_, ours, __),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{ours}/api/v1/query?query=1") as answer,
    ):
        assert answer.headers["X-Frame-Options"] == "deny"
        assert answer.headers["Content-Type"] == "application/json"


@needs_openssl
async def test_over_tls_too(tmp_path: Path) -> None:
    """A plain query, another request, and a query again, on one connection of the server as it is started."""
    cert, key = await self_signed(tmp_path)
    config = WebConfig(cert_file=cert, key_file=key)
    queries = local_queries(STORAGE)
    server = Server(api_app(STORAGE, queries, clock=CLOCK), "127.0.0.1", 0, config)
    base = await server.start()
    try:
        port = urllib.parse.urlsplit(base).port
        trusted = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusted, server_hostname="localhost"
        )
        for name in ("instant", "form", "another path", "range"):
            writer.write(REQUESTS[name])
            ((status, _, body),) = seen(await one_answer(reader, REQUESTS[name]))
            assert (status, body[:19]) == (b"HTTP/1.1 200 OK", b'{"status":"success"')
        writer.close()
    finally:
        await server.stop()
        queries.close()


async def test_the_stop_ends_connections_and_queries_under_way() -> None:
    """Idle ones at once; a query that is not done within the grace is cancelled."""
    started, ended = asyncio.Event(), asyncio.Event()

    class Slow(LocalQueries):
        async def range(self, *_: object, **__: object) -> Result:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    queries = local_queries(STORAGE, kind=Slow)
    runner = web.AppRunner(api_app(STORAGE, queries, clock=CLOCK), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = DirectSite(runner, "127.0.0.1", 0, QueryEndpoints(queries, CLOCK), headers={}, grace_s=0.01)
    await site.start()
    idle, idle_writer = await asyncio.open_connection(*runner.addresses[0])
    busy, busy_writer = await asyncio.open_connection(*runner.addresses[0])
    busy_writer.write(REQUESTS["range"])
    await started.wait()
    await runner.cleanup()
    assert await idle.read() == b""
    assert await busy.read() == b""
    await ended.wait()
    for writer in (idle_writer, busy_writer):
        writer.close()
    queries.close()


async def test_a_fault_of_ours_is_logged_and_told_as_such(caplog: pytest.LogCaptureFixture) -> None:
    """At once or after a wait; the connection goes on."""

    class Broken(LocalQueries):
        def instant_now(self, *_: object, **__: object) -> Result | None:
            raise ZeroDivisionError

        async def range(self, *_: object, **__: object) -> Result:
            raise ZeroDivisionError

    queries = local_queries(STORAGE, kind=Broken)
    async with both(queries=queries) as (site, ours, theirs):
        found = []
        for port in (ours, theirs):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for asked in (REQUESTS["instant"], REQUESTS["range"]):
                writer.write(asked)
                found += seen(await one_answer(reader, asked))
            assert len(site.connections) == (port == ours)
            writer.close()
    assert found[:2] == found[2:]
    assert {status for status, _, _ in found} == {b"HTTP/1.1 500 Internal Server Error"}
    assert sum(record.message.startswith("request failed") for record in caplog.records) == 4
