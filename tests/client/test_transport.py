from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from exporter.client.transport import AiohttpTransport, HttpRequest, TransportError
from exporter.errors import ApiErrorKind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Wire:
    """Counts how often a request went out."""

    def __init__(self) -> None:
        self.count = 0

    async def sent(self) -> None:
        self.count += 1


class Server:
    """One real server whose handler a test sets."""

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.requests: list[web.Request] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self.handler is not None
        return await self.handler(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/x"
    yield server
    await runner.cleanup()


@pytest.fixture
async def transport() -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(max_body_bytes=100_000)
    yield transport
    await transport.close()


def _request(url: str, timeout_s: float = 5.0) -> HttpRequest:
    return HttpRequest("GET", url, (("a", "1 2"), ("b", "ä")), {"x-key": "secret"}, timeout_s)


def _body(body: bytes, encoding: str = "") -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": encoding} if encoding else {}
        return web.Response(body=body, headers=headers)

    return handler


async def test_a_request_carries_parameters_key_and_user_agent(
    server: Server, transport: AiohttpTransport
) -> None:
    """The key goes in its header, never into the URL; the program names itself; the wire is told once."""
    server.handler, wire = _body(b"{}"), Wire()
    answer = await transport.send(_request(server.url), wire)
    request = server.requests[0]
    assert (answer.status, answer.body, wire.count) == (200, b"{}", 1)
    assert dict(request.query) == {"a": "1 2", "b": "ä"}
    assert request.headers["x-key"] == "secret"
    assert request.headers["User-Agent"].startswith("quantum-exporter/")
    assert "secret" not in str(request.url)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(gzip.compress(b"hello"), "gzip"), (zlib.compress(b"hello"), "deflate"), (b"hello", "identity")],
    ids=[
        "gzip",
        "deflate",
        "identity",
    ],  # gzip's bytes hold the time, and the workers must agree on the names
)
async def test_compressed_bodies_are_read(
    server: Server, transport: AiohttpTransport, body: bytes, encoding: str
) -> None:
    """gzip, deflate and plain."""
    server.handler = _body(body, encoding)
    assert (await transport.send(_request(server.url), Wire())).body == b"hello"


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 65_536)
    except ConnectionError:
        return response


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (_body(gzip.compress(b"0" * 50_000_000, 9), "gzip"), "larger than 100000 bytes"),
        (_body(b"0" * 100_001), "larger than 100000 bytes"),
        (_endless, "larger than 100000 bytes"),
        (_body(b"not gzip at all", "gzip"), "damaged"),
        (_body(b"x", "br"), "not asked for: br"),
    ],
    ids=["gzip bomb", "large", "endless", "damaged gzip", "unknown encoding"],
)
async def test_a_body_out_of_bounds_is_a_decode_error(
    server: Server, transport: AiohttpTransport, handler: Handler, message: str
) -> None:
    """Size is bounded on the wire and after decompression; what cannot be unpacked is refused."""
    server.handler = handler
    with pytest.raises(TransportError, match=message) as caught:
        await transport.send(_request(server.url), Wire())
    assert caught.value.kind is ApiErrorKind.DECODE


async def test_a_body_at_the_bound_is_read(server: Server, transport: AiohttpTransport) -> None:
    """Exactly the bound is allowed."""
    server.handler = _body(b"0" * 100_000)
    assert len((await transport.send(_request(server.url), Wire())).body) == 100_000


async def _hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.Event().wait()
    return response


@pytest.mark.parametrize("handler", [_hang, _drip], ids=["no answer", "slow loris"])
async def test_a_call_ends_at_its_timeout(
    server: Server, transport: AiohttpTransport, handler: Handler
) -> None:
    """The timeout bounds the whole call, a body that drips among it."""
    server.handler = handler
    with pytest.raises(TransportError, match=r"no answer within 0\.05 s") as caught:
        await transport.send(_request(server.url, 0.05), Wire())
    assert caught.value.kind is ApiErrorKind.TIMEOUT
    assert caught.value.retryable


async def test_redirects_are_not_followed(server: Server, transport: AiohttpTransport) -> None:
    """The caller decides about them."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://elsewhere.test/"})

    server.handler = handler
    answer = await transport.send(_request(server.url), Wire())
    assert (answer.status, answer.headers["location"]) == (302, "http://elsewhere.test/")


async def _reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_a_reset_connection_is_a_network_error(server: Server, transport: AiohttpTransport) -> None:
    """Closed without an answer."""
    server.handler = _reset
    with pytest.raises(TransportError) as caught:
        await transport.send(_request(server.url), Wire())
    assert caught.value.kind is ApiErrorKind.NETWORK


async def test_the_repeat_on_a_dead_kept_connection_is_told_to_the_wire(
    server: Server, transport: AiohttpTransport
) -> None:
    """aiohttp sends again by itself where a kept connection was closed: that is a second call on the wire."""
    server.handler = _body(b"{}")
    await transport.send(_request(server.url), Wire())
    server.handler = _reset
    wire = Wire()
    with pytest.raises(TransportError):
        await transport.send(_request(server.url), wire)
    assert wire.count == len(server.requests) - 1


async def test_nobody_listening_is_a_network_error_and_nothing_went_out(transport: AiohttpTransport) -> None:
    """A refused connection takes no slot: the wire is not told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        wire = Wire()
        with pytest.raises(TransportError, match=r"127\.0\.0\.1") as caught:
            await transport.send(_request(f"http://127.0.0.1:{port}/x"), wire)
    assert caught.value.kind is ApiErrorKind.NETWORK
    assert wire.count == 0


@pytest.mark.parametrize("url", ["http://name.invalid/x", "not a url", "ftp://x.test/", "http://[::1"])
async def test_addresses_that_lead_nowhere_are_network_errors(transport: AiohttpTransport, url: str) -> None:
    """Unknown names and nonsense URLs are our own error, and show no parameter."""
    with pytest.raises(TransportError) as caught:
        await transport.send(_request(url)._replace(params=(("key", "topsecret"),)), Wire())
    assert caught.value.kind is ApiErrorKind.NETWORK
    assert "topsecret" not in str(caught.value)


async def test_tls_to_a_plain_server_is_a_network_error_not_retried(
    server: Server, transport: AiohttpTransport
) -> None:
    """A failed handshake is not cured by a second try."""
    server.handler = _body(b"{}")
    with pytest.raises(TransportError, match="TLS") as caught:
        await transport.send(_request(server.url.replace("http:", "https:")), Wire())
    assert caught.value.kind is ApiErrorKind.NETWORK
    assert not caught.value.retryable


async def test_ipv6_only_servers_are_reached(transport: AiohttpTransport) -> None:
    """A server that listens on IPv6 alone."""
    server = Server()
    server.handler = _body(b"six")
    app = web.Application()
    app.router.add_get("/x", server.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "::1", 0).start()
        except OSError:
            pytest.skip("this machine has no IPv6")
        url = f"http://[::1]:{runner.addresses[0][1]}/x"
        assert (await transport.send(_request(url), Wire())).body == b"six"
    finally:
        await transport.close()
        await runner.cleanup()


async def test_garbage_instead_of_http_is_classified(transport: AiohttpTransport) -> None:
    """A server that does not speak HTTP is a decode error."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        with pytest.raises(TransportError) as caught:
            await transport.send(_request(f"http://127.0.0.1:{port}/x"), Wire())
        assert caught.value.kind is ApiErrorKind.DECODE
    finally:
        listener.close()
        await listener.wait_closed()
