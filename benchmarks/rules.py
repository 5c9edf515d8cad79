"""Rule evaluation: CPU of our engine against Debian's prometheus and vmalert over victoria-metrics.

usage: python benchmarks/rules.py [--pods 1 10] [--rules 100 1000] [--peers prometheus vm] [--rounds 5]

The series are those of benchmarks/promql.py, 10,000 for each pod, 5 s apart; 11 minutes lie before the first
evaluation. The rules are of six kinds (ratio of two rates, quantile of histograms, mean of a gauge, absent,
linear prediction, rate against its offset), each on one of ten services; a tenth of them fires, and most
expressions or parts of them stand in several rules. Prints the CPU seconds that one evaluation of all rules
costs. Peers take the samples by remote write, those of the next minutes beforehand, so that nothing but
evaluation runs while they are measured; their idle CPU is taken off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from promql import STEP_MS, Data, agree, free_port, remote_writes

from exporter.model.samples import SampleBatch
from exporter.promql import Engine
from exporter.rules.engine_query import EngineQueries
from exporter.rules.format import read_rule_file
from exporter.rules.group import GroupState, evaluate_group
from exporter.storage import MemoryStorage

BEFORE = 132  # rows before the first evaluation: windows of 5m, offset by 5m
SERVICES = 10
QUANTILES = (0.95, 0.9, 0.99, 0.5)
PAUSE_S = 4.0  # in which the idle CPU of a peer is read


def expression(kind: str, number: int) -> str:
    """The expression of a rule: its service and threshold follow from its number."""
    own = f'service="svc{number % SERVICES}"'
    low = number % 10 == 0  # fires
    requests = f"rate(http_requests_total{{{own}}}[5m])"
    match kind:
        case "ratio":
            errors = f'rate(http_requests_total{{{own},status=~"5.."}}[5m])'
            sides = f"sum by (service, endpoint) ({errors}) / sum by (service, endpoint) ({requests})"
            return f"{sides} > {0.009 if low else 0.9}"
        case "quantile":
            buckets = f"rate(http_request_duration_seconds_bucket{{{own}}}[5m])"
            level = QUANTILES[number // SERVICES % len(QUANTILES)]
            return f"histogram_quantile({level}, sum by (le, endpoint) ({buckets})) > {9.5 if low else 99}"
        case "mean":
            return f"avg_over_time(pool_in_use{{{own}}}[5m]) > {46 if low else 946}"
        case "absent":
            return f'absent(pool_in_use{{{own},shard="{9 if low else 3}"}})'
        case "predict":
            threshold = "0.05" if low else "0.005"
            return f"predict_linear(disk_free_bytes{{{own}}}[5m], 3600) < {threshold}"
        case _:
            before = f"rate(http_requests_total{{{own}}}[5m] offset 5m)"
            factor = 1.05 if low else 91.05
            total = f"sum by (service, endpoint) ({requests})"
            return f"{total} > {factor} * sum by (service, endpoint) ({before})"


KINDS = ("ratio", "quantile", "mean", "absent", "predict", "offset")


def rule_file(count: int, interval_s: int) -> str:
    """A group for each kind, `count` rules in all."""
    groups = []
    for place, kind in enumerate(KINDS):
        rules = [
            {
                "alert": f"{kind}{number}",
                "expr": expression(kind, number),
                "for": "1m",
                "labels": {"severity": "page"},
                "annotations": {"summary": "it is {{ $value }}"},
            }
            for number in range(count // len(KINDS) + (place < count % len(KINDS)))
        ]
        groups.append({"name": kind, "interval": f"{interval_s}s", "rules": rules})
    return json.dumps({"groups": groups})  # JSON is YAML


def expressions(count: int) -> list[str]:
    """The distinct expressions of a rule file."""
    each = count // len(KINDS) + 1
    return sorted({expression(kind, number) for kind in KINDS for number in range(each)})


# -- ours ---------------------------------------------------------------------------------------------


def evaluate_ours(
    pods: int, steps: int, start_ms: int, counts: list[int], rounds: int, out: Connection
) -> None:
    """In a process of its own: for each rule file the CPU seconds of each round, and the alerts that fire."""
    data = Data(pods, steps)
    storage = MemoryStorage()

    def feed(first: int, last: int) -> None:
        for row in range(first, last):
            storage.append_batch(SampleBatch(start_ms + STEP_MS * row, data.labels, data.rows[row]))

    feed(0, BEFORE)
    done, firing = BEFORE, 0
    engine = Engine(storage)
    for count in counts:
        queries = EngineQueries(engine)
        groups = read_rule_file(rule_file(count, 15), "rules.yml")
        states = {group.key: GroupState() for group in groups}
        spent = []
        for _ in range(rounds + 1):
            feed(done, done + 3)
            done += 3
            ts_ms = start_ms + STEP_MS * (done - 1) + 2500
            began = time.process_time()
            evaluations = [
                evaluate_group(group, states[group.key], ts_ms, queries(), storage.append_batch)
                for group in groups
            ]
            spent.append(time.process_time() - began)
            firing = sum(len(rule.active) for one in evaluations for rule in one.rules)
            failed = [rule.error for one in evaluations for rule in one.rules if rule.error]
            assert not failed, failed[:3]
        out.send((count, spent, firing))
    feed(done, steps)
    out.send(None)
    while (asked := out.recv()) is not None:
        text, ts_ms = asked
        out.send(b'{"data":%b}' % engine.query(text, ts_ms).to_json_bytes())


# -- theirs -------------------------------------------------------------------------------------------


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=120) as answer:
        return answer.read()


def metric(url: str, name: str, label: str = "") -> float:
    """The sum of a metric's series on a metrics page, those with a text in their labels."""
    found = re.findall(rf"^{name}({{[^}}]*}})? (\S+)$", get(f"{url}/metrics").decode(), re.M)
    return sum(float(value) for labels, value in found if label in labels)


def write_samples(data: Data, start_ms: int, url: str) -> None:
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    for body in remote_writes(data, start_ms):
        urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1/write", body, headers)).read()


@contextlib.contextmanager
def program(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_ready(url: str, path: str) -> None:
    for _ in range(300):
        try:
            get(url + path)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def idle_cpu(urls: list[str]) -> float:
    """CPU seconds a second of programs that have nothing to do, once they have calmed down."""
    for _ in range(5):
        before = cpu(urls)
        time.sleep(PAUSE_S)
        spent = (cpu(urls) - before) / PAUSE_S
        if spent < 0.02:
            break
    return spent


def cpu(urls: list[str]) -> float:
    return sum(metric(url, "process_cpu_seconds_total") for url in urls)


def whole_rounds(
    evaluated: Callable[[], float], rounds: int, urls: list[str], before: float, idle: float, limit_s: float
) -> tuple[float, float]:
    """(CPU seconds, rounds) since a peer got the rules, once `rounds` are done or the time is over."""
    began = time.monotonic()
    while True:
        time.sleep(1)
        done = evaluated()
        if done >= rounds or time.monotonic() - began > limit_s:
            return cpu(urls) - before - idle * (time.monotonic() - began), done


class Prometheus:
    """Debian's prometheus with the samples; rules come and go by a reload."""

    name = "prometheus"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "prometheus.yml"
        self.config.write_text("{}")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.command = (
            shutil.which("prometheus") or "prometheus",
            f"--config.file={self.config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
            "--web.enable-lifecycle",
        )
        self.ready = "/-/ready"

    def rounds(self, count: int, interval_s: int, rounds: int, limit_s: float) -> tuple[float, float]:
        rules = self.folder / f"rules{count}.yml"
        rules.write_text(rule_file(count, interval_s))

        def evaluated() -> float:
            return metric(self.url, "prometheus_rule_evaluations_total", rules.name) / count

        urls = [self.url]
        idle, before = idle_cpu(urls), cpu(urls)
        self._reload(json.dumps({"rule_files": [str(rules)]}))
        try:
            return whole_rounds(evaluated, rounds, urls, before, idle, limit_s)
        finally:
            self._reload("{}")

    def _reload(self, config: str) -> None:
        self.config.write_text(config)
        get_post(f"{self.url}/-/reload")


def get_post(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=120).read()


class VictoriaMetrics:
    """victoria-metrics with the samples, and a vmalert for each rule file; the CPU of both counts."""

    name = "vmalert + victoria-metrics"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.command = (
            shutil.which("victoria-metrics") or "victoria-metrics",
            f"-storageDataPath={folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{port}",
        )
        self.ready = "/health"

    def rounds(self, count: int, interval_s: int, rounds: int, limit_s: float) -> tuple[float, float]:
        rules = self.folder / f"rules{count}.yml"
        rules.write_text(rule_file(count, interval_s))
        port = free_port()
        url = f"http://127.0.0.1:{port}"

        def evaluated() -> float:
            return metric(url, "vmalert_iteration_total") / len(KINDS)

        idle, before = idle_cpu([self.url]), cpu([self.url])
        with program(
            shutil.which("vmalert") or "vmalert",
            f"-rule={rules}",
            f"-datasource.url={self.url}",
            "-notifier.url=http://127.0.0.1:9",
            f"-httpListenAddr=127.0.0.1:{port}",
        ):
            wait_ready(url, "/health")
            return whole_rounds(evaluated, rounds, [self.url, url], before, idle, limit_s)


PEERS = {"prometheus": Prometheus, "vm": VictoriaMetrics}


def measure(pods: int, counts: list[int], peers: list[str], rounds: int) -> None:
    ahead = 30 + 4 * pods  # rows that lie in the future while the peers load and evaluate
    steps = max(BEFORE + ahead, BEFORE + 3 * (rounds + 1) * len(counts))
    start_ms = (int(time.time() * 1000) - BEFORE * STEP_MS) // STEP_MS * STEP_MS
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    ours = context.Process(
        target=evaluate_ours, args=(pods, steps, start_ms, counts, rounds, there), daemon=True
    )
    ours.start()
    print(f"\n## {pods * 10_000:,} series\n\n| rules | who | CPU s an evaluation | rounds | ours / theirs |")
    print("| --- | --- | --- | --- | --- |")
    own = {}
    while (answer := here.recv()) is not None:
        count, spent, firing = answer
        own[count] = statistics.median(spent[1:])
        note = f"{len(spent) - 1}, the first before them {spent[0]:.2f}"
        print(f"| {count} | ours, {firing} instances active | {own[count]:.3f} | {note} | |", flush=True)
    data = Data(pods, steps)
    for name in peers:
        folder = Path(tempfile.mkdtemp(prefix="rules-bench-"))
        peer = PEERS[name](folder)
        try:
            with program(*peer.command):
                wait_ready(peer.url, peer.ready)
                start_ms_now = (int(time.time() * 1000) - BEFORE * STEP_MS) // STEP_MS * STEP_MS
                write_samples(data, start_ms_now, peer.url)
                if name == "vm":
                    get(f"{peer.url}/internal/force_flush")
                for count in counts:
                    interval_s = 30 if pods * count >= 10_000 else 10
                    spent_s, done = peer.rounds(count, interval_s, 2, 3.2 * interval_s)
                    each = spent_s / done if done else float("nan")
                    ratio = own[count] / each
                    print(f"| {count} | {peer.name} | {each:.2f} | {done:.1f} | {ratio:.3f} |", flush=True)
                covered_s = (start_ms_now + STEP_MS * steps) / 1000 - time.time()
                print(f"<!-- samples reach {covered_s:.0f} s beyond the end -->")
                if name == "prometheus":
                    compare(here, peer.url, start_ms, start_ms_now, expressions(max(counts)))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    here.send(None)
    ours.join()


def compare(here: Connection, url: str, own_ms: int, their_ms: int, texts: list[str]) -> None:
    """Ask both for every expression between the same two rows."""
    since_ms = STEP_MS * (BEFORE + 20) + 2500
    wrong = []
    for text in texts:
        here.send((text, own_ms + since_ms))
        query = urllib.parse.urlencode({"query": text, "time": (their_ms + since_ms) / 1000})
        verdict = agree(here.recv(), get(f"{url}/api/v1/query?{query}"))
        if verdict.startswith("DIFFERS"):
            wrong.append(f"{text}: {verdict}")
    print(f"\n{len(texts) - len(wrong)} of {len(texts)} distinct expressions agree.", *wrong, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--rules", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=sorted(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    for pods in args.pods:
        measure(pods, args.rules, args.peers, args.rounds)


if __name__ == "__main__":
    main()
