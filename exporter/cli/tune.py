"""`quantum-exporter tune`: threshold advice for a rule from stored history."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from exporter.cli.parsers import add_output
from exporter.cli.replaying import (
    Range,
    StoredHistory,
    add_arguments,
    load_file,
    progress_bar,
    read_range,
    read_rules,
    wide_console,
)
from exporter.drawing.times import moment_text
from exporter.errors import ConfigError
from exporter.rules.backtest_history import StoredSamples
from exporter.rules.model import AlertingRule, RuleGroup
from exporter.rules.tune import Tuning, Variant, find_rule, needed_rules, threshold_of, tune


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "tune",
        help="threshold advice for a rule from stored history",
        description="For a rule that compares something measured with a number: how the measured side was "
        "distributed, what other thresholds, for and cooldown would have sent per week, and a threshold for "
        "the wanted number of pages.",
        epilog="examples:\n  quantum-exporter tune HighErrorRate --rules rules/*.yml --from 30d\n"
        "  quantum-exporter tune ApiLatencyHigh --rules rules/targets.yml --from 30d --pages-per-week 1 "
        "--source openmetrics:dump.txt",
    )
    parser.add_argument("alert", metavar="ALERT", help="name of the alert")
    add_arguments(parser)
    parser.add_argument(
        "--pages-per-week", type=_pages, default=2.0, metavar="N", help="wanted at most (default: 2)"
    )
    add_output(parser, "table", "json")
    parser.set_defaults(run=run)


def _pages(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return value


def run(args: argparse.Namespace) -> int:
    """Replay variants and print; 1 where no threshold keeps to the wanted pages. Raises: ExporterError."""
    span = read_range(args, time.time_ns() // 1_000_000)
    rules = read_rules(args.rules)
    rule = find_rule(rules.groups, args.alert)
    threshold_of(rule)
    groups = needed_rules(rules.groups, rule)
    kind, _, path = args.source.partition(":")
    with progress_bar("tune") as report:

        def reached(share: float, at_ms: int) -> None:
            report(share, f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}")

        if kind == "openmetrics" and path:
            history = load_file(path, groups, span, report, share=0.3)
            found = _tune(args, groups, rule, history, span, lambda part, at: reached(0.3 + 0.7 * part, at))
        elif args.source == "postgres":
            with StoredHistory(args, groups) as stored:
                found = _tune(args, groups, rule, stored, span, reached)
        else:
            raise ConfigError(f'--source: "{args.source}" is unknown (allowed: postgres, openmetrics:FILE)')
    if args.output == "json":
        print(json.dumps(_finite(dataclasses.asdict(found)), indent=2, ensure_ascii=False))
    else:
        _print(wide_console(), found, span)
    return 0 if found.advice is not None and found.advice.reachable else 1


def _tune(
    args: argparse.Namespace,
    groups: Sequence[RuleGroup],
    rule: AlertingRule,
    history: StoredSamples,
    span: Range,
    reached: Callable[[float, int], None],
) -> Tuning:
    return tune(
        groups,
        rule,
        history,
        span.start_ms,
        span.end_ms,
        span.options,
        wanted=args.pages_per_week,
        progress=reached,
    )


def _finite(value: object) -> object:
    """JSON knows no NaN."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def _print(console: Console, found: Tuning, span: Range) -> None:
    console.print(f"{found.alert}: {found.measured} {found.op} {found.threshold:g}", markup=False)
    console.print(f"{moment_text(span.start_ms)} to {moment_text(span.end_ms)} UTC")
    seen = found.distribution
    if not seen.count:
        console.print("The left side has no value in this time: nothing to go by.")
        return
    console.print(
        f"\n{seen.count:,} measured values   {seen.low:.4g} [{seen.sparkline}] {seen.high:.4g}", markup=False
    )
    table = Table(
        *(f"{100 * level:.5g} %" for level, _ in seen.quantiles),
        title="so many of the values are at most",
        title_justify="left",
    )
    table.add_row(*(f"{value:.4g}" for _, value in seen.quantiles))
    console.print(table)
    _variants(console, "threshold", found.thresholds, lambda one: f"{one.value:g} ({one.label})")
    _variants(console, "for", found.fors, lambda one: one.label)
    _variants(console, "cooldown", found.cooldowns, lambda one: one.label)
    if found.advice is None:
        return
    advice = found.advice
    if advice.reachable:
        console.print(
            f"Advice: {found.op} {advice.threshold:g} sends {advice.per_week:.1f} pages a week; "
            f"at most {found.wanted:g} are wanted."
        )
    else:
        console.print(
            f"No threshold that was tried keeps to {found.wanted:g} pages a week; the fewest, "
            f"{advice.per_week:.1f}, come with {found.op} {advice.threshold:g}. A longer for or cooldown "
            "may help."
        )


def _variants(
    console: Console, what: str, variants: Sequence[Variant], name: Callable[[Variant], str]
) -> None:
    table = Table(what, "episodes", "fires", "pages", "pages a week", "")
    for column in table.columns[:-1]:
        column.justify = "right"
    for one in variants:
        table.add_row(
            name(one),
            str(one.episodes),
            f"{one.share:.2%}",
            str(one.pages),
            f"{one.per_week:.1f}",
            "now" if one.is_current else "",
            style="bold" if one.is_current else "",
        )
    console.print(table)
