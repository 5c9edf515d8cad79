"""An outage of Postgres under load, kill -9 amid the drain, the drain's end: is every sample there, once?

usage: python benchmarks/outage.py [--outage 600] [--series 5000] [--before 10] [--after 10]

The exporter runs as a user starts it and scrapes a target of `series` series every second. All series of an
answer have its number as their value, so that the tables tell which answers arrived, how often, and whether
whole. What is not there must have been under way when the exporter was killed or stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil

from exporter.db.cluster import Cluster

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 5s}}
database: {{url: "{url}"}}
storage: {{data_dir: {folder}/data, head_window: 10m}}
collect:
  sql: []
  providers: {{coingecko: {{enabled: false}}, kraken: {{enabled: false}}, blockchain: {{enabled: false}}}}
  targets: [{{job_name: load, static_configs: [{{targets: ["127.0.0.1:{target}"]}}]}}]
rule_files: []
"""
COUNTS = """
select p.value::bigint as answer, count(*) as samples
from quantum_samples p join quantum_series s on s.id = p.series_id
where s.name = 'load' and p.value <> 'NaN' group by 1
"""


class Target(http.server.ThreadingHTTPServer):
    """Answers with its own count of answers, in every series."""

    def __init__(self, series: int) -> None:
        self.served: list[float] = []  # when
        lines = [f'load{{n="{n}"}} '.encode() for n in range(series)]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served = self.server.served  # type: ignore[attr-defined]
                served.append(time.monotonic())
                value = b"%d\n" % len(served)
                body = b"# TYPE load gauge\n" + value.join(lines) + value
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the exporter was killed meanwhile
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: there is an answer a second."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Exporter:
    """The program, started by its command."""

    def __init__(self, config: Path) -> None:
        self.base = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "exporter", "run", "--config.file", str(config)]
        with (config.parent / "exporter.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--web.listen-address", self.base.removeprefix("http://")],
                stdout=log, stderr=log,
            )  # fmt: skip

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.base}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith((f"{name} ", f"{name}{{")):
                    return float(line.rpartition(" ")[2])
        return 0.0

    def batches(self) -> float:
        """Batches of samples in the spool."""
        return self.metric("quantum_spool_batches")

    def until(self, check: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if check():
                    return
            assert self.process.poll() is None, "the exporter ended"
            time.sleep(0.05)
        raise AssertionError("not within the time")


async def counts(url: str) -> dict[int, int]:
    connection = await asyncpg.connect(url)
    found = {row["answer"]: row["samples"] for row in await connection.fetch(COUNTS)}
    await connection.close()
    return found


def play(args: argparse.Namespace, cluster: Cluster, folder: Path) -> None:
    target = Target(args.series)
    config = folder / "config.yml"
    config.write_text(CONFIG.format(url=cluster.url, folder=folder, target=target.server_port))
    exporter = Exporter(config)
    try:
        exporter.until(lambda: exporter.metric("quantum_samples_persisted_total") > args.series, 60)
        time.sleep(args.before)
        cluster.stop()
        down, first = time.monotonic(), len(target.served)
        cpu = sum(psutil.Process(exporter.process.pid).cpu_times()[:2])
        time.sleep(args.outage)
        cpu = sum(psutil.Process(exporter.process.pid).cpu_times()[:2]) - cpu
        spooled = exporter.batches()
        size = sum(path.stat().st_size for path in (folder / "data/spool/samples").glob("*.spool"))
        print(f"outage    {time.monotonic() - down:.0f} s, {len(target.served) - first} answers")
        print(f"spool     {spooled:.0f} batches, {size / 1e6:.0f} MB; {cpu / args.outage:.1%} of a core")
        cluster.launch()
        exporter.until(lambda: exporter.batches() < 0.6 * spooled, 300)
        left = exporter.batches()
        exporter.process.send_signal(signal.SIGKILL)
        exporter.process.wait()
        killed, seen = time.monotonic(), len(target.served)
        stored = sum(asyncio.run(counts(cluster.url)).values())
        print(f"kill -9   with {left:.0f} of {spooled:.0f} batches left, {stored} samples stored")
        exporter = Exporter(config)
        exporter.until(lambda: exporter.metric("quantum_samples_persisted_total") > args.series, 120)
        exporter.until(lambda: exporter.batches() == 0, 300)
        print(f"drained   {time.monotonic() - killed:.0f} s after the kill, start included")
        time.sleep(args.after)
        exporter.process.terminate()
        exporter.process.wait(30)
    finally:
        exporter.process.kill()
        exporter.process.wait()
        target.shutdown()
    found = asyncio.run(counts(cluster.url))
    answers = range(1, len(target.served) + 1)
    whole = sum(found.get(answer) == args.series for answer in answers)
    partial = sum(n != args.series for n in found.values())
    missing = [answer for answer in answers if answer not in found]
    under_way = {seen, seen + 1, len(target.served)}
    print(f"answers   {len(answers)} of {args.series} samples: {whole} stored once and whole")
    print(f"          {partial} in part or twice, {len(missing)} missing, ", end="")
    print(f"{len(under_way.intersection(missing))} of them under way at an end")
    for answer in missing:
        print(f"missing   {answer}, served {killed - target.served[answer - 1]:.2f} s before the kill")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outage", type=float, default=600, help="seconds without Postgres")
    parser.add_argument("--series", type=int, default=5000)
    parser.add_argument("--before", type=float, default=10, help="seconds of load before it")
    parser.add_argument("--after", type=float, default=10, help="seconds of load after the drain")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qe-outage-"))
    os.chmod(folder, 0o755)  # noqa: PTH101 (the server's account passes through)
    cluster = Cluster(folder / "server")
    cluster.prepare()
    cluster.launch()
    try:
        play(args, cluster, folder)
    finally:
        cluster.stop()
        if (folder / "exporter.log").exists() and sys.exc_info()[0]:
            print((folder / "exporter.log").read_text()[-4000:])
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
