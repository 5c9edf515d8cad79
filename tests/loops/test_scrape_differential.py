"""A real Prometheus and our loop scrape the same exporters and hold the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from exporter.clock import SystemClock
from exporter.config.positions import Reader, parse_yaml
from exporter.config.targets import read_targets
from exporter.loops.scrape import ScrapeLoop
from exporter.loops.scrape_metrics import ScrapeMetrics
from exporter.model.samples import SampleBatch
from exporter.promql.engine import Engine
from exporter.storage import MemoryStorage
from tests.helpers.peers import peer

Vector = dict[str, str]
OWN = ("scrape_duration_seconds", "scrape_series_added")  # differ from scrape to scrape


async def free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def _exposition(registry: CollectorRegistry) -> bytes:
    return bytes(generate_latest(registry))  # type: ignore[no-untyped-call]


def made(result: Any) -> Vector:
    """Series as text, to the value."""
    return {json.dumps(one["metric"], sort_keys=True): str(one["value"][1]) for one in result}


@pytest.mark.acceptance
async def test_the_same_series_and_samples(tmp_path: Path) -> None:
    """node_exporter and a prometheus_client app: the same series, and the same values of what does not move;
    after the app's death both say up 0 and hold none of its series.
    """
    registry = CollectorRegistry()
    Counter("jobs", "Jobs.", ["job", "kind"], registry=registry).labels("own", 'a"\\\n').inc(7, {"id": "x y"})
    Gauge("level", "Level.", registry=registry).set(float("nan"))
    Histogram("wait_seconds", "Waits.", registry=registry).observe(0.3)
    Summary("size_bytes", "Sizes.", registry=registry).observe(1 / 3)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=_exposition(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    node_port, own_port = await free_port(), await free_port()
    jobs = f"""
- {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{node_port}']}}]}}
- job_name: app
  static_configs: [{{targets: ['127.0.0.1:{runner.addresses[0][1]}'], labels: {{zone: z1}}}}]
  metric_relabel_configs:
    - {{action: drop, source_labels: [__name__], regex: size_bytes_created}}
    - {{source_labels: [exported_job], regex: (.).*, target_label: first}}
"""
    config = tmp_path / "prometheus.yml"
    config.write_text(f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:{jobs}")
    quiet: Any = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    processes = [
        await asyncio.create_subprocess_exec(
            peer("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node_port}", **quiet
        ),
        await asyncio.create_subprocess_exec(
            peer("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{own_port}",
            "--log.level=error",
            **quiet,
        ),
    ]
    storage, clock = MemoryStorage(), SystemClock()
    persisted: list[SampleBatch] = []
    faults: list[BaseException] = []
    loop = ScrapeLoop(
        append=storage.append_batch,
        persist=persisted.append,
        clock=clock,
        metrics=ScrapeMetrics(CollectorRegistry()),
        on_fault=lambda _, error: faults.append(error),
        base=tmp_path,
        user_agent="test",
    )
    reader = Reader("")
    await loop.load(read_targets(reader, parse_yaml(jobs)), 1000)
    assert reader.problems == []
    running = asyncio.create_task(loop.run())
    engine = Engine(storage)
    session = aiohttp.ClientSession()

    async def both(expr: str) -> tuple[Vector, Vector]:
        """Prometheus' answer and ours, at one time."""
        now_ms = clock.now_ms()
        params = {"query": expr, "time": str(now_ms / 1000)}
        try:
            async with session.get(f"http://127.0.0.1:{own_port}/api/v1/query", params=params) as answer:
                theirs = made(json.loads(await answer.text())["data"]["result"])
        except (aiohttp.ClientError, KeyError):
            theirs = {"not": "ready"}
        ours = json.loads(json.dumps(engine.query(expr, now_ms).to_json()))
        return theirs, made(ours["result"])

    async def agree(expr: str, fits: Callable[[Vector, Vector], bool]) -> tuple[Vector, Vector]:
        """Ask until both fit; what differs within one interval, such as a series just born, fits later."""
        found: tuple[Vector, Vector] = ({}, {})
        for _ in range(120):
            found = await both(expr)
            if found[0] and fits(*found):
                break
            await asyncio.sleep(0.25)
        return found

    try:
        theirs, ours = await agree('{job="app"}', lambda a, b: a.keys() == b.keys() and len(a) > 15)
        assert ours.keys() == theirs.keys()
        moving = [key for key in theirs if any(name in key for name in OWN)]
        assert {key: ours[key] for key in ours if key not in moving} == {
            key: theirs[key] for key in theirs if key not in moving
        }
        theirs, ours = await agree('{job="node"}', lambda a, b: a.keys() == b.keys() and len(a) > 100)
        assert ours.keys() == theirs.keys()
        still = '{job="node",__name__=~"node_(uname|os|boot|memory_MemTotal|filesystem_size|network_mtu).*"}'
        theirs, ours = await agree(still, lambda a, b: a == b)
        assert ours == theirs

        await runner.cleanup()
        theirs, ours = await agree('{job="app"}', lambda a, b: a.keys() == b.keys() and len(a) == 5)
        assert ours.keys() == theirs.keys()
        theirs, ours = await agree("up", lambda a, b: a == b and "0" in a.values())
        assert ours == theirs
        assert sorted(ours.values()) == ["0", "1"]
        assert faults == []
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await loop.close()
        await session.close()
        for process in processes:
            process.kill()
            await process.wait()
