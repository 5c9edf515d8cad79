"""The webhook receiver: Alertmanager's payload, version 4, with the notification's id as Idempotency-Key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from exporter import __version__
from exporter.clock import Clock
from exporter.config.receivers import WebhookConfig
from exporter.errors import DeliveryError
from exporter.notify.payload import webhook_payload
from exporter.notify.receivers.http import HttpPoster
from exporter.notify.records import Notification


class WebhookNotifier:
    """Implements `ports.Notifier`."""

    def __init__(self, config: WebhookConfig, clock: Clock, *, external_url: str = "") -> None:
        self._config = config
        self._clock = clock
        self._external_url = external_url
        self._poster = HttpPoster(config.http, clock, timeout_s=config.timeout_ms / 1000)

    async def send(self, notification: Notification) -> None:
        """POST one notification.

        Raises: DeliveryError.
        """
        config = self._config
        document = webhook_payload(
            notification,
            self._clock.now_ms(),
            external_url=self._external_url,
            max_alerts=config.max_alerts,
            title=config.title,
            text=config.text,
        )
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"quantum-exporter/{__version__}",
            "Idempotency-Key": notification.id,
        }
        await self._poster.post(await self._url(), json.dumps(document).encode(), headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()

    async def _url(self) -> str:
        if self._config.url:
            return self._config.url
        try:
            text = await asyncio.to_thread(Path(self._config.url_file).read_text, "utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise DeliveryError(f"cannot read {self._config.url_file}: {reason}", retryable=True) from None
        return text.strip()
