"""Cost of a scrape: the first and a repeated one of 100,000 series, and what the event loop feels of it.

Run: python -m benchmarks.scrape [SERIES]
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from exporter.clock import SystemClock
from exporter.config.targets import ScrapeJob, TargetGroup
from exporter.ingest.scrape_parser import ScrapeParser
from exporter.ingest.target import Limits, SeriesMaker
from exporter.loops.scrape import ScrapeLoop
from exporter.loops.scrape_metrics import ScrapeMetrics
from exporter.model.labels import LabelSet
from exporter.storage import MemoryStorage


def exposition(series: int, turn: int = 0) -> bytes:
    """Counters in families of a thousand."""
    lines: list[str] = []
    for number in range(series):
        family, row = divmod(number, 1000)
        if row == 0:
            lines += [f"# HELP app_{family}_total Calls.", f"# TYPE app_{family}_total counter"]
        labels = f'path="/api/v1/{row % 50}",code="{200 + row // 50}",method="GET"'
        lines.append(f"app_{family}_total{{{labels}}} {number * 1.5 + turn}")
    return ("\n".join(lines) + "\n").encode()


def parsing(series: int) -> None:
    """CPU time of a first and a repeated parse, beside prometheus_client's parser in the same run."""
    target = LabelSet.of({"job": "a", "instance": "h:1"})
    parser = ScrapeParser(SeriesMaker(target, (), Limits(), honor_labels=False))
    times = []
    for turn in range(6):
        body = exposition(series, turn)
        start = time.process_time()
        parser.parse(body)
        times.append(time.process_time() - start)
    start = time.process_time()
    for family in text_string_to_metric_families(exposition(series).decode()):
        list(family.samples)
    peer = time.process_time() - start
    again = sorted(times[1:])[len(times[1:]) // 2]
    print(f"parse {series} series: first {times[0] * 1000:.0f} ms, again {again * 1000:.0f} ms (median of 5)")
    print(f"  prometheus_client's parser {peer * 1000:.0f} ms: {peer / again:.0f} times the repeated parse")


async def serve(series: int) -> None:
    """One target; prints its port."""
    body = exposition(series)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def blocking(series: int, turns: int = 3) -> None:
    """The longest time for which a scrape keeps the event loop from a timer of 1 ms."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.scrape", "--serve", str(series), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    try:
        for _ in range(turns):
            await scrapes(series, port)
    finally:
        server.kill()
        await server.wait()


async def scrapes(series: int, port: int) -> None:
    """A first and a repeated scrape."""
    clock = SystemClock()
    loop = ScrapeLoop(
        append=MemoryStorage().append_batch,
        persist=lambda _: None,
        clock=clock,
        metrics=ScrapeMetrics(CollectorRegistry()),
        on_fault=lambda _, error: print(error),
        base=Path(),
        user_agent="benchmark",
    )
    group = TargetGroup((f"127.0.0.1:{port}",))
    await loop.load([ScrapeJob("a", static=(group,))], 15_000)
    (target,) = loop.loops()
    for name in ("first", "repeated"):
        worst, busy = await held_up(asyncio.create_task(target.scrape(clock.now_ms())))
        took = target.document()["lastScrapeDuration"]
        print(
            f"{name} scrape of {series} series: {took:.2f} s, event loop held up {worst * 1000:.0f} ms at"
            f" most, {busy * 1000:.0f} ms of it by this process"
        )
    await loop.close()


async def held_up(task: asyncio.Task[None]) -> tuple[float, float]:
    """The longest time for which a timer of 1 ms waits beyond its time until the task is done, and the most
    CPU time that this process took in such a wait: what other work on the machine does not lengthen.
    """
    worst = busy = 0.0
    while not task.done():
        before, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - before - 0.001)
        busy = max(busy, time.process_time() - cpu)
    return worst, busy


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--serve"]
    count = int(arguments[0]) if arguments else 100_000
    if "--serve" in sys.argv:
        asyncio.run(serve(count))
    else:
        parsing(count)
        asyncio.run(blocking(count))
