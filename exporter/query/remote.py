"""Any Prometheus-compatible HTTP API as a source of answers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from exporter.errors import QueryError, QueryErrorKind

_MAX_BYTES = 256 * 1024**2
_KINDS = {
    "bad_data": QueryErrorKind.TYPE,
    "execution": QueryErrorKind.EXECUTION,
    "timeout": QueryErrorKind.TIMEOUT,
    "canceled": QueryErrorKind.CANCELED,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The `data` of an answer with what came beside it."""

    data: Any
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


class RemoteApi:
    """Asks one server; user and password may stand in its URL. All methods raise QueryError."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise QueryError(
                f'"{base_url}" is not the URL of a server (allowed: http://HOST:PORT)', QueryErrorKind.TYPE
            )
        self._auth = aiohttp.BasicAuth(parts.username, parts.password or "") if parts.username else None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        self._base = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def instant(self, expr: str, ts_ms: int | None = None) -> Answer:
        """Evaluate at one time; None lets the server choose its now."""
        params = {"query": expr}
        if ts_ms is not None:
            params["time"] = seconds(ts_ms)
        return await self.ask("query", params.items())

    async def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int) -> Answer:
        """Evaluate at each step of a range."""
        params = {
            "query": expr,
            "start": seconds(start_ms),
            "end": seconds(end_ms),
            "step": seconds(step_ms),
        }
        return await self.ask("query_range", params.items())

    async def ask(self, path: str, params: Any, *, post: bool = True) -> Answer:
        """One request under /api/v1; queries go as a form, since they may be long."""
        url = f"{self._base}/api/v1/{path}"
        pairs = list(params)
        try:
            call = (
                self._session.post(url, data=aiohttp.FormData(pairs), **self._options())
                if post
                else (self._session.get(url, params=pairs, **self._options()))
            )
            async with call as response:
                return _decode(await _body(response, self._base), response.status, self._base)
        except TimeoutError as error:
            raise QueryError(f"{self._base} did not answer in time", QueryErrorKind.TIMEOUT) from error
        except aiohttp.ClientError as error:
            number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else None
            reason = os.strerror(number) if number and number > 0 else str(error) or type(error).__name__
            raise QueryError(f"{self._base} does not answer: {reason}", QueryErrorKind.UNAVAILABLE) from error

    def _options(self) -> Mapping[str, Any]:
        return {"timeout": self._timeout, "auth": self._auth}


def seconds(ts_ms: int) -> str:
    """Unix milliseconds as the API's decimal seconds."""
    return f"{ts_ms / 1000:.3f}"


async def _body(response: aiohttp.ClientResponse, base: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise QueryError(f"{base} answered more than {_MAX_BYTES} bytes", QueryErrorKind.LIMIT)
    return bytes(body)


def _decode(body: bytes, status: int, base: str) -> Answer:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise QueryError(
            f"{base} answered {status} without JSON: is it a Prometheus-compatible API?",
            QueryErrorKind.UNAVAILABLE,
        ) from error
    if not isinstance(document, dict) or document.get("status") != "success":
        fields = document if isinstance(document, dict) else {}
        kind = _KINDS.get(str(fields.get("errorType")), QueryErrorKind.UNAVAILABLE)
        raise QueryError(str(fields.get("error") or f"{base} answered {status}"), kind)
    return Answer(document.get("data"), _texts(document.get("warnings")), _texts(document.get("infos")))


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()
