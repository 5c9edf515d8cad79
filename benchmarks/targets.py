"""200 targets of 1,000 series every 15 s: the program beside a real Prometheus, on the same targets at once.

    python -m benchmarks.targets [--targets 200] [--series 1000] [--interval 15] [--intervals 6]

Prints, for the measured intervals after two to warm up: scrapes made and missed, CPU seconds per second and
memory of the exporter, of its Postgres, and of Prometheus (Debian's package). Every target has an address of
its own in 127.0.0.0/8 and changes each value from scrape to scrape.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import psutil
from aiohttp import web

from benchmarks.scrape import exposition

_VARIANTS = 12
_PROVIDERS = ("coingecko", "coinmarketcap", "kraken", "blockchain", "lunarcrush", "openai", "gemini")


def address(number: int, port: int) -> str:
    """Each target has its own address."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}:{port}"


async def serve(targets: int, series: int, port: int) -> None:
    """The targets, in one process; bodies are made once, so that they cost little."""
    bodies = [gzip.compress(exposition(series, turn), 1) for turn in range(_VARIANTS)]
    turns: dict[str, int] = {}

    async def metrics(request: web.Request) -> web.Response:
        who = f"{request.host} {request.headers.get('User-Agent', '')}"
        turns[who] = turn = turns.get(who, -1) + 1
        headers = {"Content-Type": "text/plain; version=0.0.4", "Content-Encoding": "gzip"}
        return web.Response(body=bodies[turn % _VARIANTS], headers=headers)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for number in range(targets):
        await web.TCPSite(runner, address(number, port).partition(":")[0], port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def ask(port: int, expr: str) -> float:
    """The value of an instant query, 0 where there is none."""
    query = urllib.parse.urlencode({"query": expr})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=30) as answer:
        result = json.loads(answer.read())["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def wait_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
                return
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"{process.args} ended") from None
            time.sleep(0.1)
    raise SystemExit(f"{process.args} is not ready")


def cpu_of(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_of(processes: Iterable[psutil.Process]) -> float:
    """Proportional set size in MB: what is shared counts once."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 1e6


def start(
    folder: Path, args: argparse.Namespace, ports: tuple[int, int, int]
) -> list[subprocess.Popen[bytes]]:
    """Targets, exporter and Prometheus."""
    targets, ours, theirs = ports
    addresses = json.dumps([address(number, targets) for number in range(args.targets)])
    timing = f"scrape_interval: {args.interval}s"
    job = f"{{job_name: app, static_configs: [{{targets: {addresses}}}]}}"
    off = ", ".join(f"{name}: {{enabled: false}}" for name in _PROVIDERS)
    (folder / "ours.yml").write_text(
        f"global: {{{timing}}}\nstorage: {{data_dir: {folder / 'data'}}}\n"
        f"collect:\n  sql: []\n  providers: {{{off}}}\n  targets: [{job}]\n"
    )
    (folder / "theirs.yml").write_text(f"global: {{{timing}}}\nscrape_configs: [{job}]\n")
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.targets", "--serve", str(targets), "--targets", str(args.targets),
         "--series", str(args.series)], stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    server.stdout.readline()
    with (folder / "log").open("wb") as log:
        exporter = subprocess.Popen(
            [sys.executable, "-m", "exporter", "run", "--config.file", str(folder / "ours.yml"),
             "--web.listen-address", f"127.0.0.1:{ours}"], stdout=log, stderr=log,
        )  # fmt: skip
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'theirs.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{theirs}", "--log.level=error"], stdout=log, stderr=log,
        )  # fmt: skip
    wait_ready(ours, exporter)
    wait_ready(theirs, prometheus)
    return [server, exporter, prometheus]


def measure(args: argparse.Namespace, ours: int, theirs: int, exporter: int, prometheus: int) -> None:
    """Wait, measure, print."""
    time.sleep(2 * args.interval)
    own = psutil.Process(exporter)
    database = own.children(recursive=True)
    peer = psutil.Process(prometheus)
    groups = {"exporter": [own], "its Postgres": database, "Prometheus": [peer]}
    began = time.monotonic()
    before = {name: cpu_of(found) for name, found in groups.items()}
    scrapes = [ask(ours, "sum(quantum_scrapes_total)"), ask(ours, "sum(quantum_scrapes_missed_total)")]
    time.sleep(args.interval * args.intervals)
    seconds = time.monotonic() - began
    used = {name: (cpu_of(found) - before[name]) / seconds for name, found in groups.items()}
    window = f"{round(args.interval * (args.intervals - 0.5))}s"
    print(f"{args.targets} targets of {args.series} series every {args.interval} s, {seconds:.0f} s measured")
    made = ask(ours, "sum(quantum_scrapes_total)") - scrapes[0]
    missed = ask(ours, "sum(quantum_scrapes_missed_total)") - scrapes[1]
    failed = ask(ours, 'sum(quantum_scrapes_total{outcome!="success"})')
    held = ask(ours, f"max(max_over_time(quantum_event_loop_lag_seconds[{window}]))")
    print(f"exporter: {made:.0f} scrapes, {missed:.0f} missed, {failed:.0f} failed")
    print(f"  event loop held up at most {held:.3f} s, as it measures itself")
    for what, expr in (
        ("series", 'sum(scrape_samples_scraped{job="app"})'),
        ("scrapes kept of the target with the fewest", f"min(count_over_time(up[{window}]))"),
    ):
        print(f"  {what}: exporter {ask(ours, expr):.0f}, Prometheus {ask(theirs, expr):.0f}")
    for name, found in groups.items():
        print(f"  {name:13s} {used[name]:6.3f} cores  {memory_of(found):7.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", type=int, default=200)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--interval", type=int, default=15)
    parser.add_argument("--intervals", type=int, default=6)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.targets, args.series, args.serve))
        return
    folder = Path(tempfile.mkdtemp(prefix="qe-targets-"))
    os.chmod(folder, 0o755)  # noqa: PTH101 (the embedded Postgres runs as another account)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        ports = (19_310, 19_311, 19_312)
        processes = start(folder, args, ports)
        measure(args, ports[1], ports[2], processes[1].pid, processes[2].pid)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
