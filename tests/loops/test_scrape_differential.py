"""A real Prometheus and our loop scrape the same exporters and hold the same."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from tests.helpers.scrape_peers import BothScrape, Samples

OWN = ("scrape_duration_seconds", "scrape_series_added")  # differ from scrape to scrape
REPORTS = (*OWN, "up", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling")
# the long one takes five minutes at 15 s with QE_SCRAPE_SECONDS=300 QE_SCRAPE_INTERVAL=15
SECONDS = int(os.environ.get("QE_SCRAPE_SECONDS", "30"))
INTERVAL_S = int(os.environ.get("QE_SCRAPE_INTERVAL", "2"))


def exposed(registry: CollectorRegistry) -> web.Response:
    body = bytes(generate_latest(registry))  # type: ignore[no-untyped-call]
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def serving(
    registry: CollectorRegistry, before: object = None
) -> AsyncIterator[tuple[str, web.AppRunner]]:
    """A prometheus_client app; `before` is called ahead of each answer."""

    async def metrics(request: web.Request) -> web.Response:
        if callable(before):
            before()
        return exposed(registry)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", runner
    finally:
        await runner.cleanup()


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
    async with serving(registry) as (address, runner):
        jobs = f"""
- job_name: app
  static_configs: [{{targets: ['{address}'], labels: {{zone: z1}}}}]
  metric_relabel_configs:
    - {{action: drop, source_labels: [__name__], regex: size_bytes_created}}
    - {{source_labels: [exported_job], regex: (.).*, target_label: first}}
"""
        async with BothScrape(tmp_path, jobs, 1) as peers:
            theirs, ours = await peers.agree('{job="app"}', lambda a, b: a.keys() == b.keys() and len(a) > 15)
            assert ours.keys() == theirs.keys()
            moving = [key for key in theirs if any(name in key for name in OWN)]
            assert {key: ours[key] for key in ours if key not in moving} == {
                key: theirs[key] for key in theirs if key not in moving
            }
            theirs, ours = await peers.agree(
                '{job="node"}', lambda a, b: a.keys() == b.keys() and len(a) > 100
            )
            assert ours.keys() == theirs.keys()
            still = (
                '{job="node",__name__=~"node_(uname|os|boot|memory_MemTotal|filesystem_size|network_mtu).*"}'
            )
            theirs, ours = await peers.agree(still, lambda a, b: a == b)
            assert ours == theirs

            await runner.cleanup()
            theirs, ours = await peers.agree('{job="app"}', lambda a, b: a.keys() == b.keys() and len(a) == 5)
            assert ours.keys() == theirs.keys()
            theirs, ours = await peers.agree("up", lambda a, b: a == b and "0" in a.values())
            assert ours == theirs
            assert sorted(ours.values()) == ["0", "1"]
            assert peers.faults == []


class Steps:
    """An app whose numbers change once in each interval, so that whoever scrapes in it sees the same."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.step = Gauge("step", "The interval.", registry=self.registry)
        self.calls = Counter("calls", "Calls.", ["path"], registry=self.registry)
        self.wait = Histogram("wait_seconds", "Waits.", ["path"], registry=self.registry)
        self.size = Summary("size_bytes", "Sizes.", registry=self.registry)
        self.level = Gauge("level", "Level.", ["at"], registry=self.registry)
        self._last = 0

    def advance(self, now_s: float) -> None:
        """Everything that happened up to the interval of a time."""
        step = int(now_s // INTERVAL_S)
        if step == self._last:
            return
        self._last = step
        self.step.set(step)
        for at in range(20):
            self.calls.labels(f"/{at}").inc(at / 3)
            self.wait.labels(f"/{at}").observe((step * (at + 1)) % 7 / 3)
            self.level.labels(str(at)).set((step * 31 + at) / 7)
        self.size.observe(step / 3)
        self.level.labels(f"born-{step // 4}").set(step)  # series are born and go
        if step % 4 == 3:
            self.level.remove(f"born-{step // 4}")


def by_step(found: Samples) -> dict[int, dict[str, int]]:
    """The interval that the app showed, to the bits of each series' value at that scrape."""
    steps = {
        ts_ms: int(value)
        for key, points in found.items()
        if json.loads(key)["__name__"] == "step"
        for ts_ms, value in points
    }
    made: dict[int, dict[str, int]] = {step: {} for step in steps.values()}
    for key, points in found.items():
        if json.loads(key)["__name__"] in REPORTS:
            continue
        for ts_ms, value in points:
            if ts_ms in steps:
                made[steps[ts_ms]][key] = struct.unpack("<q", struct.pack("<d", value))[0]
    return made


def monotone(key: str) -> bool:
    return str(json.loads(key)["__name__"]).endswith(("_total", "_count", "_bucket"))


@pytest.mark.acceptance
async def test_every_sample_of_a_long_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over many intervals: the app's samples are the same in each of them, bit for bit; the counters of
    node_exporter lie between Prometheus' samples before and after; after the app's death every evaluation
    from the next interval on says the same.
    """
    steps = Steps()
    start_ms = 0
    async with serving(steps.registry, lambda: steps.advance(peers.clock.now_ms() / 1000)) as (
        address,
        runner,
    ):
        jobs = f"- {{job_name: app, static_configs: [{{targets: ['{address}']}}]}}\n"
        peers = BothScrape(tmp_path, jobs, INTERVAL_S)
        async with peers:
            theirs, ours = await peers.agree("up == 1", lambda a, b: len(a) == len(b) == 2)
            assert ours.keys() == theirs.keys()
            start_ms = peers.clock.now_ms()
            await asyncio.sleep(SECONDS)
            died_ms = peers.clock.now_ms()
            await runner.cleanup()
            their_app, our_app = map(by_step, await peers.samples("app", start_ms, died_ms))
            common = sorted(their_app.keys() & our_app.keys())
            assert len(common) >= SECONDS // INTERVAL_S - 2
            for step in common:
                assert our_app[step] == their_app[step], step
            compared = sum(map(len, (our_app[step] for step in common)))

            their_node, our_node = await peers.samples("node", start_ms, died_ms)
            long = {
                key for found in (their_node, our_node) for key, points in found.items() if len(points) > 2
            }
            assert long <= their_node.keys() & our_node.keys()
            bracketed = 0
            for key in filter(monotone, long):
                for ts_ms, value in our_node[key]:
                    before = [
                        other for at, other in their_node[key] if ts_ms - 1000 * INTERVAL_S <= at <= ts_ms
                    ]
                    after = [
                        other for at, other in their_node[key] if ts_ms <= at <= ts_ms + 1000 * INTERVAL_S
                    ]
                    if before and after:
                        assert before[0] <= value <= after[-1], key
                        bracketed += 1
            await asyncio.sleep(3 * INTERVAL_S)
            settled_ms = (died_ms // 1000 + INTERVAL_S + 2) * 1000
            for expr in ("up", 'count by (job) ({job="app"})', 'absent(calls_total{job="app"})', "level"):
                theirs_then, ours_then = await peers.ranges(expr, settled_ms, settled_ms + 1000 * INTERVAL_S)
                assert ours_then == theirs_then, expr
            ups = await peers.ranges('up{job="app"}', died_ms, settled_ms)
            first_zero = [
                next(at for at, value in points if value == "0") for found in ups for points in found.values()
            ]
            assert abs(first_zero[0] - first_zero[1]) <= INTERVAL_S
            assert peers.faults == []
    with capsys.disabled():
        print(
            f"\n{len(common)} intervals of {INTERVAL_S} s: {compared} samples of the app the same"
            f" in every bit, {len(long)} series of node_exporter on both sides,"
            f" {bracketed} counter samples in place;"
            f" after the death up is 0 {abs(first_zero[0] - first_zero[1])} s apart"
        )
