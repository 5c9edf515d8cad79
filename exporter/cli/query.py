"""`quantum-exporter query`: questions to any Prometheus-compatible server."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from urllib.parse import quote

import aiohttp
from rich.console import Console

from exporter.cli.chart import draw_chart
from exporter.cli.parsers import add_output
from exporter.cli.query_output import (
    item_lines,
    item_table,
    json_text,
    print_tree,
    step_of,
    value_json,
    value_lines,
    value_table,
)
from exporter.errors import ConfigError, QueryError, QueryErrorKind
from exporter.model.labels import LabelSet
from exporter.query.remote import Answer, RemoteApi, seconds
from exporter.web.params import ParamError, parse_duration_ms, parse_time_ms

_SERVER = "http://127.0.0.1:9464"
_EXAMPLES = {
    "instant": f"instant {_SERVER} 'quantum_provider_up == 0'",
    "range": f"range --step 5m -o chart {_SERVER} quantum_btc_price_usd",
    "series": f"series --match 'quantum_api_requests_total' {_SERVER}",
    "labels": f"labels {_SERVER} provider",
    "explain": f"explain {_SERVER} 'sum(rate(quantum_api_requests_total[5m]))'",
}
_KINDS = {
    "instant": "value at one time",
    "range": "values over a range",
    "series": "series that match",
    "labels": "values of a label",
    "explain": "the tree of sub-expressions with value, series and time of each (our server only)",
}
_OUTPUTS = {
    "instant": ("promql", "table", "json"),
    "range": ("promql", "table", "json", "chart"),
    "series": ("promql", "table", "json"),
    "labels": ("promql", "table", "json"),
    "explain": ("tree", "json"),
}


def _example(kind: str) -> str:
    return f"  quantum-exporter query {_EXAMPLES[kind]}"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its kinds."""
    parser = subparsers.add_parser(
        "query",
        help="ask a Prometheus-compatible server",
        description="Asks any server that speaks Prometheus' HTTP API. Exit code 2: the question is wrong, "
        "1: no answer.",
        epilog="\n".join(["examples:", *map(_example, _EXAMPLES)]),
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, text in _KINDS.items():
        kinds.add_parser(
            name, help=text, description=f"{text.capitalize()}.", epilog=f"examples:\n{_example(name)}"
        )
    instant, ranged, series, labels, explain = (kinds.choices[name] for name in _KINDS)
    ranged.add_argument("--start", default="", help="default: 5 minutes before the end")
    ranged.add_argument("--end", default="", help="default: now")
    ranged.add_argument("--step", default="", help="default: a 250th of the range, at least 1 s")
    for one in (instant, explain):
        one.add_argument("--time", default="", help="Unix seconds or RFC 3339 (default: now)")
    for one in (series, labels):
        one.add_argument("--match", action="append", default=[], help="series selector, repeatable")
        one.add_argument("--start", default="", help="only series with samples after it")
        one.add_argument("--end", default="", help="only series with samples before it")
    for name, one in kinds.choices.items():
        outputs = _OUTPUTS[name]
        add_output(one, *outputs)
        one.add_argument(
            "--format",
            dest="output",
            choices=outputs,
            default=argparse.SUPPRESS,
            help="promtool's name of --output",
        )
        one.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS")
        one.add_argument("url", help="server, such as http://127.0.0.1:9464")
    for one in (instant, ranged, explain):
        one.add_argument("expr", help="PromQL expression")
    labels.add_argument("name", help="label name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and print. Returns 0; 2 where the question is wrong, 1 where the answer does not come."""
    try:
        answer = asyncio.run(_ask(args))
        _print(answer, args)
    except ParamError as error:
        raise ConfigError(str(error)) from error
    except QueryError as error:
        print(f"quantum-exporter: error: {error}", file=sys.stderr)
        return 2 if error.kind in (QueryErrorKind.SYNTAX, QueryErrorKind.TYPE) else 1
    return 0


async def _ask(args: argparse.Namespace) -> Answer:
    times = {
        name: parse_time_ms(text, name)
        for name in ("time", "start", "end")
        if (text := getattr(args, name, ""))
    }
    async with aiohttp.ClientSession() as session:
        api = RemoteApi(args.url, session, timeout_s=args.timeout)
        if args.kind == "instant":
            return await api.instant(args.expr, times.get("time"))
        if args.kind == "range":
            end_ms = times.get("end", time.time_ns() // 1_000_000)
            start_ms = times.get("start", end_ms - 300_000)
            if start_ms > end_ms:
                raise ParamError("start time is not before end time")
            default_ms = max((end_ms - start_ms) // 250_000, 1) * 1000
            step_ms = parse_duration_ms(args.step, "step") if args.step else default_ms
            return await api.range(args.expr, start_ms, end_ms, step_ms)
        pairs = [(name, seconds(ms)) for name, ms in times.items()]
        if args.kind == "explain":
            return await api.ask("query_explain", [("query", args.expr), *pairs])
        pairs += [("match[]", text) for text in args.match]
        path = "series" if args.kind == "series" else f"label/{quote(args.name, safe='')}/values"
        return await api.ask(path, pairs, post=False)


def _print(answer: Answer, args: argparse.Namespace) -> None:
    for level, texts in (("warning", answer.warnings), ("info", answer.infos)):
        for text in texts:
            print(f"{level}: {text}", file=sys.stderr)
    try:
        _print_data(answer, args)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise QueryError(
            f"{args.url} answered something that is no {args.kind} answer", QueryErrorKind.UNAVAILABLE
        ) from error


def _print_data(answer: Answer, args: argparse.Namespace) -> None:
    data, console = answer.data, Console(highlight=False)
    if args.kind == "explain":
        if args.output == "json":
            print(json_text(data))
        else:
            print_tree(step_of(data["tree"]), console)
        return
    if args.kind in ("series", "labels"):
        if args.output == "json":
            print(json_text(data))
        elif args.output == "table":
            console.print(item_table(data, args.kind))
        else:
            for line in item_lines(data):
                print(line)
        return
    kind, result = data["resultType"], data["result"]
    if args.output == "json":
        print(value_json(kind, result))
    elif args.output == "table":
        console.print(value_table(kind, result))
    elif args.output == "chart":
        draw_chart([(str(LabelSet.of(row["metric"])), row["values"]) for row in result])
    else:
        print("\n".join(value_lines(kind, result)))  # an empty answer is an empty line
