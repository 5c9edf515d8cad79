"""`quantum-exporter report`: a day, a week or a month in words, tables and plots, out of stored history."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from typing import Final

from exporter.cli.parsers import add_config_file, add_output
from exporter.cli.replaying import Report as Progress
from exporter.cli.replaying import connect, moment_ms, progress_bar, write_out
from exporter.db.history import History
from exporter.db.report import ReportRows
from exporter.errors import ConfigError, StorageError
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.promql.engine import Engine
from exporter.promql.values import InstantVector, RangeMatrix
from exporter.query.older import OlderSamples
from exporter.report.facts import begun, facts
from exporter.report.html import html
from exporter.report.markdown import markdown
from exporter.report.model import LENGTHS, Facts, Period, Points, Report
from exporter.report.questions import Question, figures, plots
from exporter.storage import MemoryStorage

_EXAMPLES = """examples:
  quantum-exporter report
  quantum-exporter report --period month -o html --file month.html
  quantum-exporter report --period day --to 2026-11-23 --objective 99.5 -o json"""
_MAX_SAMPLES: Final = 100_000_000
"""Of one question; a month of every counter of calls is a tenth of it."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "report",
        help="a trend report out of stored history",
        description="Availability, error budget, latency, noisiest alerts and limit use of a day, a week or "
        "a month (30 days), each beside the period before.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--period", choices=tuple(LENGTHS), default="week", help="(default: week)")
    parser.add_argument(
        "--to", dest="end", default="now", metavar="T", help="its end: RFC 3339, a date, 7d (ago) (now)"
    )
    parser.add_argument(
        "--objective", type=float, default=95.0, metavar="PERCENT", help="of calls that shall succeed (95)"
    )
    parser.add_argument("--database", default="", metavar="URL", help="default: that of the configuration")
    add_config_file(parser)
    add_output(parser, "md", "html", "json")
    parser.add_argument("--file", metavar="FILE", help="write there instead of to standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, compute and print; 0. Raises: ConfigError, StorageError, QueryError."""
    if not 0 <= args.objective < 100:
        raise ConfigError("--objective must be a percentage from 0 to below 100")
    end_ms = moment_ms(args.end, time.time_ns() // 1_000_000, "--to")
    with progress_bar("report") as progress:
        report = asyncio.run(_read(args, Period.ending(args.period, end_ms), progress))
    if args.output == "json":
        text = json.dumps(report.to_json(), indent=2) + "\n"
    else:
        text = html(report) if args.output == "html" else markdown(report)
    return write_out(text.encode(), args.file, args.output)


async def _read(args: argparse.Namespace, period: Period, progress: Progress) -> Report:
    async with contextlib.AsyncExitStack() as stack:
        database = await connect(stack, args, "quantum-exporter report")
        samples, rows = _Samples(History(database)), ReportRows(database)
        progress(0.05, f"the {period.name}")
        now = await _facts(samples, rows, period)
        progress(0.4, f"the {period.name} before")
        before = await _facts(samples, rows, period.before)
        progress(0.75, "plots")
        drawn: dict[str, Points] = {
            title: await samples.ask(question) for title, question in plots(period).items()
        }
        drawn["Latency"] = await rows.p95(period)
        drawn["Noisiest alerts"] = begun(period, await rows.episodes(period))
        return Report(period, args.objective / 100, now, before, drawn)


async def _facts(samples: _Samples, rows: ReportRows, period: Period) -> Facts:
    answers: Mapping[str, Points] = {
        name: await samples.ask(question) for name, question in figures(period).items()
    }
    return facts(period, answers, await rows.times(period), await rows.episodes(period))


class _Samples:
    """PromQL over the sample store alone."""

    def __init__(self, history: History) -> None:
        head = MemoryStorage()
        self._older = OlderSamples(head, lambda: history)
        self._engine = Engine(head, max_samples=_MAX_SAMPLES)

    async def ask(self, question: Question) -> Points:
        """The answer to a question. Raises: QueryError, StorageError."""
        start_ms, end_ms, step_ms = question.start_ms, question.end_ms, question.step_ms
        reads = self._older.needed(self._engine.reads(question.expr, start_ms, end_ms, step_ms))
        source, warnings = await self._older.source(reads, _MAX_SAMPLES)
        if warnings:
            raise StorageError("; ".join(warnings))
        engine = self._engine.over(source)
        if step_ms:
            result = await asyncio.to_thread(engine.query_range, question.expr, start_ms, end_ms, step_ms)
        else:
            result = await asyncio.to_thread(engine.query, question.expr, end_ms)
        return _points(result.value, question)


def _points(value: object, question: Question) -> Points:
    found: dict[str, tuple[tuple[int, float], ...]] = {}
    if isinstance(value, InstantVector):
        for labels, number in zip(value.labels, value.values.tolist(), strict=True):
            found[_name(labels, question)] = ((value.ts_ms, number),)
    elif isinstance(value, RangeMatrix):
        for place, labels in enumerate(value.labels):
            times, numbers = value.series(place)
            found[_name(labels, question)] = tuple(zip(times.tolist(), numbers.tolist(), strict=True))
    return found


def _name(labels: LabelSet, question: Question) -> str:
    """What tells a series apart: the values of the question's labels."""
    return " / ".join(labels.get(label) for label in question.legend) or labels.get(METRIC_NAME) or "all"
