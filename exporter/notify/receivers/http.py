"""A POST over HTTP with bounded answers, and the meaning of status codes, for receivers that speak HTTP."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp

from exporter.clock import Clock
from exporter.config.http_client import HttpClientConfig
from exporter.errors import DeliveryError
from exporter.notify.message import printable

_MAX_REDIRECTS = 5
_ANSWER_BYTES = 2_048  # read of an error's body, for its text
_RETRYABLE = frozenset({408, 425, 429})


class HttpPoster:
    """Posts bodies to URLs under one client configuration; one session, made at the first use.

    Errors name the host but never the path, the query or the credentials of a URL.
    """

    def __init__(self, config: HttpClientConfig, clock: Clock, *, timeout_s: float) -> None:
        self._config = config
        self._clock = clock
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """One POST; returns when the answer says that it was taken (2xx), whatever its body.

        Redirects that keep the method (307, 308) are followed; the others would drop the body and are errors.
        Raises: DeliveryError.
        """
        host = _host(url)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._post(url, body, headers)
        except TimeoutError:
            raise DeliveryError(f"{host}: no answer within {self._timeout_s:g} s", retryable=True) from None
        except aiohttp.InvalidURL:
            raise DeliveryError("the URL is not valid", retryable=False) from None
        except aiohttp.ClientError as error:
            raise DeliveryError(f"{host}: {_reason(error)}", retryable=True) from None
        except (ssl.SSLError, OSError) as error:
            raise DeliveryError(f"{host}: {_reason(error)}", retryable=True) from None

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        session = self._open()
        origin = _host(url)
        for _ in range(_MAX_REDIRECTS + 1):
            own = dict(headers)
            if _host(url) == origin:  # credentials do not follow to another host
                own |= await self._secrets()
            async with session.post(
                url, data=body, headers=own, allow_redirects=False, proxy=self._config.proxy_url or None
            ) as answer:
                if answer.status // 100 == 2:
                    return  # the rest of the body is not read: leaving closes the connection
                location = answer.headers.get("Location", "")
                if answer.status in (307, 308) and location and self._config.follow_redirects:
                    url = urljoin(url, location)
                    if urlsplit(url).scheme not in ("http", "https"):
                        raise DeliveryError(f"{origin}: redirected away from HTTP", retryable=False)
                    continue
                raise await self._refusal(answer, origin)
        raise DeliveryError(f"{origin}: more than {_MAX_REDIRECTS} redirects", retryable=False)

    async def _refusal(self, answer: aiohttp.ClientResponse, host: str) -> DeliveryError:
        status = answer.status
        if status // 100 == 3:
            return DeliveryError(
                f"{host}: answered with a redirect ({status}) that drops the body", retryable=False
            )
        retryable = status >= 500 or status in _RETRYABLE
        text = await _start_of_body(answer)
        detail = f": {text}" if text else ""
        wait_s = retry_after_s(answer.headers.get("Retry-After"), self._clock.now_ms()) if retryable else None
        return DeliveryError(f"{host}: HTTP {status}{detail}", retryable=retryable, retry_after_s=wait_s)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=16, ssl=_tls(self._config))
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # what is read of an answer is bounded on the wire
            )
        return self._session

    async def _secrets(self) -> dict[str, str]:
        """The headers with secrets; files are read anew each time, so that a secret can be rotated."""
        config = self._config
        if config.credentials_file or config.password_file:
            return await asyncio.to_thread(self._read_secrets)
        return self._read_secrets()

    def _read_secrets(self) -> dict[str, str]:
        config = self._config
        found = dict(config.headers)
        credentials = config.credentials or _content(config.credentials_file)
        if credentials:
            found["Authorization"] = f"{config.auth_type} {credentials}"
        if config.username:
            password = config.password or _content(config.password_file)
            token = base64.b64encode(f"{config.username}:{password}".encode()).decode()
            found["Authorization"] = f"Basic {token}"
        return found


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Seconds of a Retry-After header, given as seconds or as an HTTP date; None for anything else."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - now_ms / 1000)
    except (TypeError, ValueError, OverflowError):
        return None


def _content(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"cannot read {path}: {_reason(error)}", retryable=True) from None


def _tls(config: HttpClientConfig) -> ssl.SSLContext | bool:
    if not (config.ca_file or config.cert_file or config.insecure_skip_verify):
        return True
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
    except OSError as error:
        raise DeliveryError(f"tls_config: {_reason(error)}", retryable=True) from None
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _start_of_body(answer: aiohttp.ClientResponse) -> str:
    try:
        raw = await answer.content.read(_ANSWER_BYTES)
    except aiohttp.ClientError:
        return ""
    return printable(" ".join(raw.decode("utf-8", "replace").split()), 300)


@lru_cache(maxsize=256)
def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "invalid URL"


def _reason(error: BaseException) -> str:
    """What went wrong, without the URL that aiohttp's texts may hold."""
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        return f"cannot connect: {cause.strerror or type(cause).__name__}"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "the connection was closed before an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
