"""`quantum-exporter why`: the answer first, then the tree; what is refused."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from exporter.cli import main
from exporter.cli.why import render, show

PART: dict[str, Any] = {
    "text": "good / all < 0.9",
    "value": None,
    "series": 0,
    "comparison": {
        "value": "0.93", "op": "<", "threshold": "0.9", "holds": False, "distance": "0.03",
        "relative": 0.0333, "text": "0.93 is above the threshold 0.9 (3.3 % away)",
    },
    "parts": [
        {
            "text": "good / all", "value": "0.93", "series": 1, "comparison": None,
            "parts": [
                {"text": "good", "value": "93", "series": 1, "comparison": None, "parts": []},
                {"text": "all", "value": None, "series": 3, "comparison": None, "parts": []},
            ],
        },
        {"text": "0.9", "value": "0.9", "series": 1, "comparison": None, "parts": []},
    ],
}  # fmt: skip
GATE: dict[str, Any] = {
    "receiver": "ops", "kind": "webhook", "route": "0.1", "routeMatchers": ['severity="warning"'],
    "cooldown": 3600, "armedAt": "2026-01-31T11:20:05.000Z", "until": "2026-01-31T12:20:05.000Z",
    "suppressed": 2, "onItsWay": False, "muted": "nights",
}  # fmt: skip
INSTANCE: dict[str, Any] = {
    "labels": {"alertname": "A", "provider": "kraken"},
    "shown": "kraken",
    "state": "inactive",
    "returned": False,
    "reason": PART["comparison"]["text"],
    "missing": [],
    "comparison": PART["comparison"],
    "tree": PART,
    "activeAt": None,
    "firedAt": None,
    "forLeft": 120,
    "held": "",
    "quiet": "",
    "destinations": [GATE],
    "deliveries": [
        {
            "episode": "e", "receiver": "ops", "status": "firing", "state": "dead", "attempts": 3,
            "createdAt": "2026-01-31T11:20:05.000Z", "finishedAt": None, "answer": "given up: HTTP 500",
        }
    ],
}  # fmt: skip
RULE: dict[str, Any] = {
    "name": "A", "group": "g", "file": "rules/a.yml", "line": 7, "expr": "good / all < 0.9", "for": 120,
    "keepFiringFor": 300, "keepFiringExpr": "good / all < 0.95", "cooldown": 3600,
    "cooldownBy": ["provider"], "missingData": "keep", "evaluatedAt": "2026-01-31T12:00:05Z",
    "now": True, "health": "ok", "error": "",
    "inputs": [{"selector": "good", "series": 1, "missing": False},
               {"selector": "all", "series": 0, "missing": True}],
    "instances": [INSTANCE], "notes": ["a note"],
}  # fmt: skip
DOCUMENT = {
    "alert": "A",
    "at": "2026-01-31T12:00:07Z",
    "answer": "A does not fire for kraken",
    "rules": [RULE],
}

TEXT = """\
A does not fire for kraken

A in group g (rules/a.yml:7), judged at 2026-01-31 12:00:05
  for 2m, keep_firing_for 5m, keep_firing_expr good / all < 0.95, cooldown 1h by [provider], missing_data keep
  input good: 1 series
  input all: nothing
  inactive: kraken: 0.93 is above the threshold 0.9 (3.3 % away)
    good / all < 0.9  nothing  (does not hold)
      good / all  = 0.93
        good  = 93
        all  3 series
    to ops by route 0.1 (severity="warning"): cooldown armed 2026-01-31 11:20:05, until 2026-01-31 12:20:05, \
2 firings held back, muted by nights
    2026-01-31 11:20:05 firing to ops: given up: HTTP 500 after 3 tries
  note: a note"""


class Exporter:
    """Answers every request with one document, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: tuple[int, Any] = (200, {"status": "success", "data": DOCUMENT})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, document = outer.answer
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    found = Exporter()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def test_the_answer_and_the_tree() -> None:
    """The first line is the answer; numbers, gates and deliveries are under their instance."""
    assert "\n".join(render(DOCUMENT)) == TEXT


def test_of_many_inactive_ones_the_closest_is_taken_apart() -> None:
    """The others have their line, and their gate where something was sent; the default route has a name."""
    quiet = {**INSTANCE, "deliveries": [], "destinations": [], "shown": "other"}
    gate = {**INSTANCE["destinations"][0], "armedAt": None, "until": None, "suppressed": 0, "route": "0"}
    quiet["destinations"] = [gate]
    first = {**INSTANCE, "destinations": [{**gate, "routeMatchers": []}]}
    rule = {**RULE, "instances": [first, quiet, INSTANCE], "notes": []}
    lines = list(render({**DOCUMENT, "rules": [rule]}))
    assert sum(line.startswith("    good / all < 0.9") for line in lines) == 1
    assert "  inactive: other: 0.93 is above the threshold 0.9 (3.3 % away)" in lines
    assert sum("by the top route" in line for line in lines) == 1
    assert sum("cooldown armed" in line for line in lines) == 1
    assert lines[-1] == "  the values of each: --labels, or -o json"


def test_states_in_words() -> None:
    """Pending with what is left, firing with its values, what holds it, who keeps it quiet."""
    pending = {**INSTANCE, "state": "pending", "activeAt": "2026-01-31T11:59:05Z", "forLeft": 59.754}
    firing = {
        **INSTANCE,
        "state": "firing", "firedAt": "2026-01-31T11:59:05Z", "activeAt": "2026-01-31T11:58:05Z",
        "value": "0.5", "peak": "0.4", "held": "keep_firing_for", "keepFiringLeft": 90,
        "quiet": "acknowledged by bob", "destinations": [], "deliveries": [], "tree": None,
    }  # fmt: skip
    lines = list(render({**DOCUMENT, "rules": [{**RULE, "instances": [pending, firing]}]}))
    assert "    pending since 2026-01-31 11:59:05, 1m of `for` left" in lines
    at = lines.index("  firing: kraken: 0.93 is above the threshold 0.9 (3.3 % away)")
    assert lines[at + 1 :] == [
        "    firing since 2026-01-31 11:59:05 (active since 2026-01-31 11:58:05), value 0.5, peak 0.4",
        "    held: keep_firing_for, 1m30s left",
        "    quiet: acknowledged by bob",
        "    no route leads to a receiver that sends",
        "  note: a note",
    ]


def test_many_instances_are_cut() -> None:
    """Ten are shown, the rest is counted."""
    lines = list(render({**DOCUMENT, "rules": [{**RULE, "instances": [INSTANCE] * 25}]}))
    assert sum(line.startswith("  inactive:") for line in lines) == 10
    assert "  ... and 15 more (--output json, or --labels)" in lines


def test_over_http(exporter: Exporter, capsys: pytest.CaptureFixture[str]) -> None:
    """Name, time and matchers go to the exporter; JSON is printed as it came."""
    flags = ["--at", "2026-01-31T12:00:07Z", "--labels", 'provider="kraken"', "--url", exporter.url]
    assert main(["why", "A", *flags]) == 0
    assert capsys.readouterr().out == TEXT + "\n"
    asked = urlsplit(exporter.asked[0])
    assert asked.path == "/api/v1/alerts/why"
    assert parse_qs(asked.query) == {
        "alert": ["A"], "at": ["1769860807.0"], "match": ['provider="kraken"'],
    }  # fmt: skip
    assert main(["why", "A", "--url", exporter.url, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT


def test_refusals(exporter: Exporter, capsys: pytest.CaptureFixture[str]) -> None:
    """1 where the exporter refuses or is not there, 2 for wrong use; no traceback."""
    exporter.answer = (404, {"status": "error", "error": "no alerting rule is called Nope"})
    assert main(["why", "Nope", "--url", exporter.url]) == 1
    assert capsys.readouterr().err == "quantum-exporter: error: no alerting rule is called Nope\n"
    assert main(["why", "A", "--url", "http://127.0.0.1:1"]) == 1
    assert "is the exporter running?" in capsys.readouterr().err
    assert main(["why", "A", "--at", "soon"]) == 2
    assert "neither a duration" in capsys.readouterr().err
    assert main(["why", "A", "--labels", "{{"]) == 2


def test_control_characters_are_escaped(exporter: Exporter, capsys: pytest.CaptureFixture[str]) -> None:
    """A label value cannot write to the terminal."""
    bad = {**DOCUMENT, "answer": "A fires for \x1b[31mred"}
    exporter.answer = (200, {"status": "success", "data": bad})
    main(["why", "A", "--url", exporter.url])
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_gets_what_fits_its_width() -> None:
    """Expressions lose their middle, never their value; a pipe gets every line as it is."""
    lines = [
        "the answer",
        "  firing: kraken: why",
        f"    {'x' * 200} < 0.9  = 0.6927  (does not hold)",
        "    to log: " + "word " * 12 + "end",
    ]
    out = io.StringIO()
    show(lines, Console(file=out, force_terminal=True, width=60, color_system=None, highlight=False))
    shown = out.getvalue().splitlines()
    assert shown[:2] == lines[:2]
    assert len(shown[2]) == 60
    assert shown[2].endswith("< 0.9  = 0.6927  (does not hold)")
    assert "…" in shown[2]
    assert [" ".join(shown[3:]).split(), shown[4][:6], len(shown)] == [lines[3].split(), " " * 6, 5]
