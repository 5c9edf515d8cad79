"""Requests about alerts that another replica has to answer, passed on to it.

What is firing, silenced and on its way is known, and may be changed, where it is decided: at the replica that
notifies. So every replica answers the same, and a client may ask any of them.
"""

from __future__ import annotations

import re
from typing import Any, Final

import aiohttp
from aiohttp import web

from exporter.web.ports import ReplicaService

_FORWARDED: Final = re.compile(r"/api/v1/alerts/(outlook|why|[^/]+/(ack|resolve))|/api/v2/.+")
_MARK: Final = "X-Quantum-Forwarded"  # no request is passed on twice
_TIMEOUT_S: Final = 10.0
_PASSED_HEADERS: Final = ("Authorization", "Content-Type", "Accept")
_MAX_BYTES: Final = 64 << 20


class Forwarding:
    """The middleware and its client session, made at the first use."""

    def __init__(self, replicas: ReplicaService) -> None:
        self._replicas = replicas
        self._session: aiohttp.ClientSession | None = None

    def middleware(self) -> Any:
        """Passes on what is for the replica that notifies, once the request was let in here."""

        @web.middleware
        async def forward(request: web.Request, handler: Any) -> web.StreamResponse:
            leader = self._replicas.leader_url()
            if not leader or _MARK in request.headers or not _FORWARDED.fullmatch(request.path):
                return await handler(request)  # type: ignore[no-any-return]
            passed = await self._pass_on(request, leader)
            return passed if passed is not None else await handler(request)

        return forward

    async def close(self, _: web.Application) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _pass_on(self, request: web.Request, leader: str) -> web.Response | None:
        """The leader's answer; None where there is none."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)
            )
        headers = {name: request.headers[name] for name in _PASSED_HEADERS if name in request.headers}
        try:
            async with self._session.request(
                request.method,
                f"{leader}{request.raw_path}",
                data=await request.read() or None,
                headers={**headers, _MARK: "1"},
                allow_redirects=False,
            ) as answer:
                body = await answer.content.read(_MAX_BYTES)
                kind = answer.headers.get("Content-Type", "application/json")
                return web.Response(body=body, status=answer.status, headers={"Content-Type": kind})
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
