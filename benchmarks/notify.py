"""Ten thousand alerts that fire in one evaluation: until a webhook has them all, ours and Alertmanager's.

usage: python -m benchmarks.notify [--alerts 10000] [--shapes one each] [--who ours alertmanager] [--hang]

Ours: a real embedded Postgres, the rule engine over 10,000 series, the dispatcher, a webhook receiver in a
process of its own. One evaluation makes every series fire; the clock runs from its start until the receiver
has the last alert. Beside it a small group is evaluated each second, and a task looks how long the event loop
was held, in wall time and in CPU time of the loop's thread (the former has in it what other programs did).
`one` puts what fires together into notifications of 200 alerts, `each` sends each alert by itself
(`group_by: ['...']`). `--hang` adds a receiver that takes connections and never answers.

Alertmanager: Debian's, fed with the same alerts in requests of 64, as Prometheus does; the clock runs from
the first request. It posts to the same receiver; `one` is a single group, `each` one group for each alert.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from aiohttp import web
from prometheus_client import CollectorRegistry

from benchmarks.promql import free_port
from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.config.positions import Reader, parse_yaml
from exporter.config.receivers import NotificationConfig, read_notification
from exporter.db.alerts import PostgresAlertStore
from exporter.db.embedded import EmbeddedPostgres
from exporter.db.migrate import migrate_up
from exporter.db.pool import Database
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.model.samples import SampleBatch
from exporter.notify.build import notifier_factory
from exporter.notify.dispatch import Dispatcher
from exporter.notify.journal import Journal
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.store import JournaledStore
from exporter.promql import Engine
from exporter.rules.engine_query import EngineQueries
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.format import read_rule_file
from exporter.rules.group import GroupState, evaluate_group
from exporter.rules.model import RuleGroup
from exporter.storage import MemoryStorage

RULES = """
groups:
  - name: many
    rules:
      - alert: QueueStalled
        expr: queue_age_seconds > 300
        cooldown: 30m
        labels: {severity: warning}
        annotations:
          summary: "{{ $labels.shard }}: oldest job is {{ $value | humanizeDuration }} old"
          description: "The queue of {{ $labels.shard }} makes no progress."
          runbook_url: https://example.org/runbooks/QueueStalled
  - name: beside
    rules:
      - {alert: Beside, expr: beside > 0}
"""
PAUSE_S = 0.002
ROUTE = {"one": "", "each": ", group_by: ['...']"}


# -- the receiver -------------------------------------------------------------------------------------


def serve(port: int, pipe: Connection) -> None:
    """A webhook receiver in a process of its own: sends back the time and count of what has arrived."""

    async def run() -> None:
        seen: dict[str, float] = {}
        requests = 0

        async def take(request: web.Request) -> web.Response:
            nonlocal requests
            requests += 1
            document = json.loads(await request.read())
            now = time.time()
            for alert in document["alerts"]:
                seen.setdefault(alert["fingerprint"], now)
            return web.Response()

        async def hang(_: web.Request) -> web.Response:
            await asyncio.Event().wait()
            return web.Response()

        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/hook", take)
        app.router.add_post("/hang", hang)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        while await asyncio.to_thread(pipe.recv) != "stop":
            pipe.send((len(seen), requests, max(seen.values(), default=0.0), sorted(seen.values())))
        await runner.cleanup()

    asyncio.run(run())


@dataclass
class Receiver:
    port: int
    pipe: Connection

    def asked(self) -> tuple[int, int, float, list[float]]:
        self.pipe.send("how many")
        return self.pipe.recv()  # type: ignore[no-any-return]


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    port = free_port()
    process = context.Process(target=serve, args=(port, there), daemon=True)
    process.start()
    try:
        found = Receiver(port, here)
        found.asked()
        yield found
    finally:
        here.send("stop")
        process.join(5)
        process.kill()


# -- ours ---------------------------------------------------------------------------------------------


@dataclass
class Holds:
    """How long the event loop was held, in milliseconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    async def watch(self) -> None:
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(PAUSE_S)
            self.wall.append((time.perf_counter() - wall - PAUSE_S) * 1000)
            self.cpu.append((time.thread_time() - cpu) * 1000)


def labels_of(number: int) -> dict[str, str]:
    return {
        "shard": f"shard-{number:05d}",
        "instance": f"10.{number >> 8 & 255}.{number & 255}.7:9464",
        "job": "queues",
    }


def notification(route: str, url: str, hanging: str = "") -> NotificationConfig:
    routes = ", routes: [{receiver: hangs, continue: true}, {receiver: ops}]" if hanging else ""
    text = (
        f"route: {{receiver: ops{route}{routes}}}\n"
        f"receivers:\n  - {{name: ops, webhook_configs: [{{url: '{url}'}}]}}\n"
    )
    if hanging:
        text += f"  - {{name: hangs, webhook_configs: [{{url: '{hanging}'}}]}}\n"
    node, reader = parse_yaml(text), Reader("notify.yml")
    found = read_notification(reader, node, node.entries or {})
    assert not reader.problems, reader.problems
    return found


@contextlib.asynccontextmanager
async def database(folder: Path) -> AsyncIterator[Database]:
    clock = SystemClock()
    server = EmbeddedPostgres(folder, clock)
    url = await server.start()
    found = Database(url, clock)
    try:
        await migrate_up(url, asset_dir("sql"), clock=clock)
        yield found
    finally:
        await found.close()
        await server.stop()


async def ours(count: int, shape: str, hanging: bool, limit_s: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="notify-bench-"))
    clock = SystemClock()
    try:
        with receiver() as there:
            async with database(folder) as tables:
                hook, hang = (f"http://127.0.0.1:{there.port}/{name}" for name in ("hook", "hang"))
                dispatcher = Dispatcher(
                    notification(ROUTE[shape], hook, hang if hanging else ""),
                    JournaledStore(PostgresAlertStore(tables), Journal(folder / "alerts.journal")),
                    notifier_factory(clock),
                    clock,
                    NotifyMetrics(CollectorRegistry()),
                    external_labels=EMPTY_LABELS,
                )
                await dispatcher.load()
                running = asyncio.create_task(dispatcher.run())
                try:
                    await measure(dispatcher, there, count, limit_s)
                finally:
                    running.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await running
                    await dispatcher.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(dispatcher: Dispatcher, there: Receiver, count: int, limit_s: float) -> None:
    storage = MemoryStorage()
    many, beside = read_rule_file(RULES, "rules.yml")
    states = {group.key: GroupState() for group in (many, beside)}
    queries = EngineQueries(Engine(storage))
    series = tuple(
        [LabelSet.of({"__name__": "queue_age_seconds", **labels_of(number)}) for number in range(count)]
        + [LabelSet.of({"__name__": "beside"})]
    )
    pool = ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()

    def feed(value: float) -> int:
        ts_ms = round(time.time() * 1000)
        values = np.array([value + one % 97 for one in range(count)] + [0.0])
        storage.append_batch(SampleBatch(ts_ms, series, values))
        return ts_ms

    async def evaluate(group: RuleGroup) -> GroupEvaluation:
        ts_ms = round(time.time() * 1000)
        found = await loop.run_in_executor(
            pool,
            lambda: evaluate_group(group, states[group.key], ts_ms, queries(), storage.append_batch),
        )
        await dispatcher.handle(found)
        return found

    feed(0.0)
    await evaluate(many)
    await dispatcher.flush()
    gc.collect()
    gc.freeze()  # as the program does when it is ready
    resident_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    feed(400.0)
    holds = Holds()
    watch = asyncio.create_task(holds.watch())
    began, cpu = time.time(), time.process_time()
    found = await evaluate(many)
    firing = sum(len(rule.active) for rule in found.rules)
    decided_s = time.time() - began
    late: list[float] = []
    arrived = 0
    while arrived < count and time.time() - began < limit_s:
        slot = time.perf_counter()
        await evaluate(beside)
        late.append(time.perf_counter() - slot)
        await asyncio.sleep(0.2)
        arrived, requests, last, times = await asyncio.to_thread(there.asked)
    watch.cancel()
    took = last - began
    await dispatcher.flush()
    spent = time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident_kb) / 1024
    half = times[len(times) // 2] - began if times else float("nan")
    print(
        f"  ours: {firing} fire, {arrived} arrived in {requests} requests; decided {decided_s:.2f} s, "
        f"half {half:.2f} s, all {took:.2f} s, CPU {spent:.2f} s, {grown:.0f} MB more\n"
        f"  longest hold of the loop {max(holds.wall):.0f} ms, in CPU time {max(holds.cpu):.0f} ms "
        f"({sum(one > 20 for one in holds.cpu)} over 20 ms); "
        f"the small group beside: median {statistics.median(late) * 1000:.0f} ms, "
        f"worst {max(late) * 1000:.0f} ms",
        flush=True,
    )


# -- Alertmanager -------------------------------------------------------------------------------------


def post(url: str, document: object) -> None:
    body = json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60).read()


def theirs(count: int, shape: str, limit_s: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="notify-bench-"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with receiver() as there:
        by = "['...']" if shape == "each" else "[alertname]"
        (folder / "config.yml").write_text(
            f"route: {{receiver: ops, group_by: {by}, group_wait: 1s, group_interval: 1s}}\n"
            f"receivers: [{{name: ops, webhook_configs: [{{url: 'http://127.0.0.1:{there.port}/hook'}}]}}]\n"
        )
        process = subprocess.Popen(
            [
                "prometheus-alertmanager",
                f"--config.file={folder / 'config.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/-/ready", timeout=5).read()
                    break
                time.sleep(0.1)
            alerts = [
                {
                    "labels": {"alertname": "QueueStalled", "severity": "warning", **labels_of(number)},
                    "annotations": {
                        "summary": f"shard-{number:05d}: oldest job is 6m 40s old",
                        "description": f"The queue of shard-{number:05d} makes no progress.",
                        "runbook_url": "https://example.org/runbooks/QueueStalled",
                    },
                }
                for number in range(count)
            ]
            began = time.time()
            for first in range(0, count, 64):
                post(f"{url}/api/v2/alerts", alerts[first : first + 64])
            posted = time.time() - began
            arrived = 0
            while arrived < count and time.time() - began < limit_s:
                time.sleep(0.2)
                arrived, requests, last, times = there.asked()
            half = times[len(times) // 2] - began if times else float("nan")
            print(
                f"  alertmanager: posted in {posted:.2f} s, {arrived} arrived in {requests} requests; "
                f"half {half:.2f} s, all {last - began:.2f} s",
                flush=True,
            )
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--shapes", nargs="+", choices=sorted(ROUTE), default=["one", "each"])
    who = ["ours", "alertmanager"]
    parser.add_argument("--who", nargs="+", choices=who, default=who)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a run is given up")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for shape in args.shapes:
        print(f"{args.alerts} alerts, {shape}{', beside a receiver that hangs' if args.hang else ''}")
        if "ours" in args.who:
            asyncio.run(ours(args.alerts, shape, args.hang, args.limit))
        if "alertmanager" in args.who:
            theirs(args.alerts, shape, args.limit)


if __name__ == "__main__":
    main()
