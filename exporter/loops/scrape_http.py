"""One GET of a target's exposition: bounded in time and size, refused unless it is an exposition."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import zlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp

from exporter.config.http_client import HttpClientConfig
from exporter.errors import ExporterError
from exporter.ingest.scrape_parser import Format

ACCEPT: Final = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
_CHUNK: Final = 1 << 16
_STEP: Final = 1 << 20  # decompressed at once
_MAX_REDIRECTS: Final = 10


class ScrapeError(ExporterError):
    """A scrape failed. `outcome` is the value of the label of that name."""

    def __init__(self, reason: str, outcome: str) -> None:
        self.outcome = outcome
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: the body as sent, and how to read it."""

    body: bytes
    format: Format
    gzip: bool

    def plain(self, limit: int) -> bytes:
        """The body without compression; may take long, call it in a thread. Raises: ScrapeError."""
        return _gunzip(self.body, limit) if self.gzip else self.body


class Fetcher:
    """Gets expositions under one client configuration; one session, made at the first use."""

    def __init__(self, config: HttpClientConfig, *, user_agent: str) -> None:
        self._config = config
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, *, timeout_s: float, limit: int) -> Answer:
        """One scrape; `limit` bounds the body in bytes, 0 does not. Raises: ScrapeError."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._get(url, timeout_s, limit)
        except TimeoutError:
            raise ScrapeError(f"no complete answer within {timeout_s:g} s", "timeout") from None
        except aiohttp.TooManyRedirects:
            raise ScrapeError(f"stopped after {_MAX_REDIRECTS} redirects", "http") from None
        except aiohttp.ClientPayloadError as error:
            raise ScrapeError(f"the answer was cut off: {error}", "network") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
            raise ScrapeError(_reason(error), "network") from None

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _get(self, url: str, timeout_s: float, limit: int) -> Answer:
        headers = {
            "Accept": ACCEPT,
            "Accept-Encoding": "gzip",
            "User-Agent": self._user_agent,
            "X-Prometheus-Scrape-Timeout-Seconds": f"{timeout_s:g}",
        }
        headers |= await asyncio.to_thread(_secrets, self._config) if _has_secrets(self._config) else {}
        session = await self._open()
        async with session.get(
            url,
            headers=headers,
            allow_redirects=self._config.follow_redirects,
            max_redirects=_MAX_REDIRECTS,
            server_hostname=self._config.server_name or None,
        ) as answer:
            if answer.status != HTTPStatus.OK:
                reason = f"server returned HTTP status {answer.status} {answer.reason or ''}".rstrip()
                raise ScrapeError(reason, "http")
            format_ = _format(answer.headers.get("Content-Type", ""))
            encoding = answer.headers.get("Content-Encoding", "").strip().lower()
            if encoding not in ("", "identity", "gzip"):
                raise ScrapeError(f'the encoding "{encoding[:50]}" was not asked for', "content")
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                body += chunk
                if limit and len(body) > limit:
                    raise _too_large(limit)
            return Answer(bytes(body), format_, encoding == "gzip")

    async def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = await asyncio.to_thread(_tls, self._config)
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, ssl=context),
                    timeout=aiohttp.ClientTimeout(total=None),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                )
        return self._session


def _format(content_type: str) -> Format:
    """The format of a Content-Type; without one the text format. Raises: ScrapeError."""
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", Format.TEXT.value):
        return Format.TEXT
    if media == Format.OPENMETRICS.value:
        return Format.OPENMETRICS
    raise ScrapeError(
        f'the content type "{media[:50]}" is not an exposition'
        f" (allowed: {Format.TEXT.value}, {Format.OPENMETRICS.value})",
        "content",
    )


def _gunzip(body: bytes, limit: int) -> bytes:
    found: list[bytes] = []
    size = 0
    while body:  # several members may follow each other
        member = zlib.decompressobj(31)
        pending = body
        try:
            while not member.eof:
                piece = member.decompress(pending, _STEP)
                pending = member.unconsumed_tail
                size += len(piece)
                found.append(piece)
                if limit and size > limit:
                    raise _too_large(limit)
                if not piece and not pending and not member.eof:
                    raise ScrapeError("the compressed body is cut off", "content")
        except zlib.error as error:
            raise ScrapeError(f"the body is not gzip: {error}", "content") from None
        body = member.unused_data
    return b"".join(found)


def _too_large(limit: int) -> ScrapeError:
    return ScrapeError(f"body size limit exceeded: more than {limit} bytes", "body_size")


def _has_secrets(config: HttpClientConfig) -> bool:
    return bool(config.credentials or config.credentials_file or config.username)


def _secrets(config: HttpClientConfig) -> dict[str, str]:
    """The Authorization header; files are read anew each time, so that a secret can be rotated."""
    credentials = config.credentials or _content(config.credentials_file)
    if credentials:
        return {"Authorization": f"{config.auth_type} {credentials}"}
    password = config.password or _content(config.password_file)
    token = base64.b64encode(f"{config.username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def _content(file: str) -> str:
    return Path(file).read_text("utf-8").strip() if file else ""


def _tls(config: HttpClientConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.ca_file or None)
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert_file:
        context.load_cert_chain(config.cert_file, config.key_file)
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no address found for {error.host}"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"cannot connect to {error.host}:{error.port}: {os.strerror(error.errno or 0)}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the answer is not HTTP: {error.message.strip().splitlines()[0].rstrip(':')[:200]}"
    if isinstance(error, aiohttp.RedirectClientError):
        return f"redirected to what cannot be scraped: {str(error)[:200]}"
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
