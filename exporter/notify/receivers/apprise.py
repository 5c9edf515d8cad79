"""The apprise receiver: Slack, e-mail, SMS and everything else that apprise speaks, each URL on its own.

apprise blocks, so it runs in threads of this receiver; it is imported at the first use, since most
installations do without it. A URL that has taken a notification is not asked again when another one fails.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

from exporter.clock import Clock
from exporter.config.receivers import AppriseConfig
from exporter.errors import DeliveryError
from exporter.notify.message import text_of, title_of
from exporter.notify.receivers.threads import DaemonThreads
from exporter.notify.records import Notification

_MAX_THREADS = 32
_REMEMBERED = 1_000  # notifications whose partial delivery is remembered
_TYPES = {"critical": "failure", "warning": "warning", "info": "info"}


class AppriseNotifier:
    """Implements `ports.Notifier`."""

    def __init__(self, config: AppriseConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._threads = DaemonThreads(_MAX_THREADS, "apprise")
        self._services: list[tuple[str, Any]] | None = None
        self._took: OrderedDict[str, set[int]] = OrderedDict()

    async def send(self, notification: Notification) -> None:
        """Hand one notification to every URL that has not taken it yet.

        Raises: DeliveryError; retryable unless apprise does not know any of the URLs.
        """
        config = self._config
        title = title_of(notification, config.title)
        body = text_of(notification, self._clock.now_ms(), config.text)
        services = await self._threads.start(self._open)
        took = self._took.setdefault(notification.id, set())
        while len(self._took) > _REMEMBERED:
            self._took.popitem(last=False)
        kind = "success" if notification.status == "resolved" else _kind(notification)
        left = [number for number in range(len(services)) if number not in took]
        calls = [
            self._threads.start(partial(_notify, services[number][1], title, body, kind, config.format))
            for number in left
        ]
        for number, call in zip(left, calls, strict=True):  # one that is late may still arrive
            call.add_done_callback(partial(_note, took, number))
        _, late = await asyncio.wait(calls, timeout=config.timeout_ms / 1000)
        await asyncio.sleep(0)  # the callbacks of what is done
        failed = [
            services[number][0] + (" (no answer in time)" if call in late else "")
            for number, call in zip(left, calls, strict=True)
            if number not in took
        ]
        if failed:
            raise DeliveryError(f"not taken by {', '.join(failed)}", retryable=True)
        del self._took[notification.id]

    async def close(self) -> None:
        """Nothing is held: a thread that hangs ends with the process."""

    def _open(self) -> list[tuple[str, Any]]:
        """A name without secrets, and apprise's object, for each URL. Runs in a thread."""
        if self._services is not None:
            return self._services
        import apprise

        urls = self._config.urls
        if self._config.urls_file:
            try:
                urls = tuple(Path(self._config.urls_file).read_text("utf-8").split())
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise DeliveryError(
                    f"cannot read {self._config.urls_file}: {reason}", retryable=True
                ) from None
        services = []
        for number, url in enumerate(urls):
            service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
            scheme = url.partition("://")[0][:30]
            if service is None:
                raise DeliveryError(
                    f"URL {number + 1} ({scheme}://...) is not one that apprise knows", retryable=False
                )
            services.append((f"{scheme}://", service))
        if not services:
            raise DeliveryError("no URLs are configured", retryable=False)
        self._services = services
        return services


def _note(took: set[int], number: int, call: asyncio.Future[bool]) -> None:
    if not call.cancelled() and call.exception() is None and call.result():
        took.add(number)


def _notify(service: Any, title: str, body: str, kind: str, body_format: str) -> bool:
    # the object's own send path: Apprise.notify would run a loop of its own
    import apprise

    sender = apprise.Apprise()
    sender.add(service)
    return bool(sender.notify(body=body, title=title, notify_type=kind, body_format=body_format))


def _kind(notification: Notification) -> str:
    severities = {alert.labels.get("severity") for alert in notification.alerts}
    return next((kind for severity, kind in _TYPES.items() if severity in severities), "warning")
