"""PromQL over the same samples: our engine behind HTTP against Debian's prometheus, in the same run.

usage: python benchmarks/promql.py [--pods 1 10] [--runs 9] [--only NAME]

Each pod is 10,000 series: 400 histograms of 12 buckets (with sum and count), 2,000 counters and 2,400
gauges over 200 (service, endpoint) pairs, 66 samples each, 5 s apart. Prometheus takes them by remote
write, our head by batches. Both answer over loopback HTTP on a kept connection, ours with the program's own
server, to the same bare-socket client. Quick queries are asked in blocks by turns, without the first of
each: a server that has just answered works on for a moment (it collects garbage, its threads look for work),
which would be charged to the other. Medians in milliseconds, ratio ours / theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import multiprocessing
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.promql import Engine
from exporter.storage import MemoryStorage
from tests.web.api_server import api_server

BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf")
STEP_MS = 5000
ROWS = 66
QUICK_MS, BLOCK = 10.0, 20  # queries under that are asked so many times in a row

QUERIES = {
    "ratio of rates": 'sum by (service,endpoint) (rate(http_requests_total{status=~"5.."}[5m])) '
    "/ sum by (service,endpoint) (rate(http_requests_total[5m])) > 0.009",
    "p95 of histograms": "histogram_quantile(0.95, sum by (le,endpoint) "
    "(rate(http_request_duration_seconds_bucket[5m]))) > 0.9",
    "avg_over_time": "avg_over_time(pool_in_use[5m]) > 46",
    "predict_linear": "predict_linear(disk_free_bytes[5m], 3600) < 0.05",
    "rate against offset": "sum by (service,endpoint) (rate(http_requests_total[2m])) "
    "> 1.05 * sum by (service,endpoint) (rate(http_requests_total[2m] offset 2m))",
    "absent": 'absent(pool_in_use{shard="9"})',
    "one service: ratio": "sum by (service,endpoint) "
    '(rate(http_requests_total{service="svc3",status=~"5.."}[5m])) '
    '/ sum by (service,endpoint) (rate(http_requests_total{service="svc3"}[5m])) > 0.009',
    "one service: avg": 'avg_over_time(pool_in_use{service="svc3"}[5m]) > 46',
    "one series": 'pool_in_use{service="svc3",endpoint="/api/v1/res3",shard="2",pod="pod-0"}',
    "max_over_time": "max by (service) (max_over_time(pool_in_use[5m]))",
    "stddev_over_time": "max by (service) (stddev_over_time(pool_in_use[5m]))",
    "quantile_over_time": "max by (service) (quantile_over_time(0.9, pool_in_use[5m]))",
    "sum": "sum by (service) (pool_in_use)",
    "topk": "topk(5, sum by (service,endpoint) (rate(http_requests_total[5m])))",
    "increase": "sum(increase(http_requests_total[5m]))",
    "join": "sum by (service) (pool_in_use * on (service,endpoint,pod,shard) disk_free_bytes)",
    "subquery": 'max_over_time(sum by (service) (rate(http_requests_total{service="svc3"}[1m]))[3m:15s])',
    "all gauges": "pool_in_use",
}
RANGES = {
    "range: rate by service": "sum by (service) (rate(http_requests_total[1m]))",
    "range: p95 one service": "histogram_quantile(0.95, sum by (le) "
    '(rate(http_request_duration_seconds_bucket{service="svc3"}[1m])))',
    "range: gauges of a service": 'pool_in_use{service="svc3"}',
}


class Data:
    """Labels and `steps` rows of `pods` pods, seeded."""

    def __init__(self, pods: int, steps: int = ROWS) -> None:
        self.steps = steps
        rng = np.random.default_rng(7)
        pairs = [
            {"service": f"svc{s}", "endpoint": f"/api/v1/res{e}", "pod": f"pod-{p}"}
            for p in range(pods)
            for s in range(10)
            for e in range(20)
        ]
        labels: list[dict[str, str]] = []
        for pair in pairs:
            for method in ("GET", "POST"):
                own = pair | {"method": method}
                name = "http_request_duration_seconds"
                labels += [own | {"__name__": f"{name}_bucket", "le": bound} for bound in BOUNDS]
                labels += [own | {"__name__": f"{name}_{end}"} for end in ("sum", "count")]
        self.histograms = 2 * len(pairs)
        for pair in pairs:
            for method in ("GET", "POST"):
                labels += [
                    pair | {"__name__": "http_requests_total", "method": method, "status": status}
                    for status in ("200", "201", "404", "500", "503")
                ]
        for name in ("pool_in_use", "disk_free_bytes"):
            labels += [pair | {"__name__": name, "shard": str(k)} for pair in pairs for k in range(6)]
        self.labels = tuple(LabelSet.of(own) for own in labels)
        self.counters, self.gauges = 10 * len(pairs), 6 * len(pairs)
        self.rows = self._rows(rng)

    def _rows(self, rng: np.random.Generator) -> np.ndarray:
        weights = rng.dirichlet(np.ones(12), self.histograms)
        load = rng.lognormal(0.5, 1.2, self.histograms) * 5
        status = np.tile([0.9, 0.06, 0.03, 0.005, 0.005], self.counters // 5)
        counts = np.zeros((self.histograms, 12))
        sums = np.zeros(self.histograms)
        total = rng.integers(0, 100_000, self.counters).astype(float)
        pool = rng.integers(0, 50, self.gauges).astype(float)
        disk = np.floor(rng.uniform(1e9, 1e11, self.gauges))
        fall = rng.uniform(0, 1e6, self.gauges)
        rows = np.empty((self.steps, len(self.labels)))
        for row in rows:
            counts += rng.poisson(load[:, None] * weights)
            cumulative = counts.cumsum(axis=1)
            sums += cumulative[:, -1] * 0.01
            total += rng.poisson(np.repeat(load, 5)[: self.counters] * status)
            pool = np.clip(pool + rng.integers(-3, 4, self.gauges) * (rng.random(self.gauges) < 0.3), 0, 50)
            disk -= np.floor(fall * (rng.random(self.gauges) < 0.2))
            block = np.concatenate([cumulative, sums[:, None], cumulative[:, -1:]], axis=1)
            row[:] = np.concatenate([block.ravel(), total, pool, disk])
        return rows


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def remote_writes(data: Data, start_ms: int) -> Iterator[bytes]:
    """Remote-write requests, snappy's literal form."""
    stamps = [b"\x10" + _varint(start_ms + STEP_MS * row) for row in range(data.steps)]
    request = bytearray()
    for position, labels in enumerate(data.labels):
        series = b"".join(_field(1, _field(1, n.encode()) + _field(2, v.encode())) for n, v in labels)
        values = data.rows[:, position].tolist()
        samples = b"".join(
            _field(2, b"\x09" + struct.pack("<d", value) + stamp)
            for value, stamp in zip(values, stamps, strict=True)
        )
        request += _field(1, series + samples)
        if len(request) > 4_000_000 or position == len(data.labels) - 1:
            yield _varint(len(request)) + b"\xfc" + struct.pack("<I", len(request) - 1) + bytes(request)
            request.clear()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """Debian's prometheus with the data, on loopback."""

    def __init__(self, data: Data, start_ms: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="promql-bench-"))
        (self.folder / "prometheus.yml").write_text("{}\n")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-remote-write-receiver",
            ],
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            try:
                urllib.request.urlopen(self.url + "/-/ready").read()
                break
            except OSError:
                time.sleep(0.1)
        for body in remote_writes(data, start_ms):
            headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
            urllib.request.urlopen(urllib.request.Request(self.url + "/api/v1/write", body, headers)).read()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Ours:
    """Our query API on loopback, in its own process: the program's own handlers, limits and metrics."""

    def __init__(self, pods: int, start_ms: int) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self.process = context.Process(target=serve, args=(pods, start_ms, there), daemon=True)
        self.process.start()
        self.url, self.summary = here.recv()
        self._pipe = here

    def engine_ms(self, text: str, times: dict[str, float], runs: int) -> float:
        """Median of evaluation and JSON alone, inside the server's process."""
        self._pipe.send((text, times, runs))
        return float(self._pipe.recv())

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()


def serve(pods: int, start_ms: int, pipe: Connection) -> None:
    """Load the data and answer queries until terminated; time the engine alone when asked by the pipe."""
    data = Data(pods)
    gc.collect()
    before_kb = resident_kb()
    storage = MemoryStorage()
    for row in range(ROWS):
        storage.append_batch(SampleBatch(start_ms + STEP_MS * row, data.labels, data.rows[row]))
    grown_kb = resident_kb() - before_kb
    stats = storage.stats()
    summary = (
        f"{stats.series:,} series, {stats.samples:,} samples, "
        f"{stats.bytes / stats.samples:.2f} bytes a sample in arrays, "
        f"{(grown_kb * 1024 - stats.bytes) / stats.series:.0f} bytes a series besides"
    )
    engine = Engine(storage)

    def timed() -> None:
        text, times, runs = pipe.recv()
        at_ms = {name: int(value * 1000) for name, value in times.items()}
        taken = []
        for _ in range(runs):
            began_s = time.perf_counter()
            if "time" in at_ms:
                result = engine.query(text, at_ms["time"])
            else:
                result = engine.query_range(text, at_ms["start"], at_ms["end"], at_ms["step"])
            result.to_json_bytes()
            taken.append((time.perf_counter() - began_s) * 1e3)
        pipe.send(statistics.median(taken))

    async def run() -> None:
        async with api_server(storage) as url:
            pipe.send((url, summary))
            asyncio.get_running_loop().add_reader(pipe.fileno(), timed)
            await asyncio.Event().wait()

    asyncio.run(run())


def resident_kb() -> int:
    """Resident memory of this process in KiB."""
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))


class Client:
    """A kept connection on a bare socket: the same for both, and so cheap that the servers count."""

    def __init__(self, url: str) -> None:
        address = urllib.parse.urlsplit(url)
        self._host = address.netloc
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, text: str, times: dict[str, float]) -> bytes:
        """What asks for a query."""
        path = "query" if "time" in times else "query_range"
        query = urllib.parse.urlencode({"query": text} | times)
        return f"GET /api/v1/{path}?{query} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()

    def ask(self, request: bytes) -> bytes:
        """The body of the answer."""
        self._socket.sendall(request)
        head, found, rest = b"", b"", b""
        while not found:
            head, found, rest = (head + rest + self._more()).partition(b"\r\n\r\n")
            if not found:
                head, rest = head + rest, b""
        fields = head.lower()
        if b"transfer-encoding: chunked" not in fields:
            length = int(fields.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            parts, held = [rest], len(rest)
            while held < length:
                parts.append(self._more())
                held += len(parts[-1])
            return b"".join(parts)
        parts = [rest]
        while not parts[-1].endswith(b"0\r\n\r\n"):
            parts.append(self._more())
            if len(parts[-1]) < 5:
                parts[-2:] = [parts[-2] + parts[-1]]
        return unchunked(b"".join(parts))

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise SystemExit("a server closed the connection")
        return data


def timed(client: Client, request: bytes, count: int) -> list[float]:
    """Milliseconds of each of some questions in a row."""
    taken = []
    for _ in range(count):
        began_s = time.perf_counter()
        client.ask(request)
        taken.append((time.perf_counter() - began_s) * 1e3)
    return taken


def unchunked(data: bytes) -> bytes:
    """The body of a chunked answer."""
    out, place = [], 0
    while True:
        end = data.index(b"\r\n", place)
        size = int(data[place:end], 16)
        if not size:
            return b"".join(out)
        out.append(data[end + 2 : end + 2 + size])
        place = end + 4 + size


def sample_set(answer: bytes) -> dict[str, list[float]]:
    """Series -> values, for the comparison of both answers."""
    data = json.loads(answer)["data"]
    if data["resultType"] == "scalar":
        return {"": [float(data["result"][1])]}
    out = {}
    for series in data["result"]:
        points = series.get("values") or [series["value"]]
        out[json.dumps(series["metric"], sort_keys=True)] = [float(text) for _, text in points]
    return out


def agree(ours: bytes, theirs: bytes) -> str:
    one, other = sample_set(ours), sample_set(theirs)
    if one.keys() != other.keys():
        return f"DIFFERS: {len(one)} series, theirs {len(other)}"
    for key, values in one.items():
        for own, their in zip(values, other[key], strict=True):
            if not math.isclose(own, their, rel_tol=1e-9, abs_tol=1e-12) and own == own:
                return f"DIFFERS: {key} {own} {their}"
    return f"{len(one)} series agree"


def measure(pods: int, runs: int, only: str | None) -> None:
    data = Data(pods)
    start_ms = (int(time.time() * 1000) - ROWS * STEP_MS) // STEP_MS * STEP_MS
    end_s = (start_ms + (ROWS - 1) * STEP_MS + 2500) / 1000  # between samples: both ends of ranges are open
    ours = Ours(pods, start_ms)
    print(f"\n## {ours.summary}\n")
    theirs = Prometheus(data, start_ms)
    clients = {"ours": Client(ours.url), "theirs": Client(theirs.url)}
    print("| query | ours ms | engine ms | prometheus ms | ratio | answer |")
    print("| --- | --- | --- | --- | --- | --- |")
    ratios = []
    try:
        cases = [(name, text, {"time": end_s}) for name, text in QUERIES.items()]
        cases += [
            (name, text, {"start": end_s - 240, "end": end_s, "step": 5.0}) for name, text in RANGES.items()
        ]
        for name, text, times in cases:
            if only and only not in name:
                continue
            requests = {who: client.request(text, times) for who, client in clients.items()}
            answers = {who: client.ask(requests[who]) for who, client in clients.items()}
            # One more each, known by now: is the query quick?
            quick = max(timed(client, requests[who], 1)[0] for who, client in clients.items()) < QUICK_MS
            taken: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(runs):
                for who, client in clients.items():
                    block = timed(client, requests[who], BLOCK if quick else 1)
                    taken[who] += block[1:] or block
            own, their = (statistics.median(taken[who]) for who in ("ours", "theirs"))
            engine = ours.engine_ms(text, times, runs)
            ratios.append(own / their)
            row = (
                name,
                f"{own:.2f}",
                f"{engine:.2f}",
                f"{their:.2f}",
                f"{own / their:.3f}",
                agree(*answers.values()),
            )
            print(f"| {' | '.join(row)} |", flush=True)
        print(f"\nGeometric mean of the ratios: {statistics.geometric_mean(ratios):.3f}")
    finally:
        theirs.stop()
        ours.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only")
    args = parser.parse_args()
    for pods in args.pods:
        measure(pods, args.runs, args.only)


if __name__ == "__main__":
    main()
