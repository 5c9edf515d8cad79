"""Requests about alerts at a replica that does not notify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from exporter.web.forward import Forwarding


class Replicas:
    """Another replica notifies at `url`, or this one where it is empty."""

    def __init__(self, url: str = "") -> None:
        self.url = url

    def leader_url(self) -> str:
        return self.url

    def document(self) -> Mapping[str, Any]:
        return {}


@asynccontextmanager
async def replica(name: str, leader: str = "") -> AsyncIterator[str]:
    """A server that says who answered, and with what."""

    async def answer(request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        who = request.headers.get("Authorization", "")
        return web.json_response([name, request.method, request.path_qs, body, who], status=202)

    forwarding = Forwarding(Replicas(leader))
    app = web.Application(middlewares=[forwarding.middleware()])
    app.on_cleanup.append(forwarding.close)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def ask(url: str, method: str = "GET", body: str = "") -> list[str]:
    headers = {"Authorization": "Basic abc"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=body or None, headers=headers) as answer,
    ):
        assert answer.status == 202
        found: list[str] = await answer.json()
        return found


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/api/v1/alerts/outlook?filter=a%3Db", "leader"),
        ("/api/v1/alerts/why?alert=A", "leader"),
        ("/api/v1/alerts/abc/ack", "leader"),
        ("/api/v1/alerts/abc/resolve", "leader"),
        ("/api/v2/silences", "leader"),
        ("/api/v2/silence/abc", "leader"),
        ("/api/v2/alerts", "leader"),
        ("/api/v1/alerts/history", "follower"),
        ("/api/v1/alerts", "follower"),
        ("/api/v1/query?query=up", "follower"),
        ("/metrics", "follower"),
    ],
)
async def test_who_answers(path: str, who: str) -> None:
    """What is known where it is decided is asked there, with method, query, body and credentials; the rest is
    answered here."""
    async with replica("leader") as leader, replica("follower", leader) as follower:
        assert await ask(f"{follower}{path}", "POST", "{}") == [who, "POST", path, "{}", "Basic abc"]
        assert (await ask(f"{leader}{path}"))[0] == "leader"


async def test_no_request_is_passed_on_twice() -> None:
    """Two that take each other for the leader do not send a request to and fro."""
    async with replica("b", "http://127.0.0.1:9") as b, replica("a", b) as a:
        assert (await ask(f"{a}/api/v2/alerts"))[0] == "b"


async def test_a_leader_that_does_not_answer_is_no_answer() -> None:
    """Then this replica says what it can."""
    async with replica("follower", "http://127.0.0.1:9") as follower:
        assert (await ask(f"{follower}/api/v2/alerts"))[0] == "follower"
