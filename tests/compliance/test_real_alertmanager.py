"""The specification's receiver as a real Alertmanager: it shows what fires, and no longer what resolved."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exporter.clock import SystemClock
from tests.compliance.rig import ms, rig
from tests.helpers.peers import peer

pytestmark = pytest.mark.peer
# An Alertmanager judges endsAt by its own clock: the story lies so far back that what resolved is over for
# it, and what fires (four minutes ahead of its last evaluation) is not.
BACK_MS = 120_000
RULES = """
groups:
- name: g
  interval: 15s
  rules:
  - alert: High
    expr: load > 10
    for: 30s
    labels: {severity: page}
    annotations: {summary: "load is {{ $value }}"}
"""


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """A Debian Alertmanager on a free port."""
    program = peer("prometheus-alertmanager")
    (tmp_path / "am.yml").write_text("route: {receiver: none, group_wait: 0s}\nreceivers: [{name: none}]\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'am.yml'}",
                f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


async def shown(url: str, wanted: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """The alerts of the Alertmanager once they are as wanted."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/api/v2/alerts") as answer:
                    found: list[dict[str, Any]] = await answer.json()
                    if answer.status == 200 and wanted(found):
                        return found
            await asyncio.sleep(0.05)


async def test_the_life_of_an_alert(alertmanager: str) -> None:
    """Sending Alerts to Alertmanager: pending is not shown, firing is with all fields, resolved is gone, and
    firing anew is a new alert."""
    await shown(alertmanager, lambda found: found == [])  # it is up
    start_ms = SystemClock().now_ms() - BACK_MS
    async with rig(RULES, alertmanager=alertmanager, start_ms=start_ms) as one:
        one.hold(load=11)
        await one.evaluate()
        await one.step()  # pending: nothing was sent, so nothing can come later
        assert await shown(alertmanager, lambda _: True) == []
        await one.step(load=12)
        (alert,) = await shown(alertmanager, lambda found: len(found) == 1)
        assert alert["labels"] == {"alertname": "High", "severity": "page", "i": "1"}
        assert alert["annotations"] == {"summary": "load is 12"}
        assert alert["generatorURL"] == "http://x/graph?g0.expr=load > 10"
        assert alert["status"]["state"] == "active"
        fired_ms = one.clock.now_ms()
        assert (ms(alert["startsAt"]), ms(alert["endsAt"])) == (fired_ms, fired_ms + 240_000)
        await one.step(load=1)
        await shown(alertmanager, lambda found: found == [])
        for _ in range(3):
            await one.step(load=13)
        (alert,) = await shown(alertmanager, lambda found: len(found) == 1)
        assert ms(alert["startsAt"]) == one.clock.now_ms() > fired_ms


async def test_amtool_reads_what_was_sent(alertmanager: str) -> None:
    """Alert Format: Alertmanager's own tool finds every alert by its labels."""
    await shown(alertmanager, lambda found: found == [])
    start_ms = SystemClock().now_ms() - BACK_MS
    rules = RULES.replace("for: 30s", "for: 0s")
    async with rig(rules, alertmanager=alertmanager, start_ms=start_ms) as one:
        one.hold_series({f'load{{i="{number}",zone="a b\\"c"}}': 11 for number in range(150)})
        await one.evaluate()
        await shown(alertmanager, lambda found: len(found) == 150)
        listed = await asyncio.to_thread(
            subprocess.run,
            [peer("amtool"), f"--alertmanager.url={alertmanager}", "alert", "query", "i=~1."],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert listed.stdout.count("High") == 10
