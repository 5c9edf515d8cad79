"""A receiver to try routes with: it takes any POST, says what arrived, and answers 200.

It reads the payload of Alertmanager's webhook, ours included; any other body is shown as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from exporter.errors import ExporterError

_BODY_SHOWN = 2000  # characters of a body that is no notification
_MAX_BODY_BYTES = 16 * 1024 * 1024


def describe(body: bytes) -> list[str]:
    """The lines that tell a notification: status and title first, then its text or its alerts."""
    text = body.decode(errors="replace")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("alerts"), list):
        return [_printable(line) for line in text[:_BODY_SHOWN].splitlines()] or ["an empty body"]
    alerts = [alert for alert in document["alerts"] if isinstance(alert, dict)]
    title = document.get("title") or f"{len(alerts)} alerts"
    lines = [f"{document.get('status', 'unknown')}: {title}"]
    message = document.get("message")
    lines += str(message).splitlines() if message else _told(alerts)
    return [_printable(line) for line in lines]


def as_json(body: bytes) -> str:
    """The body as one line of JSON; what is no JSON stands in `body`."""
    text = body.decode(errors="replace")
    try:
        document = json.loads(text)
    except ValueError:
        document = {"body": text}
    return json.dumps(document)


def _told(alerts: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each alert of a payload without a text of its own."""
    for alert in alerts:
        labels, annotations = alert.get("labels") or {}, alert.get("annotations") or {}
        pairs = " ".join(f"{name}={value}" for name, value in dict(labels).items())
        yield f"{alert.get('status', 'unknown')} {pairs} {dict(annotations).get('summary', '')}".rstrip()


def _printable(line: str) -> str:
    """Without control characters, which would steer the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


class NotificationReceiver:
    """An HTTP server that hands the body of each POST on."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen; returns the base URL. Raises: ExporterError where the address is in use."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise ExporterError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        bound = self._runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in str(bound[0]) else bound[0]
        return f"http://{shown}:{bound[1]}"

    async def stop(self) -> None:
        """Close the listener and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        self._tell(await request.read())
        return web.Response(text="taken\n")
