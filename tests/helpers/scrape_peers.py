"""A real Prometheus and our scrape loop on the same targets, asked the same questions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from exporter.clock import SystemClock
from exporter.config.positions import Reader, parse_yaml
from exporter.config.targets import read_targets
from exporter.loops.scrape import ScrapeLoop
from exporter.loops.scrape_metrics import ScrapeMetrics
from exporter.promql.engine import Engine
from exporter.storage import MemoryStorage
from tests.helpers.peers import peer

Vector = dict[str, str]
Samples = dict[str, list[tuple[int, float]]]


async def free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


def _key(labels: dict[str, str]) -> str:
    return json.dumps(labels, sort_keys=True)


def _vector(result: Any) -> Vector:
    return {_key(one["metric"]): str(one["value"][1]) for one in result}


class BothScrape:
    """Scrapes the jobs (YAML of scrape_configs) and a node_exporter as job `node`, every `interval_s`."""

    def __init__(self, folder: Path, jobs: str, interval_s: int) -> None:
        self._folder = folder
        self._jobs = jobs
        self._interval_s = interval_s
        self._processes: list[asyncio.subprocess.Process] = []
        self.clock = SystemClock()
        self.storage = MemoryStorage()
        self.faults: list[BaseException] = []
        self._engine = Engine(self.storage)
        self._loop = ScrapeLoop(
            append=self.storage.append_batch,
            persist=lambda _: None,
            clock=self.clock,
            metrics=ScrapeMetrics(CollectorRegistry()),
            on_fault=lambda _, error: self.faults.append(error),
            base=folder,
            user_agent="test",
        )

    async def __aenter__(self) -> BothScrape:
        node_port, self._port = await free_port(), await free_port()
        jobs = f"- {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{node_port}']}}]}}\n{self._jobs}"
        config = self._folder / "prometheus.yml"
        timing = f"{{scrape_interval: {self._interval_s}s, scrape_timeout: {self._interval_s}s}}"
        config.write_text(f"global: {timing}\nscrape_configs:\n{jobs}")
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self._port}")
        for command in (
            (peer("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{node_port}"),
            (
                peer("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--log.level=error",
            ),
        ):
            quiet = asyncio.subprocess.DEVNULL
            self._processes.append(await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet))
        reader = Reader("")
        await self._loop.load(read_targets(reader, parse_yaml(jobs)), self._interval_s * 1000)
        assert reader.problems == []
        self._running = asyncio.create_task(self._loop.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._loop.close()
        await self._session.close()
        for process in self._processes:
            process.kill()
            await process.wait()

    async def ask(self, path: str, **params: str) -> Any:
        """The data of Prometheus' answer."""
        async with self._session.get(f"/api/v1/{path}", params=params) as answer:
            return json.loads(await answer.text())["data"]

    async def metadata(self, job: str) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """What both know of a job's metrics: type, help and unit by name."""
        theirs = {
            str(one["metric"]): (str(one["type"]), str(one["help"]), str(one["unit"]))
            for one in await self.ask("targets/metadata", match_target=f'{{job="{job}"}}')
        }
        ours = {
            name: (one.kind, one.help, one.unit)
            for labels, told in self._loop.metadata()
            if labels.get("job") == job
            for name, one in told.items()
        }
        return theirs, ours

    async def both(self, expr: str) -> tuple[Vector, Vector]:
        """Prometheus' answer and ours, at one time; the first is empty as long as it is not up."""
        now_ms = self.clock.now_ms()
        try:
            theirs = _vector((await self.ask("query", query=expr, time=str(now_ms / 1000)))["result"])
        except (aiohttp.ClientError, KeyError):
            theirs = {}
        ours = json.loads(json.dumps(self._engine.query(expr, now_ms).to_json()))
        return theirs, _vector(ours["result"])

    async def agree(self, expr: str, fits: Callable[[Vector, Vector], bool]) -> tuple[Vector, Vector]:
        """Ask until both fit; what differs within one interval, such as a series just born, fits later."""
        found: tuple[Vector, Vector] = ({}, {})
        for _ in range(120):
            found = await self.both(expr)
            if found[0] and fits(*found):
                break
            await asyncio.sleep(0.25)
        return found

    async def ranges(self, expr: str, start_ms: int, end_ms: int) -> tuple[Any, Any]:
        """Both answers at every second of a range: series to (second, value) pairs."""
        params = {"query": expr, "start": str(start_ms / 1000), "end": str(end_ms / 1000), "step": "1"}
        theirs = (await self.ask("query_range", **params))["result"]
        ours = self._engine.query_range(expr, start_ms, end_ms, 1000).to_json()
        made = [
            {_key(one["metric"]): [(round(float(at)), value) for at, value in one["values"]] for one in found}
            for found in (theirs, json.loads(json.dumps(ours))["result"])
        ]
        return made[0], made[1]

    async def samples(self, job: str, start_ms: int, end_ms: int) -> tuple[Samples, Samples]:
        """Every sample of a job as both have stored it, staleness markers left out."""
        selector = f'{{job="{job}"}}[{end_ms - start_ms}ms]'
        theirs = (await self.ask("query", query=selector, time=str(end_ms / 1000)))["result"]
        ours = json.loads(json.dumps(self._engine.query(selector, end_ms).to_json()))["result"]
        return _samples(theirs), _samples(ours)


def _samples(result: Sequence[Any]) -> Samples:
    return {
        _key(one["metric"]): [(round(float(at) * 1000), float(value)) for at, value in one["values"]]
        for one in result
    }
