"""HTTP with aiohttp: one bounded request, every foreign exception translated once.

Bounds: time of the whole call, size of the body on the wire and after decompression (we decompress, so that a
small body cannot become a large one first). Redirects are never followed here. The caller is asked when the
request goes out: right after a connection was made or found, as connecting may take long.
"""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import aiohttp
from aiohttp.connector import Connection

from exporter import __version__
from exporter.errors import ApiError, ApiErrorKind

USER_AGENT = f"quantum-exporter/{__version__}"
MAX_BODY_BYTES = 8 * 1024 * 1024


class TransportError(ApiError):
    """A call that brought no usable answer; `retryable` says whether a second try may."""

    def __init__(self, message: str, kind: ApiErrorKind, *, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(message, kind)


class Wire(Protocol):
    """Is asked before a request goes out."""

    async def sent(self) -> None:
        """The request goes out when this returns.

        Called again where aiohttp repeats it by itself, because a kept connection turned out to be closed.
        """


class HttpRequest(NamedTuple):
    """One request; `json` is None for none."""

    method: str
    url: str
    params: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    timeout_s: float
    json: object = None


class HttpAnswer(NamedTuple):
    """Status, headers that are found by their lower-case names, and the decompressed body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends one request."""

    async def send(self, request: HttpRequest, wire: Wire) -> HttpAnswer:
        """The answer, whatever its status.

        Raises: TransportError (network, timeout, decode) where there is none.
        """

    async def close(self) -> None:
        """Close all connections."""


class AiohttpTransport:
    """The transport over one aiohttp session, made at the first call."""

    def __init__(self, *, max_body_bytes: int = MAX_BODY_BYTES, connections_per_host: int = 20) -> None:
        self._max_body_bytes = max_body_bytes
        self._connections_per_host = connections_per_host
        self._session: aiohttp.ClientSession | None = None
        self._last_timeout = aiohttp.ClientTimeout()

    async def send(self, request: HttpRequest, wire: Wire) -> HttpAnswer:
        """The answer, whatever its status.

        Raises: TransportError (network, timeout, decode) where there is none.
        """
        session = self._session or self._open()
        token = _wire.set(wire)
        try:
            async with session.request(
                request.method,
                request.url,
                params=request.params or None,
                headers=request.headers,
                json=request.json,
                timeout=self._timeout(request.timeout_s),
                allow_redirects=False,
            ) as response:
                body = await self._read(response)
                return HttpAnswer(response.status, response.headers, body)
        except ApiError:
            raise  # ours: a body out of bounds, no slot for a repeat
        except Exception as error:
            raise _translated(error, request.timeout_s) from error
        finally:
            _wire.reset(token)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _timeout(self, seconds: float) -> aiohttp.ClientTimeout:
        # Nearly always the provider's own: making one costs more than looking.
        if self._last_timeout.total != seconds:
            self._last_timeout = aiohttp.ClientTimeout(total=seconds)
        return self._last_timeout

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=_TellingConnector(limit_per_host=self._connections_per_host, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": USER_AGENT,
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
            },
            auto_decompress=False,
        )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        most = self._max_body_bytes
        length = response.content_length
        if length is not None and length > most:
            response.close()
            reason = f"the answer is larger than {most} bytes"
            raise TransportError(reason, ApiErrorKind.DECODE, retryable=False)
        encoding = response.headers.get("Content-Encoding", "")
        if length is not None and not encoding:
            return await response.read()  # bounded by its declared length
        unpacker = _Unpacker(encoding, most)
        chunks = [unpacker.feed(chunk) async for chunk in response.content.iter_any()]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


_wire: ContextVar[Wire] = ContextVar("wire")


class _TellingConnector(aiohttp.TCPConnector):
    """Tells the wire as soon as a request has its connection, right before it is written.

    aiohttp's traces would tell it too, but cost 20 us a call.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> Connection:
        """A kept or a new connection."""
        connection = await super().connect(req, traces, timeout)
        try:
            await _wire.get().sent()
        except BaseException:
            connection.close()
            raise
        return connection


class _Unpacker:
    """Decompresses a body piece by piece and stops at the bound."""

    def __init__(self, encoding: str, most: int) -> None:
        self._left = most
        self._most = most
        encoding = encoding.strip().lower()
        self._inflate: Any = None
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(47)  # 32 + 15: zlib or gzip by its header
        elif encoding not in ("", "identity"):
            raise TransportError(
                f"the answer has an encoding that was not asked for: {encoding[:20]}", ApiErrorKind.DECODE
            )

    def feed(self, chunk: bytes) -> bytes:
        data = chunk
        if self._inflate is not None:
            try:
                data = self._inflate.decompress(chunk, self._left + 1)
            except zlib.error as error:
                raise TransportError("the compressed answer is damaged", ApiErrorKind.DECODE) from error
        self._left -= len(data)
        if self._left < 0:
            raise TransportError(
                f"the answer is larger than {self._most} bytes", ApiErrorKind.DECODE, retryable=False
            )
        return data


def _translated(error: Exception, timeout_s: float) -> TransportError:
    """A foreign exception as our own. No message holds a URL: its parameters may hold a key."""
    if isinstance(
        error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError)
    ):
        return TransportError(f"TLS: {_reason(error)}", ApiErrorKind.NETWORK, retryable=False)
    if isinstance(error, TimeoutError):
        return TransportError(f"no answer within {timeout_s:g} s", ApiErrorKind.TIMEOUT)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return TransportError(f"{error.host}: no address found", ApiErrorKind.NETWORK)
    if isinstance(error, aiohttp.ClientConnectorError):
        return TransportError(f"{error.host}:{error.port}: {_reason(error)}", ApiErrorKind.NETWORK)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return TransportError("not a valid URL", ApiErrorKind.NETWORK, retryable=False)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return TransportError("the connection was closed without an answer", ApiErrorKind.NETWORK)
    if isinstance(error, aiohttp.ClientPayloadError):
        return TransportError("the answer broke off", ApiErrorKind.NETWORK)
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.http_exceptions.HttpProcessingError):
        return TransportError("the answer is not HTTP", ApiErrorKind.DECODE)
    if isinstance(error, aiohttp.ClientError | OSError):
        return TransportError(_reason(error), ApiErrorKind.NETWORK)
    if isinstance(error, ValueError):
        return TransportError("not a valid URL or header", ApiErrorKind.NETWORK, retryable=False)
    raise error


def _reason(error: BaseException) -> str:
    """What the operating system said, without addresses."""
    cause = getattr(error, "os_error", None) or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate refused ({cause.verify_message})"
    if isinstance(cause, socket.gaierror):
        return "no address found"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__
