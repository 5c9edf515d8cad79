"""`quantum-exporter backtest`: what rules would have done over stored history."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.cli.parsers import add_output
from exporter.cli.picture import png
from exporter.cli.replaying import (
    Range,
    add_arguments,
    read_range,
    read_rules,
    run_replay,
    wide_console,
    write_out,
)
from exporter.drawing.svg import svg
from exporter.drawing.times import moment_text, rounded, tick_text, ticks
from exporter.errors import ConfigError
from exporter.model.labels import LabelSet
from exporter.rules.backtest import AlertReplay, Replay
from exporter.rules.backtest_report import Difference, compare, difference_json, figures, to_json
from exporter.rules.timeline import Lane, cells, lanes
from exporter.rules.timeline_picture import picture

_STYLES = {"critical": "red", "warning": "yellow", "info": "blue"}
_NAME_WIDTH = 26


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "backtest",
        help="replay rules over stored history",
        description="Replays rule files over stored samples, faster than real time: when each alert would "
        "have fired, for how long, and how many notifications its cooldown would have let out.",
        epilog="examples:\n  quantum-exporter backtest --rules rules/*.yml --from 7d\n"
        "  quantum-exporter backtest --rules rules/apis.yml --from 2026-11-01 --to 2026-11-08 -o svg "
        "--file week.svg\n"
        "  quantum-exporter backtest --rules old.yml --compare new.yml --from 30d "
        "--source openmetrics:dump.txt",
    )
    add_arguments(parser)
    add_output(parser, "table", "json", "svg", "png")
    parser.add_argument("--file", metavar="FILE", help="write there instead of to standard output")
    parser.add_argument(
        "--compare", nargs="+", metavar="FILE", help="other rules: show what they would have changed"
    )
    parser.add_argument(
        "--episodes", type=int, default=10, metavar="N", help="newest episodes listed of each alert (10)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay and print; 1 where an evaluation failed. Raises: ExporterError."""
    span = read_range(args, time.time_ns() // 1_000_000)
    if args.output == "png" and not args.file and sys.stdout.isatty():
        raise ConfigError("a PNG is not for the terminal: name a file with --file, or redirect the output")
    rules = read_rules(args.rules)
    others = read_rules(args.compare) if args.compare else None
    result = run_replay(args, rules, span, "backtest")
    other = None
    if others is not None:
        slots_of = {group.name: group.key for group in rules.groups}
        aligned = replace(span, options=replace(span.options, slots_of=slots_of))
        other = run_replay(args, others, aligned, "compare")
    _print(args, span, result, other)
    failed = [alert for alert in (*result.alerts, *(other.alerts if other else ())) if alert.failed]
    for alert in failed:
        print(
            f"quantum-exporter: {alert.group.file}:{alert.rule.line}: {alert.rule.name}: {alert.failed} "
            f"evaluations failed, the first: {alert.error}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _print(args: argparse.Namespace, span: Range, result: Replay, other: Replay | None) -> None:
    if args.output == "json":
        document: dict[str, object] = to_json(result)
        if other is not None:
            document = {
                "before": document,
                "after": to_json(other),
                "differences": difference_json(compare(result, other)),
            }
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        write_out(text.encode(), args.file, "json")
    elif args.output in ("svg", "png"):
        rows = [*lanes(result)] if other is None else _interleaved(result, other)
        title = "Backtest" if other is None else "Backtest: before and after"
        note = f"{moment_text(span.start_ms)} to {moment_text(span.end_ms)}"
        drawing = picture(title, rows, span.start_ms, span.end_ms, note=note)
        write_out(svg(drawing).encode() if args.output == "svg" else png(drawing), args.file, args.output)
    elif args.file:
        with Path(args.file).open("w", encoding="utf-8") as file:
            _print_text(Console(file=file, width=160, highlight=False), args, result, other)
    else:
        _print_text(wide_console(), args, result, other)


def _interleaved(result: Replay, other: Replay) -> list[Lane]:
    """Each alert's lane before, and below it the one after."""
    rows: list[Lane] = []
    after = list(lanes(other))
    for lane in lanes(result):
        rows.append(lane)
        for its in [one for one in after if one.name == lane.name]:
            after.remove(its)
            rows.append(replace(its, name="  after"))
    return rows + [replace(one, name=f"{one.name} (new)") for one in after]


def _print_text(console: Console, args: argparse.Namespace, result: Replay, other: Replay | None) -> None:
    rows = lanes(result) if other is None else _differing(result, other)
    _timeline(console, result, rows)
    if other is not None:
        _differences(console, compare(result, other))
        return
    _summary(console, result)
    for alert in result.alerts:
        _episodes(console, alert, result.end_ms, args.episodes)
    _without_data(console, result)


def _differing(result: Replay, other: Replay) -> list[Lane]:
    """Each alert's lane, and below it the one after where that is another one."""
    rows: list[Lane] = []
    for lane in _interleaved(result, other):
        if not rows or lane != replace(rows[-1], name=lane.name):
            rows.append(lane)
    return rows


def _timeline(console: Console, result: Replay, rows: Sequence[Lane]) -> None:
    """A lane of bars for each alert."""
    width = max(20, min(console.width, shutil.get_terminal_size((160, 24)).columns) - _NAME_WIDTH - 24)
    cell = rounded((result.end_ms - result.start_ms) // width)
    console.print(
        f"{moment_text(result.start_ms)} to {moment_text(result.end_ms)} UTC. A bar is {cell}, as high as "
        "the share of it in which the alert fires; on the right is how long it fires in all."
    )
    for lane in rows:
        name = lane.name if len(lane.name) < _NAME_WIDTH else lane.name[: _NAME_WIDTH - 2] + "…"
        line = Text(name.ljust(_NAME_WIDTH), style="" if lane.spans else "dim")
        style = _STYLES.get(lane.severity, "")
        line.append(cells(lane, result.start_ms, result.end_ms, width), style if lane.spans else "dim")
        line.append(
            f"  {rounded(lane.firing_ms)}" if lane.spans else f"  {lane.silence}", "" if lane.spans else "dim"
        )
        console.print(line, no_wrap=True, overflow="crop")
    axis = [" "] * (width + 12)
    span = result.end_ms - result.start_ms
    for tick in ticks(result.start_ms, result.end_ms, max(2, width // 16)):
        at = (tick - result.start_ms) * width // max(1, span)
        axis[at : at + 12] = tick_text(tick, span).ljust(12)
    console.print(" " * _NAME_WIDTH + "".join(axis).rstrip() + "  UTC", no_wrap=True, overflow="crop")


def _summary(console: Console, result: Replay) -> None:
    table = Table(
        "alert",
        "severity",
        *(
            ("episodes", "firing", "longest", "sent", "sent without cooldown", "per week", "pending only")
            if console.width >= 100
            else ("episodes", "firing", "longest", "sent", "without", "a week", "pending")
        ),
    )
    for column in table.columns[2:]:
        column.justify = "right"
    span_ms = result.end_ms - result.start_ms
    for one in figures(result):
        table.add_row(
            one.name,
            one.severity,
            str(one.episodes),
            rounded(one.firing_ms) if one.episodes else "",
            rounded(one.longest_ms) if one.episodes else "",
            str(one.sent),
            str(one.sent_without),
            f"{one.per_week(span_ms):.1f}" if one.sent else "",
            str(one.cleared) if one.cleared else "",
            style="" if one.episodes else "dim",
        )
    console.print(table)


def _episodes(console: Console, alert: AlertReplay, end_ms: int, most: int) -> None:
    shown = alert.episodes[-most:] if most > 0 else ()
    if not shown:
        return
    hidden = len(alert.episodes) - len(shown)
    table = Table(
        "start (UTC)", "firing", "labels", "peak", "end", title_justify="left",
        title=f"{alert.rule.name}" + (f", the last {len(shown)} of {len(alert.episodes)}" if hidden else ""),
    )  # fmt: skip
    for one in shown:
        table.add_row(
            moment_text(one.start_ms),
            rounded((one.end_ms or end_ms) - one.start_ms),
            _own_labels(one.labels, alert),
            f"{one.peak:.6g}",
            one.reason.value if one.reason else "still firing",
        )
    console.print(table)


def _without_data(console: Console, result: Replay) -> None:
    """Alerts that could not fire because the history lacks their metrics."""
    for alert in result.alerts:
        if alert.missing:
            names = ", ".join(alert.missing)
            console.print(f"no data for {alert.rule.name}: no stored series of {names}", markup=False)


def _own_labels(labels: LabelSet, alert: AlertReplay) -> str:
    """The labels that tell instances apart: without those that the rule sets to one value."""
    fixed = [name for name, text in alert.rule.labels.items() if "{{" not in text]
    return ", ".join(f"{name}={value}" for name, value in labels.without(fixed))


def _differences(console: Console, differences: tuple[Difference, ...]) -> None:
    table = Table("alert", "episodes", "firing", "sent", "new episodes", "gone episodes")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in differences:
        before, after = one.before, one.after
        table.add_row(
            one.name + (" (removed)" if after is None else " (added)" if before is None else ""),
            _change(*(str(side.episodes) if side else "" for side in (before, after))),
            _change(*(rounded(side.firing_ms) if side else "" for side in (before, after))),
            _change(*(str(side.sent) if side else "" for side in (before, after))),
            str(len(one.added)) if one.added else "",
            str(len(one.gone)) if one.gone else "",
            style="dim" if one.is_same else "",
        )
    console.print(table)


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before or '-'} → {after or '-'}"
