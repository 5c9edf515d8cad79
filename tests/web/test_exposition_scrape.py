"""A real Prometheus scrapes the page over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from exporter.web.exposition import ExpositionPage
from tests.helpers.peers import peer


async def test_prometheus_scrapes_the_page(tmp_path: Path) -> None:
    """`up` is 1, no scrape error, and the samples in its database are those of the page."""
    prometheus = peer("prometheus")
    registry = CollectorRegistry()
    gauge = Gauge("quantum_value", 'Help with "quotes" and \\.', ["l"], registry=registry)
    for row in range(3000):
        gauge.labels(f'a"\\\n{row}').set(row / 3)
    Counter("quantum_events", "Events.", registry=registry).inc(7, {"trace_id": "x"})
    Histogram("quantum_wait_seconds", "Waits.", registry=registry).observe(0.3)
    page = ExpositionPage(registry)
    seen: list[str] = []

    async def metrics(request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        body, headers = await page.render(accept, request.headers.get("Accept-Encoding", ""))
        seen.append(headers["Content-Type"])
        return web.Response(body=body, headers=headers)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
        f"scrape_configs: [{{job_name: us, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    own_port = await free_port()
    process = await asyncio.create_subprocess_exec(
        prometheus,
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{own_port}",
        "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        base = f"http://127.0.0.1:{own_port}/api/v1"
        async with aiohttp.ClientSession() as session:
            target = await healthy(session, base)
            assert (target["health"], target["lastError"]) == ("up", "")
            assert float(await query(session, base, "count(quantum_value)")) == 3000
            assert float(await query(session, base, "sum(quantum_value)")) == sum(
                row / 3 for row in range(3000)
            )
            assert await query(session, base, "quantum_events_total") == "7"
            assert await query(session, base, 'quantum_wait_seconds_bucket{le="0.5"}') == "1"
        assert seen[0].startswith("application/openmetrics-text")
    finally:
        process.kill()  # its data is thrown away
        await process.wait()
        await runner.cleanup()


async def free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def healthy(session: aiohttp.ClientSession, base: str) -> dict[str, str]:
    """The target once it was scraped."""
    for _ in range(200):
        try:
            async with session.get(f"{base}/targets") as answer:
                targets = json.loads(await answer.text())["data"]["activeTargets"]
                if targets and targets[0]["health"] != "unknown":
                    return dict(targets[0])
        except (aiohttp.ClientError, ValueError, KeyError):
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("prometheus did not scrape within 20 s")


async def query(session: aiohttp.ClientSession, base: str, expr: str) -> str:
    async with session.get(f"{base}/query", params={"query": expr}) as answer:
        document = json.loads(await answer.text())
    return str(document["data"]["result"][0]["value"][1])
