"""The webhook receiver against real servers, good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from exporter.config.http_client import HttpClientConfig
from exporter.config.receivers import WebhookConfig
from exporter.errors import DeliveryError
from exporter.model.labels import LabelSet
from exporter.notify.receivers.http import retry_after_s
from exporter.notify.receivers.webhook import WebhookNotifier
from exporter.notify.records import Notification, NotifiedAlert
from tests.helpers.clock import FakeClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def raw_server(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that says whatever `answer` writes once the request's head has come."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await listening.wait_closed()


def notification(**labels: str) -> Notification:
    alert = NotifiedAlert(
        "e1", "firing", LabelSet.of({"alertname": "Down", **labels}), {"summary": "it is down"}, "00ff",
        1_700_000_000_000, value=0.25, peak=0.1, suppressed=3,
    )  # fmt: skip
    return Notification("n1", "ops", "ops", "firing", (alert,), group_key="ops/0:{}", created_at_ms=1)


async def send(
    url: str, *, timeout_ms: int = 2000, message: Notification | None = None, **values: Any
) -> None:
    notifier = WebhookNotifier(WebhookConfig(url=url, timeout_ms=timeout_ms, **values), FakeClock())
    try:
        await notifier.send(message or notification())
    finally:
        await notifier.close()


async def refused(url: str, **values: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await send(url, **values)
    assert "secret" not in str(caught.value)
    return caught.value


async def test_the_payload_is_alertmanagers_with_our_fields() -> None:
    """Version 4, times, truncation, the id in header and body."""
    seen: list[tuple[Any, dict[str, Any]]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.headers.copy(), await request.json()))
        return web.Response(status=202)

    async with server(handler) as url:
        await send(f"{url}/hook")
    ((headers, body),) = seen
    assert headers["Idempotency-Key"] == body["notificationId"] == "n1"
    assert headers["Content-Type"] == "application/json"
    (alert,) = body.pop("alerts")
    assert {key: body[key] for key in ("version", "status", "receiver", "truncatedAlerts", "groupKey")} == {
        "version": "4", "status": "firing", "receiver": "ops", "truncatedAlerts": 0, "groupKey": "ops/0:{}",
    }  # fmt: skip
    assert body["commonLabels"] == alert["labels"] == {"alertname": "Down"}
    assert (alert["startsAt"], alert["endsAt"]) == ("2023-11-14T22:13:20.000Z", "0001-01-01T00:00:00Z")
    assert (alert["value"], alert["peak"], alert["suppressed"], alert["episodeId"]) == (
        "0.25",
        "0.1",
        3,
        "e1",
    )
    assert body["title"] == "[FIRING] Down: it is down"


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (401, False),
        (404, False),
        (408, True),
        (429, True),
        (500, True),
        (503, True),
        (302, False),
    ],
)
async def test_what_a_status_means(status: int, retryable: bool) -> None:
    """4xx is final, 5xx, 429 and time-outs are not."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text="no \x00 such thing", headers={"Location": "/other"})

    async with server(handler) as url:
        error = await refused(f"{url}/secret")
    assert error.retryable is retryable
    assert str(status) in str(error)


async def test_retry_after_is_read() -> None:
    """Seconds or a date, with 429 and 503."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "120"})

    async with server(handler) as url:
        assert (await refused(url)).retry_after_s == 120.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("0", 0.0),
        ("7", 7.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2000 22:14:20 GMT", 0.0),
        ("-5", None),
    ],
)
def test_retry_after_values(header: str | None, seconds: float | None) -> None:
    """What is neither a number nor a date is no wish."""
    assert retry_after_s(header, 1_700_000_000_000) == seconds


async def test_a_receiver_that_never_answers_is_cut_off() -> None:
    """The time-out bounds the try."""

    async def handler(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with server(handler) as url:
        error = await refused(f"{url}/secret", timeout_ms=100)
    assert error.retryable
    assert "no answer within 0.1 s" in str(error)


async def test_a_huge_answer_is_not_read() -> None:
    """A gigabyte behind 200 costs nothing; behind 500 a line of it is kept."""
    sent = 0

    def endless(status: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
        async def answer(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 1073741824\r\n\r\n" % status)
            for _ in range(16_384):
                writer.write(b"x" * 65_536)
                sent += 65_536
                await writer.drain()

        return answer

    async with raw_server(endless(b"200 OK")) as url:
        await send(url)
    async with raw_server(endless(b"500 Oh")) as url:
        error = await refused(url)
    assert error.retryable
    assert len(str(error)) < 500
    assert sent < 64 * 1024 * 1024


async def test_a_reset_and_garbage_are_retryable() -> None:
    """A connection that breaks, and an answer that is not HTTP."""

    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def garbage(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xff not http at all\r\n\r\n")
        await writer.drain()

    for answer, said in ((reset, "closed before an answer"), (garbage, "not HTTP")):
        async with raw_server(answer) as url:
            error = await refused(url)
            assert error.retryable
            assert said in str(error)


async def test_a_closed_port_is_retryable_and_named() -> None:
    """The host is said, the path is not."""
    async with raw_server(lambda _: asyncio.sleep(0)) as url:
        pass
    error = await refused(f"{url}/secret?token=secret")
    assert error.retryable
    assert "cannot connect" in str(error)


async def test_redirects_that_keep_the_body_are_followed_without_the_credentials() -> None:
    """307 to another host gets the body, not the Authorization header."""
    seen: list[tuple[str | None, bytes]] = []

    async def target(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Authorization"), await request.read()))
        return web.Response()

    async with server(target) as other:

        async def handler(request: web.Request) -> web.Response:
            seen.append((request.headers.get("Authorization"), await request.read()))
            return web.Response(status=307, headers={"Location": f"{other}/there"})

        async with server(handler) as url:
            await send(url, http=HttpClientConfig(credentials="secret"))
    assert [header for header, _ in seen] == ["Bearer secret", None]
    assert json.loads(seen[0][1]) == json.loads(seen[1][1])


async def test_a_redirect_loop_ends() -> None:
    """After five the notification is refused for good."""
    count = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        return web.Response(status=308, headers={"Location": "/again"})

    async with server(handler) as url:
        assert not (await refused(url)).retryable
    assert count == 6


async def test_files_are_read_at_each_send(tmp_path: Path) -> None:
    """url_file and password_file can be rotated; a missing one is retryable."""
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response()

    url_file, password = tmp_path / "url", tmp_path / "password"
    config = WebhookConfig(
        url_file=str(url_file), http=HttpClientConfig(username="u", password_file=str(password))
    )
    notifier = WebhookNotifier(config, FakeClock())
    async with server(handler) as url:
        with pytest.raises(DeliveryError) as caught:
            await notifier.send(notification())
        assert caught.value.retryable
        url_file.write_text(f"{url}\n")
        for text in ("one", "two"):
            password.write_text(text)
            await notifier.send(notification())
        await notifier.close()
    assert seen == ["Basic dTpvbmU=", "Basic dTp0d28="]


async def test_hostile_labels_arrive_escaped_and_bounded() -> None:
    """Control characters are JSON escapes; a megabyte is cut with a mark."""
    bodies: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    async with server(handler) as url:
        await send(url, message=notification(evil="\x00\x1b[31m\u202e", big="x" * 1_000_000))
    (body,) = bodies
    assert len(body) < 100_000
    labels = json.loads(body)["alerts"][0]["labels"]
    assert labels["evil"] == "\x00\x1b[31m\u202e"
    assert labels["big"].endswith("[truncated, 1000000 characters]")
    assert b"\x1b" not in body
    assert "\x1b" not in json.loads(body)["message"]


async def test_max_alerts_truncates() -> None:
    """As Alertmanager: the rest is counted."""
    bodies: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.Response()

    one = notification()
    many = Notification("n", "ops", "ops", "firing", one.alerts * 5, truncated=2)
    async with server(handler) as url:
        await send(url, message=many, max_alerts=3)
    assert (len(bodies[0]["alerts"]), bodies[0]["truncatedAlerts"]) == (3, 4)
