"""Queries answered straight on their connection; everything else is left to aiohttp.

A query of few samples is evaluated in less time than aiohttp needs to read its request and write the answer,
so that rules and dashboards with many small queries would wait for HTTP alone. A connection begins here. It
answers requests that arrive whole and are plain: GET, or POST of a form, to an endpoint of queries. The first
request of any other kind hands the connection over to aiohttp for as long as it lasts: what is strict, rare
or malformed is judged there, in one place.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable, Coroutine, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from exporter.errors import QueryError, StorageError
from exporter.web.params import ParamError, Params, read_params
from exporter.web.queries import QueryEndpoints
from exporter.web.reply import INTERNAL, Reply, refusal

log = logging.getLogger(__name__)

_PREFIX = "/api/v1/"
_MOST_HEAD = 8190  # bytes; aiohttp's bound for a line, so that it refuses what it would refuse
_MOST_HELD = 1 << 16  # bytes of further requests that wait for the one under way
_TOGETHER = 1 << 16  # a body up to this size is sent in one piece with its head
_HEAD = re.compile(
    rb"(GET|POST) ([A-Za-z0-9/_-]+)(?:\?([A-Za-z0-9%+&=._~*()'!,:/@$-]*))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[\t -~]*\r\n)+)"
)
_FORM = b"application/x-www-form-urlencoded"
# Headers that change how a request is read or its connection kept.
_SPECIAL = frozenset(
    name.encode()
    for name in (
        *("connection", "content-encoding", "content-length", "content-type", "expect"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    )
)


class Plain(NamedTuple):
    """A plain request: path, query string and form."""

    path: str
    query: str
    form: str


def read_plain(data: bytes) -> Plain | None:
    """The one plain request that these bytes are; None where they are anything else."""
    end = data.find(b"\r\n\r\n", 0, _MOST_HEAD) + 2
    match = _HEAD.fullmatch(data, 0, end) if end > 1 else None
    if match is None:
        return None
    method, path, query, lines = match.groups()
    special: dict[bytes, bytes] = {}
    for line in lines.splitlines():
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _SPECIAL:
            if name in special:
                return None
            special[name] = value.strip()
    body = data[end + 2 :]
    if special:
        if special.pop(b"connection", b"keep-alive").lower() != b"keep-alive":
            return None
        length = special.pop(b"content-length", b"0")
        kind = special.pop(b"content-type", b"" if method == b"GET" or not body else b"?")
        if special or length != b"%d" % len(body) or kind not in (b"", _FORM):
            return None
    elif body or method == b"POST":
        return None
    if not body.isascii():
        return None
    return Plain(path.decode(), (query or b"").decode(), body.decode() if method == b"POST" else "")


class DirectSite(web.BaseSite):
    """A listener of plain queries in front of an aiohttp runner.

    Args: `queries` are mounted under /api/v1/; `headers` are added to every answer; `grace_s`: how long
    queries under way may take after the stop.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str | None,
        port: int,
        queries: QueryEndpoints,
        *,
        headers: Mapping[str, str],
        ssl_context: ssl.SSLContext | None = None,
        grace_s: float = 1.0,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        self._host = host
        self._port = port
        self._clock = queries.clock
        self._grace_s = grace_s
        self._endpoints = {_PREFIX + name: endpoint for name, endpoint in queries.by_name().items()}
        fixed = {"Content-Type": "application/json", **headers, "Server": SERVER_SOFTWARE}
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in fixed.items()).encode("latin-1")
        self._date: tuple[int, bytes] = (0, b"")
        self.connections: set[_Connection] = set()

    @property
    def name(self) -> str:
        """The address."""
        return f"{'https' if self._ssl_context else 'http'}://{self._host or '0.0.0.0'}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises: OSError where the address cannot be bound."""
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), self._host, self._port, ssl=self._ssl_context, backlog=self._backlog
        )

    async def stop(self) -> None:
        """Stop listening; end the queries under way and their connections."""
        await super().stop()
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._grace_s)
        for connection in tuple(self.connections):
            connection.close()

    def aiohttp(self) -> asyncio.Protocol:
        """A protocol of aiohttp for one connection."""
        server = self._runner.server
        assert server is not None  # a site is made for a runner that is set up
        return server()

    def answer(self, path: str, params: Callable[[], Params]) -> Reply | Coroutine[Any, Any, Reply] | None:
        """The answer to a request, or what to wait for; None where the path is not one of ours."""
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            return None
        try:
            return endpoint(params())
        except (ParamError, QueryError, StorageError) as error:
            return refusal(error)
        except Exception:
            return self.fault(path)

    def fault(self, path: str) -> Reply:
        """A fault of ours: logged here, told without its cause."""
        log.exception("request failed: %s", path)
        return INTERNAL

    def head(self, reply: Reply) -> bytes:
        """Status line and headers of a reply."""
        second = self._clock.now_ms() // 1000
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\nDate: %b\r\n\r\n" % (
            _status(reply.status),
            self._fixed,
            len(reply.body),
            self._date[1],
        )


def _status(code: int) -> bytes:
    if code == 200:
        return b"200 OK"
    try:
        return f"{code} {HTTPStatus(code).phrase}".encode()
    except ValueError:
        return b"%d " % code


class _Connection(asyncio.Protocol):
    """One connection, until its end or until aiohttp has it."""

    __slots__ = ("_full", "_held", "_site", "_transport", "task")

    def __init__(self, site: DirectSite) -> None:
        self._site = site
        self._transport: asyncio.Transport | None = None
        self._held = b""  # what came while a query ran, or while the client did not read
        self._full = False
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = cast(asyncio.Transport, transport)  # of a stream, whichever loop it is of
        self._site.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """End the query that nobody waits for any more."""
        self._site.connections.discard(self)
        self._transport = None
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        """The client does not read: take no further request."""
        self._full = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._full = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Answer a plain request, or hand the connection over."""
        if self.task is not None or self._full:
            self._held += data
            if len(self._held) > _MOST_HELD and self._transport is not None:
                self._transport.pause_reading()
            return
        plain = read_plain(data)
        answer = None
        if plain is not None:
            answer = self._site.answer(plain.path, lambda: read_params(plain.form, plain.query))
        if answer is None or plain is None:
            self._hand_over(data)
        elif isinstance(answer, Reply):
            self._write(answer)
        else:
            self.task = asyncio.get_running_loop().create_task(self._wait(answer, plain.path))

    async def _wait(self, answer: Coroutine[Any, Any, Reply], path: str) -> None:
        try:
            reply = await answer
        except asyncio.CancelledError:
            self.task = None
            self.close()
            raise
        except Exception:
            reply = self._site.fault(path)
        self.task = None
        self._write(reply)
        self._go_on()

    def _go_on(self) -> None:
        """Take what was held back."""
        if self._held and self.task is None and not self._full and self._transport is not None:
            data, self._held = self._held, b""
            self._transport.resume_reading()
            self.data_received(data)

    def _write(self, reply: Reply) -> None:
        transport = self._transport
        if transport is None:
            return
        head = self._site.head(reply)
        if len(reply.body) <= _TOGETHER:
            transport.write(head + reply.body)
        else:
            transport.write(head)
            transport.write(reply.body)

    def _hand_over(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        self._site.connections.discard(self)
        protocol = self._site.aiohttp()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)
