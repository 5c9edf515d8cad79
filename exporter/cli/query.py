"""`quantum-exporter query`: questions to any Prometheus-compatible server."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from exporter.cli.chart import draw_chart
from exporter.errors import ConfigError
from exporter.model.labels import LabelSet
from exporter.query.remote import Answer, RemoteApi
from exporter.web.params import ParamError, parse_duration_ms, parse_time_ms

_EXAMPLES = """examples:
  quantum-exporter query instant http://127.0.0.1:9464 'quantum_provider_up == 0'
  quantum-exporter query range --step 5m -o chart http://127.0.0.1:9464 quantum_btc_price_usd
  quantum-exporter query series --match 'quantum_api_requests_total' http://127.0.0.1:9464
  quantum-exporter query labels http://127.0.0.1:9464 provider"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its kinds."""
    parser = subparsers.add_parser(
        "query",
        help="ask a Prometheus-compatible server",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    instant = kinds.add_parser("instant", help="value at one time")
    instant.add_argument("--time", default="", help="Unix seconds or RFC 3339 (default: now)")
    ranged = kinds.add_parser("range", help="values over a range")
    ranged.add_argument("--start", default="", help="default: 5 minutes before the end")
    ranged.add_argument("--end", default="", help="default: now")
    ranged.add_argument("--step", default="", help="default: a 250th of the range, at least 1 s")
    series = kinds.add_parser("series", help="series that match")
    labels = kinds.add_parser("labels", help="values of a label")
    for one in (series, labels):
        one.add_argument("--match", action="append", default=[], help="series selector, repeatable")
        one.add_argument("--start", default="", help="only series with samples after it")
        one.add_argument("--end", default="", help="only series with samples before it")
    for one in (instant, ranged, series, labels):
        outputs = ("promql", "table", "json", *(("chart",) if one is ranged else ()))
        one.add_argument("-o", "--output", default="promql", choices=outputs)
        one.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS")
        one.add_argument("url", help="server, such as http://127.0.0.1:9464")
    instant.add_argument("expr")
    ranged.add_argument("expr")
    labels.add_argument("name", help="label name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and print. Returns 0; a refused query is an error of use (2), a failed one 1."""
    try:
        answer = asyncio.run(_ask(args))
    except ParamError as error:
        raise ConfigError(str(error)) from error
    for text in (*answer.warnings, *answer.infos):
        print(f"warning: {text}", file=sys.stderr)
    if args.output == "json":
        print(json.dumps(answer.data, ensure_ascii=False))
    elif args.kind in ("series", "labels"):
        _print_list(answer.data, as_table=args.output == "table", title=args.kind)
    else:
        _print_result(answer.data, args.output)
    return 0


async def _ask(args: argparse.Namespace) -> Answer:
    now_ms = time.time_ns() // 1_000_000
    async with aiohttp.ClientSession() as session:
        api = RemoteApi(args.url, session, timeout_s=args.timeout)
        if args.kind == "instant":
            return await api.instant(args.expr, parse_time_ms(args.time, "time") if args.time else None)
        start_ms = parse_time_ms(args.start, "start") if args.start else None
        end_ms = parse_time_ms(args.end, "end") if args.end else None
        if args.kind == "range":
            end = end_ms if end_ms is not None else now_ms
            start = start_ms if start_ms is not None else end - 300_000
            step = parse_duration_ms(args.step, "step") if args.step else max((end - start) // 250, 1000)
            return await api.range(args.expr, start, end, step)
        pairs = [("match[]", text) for text in args.match]
        pairs += [
            (name, f"{ms / 1000:.3f}")
            for name, ms in (("start", start_ms), ("end", end_ms))
            if ms is not None
        ]
        path = "series" if args.kind == "series" else f"label/{args.name}/values"
        return await api.ask(path, pairs, post=False)


def _print_list(data: Sequence[Any], *, as_table: bool, title: str) -> None:
    lines = [str(LabelSet.of(item)) if isinstance(item, dict) else str(item) for item in data]
    if as_table:
        table = Table(title)
        for line in lines:
            table.add_row(line)
        Console().print(table)
    else:
        for line in lines:
            print(line)


def _print_result(data: dict[str, Any], output: str) -> None:
    kind, result = data["resultType"], data["result"]
    if output == "chart":
        draw_chart([(str(LabelSet.of(row["metric"])), row["values"]) for row in result])
    elif kind in ("scalar", "string"):
        label = f"{kind}: {result[1]} @[{result[0]}]" if kind == "scalar" else result[1]
        print(label)
    elif output == "table":
        table = Table("series", "value", "time")
        for row in result:
            points = row.get("values") or [row["value"]]
            for ts, value in points:
                table.add_row(str(LabelSet.of(row["metric"])), value, _clock(ts))
        Console().print(table)
    else:
        for row in result:
            name = str(LabelSet.of(row["metric"]))
            if "value" in row:
                print(f"{name} => {row['value'][1]} @[{row['value'][0]}]")
            else:
                print(f"{name} =>")
                for ts, value in row["values"]:
                    print(f"{value} @[{ts}]")


def _clock(ts: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ts))
