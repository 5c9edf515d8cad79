"""`quantum-exporter alerts`: what fires and what happened, and acting on it, through the HTTP API."""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import os
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.cli.parsers import add_output
from exporter.config.matchers import parse_matchers
from exporter.errors import ConfigError, ExporterError
from exporter.model.durations import parse_duration
from exporter.model.labels import MatchOp
from exporter.notify.message import printable

DEFAULT_URL = "http://127.0.0.1:9464"
_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
_ID = "5c1f0a9be2d34c7d"
_SILENCES = """examples:
  quantum-exporter alerts silence add provider=kraken --duration 2h --comment "maintenance"
  quantum-exporter alerts silence list"""
_EXAMPLES = f"""examples:
  quantum-exporter alerts list
  quantum-exporter alerts ack {_ID} --notes "restarting the provider"
  quantum-exporter alerts silence add provider=kraken --duration 2h --comment "maintenance"
  quantum-exporter alerts history --severity critical --since 7d --output json"""


class RequestError(ExporterError):
    """The exporter refused a request or cannot be reached."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its actions."""
    parser = subparsers.add_parser(
        "alerts",
        help="list, acknowledge, resolve and silence alerts of a running exporter",
        description="Shows what is pending or fires, and what happened, and acts on it, through the API of a "
        "running exporter. Exit code 1: it refused, or cannot be reached.",
        epilog=_EXAMPLES,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--url", default=DEFAULT_URL, help="the exporter, USER:PASSWORD@ allowed (%(default)s)"
    )
    add_output(shared, "table", "json")
    shared.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    found = actions.add_parser(
        "list",
        parents=[shared],
        help="what is pending or fires, and when it is sent next",
        description="Lists alert instances that are pending or fire: since when, the value, how many "
        "notifications went out, how many were held back, and when the next one is sent or why none is.",
        epilog="examples:\n  quantum-exporter alerts list\n"
        "  quantum-exporter alerts list 'severity=\"critical\"' --output json",
    )
    found.add_argument("matchers", nargs="*", help='such as severity="critical"')

    for name, text, more in (
        ("ack", "stop the repetitions of an alert", "Nothing more is sent until the episode ends."),
        (
            "resolve",
            "resolve an alert by hand",
            "The episode ends and stays mute until its condition clears.",
        ),
    ):
        one = actions.add_parser(
            name,
            parents=[shared],
            help=text,
            description=more,
            epilog=f"examples:\n  quantum-exporter alerts {name} {_ID} --notes 'restarting the provider'",
        )
        one.add_argument("id", help="as `alerts list` shows it")
        one.add_argument("--by", default="", help="who acts (default: the user)")
        one.add_argument("--notes", default="")

    history = actions.add_parser(
        "history",
        parents=[shared],
        help="episodes, newest first",
        description="Lists past and present episodes, newest first: when, for how long, who acted, how many "
        "notifications went out.",
        epilog="examples:\n  quantum-exporter alerts history --since 24h\n"
        "  quantum-exporter alerts history --severity critical --since 7d --output json\n"
        "  quantum-exporter alerts history --label provider=kraken --state resolved",
    )
    for name in ("alertname", "severity", "receiver", "by"):
        history.add_argument(f"--{name}", default="")
    history.add_argument("--state", choices=("firing", "resolved"), default="")
    history.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    history.add_argument("--since", default="", help="a duration such as 24h or a time")
    history.add_argument("--until", default="", help="a duration such as 1h or a time")
    history.add_argument("--limit", type=int, default=50)

    silence = actions.add_parser(
        "silence",
        help="silences",
        description="Adds, lists and ends silences. amtool can be pointed at the exporter as well.",
        epilog=_SILENCES,
    )
    steps = silence.add_subparsers(dest="step", metavar="STEP", required=True)
    add = steps.add_parser(
        "add",
        parents=[shared],
        help="silence what matches",
        description="Silences alert instances that all matchers match; prints the silence's id.",
        epilog=_SILENCES.rpartition("\n")[0],
    )
    add.add_argument("matchers", nargs="+", help='such as alertname=Down or provider=~"kraken|coingecko"')
    add.add_argument("--duration", "-d", default="1h")
    add.add_argument("--author", "-a", default="")
    add.add_argument("--comment", "-c", required=True)
    query = steps.add_parser(
        "list",
        parents=[shared],
        help="active and pending silences",
        description="Lists silences: what they match, until when, whose they are and why.",
        epilog="examples:\n  quantum-exporter alerts silence list --expired",
    )
    query.add_argument("--expired", action="store_true", help="expired ones too")
    expire = steps.add_parser(
        "expire",
        parents=[shared],
        help="end silences now",
        description="Ends silences now, by their ids.",
        epilog="examples:\n  quantum-exporter alerts silence expire 0d9c8a52-70b1-4a0e-9f3e-0f2f6f3f7e10",
    )
    expire.add_argument("ids", nargs="+")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask the exporter and print. Returns 0, or 1 where it refused or cannot be reached."""
    api = Api(args.url, args.timeout)
    actions = {"list": _list, "ack": _act, "resolve": _act, "history": _history, "silence": _silence}
    try:
        actions[args.action](api, args)
    except RequestError as error:
        print(f"quantum-exporter: error: {error}", file=sys.stderr)
        return 1
    return 0


class Api:
    """The HTTP API of a running exporter; credentials may stand in the URL."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url {url!r} is not an HTTP URL, such as {DEFAULT_URL}")
        host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
        netloc = host + (f":{parts.port}" if parts.port else "")
        self._base = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
        self._headers = {"Accept": "application/json"}
        if parts.username:
            token = base64.b64encode(f"{parts.username}:{parts.password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._timeout_s = timeout_s

    def call(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """The decoded answer.

        Raises: RequestError with what the exporter says.
        """
        text = urlencode(
            [(name, value) for name, value in query.items() if value not in ("", None)], doseq=True
        )
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(
            f"{self._base}{path}" + (f"?{text}" if text else ""), data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise RequestError(_refusal(error)) from error
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise RequestError(f"cannot reach {self._base}: {reason}; is the exporter running?") from error
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise RequestError(f"{self._base} does not answer as an exporter does") from error


def _list(api: Api, args: argparse.Namespace) -> None:
    found = api.call("GET", "/api/v1/alerts/outlook", filter=_checked(args.matchers))["data"]["alerts"]
    if args.output == "json":
        _print_json(found)
        return
    found.sort(key=lambda one: (one["state"] != "firing", one.get("firedAt") or one["activeAt"]))
    rows = [
        (
            one["id"] or "-",
            one["labels"].get("alertname", ""),
            one.get("severity", ""),
            one["state"],
            _labels(one["labels"]),
            _shown_value(one["value"]),
            _ago(one.get("firedAt") or one["activeAt"]),
            str(one.get("notifications", 0))
            + (f" (+{one['suppressed']} held)" if one.get("suppressed") else ""),
            _when(one.get("nextSendAt")) or one.get("why", ""),
        )
        for one in found
    ]
    columns = ("id", "alert", "severity", "state", "labels", "value", "since", "sent", "next send")
    _print_table(columns, rows, "nothing is pending or firing")


def _act(api: Api, args: argparse.Namespace) -> None:
    body = {"by": args.by or _user(), "notes": args.notes}
    done = api.call("POST", f"/api/v1/alerts/{quote(args.id, safe='')}/{args.action}", body)["data"]
    if args.output == "json":
        _print_json(done)
    else:
        word = "acknowledged" if args.action == "ack" else "resolved"
        print(f"{done['id']} {word} by {body['by']}")


def _history(api: Api, args: argparse.Namespace) -> None:
    found = api.call(
        "GET",
        "/api/v1/alerts/history",
        alertname=args.alertname,
        severity=args.severity,
        state=args.state,
        receiver=args.receiver,
        by=args.by,
        start=moment(args.since, "--since"),
        end=moment(args.until, "--until"),
        filter=_checked(args.label, equal_only=True),
        limit=args.limit,
    )["data"]["episodes"]
    if args.output == "json":
        _print_json(found)
        return
    rows = [
        (
            _when(one["triggered_at"]),
            one["alertname"],
            one["severity"],
            _labels(one["labels"] or {}),
            _span(one["fired_seconds"]) + ("" if one["resolved_at"] else " ..."),
            f"{one['resolved_by'] or ''} {one['resolve_reason'] or ''}".strip() or "firing",
            one["acked_by"] or "",
            str(one["notification_count"])
            + (f" (+{one['suppressed_count']} held)" if one["suppressed_count"] else ""),
            one["resolution_notes"] or one["ack_notes"] or "",
        )
        for one in found
    ]
    columns = ("fired at", "alert", "severity", "labels", "for", "resolved", "acknowledged", "sent", "notes")
    _print_table(columns, rows, "no episodes")


def _silence(api: Api, args: argparse.Namespace) -> None:
    if args.step == "add":
        now = datetime.now(UTC)
        body = {
            "matchers": [
                {
                    "name": one.name,
                    "value": one.value,
                    "isRegex": one.op in (MatchOp.REGEX, MatchOp.NOT_REGEX),
                    "isEqual": one.op in (MatchOp.EQUAL, MatchOp.REGEX),
                }
                for text in _checked(args.matchers)
                for one in parse_matchers(text)
            ],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(milliseconds=_duration(args.duration))).isoformat(),
            "createdBy": args.author or _user(),
            "comment": args.comment,
        }
        done = api.call("POST", "/api/v2/silences", body)
        print(json.dumps(done) if args.output == "json" else done["silenceID"])
        return
    if args.step == "expire":
        for silence_id in args.ids:
            api.call("DELETE", f"/api/v2/silence/{quote(silence_id, safe='')}")
        if args.output == "json":
            _print_json({"expired": args.ids})
        return
    found = api.call("GET", "/api/v2/silences")
    if not args.expired:
        found = [one for one in found if one["status"]["state"] != "expired"]
    if args.output == "json":
        _print_json(found)
        return
    alerts = api.call("GET", "/api/v1/alerts/outlook")["data"]["alerts"]
    quiet = Counter(silence for alert in alerts for silence in alert.get("silencedBy", ()))
    rows = [
        (one["id"], _matchers_text(one["matchers"]), one["status"]["state"], str(quiet[one["id"]]),
         _when(one["endsAt"]), one["createdBy"], one["comment"])
        for one in found
    ]  # fmt: skip
    _print_table(("id", "matchers", "state", "alerts", "ends", "by", "comment"), rows, "no silences")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    if not rows:
        print(nothing)
        return
    console = Console(width=None if sys.stdout.isatty() else 240)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        style = next((_STYLES[cell] for cell in row if cell in _STYLES), None)
        table.add_row(*(Text(printable(cell, 300)) for cell in row), style=style)
    console.print(table)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        answer = json.loads(error.read(65_536))
    except (ValueError, OSError):
        answer = None
    text = answer.get("error") if isinstance(answer, Mapping) else answer
    return printable(text, 1000) if isinstance(text, str) and text else f"HTTP {error.code} {error.reason}"


def _checked(texts: Sequence[str], *, equal_only: bool = False) -> list[str]:
    for text in texts:
        try:
            found = parse_matchers(text)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if equal_only and any(one.op is not MatchOp.EQUAL for one in found):
            raise ConfigError(f"--label {text!r}: only NAME=VALUE is possible here")
    return list(texts)


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def moment(text: str, flag: str) -> str:
    """A time for the API, from a duration before now, Unix seconds or RFC 3339."""
    if not text or text.replace(".", "").isdigit():
        return text
    try:
        moment = datetime.now(UTC) - timedelta(milliseconds=parse_duration(text))
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ConfigError(f"{flag} {text!r} is neither a duration such as 24h nor a time") from error
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    return str(moment.timestamp())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return os.environ.get("USER", "unknown")


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(
        f"{name}={value}" for name, value in labels.items() if name not in ("alertname", "severity")
    )


def _matchers_text(matchers: Sequence[Mapping[str, Any]]) -> str:
    ops = {(False, True): "=", (False, False): "!=", (True, True): "=~", (True, False): "!~"}
    return " ".join(
        f"{one['name']}{ops[bool(one['isRegex']), bool(one.get('isEqual', True))]}{json.dumps(one['value'])}"
        for one in matchers
    )


def _shown_value(text: str) -> str:
    try:
        return f"{float(text):.6g}"
    except ValueError:
        return text


def _when(text: str | None) -> str:
    """A time of the API, to the second, in UTC."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _ago(text: str) -> str:
    return _span((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= size:
            smaller = {"d": ("h", 3_600), "h": ("m", 60), "m": ("s", 1)}[unit]
            rest = whole % size // smaller[1]
            return f"{whole // size}{unit}" + (f"{rest}{smaller[0]}" if rest else "")
    return f"{whole}s"
