"""`quantum-exporter why`: why an alert did, or did not, fire or notify, asked of a running exporter."""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from exporter.cli.alerts import DEFAULT_URL, Api, RequestError, moment
from exporter.cli.parsers import add_output
from exporter.config.matchers import parse_matchers
from exporter.errors import ConfigError
from exporter.model.durations import format_duration
from exporter.notify.message import printable

_EXAMPLES = """examples:
  quantum-exporter why ApiReliabilityLow
  quantum-exporter why ApiReliabilityLow --labels 'provider="kraken"' --at 2h
  quantum-exporter why DatabaseConnectionLost --at 2026-01-31T03:12:00Z -o json"""
_SHOWN = 10
_BRANCH = re.compile(r"( {4,})(.*?)(  (?:= \S+|nothing|\d+ series)(?:  \(does not hold\))?)")
_STYLES = (
    (r"^  firing(?=:)", "bold red"),
    (r"^  pending(?=:)", "bold yellow"),
    (r"^  inactive(?=:)", "bold green"),
    (r"(?<=  )(= \S+|nothing)(?=$|  \(does)", "cyan"),
    (r"\(does not hold\)$", "yellow"),
    (r"\d+ firings held back", "yellow"),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "why",
        help="why an alert did, or did not, fire or notify",
        description="Takes the expression of an alert apart, with the value of each side for each "
        "instance, and tells where `for`, the cooldown, silences, routes and deliveries stand.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("alert", help="the name of an alerting rule")
    parser.add_argument("--at", default="", help="a time, or a duration before now such as 2h (default: now)")
    parser.add_argument(
        "--labels", action="append", default=[], metavar="MATCHERS", help="""such as 'provider="kraken"'"""
    )
    parser.add_argument(
        "--url", default=DEFAULT_URL, help="the exporter, USER:PASSWORD@ allowed (%(default)s)"
    )
    add_output(parser, "text", "json")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and print. Returns 0, or 1 where the exporter refused or cannot be reached."""
    for text in args.labels:
        try:
            parse_matchers(text)
        except ValueError as error:
            raise ConfigError(f"--labels {text!r}: {error}") from error
    at = moment(args.at, "--at")
    try:
        answer = Api(args.url, args.timeout).call(
            "GET", "/api/v1/alerts/why", alert=args.alert, at=at, match=args.labels
        )
    except RequestError as error:
        print(f"quantum-exporter: error: {error}", file=sys.stderr)
        return 1
    document = answer["data"]
    if args.output == "json":
        print(json.dumps(document, indent=2))
    else:
        show([printable(line, 500) for line in render(document)], Console(highlight=False))
    return 0


def show(lines: Sequence[str], console: Console) -> None:
    """Print the lines; on a terminal with colour, and expressions shortened to its width."""
    if not console.is_terminal:
        print("\n".join(lines))
        return
    for number, line in enumerate(lines):
        for piece in _wrapped(line, console.width):
            text = Text(piece, style="bold" if number == 0 else "")
            for pattern, style in _STYLES:
                text.highlight_regex(pattern, style)
            console.print(text, no_wrap=True, overflow="ellipsis")


def _wrapped(line: str, width: int) -> list[str]:
    """A line of the tree shortened, any other broken at words, what follows indented further."""
    if _BRANCH.fullmatch(line) or len(line) <= width:
        return [_narrow(line, width)]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)


def _narrow(line: str, width: int) -> str:
    """A line of the tree in at most so many columns; the expression loses its middle."""
    match = _BRANCH.fullmatch(line)
    if match is None or len(line) <= width:
        return line
    indent, expr, value = match.groups()
    room = max(12, width - len(indent) - len(value) - 1)
    head = room * 2 // 3
    return f"{indent}{expr[:head]}…{expr[len(expr) - (room - head) :]}{value}"


def render(document: Mapping[str, Any]) -> Iterator[str]:
    """The answer in one sentence, then each rule and each of its instances as a tree."""
    yield document["answer"]
    for rule in document["rules"]:
        yield ""
        place = f"{rule['file']}:{rule['line']}" if rule["line"] else rule["file"]
        yield f"{rule['name']} in group {rule['group']} ({place}), judged at {_when(rule['evaluatedAt'])}"
        if rule["error"]:
            yield f"  rule health {rule['health']}: {rule['error']}"
        yield "  " + ", ".join(_terms(rule))
        for one in rule["inputs"]:
            count = "nothing" if one["missing"] else f"{one['series']} series"
            yield f"  input {one['selector']}: {count}"
        yield from _instances(rule["instances"][:_SHOWN])
        if len(rule["instances"]) > _SHOWN:
            yield f"  ... and {len(rule['instances']) - _SHOWN} more (--output json, or --labels)"
        for note in rule["notes"]:
            yield f"  note: {note}"


def _terms(rule: Mapping[str, Any]) -> Iterator[str]:
    yield f"for {_span(rule['for'])}"
    if rule["keepFiringFor"]:
        yield f"keep_firing_for {_span(rule['keepFiringFor'])}"
    if rule["keepFiringExpr"]:
        yield f"keep_firing_expr {rule['keepFiringExpr']}"
    by = rule["cooldownBy"]
    shared = "" if by is None else f" by [{', '.join(by)}]"
    yield f"cooldown {_span(rule['cooldown'])}{shared}"
    yield f"missing_data {rule['missingData']}"


def _instances(instances: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each with its tree of values; of those that are inactive only the first, which is the closest."""
    inactive = 0
    for one in instances:
        inactive += one["state"] == "inactive"
        yield from _instance(one, brief=one["state"] == "inactive" and inactive > 1)
    if inactive > 1:
        yield "  the values of each: --labels, or -o json"


def _instance(one: Mapping[str, Any], *, brief: bool) -> Iterator[str]:
    yield f"  {one['state']}: {one['shown'] or '(no labels of its own)'}: {one['reason']}"
    if one["tree"] and not brief:
        yield from _tree(one["tree"], "    ")
    if one["state"] == "pending":
        yield f"    pending since {_when(one['activeAt'])}, {_span(round(one['forLeft']))} of `for` left"
    elif one["state"] == "firing":
        worst = f", value {one['value']}, peak {one['peak']}" if one.get("value") else ""
        yield f"    firing since {_when(one['firedAt'])} (active since {_when(one['activeAt'])}){worst}"
    if one["held"]:
        left = f", {_span(round(one['keepFiringLeft']))} left" if one.get("keepFiringLeft") else ""
        yield f"    held: {one['held']}{left}"
    if one["quiet"]:
        yield f"    quiet: {one['quiet']}"
    for to in one["destinations"]:
        if not brief or to["armedAt"] or to["suppressed"]:
            yield f"    to {to['receiver']} by {_route(to)}: {_gate(to)}"
    if not one["destinations"]:
        yield "    no route leads to a receiver that sends"
    for sent in one["deliveries"]:
        tries = f" after {sent['attempts']} tries" if sent["attempts"] > 1 else ""
        at = _when(sent["finishedAt"] or sent["createdAt"])
        yield f"    {at} {sent['status']} to {sent['receiver']}: {sent['answer']}{tries}"


def _tree(part: Mapping[str, Any], indent: str) -> Iterator[str]:
    if part["value"] is not None:
        value = f"= {_number(part['value'])}"
    else:
        value = f"{part['series']} series" if part["series"] else "nothing"
    verdict = ""
    if part["comparison"]:
        verdict = "" if part["comparison"]["holds"] else "  (does not hold)"
    text = " ".join(part["text"].split())
    if text != part["value"]:
        yield f"{indent}{text}  {value}{verdict}"
    for below in part["parts"]:
        yield from _tree(below, indent + "  ")


def _gate(to: Mapping[str, Any]) -> str:
    words = []
    if not to["cooldown"]:
        words.append("no cooldown")
    elif to["armedAt"]:
        words.append(f"cooldown armed {_when(to['armedAt'])}, until {_when(to['until'])}")
    else:
        words.append("cooldown not armed")
    if to["suppressed"]:
        words.append(f"{to['suppressed']} firings held back")
    if to["onItsWay"]:
        words.append("a notification is on its way")
    if to["muted"]:
        words.append(f"muted by {to['muted']}")
    if to.get("nextSendAt"):
        words.append(f"next send {_when(to['nextSendAt'])}")
    elif to.get("why"):
        words.append(to["why"])
    return ", ".join(words)


def _route(to: Mapping[str, Any]) -> str:
    found: Sequence[str] = to["routeMatchers"]
    matchers = f" ({', '.join(found)})" if found else ""
    return "the top route" if to["route"] == "0" else f"route {to['route']}{matchers}"


def _number(text: str) -> str:
    return f"{float(text):.6g}"


def _span(seconds: float) -> str:
    return format_duration(round(seconds * 1000))


def _when(text: str | None) -> str:
    """A time of the API, to the second, in UTC."""
    if not text:
        return "an unknown time"
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
