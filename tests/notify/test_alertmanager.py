"""Alertmanagers outside: what is sent when, and a real one that takes it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from exporter.clock import Clock, SystemClock
from exporter.config.receivers import AlertmanagerConfig
from exporter.model.labels import LabelSet
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.receivers.alertmanager import MAX_WAITING, Alertmanagers
from tests.helpers.clock import FakeClock
from tests.helpers.peers import peer
from tests.notify.stage import Stage, rule
from tests.notify.test_webhook import server


def alertmanagers(url: str, clock: Clock, registry: CollectorRegistry | None = None) -> Alertmanagers:
    return Alertmanagers(
        [AlertmanagerConfig((url.removeprefix("http://"),))],
        clock,
        NotifyMetrics(registry or CollectorRegistry()),
        external_labels=LabelSet.of({"cluster": "test"}),
        default_interval_ms=15_000,
        link=lambda one: f"http://x/graph?{one.name}",
        rng=Random(1),
    )


@contextlib.asynccontextmanager
async def sending(url: str, clock: Clock, registry: CollectorRegistry | None = None) -> Any:
    found = alertmanagers(url, clock, registry)
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await found.close()


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Real sockets take real time: wait for what they bring."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the other side is a socket
            await asyncio.sleep(0.005)


async def test_each_minute_again_with_an_end_far_ahead() -> None:
    """Sent when it fires, each minute, and when it resolves; the end is four minutes ahead."""
    got: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        assert request.path == "/api/v2/alerts"
        got.extend(await request.json())
        return web.Response()

    clock, stage = FakeClock(), Stage([rule()])
    async with server(handler) as url, sending(url, clock) as found:
        for _ in range(8):  # two minutes
            await found.handle(stage.evaluate(clock.now_ms(), ["a"]))
            await clock.advance(15)
        await until(lambda: len(got) >= 2)
        assert len(got) == 2
        assert got[0]["labels"] == {
            "alertname": "Down", "severity": "warning", "instance": "a", "cluster": "test",
        }  # fmt: skip
        assert (got[0]["startsAt"], got[0]["endsAt"]) == (
            "2023-11-14T22:13:20.000Z",
            "2023-11-14T22:17:20.000Z",
        )
        assert got[0]["generatorURL"] == "http://x/graph?Down"
        await found.handle(stage.evaluate(clock.now_ms(), []))
        await until(lambda: len(got) >= 3)
        assert got[2]["endsAt"] == "2023-11-14T22:15:20.000Z"


async def test_an_outage_ends_with_the_newest_state() -> None:
    """What waits is one state for each instance; after the outage that is sent."""
    got: list[Any] = []
    broken = True

    async def handler(request: web.Request) -> web.Response:
        if broken:
            return web.Response(status=503)
        got.extend(await request.json())
        return web.Response()

    clock, stage, registry = FakeClock(), Stage([rule()]), CollectorRegistry()
    async with server(handler) as url, sending(url, clock, registry) as found:
        name = url.removeprefix("http://")
        await found.handle(stage.evaluate(clock.now_ms(), ["a", "b"]))
        await until(
            lambda: (
                (registry.get_sample_value("quantum_alertmanager_errors_total", {"alertmanager": name}) or 0)
                > 0
            )
        )
        await found.handle(stage.evaluate(clock.now_ms() + 1, ["a"]))
        broken = False
        for _ in range(40):
            await clock.advance(5)
            await asyncio.sleep(0.005)
            if len(got) == 2:
                break
        ends = {one["labels"]["instance"]: one["endsAt"] for one in got}
        assert ends["b"] < ends["a"]
        assert (
            registry.get_sample_value("quantum_alertmanager_alerts_sent_total", {"alertmanager": name}) == 2
        )


async def test_the_queue_is_bounded() -> None:
    """Over 10,000 waiting instances the oldest is dropped and counted."""
    registry = CollectorRegistry()
    found = alertmanagers("http://127.0.0.1:1", FakeClock(), registry)
    await found.handle(Stage([rule()]).evaluate(1, [f"i{n}" for n in range(MAX_WAITING + 3)]))
    dropped = registry.get_sample_value(
        "quantum_alertmanager_alerts_dropped_total", {"alertmanager": "127.0.0.1:1"}
    )
    assert dropped == 3


@pytest.fixture
def real_alertmanager(tmp_path: Path) -> Iterator[str]:
    """A Debian Alertmanager on a free port."""
    program = peer("prometheus-alertmanager")
    (tmp_path / "am.yml").write_text("route: {receiver: none, group_wait: 0s}\nreceivers: [{name: none}]\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            program,
            f"--config.file={tmp_path / 'am.yml'}",
            f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.peer
async def test_a_real_alertmanager_receives_and_resolves(real_alertmanager: str) -> None:
    """Its API and amtool show what fires, and no longer what resolved."""
    clock, stage = SystemClock(), Stage([rule(cooldown=30)])
    async with aiohttp.ClientSession() as session, sending(real_alertmanager, clock) as found:

        async def names() -> list[str]:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{real_alertmanager}/api/v2/alerts") as answer:
                    return sorted(one["labels"]["instance"] for one in await answer.json())
            return []

        async def shows(wanted: list[str]) -> None:
            async with asyncio.timeout(20):
                while await names() != wanted:  # noqa: ASYNC110 - the other side is a process
                    await asyncio.sleep(0.05)

        await found.handle(stage.evaluate(clock.now_ms(), ["a", "b"]))
        await shows(["a", "b"])
        amtool = await asyncio.to_thread(
            subprocess.run,
            [peer("amtool"), f"--alertmanager.url={real_alertmanager}", "alert", "query", "alertname=Down"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert amtool.stdout.count("Down") == 2
        await found.handle(stage.evaluate(clock.now_ms(), ["b"]))
        await shows(["b"])
