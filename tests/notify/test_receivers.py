"""The log and apprise receivers, and the metrics they all share."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from exporter.config.receivers import AppriseConfig, LogConfig
from exporter.errors import DeliveryError
from exporter.model.labels import LabelSet
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.receivers.apprise import AppriseNotifier
from exporter.notify.receivers.log import LogNotifier
from exporter.notify.records import Notification, NotifiedAlert
from tests.helpers.clock import FakeClock
from tests.helpers.peers import peer
from tests.notify.test_webhook import server

# a library below apprise imports a module that Python is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

T0 = 1_700_000_000_000


def notification(severity: str = "critical", status: str = "firing", **values: Any) -> Notification:
    labels = LabelSet.of({"alertname": "Down", "severity": severity, "provider": "kr\x1baken"})
    alert = NotifiedAlert("e", status, labels, {"summary": "it is\ndown"}, "00ff", T0, value=2.5, **values)
    return Notification("n1", "ops", "ops", status, (alert,), created_at_ms=T0)


@pytest.mark.parametrize(
    ("severity", "status", "level"),
    [
        ("critical", "firing", logging.CRITICAL),
        ("warning", "firing", logging.WARNING),
        ("info", "firing", logging.INFO),
        ("", "firing", logging.INFO),
        ("critical", "resolved", logging.INFO),
    ],
)
async def test_the_log_level_follows_the_severity(
    severity: str, status: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each alert; resolved is information."""
    caplog.set_level(logging.DEBUG)
    await LogNotifier(LogConfig(), FakeClock()).send(notification(severity, status, ends_at_ms=T0 + 5000))
    (record,) = caplog.records
    assert record.levelno == level
    assert "\n" not in record.getMessage()
    assert "\x1b" not in record.getMessage()
    assert "Down" in record.getMessage()


async def test_the_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """What, value, what was held back, labels."""
    caplog.set_level(logging.DEBUG)
    await LogNotifier(LogConfig(), FakeClock()).send(notification(suppressed=3))
    assert caplog.messages == [
        "alert firing: Down it is down (value 2.5) [3 held back] provider=kr\\x1baken severity=critical"
    ]
    caplog.clear()
    await LogNotifier(LogConfig(title="{{ $labels.alertname }}!"), FakeClock()).send(notification())
    assert caplog.messages == ["Down!"]


async def test_apprise_asks_each_url_once() -> None:
    """A URL that took the notification is not asked again when another one failed."""
    seen: list[tuple[str, Any]] = []
    broken = True

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json()))
        return web.Response(status=500 if broken and request.path == "/bad" else 200)

    async with server(handler) as url:
        base = url.replace("http://", "json://")
        notifier = AppriseNotifier(AppriseConfig(urls=(f"{base}/good", f"{base}/bad")), FakeClock())
        with pytest.raises(DeliveryError) as caught:
            await notifier.send(notification())
        assert caught.value.retryable
        assert "127.0.0.1" not in str(caught.value)
        broken = False
        await notifier.send(notification())
        await notifier.close()
    assert sorted(path for path, _ in seen) == ["/bad", "/bad", "/good"]
    assert seen[0][1]["title"] == "[FIRING critical] Down: it is down"
    assert "Value: 2.5" in seen[0][1]["message"]


async def test_apprise_urls_that_nobody_knows_are_final(tmp_path: Path) -> None:
    """Named by their number and scheme, without the rest."""
    notifier = AppriseNotifier(AppriseConfig(urls=("nonsense://secret",)), FakeClock())
    with pytest.raises(DeliveryError, match=r"URL 1 \(nonsense://\.\.\.\)") as caught:
        await notifier.send(notification())
    assert not caught.value.retryable
    assert "secret" not in str(caught.value)
    await notifier.close()
    missing = AppriseNotifier(AppriseConfig(urls_file=str(tmp_path / "none")), FakeClock())
    with pytest.raises(DeliveryError) as caught:
        await missing.send(notification())
    assert caught.value.retryable
    await missing.close()


async def test_apprise_that_hangs_is_cut_off() -> None:
    """The time-out holds although apprise blocks."""

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    async with server(handler) as url:
        config = AppriseConfig(urls=(url.replace("http://", "json://") + "/x",), timeout_ms=50)
        notifier = AppriseNotifier(config, FakeClock())
        with pytest.raises(DeliveryError, match="no answer in time"):
            await notifier.send(notification())
        await notifier.close()


def test_metrics_are_born_at_zero_and_well_named(tmp_path: Path) -> None:
    """promtool check metrics finds nothing; a destination has all its outcomes from the start."""
    registry = CollectorRegistry()
    metrics = NotifyMetrics(registry)
    metrics.add_receivers(["log", "ops"])
    metrics.add_alertmanagers(["h:1"])
    text = generate_latest(registry)
    for outcome in ("delivered", "failed", "dead"):
        assert (
            registry.get_sample_value("quantum_notifications_total", {"receiver": "ops", "outcome": outcome})
            == 0
        )
    done = subprocess.run(
        [peer("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b""), json.dumps(
        (done.stdout + done.stderr).decode()
    )
