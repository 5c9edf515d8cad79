"""What `backtest` and `tune` share: rule files, time ranges, stored samples, workers, the progress bar."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import glob
import mmap
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from exporter.cli.parsers import add_config_file
from exporter.clock import SystemClock
from exporter.config.load import load_config
from exporter.db.embedded import reachable_url
from exporter.db.history import History
from exporter.db.pool import Database
from exporter.errors import ConfigError, ExporterError, Problem, RuleFormatError
from exporter.ingest.stream import OpenMetricsStream
from exporter.model.durations import parse_duration
from exporter.model.labels import LabelSet
from exporter.model.rollups import Rollup
from exporter.model.samples import SeriesBlock
from exporter.rules.backtest import AlertReplay, Replay, ReplayOptions, reach_ms, replay
from exporter.rules.backtest_history import SamplesInMemory
from exporter.rules.backtest_parts import divide, keep_rules
from exporter.rules.backtest_plan import wanted_selectors, wanted_series
from exporter.rules.format import read_rule_files
from exporter.rules.model import AlertingRule, RuleGroup
from exporter.web.params import ParamError, parse_time_ms

Report = Callable[[float, str], None]
"""(share of the work that is done, what is reached)."""

_READING_SHARE = 0.6  # of the work, where a file is read first
_WORTH_A_WORKER = 64 << 20


@dataclass(frozen=True, slots=True)
class RuleFiles:
    """Rule files as given: their text, and the groups in them."""

    texts: tuple[tuple[str, str], ...]
    groups: tuple[RuleGroup, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The time range of a replay and its terms."""

    start_ms: int
    end_ms: int
    options: ReplayOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name rules, history and time."""
    parser.add_argument(
        "--rules", required=True, nargs="+", metavar="FILE", help="rule files; globs are expanded"
    )
    parser.add_argument(
        "--from", dest="start", required=True, metavar="T", help="RFC 3339, a date, Unix seconds, or 30d ago"
    )
    parser.add_argument("--to", dest="end", default="now", metavar="T", help="as --from (default: now)")
    parser.add_argument(
        "--interval", default="15s", metavar="D", help="of groups that have none of their own (15s)"
    )
    parser.add_argument(
        "--source", default="postgres", metavar="S", help="postgres (default), or openmetrics:FILE"
    )
    parser.add_argument("--database", default="", metavar="URL", help="default: that of the configuration")
    add_config_file(parser)


def read_rules(patterns: Sequence[str]) -> RuleFiles:
    """The rule files that patterns name. Raises: RuleFormatError."""
    texts: list[tuple[str, str]] = []
    for name in expanded(patterns):
        try:
            texts.append((name, Path(name).read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise RuleFormatError(Problem(reason or "cannot be read", name)) from error
    return RuleFiles(tuple(texts), read_rule_files(texts))


def expanded(patterns: Sequence[str]) -> Iterator[str]:
    """The files that names and globs stand for, in order. Raises: RuleFormatError for a glob without one."""
    for pattern in patterns:
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
        if not found:
            raise RuleFormatError(Problem("no file matches", pattern))
        yield from found


def read_range(args: argparse.Namespace, now_ms: int) -> Range:
    """The time range of the arguments. Raises: ConfigError."""
    start_ms, end_ms = moment_ms(args.start, now_ms, "--from"), moment_ms(args.end, now_ms, "--to")
    if start_ms >= end_ms:
        raise ConfigError(f"--from {args.start} is not before --to {args.end}")
    try:
        interval_ms = parse_duration(args.interval)
    except ValueError as error:
        raise ConfigError(f"--interval: {error}") from error
    if interval_ms < 100:
        raise ConfigError("--interval must be at least 100ms")
    return Range(start_ms, end_ms, ReplayOptions(interval_ms=interval_ms))


def moment_ms(text: str, now_ms: int, name: str) -> int:
    """A time as people write it: RFC 3339, a date, Unix seconds, a duration ago, now. Raises: ConfigError."""
    if text == "now":
        return now_ms
    with contextlib.suppress(ValueError):
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1000
    with contextlib.suppress(ValueError):
        if not text.isdigit():
            return now_ms - parse_duration(text)
    try:
        return parse_time_ms(text, name)
    except ParamError as error:
        allowed = "2026-11-01T00:00:00Z, 2026-11-01, 1793491200, 30d (ago), now"
        raise ConfigError(f'{name}: "{text}" is not a time (allowed: {allowed})') from error


def run_replay(args: argparse.Namespace, rules: RuleFiles, span: Range, title: str = "") -> Replay:
    """Replay rules over the source that the arguments name, with a progress bar on a terminal.

    Raises: ExporterError.
    """
    kind, _, path = args.source.partition(":")
    if kind == "openmetrics" and path:
        with progress_bar(title) as report:
            return _from_file(path, rules, span, report)
    if args.source != "postgres":
        raise ConfigError(f'--source: "{args.source}" is unknown (allowed: postgres, openmetrics:FILE)')
    with progress_bar(title) as report, StoredHistory(args, rules.groups) as history:
        replayed = replay(
            rules.groups, history, span.start_ms, span.end_ms, span.options, progress=_dated(span, report)
        )
    if history.rolled_until_ms:
        until = datetime.fromtimestamp((history.rolled_until_ms + 1) / 1000, UTC)
        print(
            f"quantum-exporter: warning: before {until:%Y-%m-%dT%H:%M:%SZ} samples are gone, five minutes "
            "are their last value: what lasts minutes may not be seen, nor a rate over less than 10m",
            file=sys.stderr,
        )
    return replayed


def _dated(span: Range, report: Report, base: float = 0.0) -> Callable[[int], None]:
    def reached(at_ms: int) -> None:
        share = (at_ms - span.start_ms) / max(1, span.end_ms - span.start_ms)
        report(base + (1 - base) * share, f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}")

    return reached


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """A bar on a terminal, nothing in a pipe."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[title]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0, title=title)
        yield lambda share, text: progress.update(task, completed=share, description=text)


# -- Postgres -----------------------------------------------------------------------------------------


class StoredHistory:
    """The sample store as the history of a replay; a context manager around the connection.

    `rolled_until_ms`: up to where the samples read were gone, five minutes of them being one value; else 0.
    """

    def __init__(self, args: argparse.Namespace, groups: Sequence[RuleGroup]) -> None:
        self._args = args
        self._selectors = wanted_selectors(groups)
        self._wanted = wanted_series(groups)
        self._runner = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self._history: History | None = None
        self.rolled_until_ms = 0

    def __enter__(self) -> StoredHistory:
        self._runner.__enter__()
        try:
            self._runner.run(self._connect())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _connect(self) -> None:
        self._history = History(await connect(self._stack, self._args, "quantum-exporter backtest"))

    def read(self, start_ms: int, end_ms: int) -> SeriesBlock:
        """All samples in the range that the rules may read. Raises: StorageError."""
        return self._runner.run(self._read(start_ms, end_ms))

    async def _read(self, start_ms: int, end_ms: int) -> SeriesBlock:
        assert self._history is not None
        runs: dict[LabelSet, Any] = {}
        for matchers in self._selectors:
            known = await self._history.remembered(matchers, start_ms, end_ms, (Rollup.LAST,))
            self.rolled_until_ms = max(self.rolled_until_ms, known.rolled_until_ms or 0)
            block = known.of(Rollup.LAST)
            bounds = block.offsets.tolist()
            for place, labels in enumerate(block.labels):
                if labels not in runs and self._wanted(labels):
                    low, high = bounds[place], bounds[place + 1]
                    runs[labels] = (labels, block.ts_ms[low:high], block.values[low:high])
        return SamplesInMemory(runs.values()).read(start_ms, end_ms)


async def connect(stack: contextlib.AsyncExitStack, args: argparse.Namespace, name: str) -> Database:
    """The database that `--database`, else the configuration names. Raises: ConfigError, StorageError."""
    config = load_config(args.config_file, os.environ)
    clock = SystemClock()
    url = await stack.enter_async_context(
        reachable_url(args.database or config.database.url, config.storage.data_dir / "postgres", clock)
    )
    database = Database(url, clock, application_name=name)
    stack.push_async_callback(database.close)
    return database


# -- OpenMetrics files --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
    """One worker's share: the rules of these keys, over a file."""

    path: str
    texts: tuple[tuple[str, str], ...]
    keys: frozenset[str]
    span: Range


_Outcome = Mapping[str, AlertReplay]


def _from_file(path: str, rules: RuleFiles, span: Range, report: Report) -> Replay:
    wanted = wanted_series(rules.groups)
    with mapped(path) as data:
        report(0.0, "looking for series")
        sizes = OpenMetricsStream(data, path, wanted=wanted).sizes()
    total = sum(sizes.values())
    workers = min(os.cpu_count() or 1, 4) if total > _WORTH_A_WORKER else 1
    parts = divide(rules.groups, sizes, workers) if rules.groups else ()
    jobs = [_Job(path, rules.texts, keys, span) for keys in parts]
    if len(jobs) <= 1:
        found = [_work(job, report) for job in jobs]
    else:
        found = _in_workers(jobs, report)
    by_key = {key: alert for outcome in found for key, alert in outcome.items()}
    alerts = tuple(
        replace(by_key[rule.key], rule=rule, group=group)
        for group in rules.groups
        for rule in group.rules
        if isinstance(rule, AlertingRule)
    )
    return Replay(span.start_ms, span.end_ms, alerts)


@contextlib.contextmanager
def mapped(path: str) -> Iterator[bytes | mmap.mmap]:
    """A file in memory. Raises: ConfigError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def load_file(
    path: str, groups: Sequence[RuleGroup], span: Range, report: Report, *, share: float
) -> SamplesInMemory:
    """What the rules read of an OpenMetrics file; `share` is the part of the work that this is.

    Raises: ExpositionError, ConfigError.
    """
    low_ms = span.start_ms - reach_ms(groups, span.options)
    with mapped(path) as data:
        size = max(1, len(data))
        stream = OpenMetricsStream(
            data,
            path,
            wanted=wanted_series(groups),
            progress=lambda done: report(share * done / size, "reading"),
        )
        return SamplesInMemory(
            (run.labels, run.ts_ms, run.values)
            for run in stream
            if run.ts_ms[-1] >= low_ms and run.ts_ms[0] <= span.end_ms
        )


def _work(job: _Job, report: Report) -> _Outcome:
    groups = keep_rules(read_rule_files(job.texts), job.keys)
    span = job.span
    history = load_file(job.path, groups, span, report, share=_READING_SHARE)
    reached = _dated(span, report, _READING_SHARE)
    found = replay(groups, history, span.start_ms, span.end_ms, span.options, progress=reached)
    return {alert.rule.key: alert for alert in found.alerts}


def _child(job: _Job, pipe: Connection) -> None:
    last_s = 0.0

    def report(share: float, text: str) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s > 0.1:
            last_s = now_s
            pipe.send((share, text))

    try:
        found = _work(job, report)
        plain = {
            key: (one.slots, one.episodes, one.cleared, one.failed, one.error, one.missing)
            for key, one in found.items()
        }
        pipe.send(plain)
    except ExporterError as error:
        pipe.send(error)
    except KeyboardInterrupt:
        pass


def _in_workers(jobs: Sequence[_Job], report: Report) -> list[_Outcome]:
    """Each job in a process of its own; the slowest one's progress is shown."""
    context = multiprocessing.get_context("spawn")
    shares: dict[Connection, tuple[float, str]] = {}
    groups = {rule.key: (rule, group) for group in read_rule_files(jobs[0].texts) for rule in group.rules}
    found: list[_Outcome] = []
    processes = []
    try:
        for job in jobs:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(job, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            shares[ours] = (0.0, "")
        while shares:
            for ready in wait(list(shares)):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except EOFError:
                    raise ConfigError("a worker ended before its work was done") from None
                if isinstance(message, ExporterError):
                    raise message
                if isinstance(message, tuple):
                    shares[ready] = message
                    report(*min(shares.values()))
                    continue
                found.append(_restored(message, groups))
                del shares[ready]
                ready.close()
    finally:
        for process in processes:
            if shares:
                process.terminate()
            process.join()
    return found


def _restored(message: Mapping[str, Any], groups: Mapping[str, Any]) -> _Outcome:
    found = {}
    for key, figures in message.items():
        found[key] = AlertReplay(*groups[key], *figures)
    return found


def write_out(data: bytes, path: str | None, kind: str) -> int:
    """Write to a file or, if it is no terminal or the output is text, to standard output."""
    if path:
        try:
            Path(path).write_bytes(data)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        return 0
    if kind == "png" and sys.stdout.isatty():
        raise ConfigError("a PNG is not for the terminal: name a file with --file, or redirect the output")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


def wide_console() -> Console:
    """Standard output; nothing is cut off in a pipe."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)
