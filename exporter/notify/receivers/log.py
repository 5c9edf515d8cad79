"""The log receiver: a line for each alert, at a level that follows its severity."""

from __future__ import annotations

import logging

from exporter.clock import Clock
from exporter.config.receivers import LogConfig
from exporter.notify.message import printable, text_of, title_of, value_text
from exporter.notify.records import Notification, NotifiedAlert

_log = logging.getLogger("exporter.alerts")
_LEVELS = {"critical": logging.CRITICAL, "warning": logging.WARNING}
_LINE_MAX = 2_000


class LogNotifier:
    """Implements `ports.Notifier`; never fails."""

    def __init__(self, config: LogConfig, clock: Clock, logger: logging.Logger = _log) -> None:
        self._config = config
        self._clock = clock
        self._logger = logger

    async def send(self, notification: Notification) -> None:
        """Write the lines of one notification."""
        if self._config.title or self._config.text:
            title = title_of(notification, self._config.title)
            text = text_of(notification, self._clock.now_ms(), self._config.text) if self._config.text else ""
            line = f"{title} {text}".strip().replace("\n", " | ")
            self._logger.log(
                _level(notification.status, notification.alerts), "%s", printable(line, _LINE_MAX)
            )
            return
        for alert in notification.alerts:
            self._logger.log(_level(alert.status, (alert,)), "%s", printable(_line(alert), _LINE_MAX))
        if notification.truncated:
            self._logger.warning("... and %d more alerts", notification.truncated)

    async def close(self) -> None:
        """Nothing is held."""


def _level(status: str, alerts: tuple[NotifiedAlert, ...]) -> int:
    if status == "resolved":
        return logging.INFO
    return max(
        (_LEVELS.get(alert.labels.get("severity"), logging.INFO) for alert in alerts), default=logging.INFO
    )


def _line(alert: NotifiedAlert) -> str:
    labels = " ".join(f"{name}={value}" for name, value in alert.labels if name != "alertname")
    summary = alert.annotations.get("summary", "") or alert.annotations.get("description", "")
    parts = [f"alert {alert.status}: {alert.labels.get('alertname')}", summary.replace("\n", " ")]
    if alert.status == "resolved":
        parts.append(f"({alert.resolve_reason or 'recovered'}, value now {value_text(alert.resolved_value)},")
        parts.append(
            f"peak {value_text(alert.peak)}, fired {(alert.ends_at_ms - alert.starts_at_ms) // 1000} s)"
        )
    else:
        parts.append(f"(value {value_text(alert.value)})")
    if alert.suppressed:
        parts.append(f"[{alert.suppressed} held back]")
    if alert.flapping:
        parts.append(f"[flapping: {alert.flapping} changes]")
    return " ".join(part for part in (*parts, labels) if part)
