"""Backtest of the shipped rules over an OpenMetrics file, and the same episodes step by step.

Makes a file of N series over D days, 15 s apart, with the series of a running exporter in their usual
proportions (nearly half of them are read by the rules) and incidents in them, then times
`quantum-exporter backtest`, start of the program and reading of the file included. Smaller files are also
evaluated step by step, as the running program does it; the episodes must be equal.

    python benchmarks/backtest.py [--days 30] [--series 2000] [--file PATH] [--keep] [--check 1x2000 30x400]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from exporter.ingest.stream import OpenMetricsStream
from exporter.model.samples import SampleBatch
from exporter.promql.engine import Engine
from exporter.rules.backtest_plan import wanted_series
from exporter.rules.engine_query import EngineQueries
from exporter.rules.format import read_rule_files
from exporter.rules.group import GroupState, evaluate_group
from exporter.rules.instance import TransitionKind
from exporter.rules.schedule import next_slot
from exporter.storage import MemoryStorage

START_S = 1_790_000_010
STEP_S = 15
DAY_STEPS = 5760
RULES = Path(__file__).parents[1] / "rules"
BOUNDS = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "+Inf"]
ENDPOINTS = {
    "kraken": ["/0/public/Ticker", "/0/public/OHLC"],
    "coingecko": ["/simple/price", "/coins/bitcoin"],
    "coinmarketcap": ["/v2/cryptocurrency/quotes/latest", "/v1/key/info"],
    "blockchain": ["/stats"],
}

HEAD_MS = 6 * 3_600_000  # samples that the running program keeps
Times = tuple[int, int, float]  # of an episode: start, end (0: it fires at the end), peak
Spec = tuple[str, str]  # kind of values, series


def specs(count: int) -> list[Spec]:
    """What the series are, in the order of the file: about 45 in 100 are read by the shipped rules."""
    groups: list[list[Spec]] = [[], [], []]
    copies = max(1, count // 660)
    for copy in range(copies):
        host = "" if copies == 1 else f',instance="10.0.0.{copy + 1}:9464"'
        for provider, endpoints in ENDPOINTS.items():
            at = f'provider="{provider}"{host}'
            for endpoint in endpoints:
                for outcome in ("success", "timeout"):
                    labels = f'{at},endpoint="{endpoint}",method="GET",outcome="{outcome}"'
                    groups[0] += [
                        (
                            f"bucket{outcome}/{place}",
                            f'quantum_api_request_duration_seconds_bucket{{{labels},le="{le}"}}',
                        )
                        for place, le in enumerate(BOUNDS)
                    ]
                    groups[1] += [
                        (f"counter{outcome}", f"quantum_api_request_duration_seconds_count{{{labels}}}"),
                        (f"sum{outcome}", f"quantum_api_request_duration_seconds_sum{{{labels}}}"),
                        (f"counter{outcome}", f"quantum_api_requests_total{{{labels}}}"),
                    ]
            groups[1].append(("up", f"quantum_provider_up{{{at}}}"))
            groups[1].append(("used", f'quantum_rate_limit_used{{{at},window="1m"}}'))
            groups[1].append(("limit", f'quantum_rate_limit_limit{{{at},window="1m"}}'))
            groups[1] += [
                ("countersuccess", f'quantum_api_cache_requests_total{{{at},result="{result}"}}')
                for result in ("hit", "miss", "stale", "coalesced")
            ]
    for operation in ("SELECT", "INSERT"):
        for table in ("btc_trades", "users", "quantum_samples", "system_alerts"):
            labels = f'operation="{operation}",table="{table}",outcome="success"'
            groups[0] += [
                (f"bucketsuccess/{place}", f'quantum_db_query_duration_seconds_bucket{{{labels},le="{le}"}}')
                for place, le in enumerate(BOUNDS)
            ]
    groups[1] += [
        ("up", "quantum_database_up"),
        ("rare", "quantum_system_suspended"),
        ("rare", 'quantum_anomalies_recent{severity="FATAL"}'),
        ("ratio", "quantum_data_quality_ratio"),
        ("ratio", "quantum_prediction_accuracy_ratio"),
        ("now", "quantum_snapshot_last_timestamp_seconds"),
        ("now", "quantum_persistence_last_progress_timestamp_seconds"),
        ("one", "quantum_process_start_time_seconds"),
    ]
    flat = [spec for group in groups for spec in group]
    number = 0
    while len(flat) < count:
        flat.append(("ratio", f'quantum_postgres_table_live_rows{{schemaname="public",relname="t{number}"}}'))
        number += 1
    return flat[:count]


def values(kind: str, number: int, steps: int) -> Iterator[str]:
    """The values of a series as text. `kind` ends in the place of a bucket among its bounds."""
    kind, _, bound = kind.partition("/")
    rng = np.random.default_rng(number - int(bound or 0))  # buckets of one histogram count the same calls
    at = np.arange(steps)
    bad = (at // 240) % 113 == 57  # an hour of trouble every few days
    if kind.startswith(("bucket", "counter", "sum")):
        fails = kind.endswith("timeout")
        chance = np.where(bad, 0.5, 0.001) if fails else np.where(bad, 0.2, 0.4)
        calls = rng.random(steps) < chance
        if bound:  # most calls take about 20 ms, those in trouble ten times that
            took = rng.lognormal(-4, 0.5, steps) * np.where(bad, 10, 1)
            calls &= took <= float(BOUNDS[int(bound)])
        total = np.cumsum(calls)
        if kind.startswith("sum"):
            return map(repr, np.round(total * 0.137, 3).tolist())
        return map(str, total.tolist())
    if kind == "used":
        used = 30 + 10 * np.sin(at / 3000 + number) + rng.normal(0, 1, steps) + np.where(bad, 15, 0)
        return map(str, used.astype(int).tolist())
    if kind == "limit":
        return iter(["60"] * steps)
    if kind == "up":
        return map(str, (~(bad & (at % 240 > 200))).astype(int).tolist())
    if kind == "rare":
        return map(str, ((at // 20) % 4001 == 400).astype(int).tolist())
    if kind == "now":
        return map(str, (START_S + at * STEP_S).tolist())
    if kind == "one":
        return iter(["1"] * steps)
    wave = 0.85 + 0.1 * np.sin(at / 3000 + number) + rng.normal(0, 0.02, steps)
    return map(repr, np.round(np.clip(wave, 0, 1), 4).tolist())


def make_part(job: tuple[str, int, list[tuple[int, Spec]]]) -> None:
    path, steps, chosen = job
    stamps = [f" {START_S + at * STEP_S}\n" for at in range(steps)]
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
        for number, (kind, series) in chosen:
            head = f"{series} "
            texts = values(kind, number, steps)
            file.write("".join([f"{head}{text}{stamp}" for text, stamp in zip(texts, stamps, strict=True)]))


def make_file(path: Path, count: int, days: int) -> None:
    chosen = list(enumerate(specs(count)))
    parts = [chosen[at : at + 50] for at in range(0, len(chosen), 50)]
    jobs = [(f"{path}.{number}", days * DAY_STEPS, part) for number, part in enumerate(parts)]
    with Pool(2) as pool, path.open("wb") as out:
        for (name, _, _), _ in zip(jobs, pool.imap(make_part, jobs), strict=True):
            part = Path(name)
            with part.open("rb") as file:
                while piece := file.read(1 << 24):
                    out.write(piece)
            part.unlink()
        out.write(b"# EOF\n")


def run_backtest(path: Path, days: float) -> tuple[float, float, list[dict[str, object]]]:
    """Seconds, CPU seconds, and the alerts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-m", "exporter", "backtest", "--rules", f"{RULES}/*.yml", "-o", "json"]
    command += ["--source", f"openmetrics:{path}", "--from", str(START_S)]
    command += ["--to", str(START_S + round(days * 86_400) - STEP_S)]
    done = subprocess.run(command, capture_output=True, check=False)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr.decode())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, cpu, json.loads(done.stdout)["alerts"]


def step_by_step(path: Path, steps: int) -> tuple[float, dict[str, dict[str, Times]]]:
    """Live evaluation of a file: seconds without reading, and the times of the episodes by alert and id."""
    groups = read_rule_files([(str(file), file.read_text()) for file in sorted(RULES.glob("*.yml"))])
    runs = list(OpenMetricsStream(path.read_bytes(), wanted=wanted_series(groups)))
    labels = tuple(run.labels for run in runs)
    columns = np.stack([run.values for run in runs]).T
    storage = MemoryStorage()
    queries = EngineQueries(Engine(storage))
    states = {group.key: GroupState() for group in groups}
    end_ms = (START_S + (steps - 1) * STEP_S) * 1000
    slots = sorted(
        (ts_ms, order)
        for order, group in enumerate(groups)
        for interval_ms in [group.interval_ms or STEP_S * 1000]
        for ts_ms in range(next_slot(group.key, interval_ms, START_S * 1000 - 1), end_ms + 1, interval_ms)
    )
    found: dict[str, dict[str, Times]] = {}
    began = time.perf_counter()
    row = 0
    for ts_ms, order in slots:
        while row < steps and (START_S + row * STEP_S) * 1000 <= ts_ms:
            storage.append_batch(SampleBatch((START_S + row * STEP_S) * 1000, labels, columns[row]))
            row += 1
            if row % 240 == 0:
                storage.truncate(ts_ms - HEAD_MS)
        evaluation = evaluate_group(
            groups[order], states[groups[order].key], ts_ms, queries(), storage.append_batch
        )
        for one in evaluation.rules:
            for change in one.transitions:
                if change.kind in (TransitionKind.FIRING, TransitionKind.RESOLVED):
                    instance = change.instance
                    times = (instance.fired_at_ms, instance.resolved_at_ms, instance.peak)
                    found.setdefault(one.rule.name, {})[instance.episode_id] = times
    return time.perf_counter() - began, found


def check(folder: Path, days: int, series: int) -> None:
    """A file evaluated both ways; ends the program where an episode, a time or a peak differs."""
    path = folder / "check.txt"
    make_file(path, series, days)
    took, cpu, alerts = run_backtest(path, days)
    stepped, want = step_by_step(path, days * DAY_STEPS)
    path.unlink()
    got: dict[str, dict[str, Times]] = {}
    for alert in alerts:
        for one in alert["episodes"]:  # type: ignore[attr-defined]
            times = (unix_ms(one["start"]), unix_ms(one["end"]), one["peak"])
            got.setdefault(str(alert["alert"]), {})[one["id"]] = times
    for name in sorted({*got, *want}):
        mine, its = got.get(name, {}), want.get(name, {})
        # Of what still fires at the end, step by step the peak so far is not a transition.
        if {key: (*times[:2], times[2] if times[1] else 0.0) for key, times in mine.items()} != {
            key: (*times[:2], times[2] if times[1] else 0.0) for key, times in its.items()
        }:
            sys.exit(f"{name}: the episodes differ: {mine} {its}")
    episodes = sum(map(len, got.values()))
    print(
        f"{days} days of {series} series, {len(got)} alerts, {episodes} episodes: the same starts, ends and "
        f"peaks; {took:.1f} s ({cpu:.1f} s of CPU) with reading, step by step {stepped:.1f} s without: "
        f"{stepped / took:.1f} times as long"
    )


def unix_ms(text: str | None) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000) if text else 0


def size(text: str) -> tuple[int, int]:
    days, _, series = text.partition("x")
    return int(days), int(series)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=30, help="of the file that is timed; 0: none is")
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--file", type=Path, help="use this file, or make it there")
    parser.add_argument("--keep", action="store_true", help="keep the file")
    parser.add_argument(
        "--check", type=size, nargs="*", default=[(1, 2000)], metavar="DAYSxSERIES",
        help="files to be evaluated step by step as well (1x2000)",
    )  # fmt: skip
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.days:
            timed(args.file or Path(folder) / "history.txt", args.series, args.days)
        if args.file and not args.keep:
            args.file.unlink(missing_ok=True)
        for days, series in args.check:
            check(Path(folder), days, series)


def timed(path: Path, series: int, days: int) -> None:
    if not path.exists():
        began = time.perf_counter()
        make_file(path, series, days)
        print(f"made {path.stat().st_size / 1e9:.2f} GB in {time.perf_counter() - began:.0f} s")
    took, cpu, alerts = run_backtest(path, days)
    episodes = sum(len(alert["episodes"]) for alert in alerts)  # type: ignore[arg-type, misc]
    print(
        f"backtest of {days} days, {series} series, {series * days * DAY_STEPS / 1e6:.0f} million samples: "
        f"{took:.1f} s, {cpu:.1f} s of CPU, {episodes} episodes"
    )


if __name__ == "__main__":
    main()
