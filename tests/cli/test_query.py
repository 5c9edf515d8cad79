"""`quantum-exporter query` against our server and Debian's, beside promtool."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from exporter.cli import main
from exporter.cli.query_output import print_tree
from exporter.promql.explain import Step
from tests.helpers.peers import peer
from tests.promql.prometheus import Prometheus
from tests.web.test_api_differential import OurServer, T, exposition, our_storage


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    with OurServer(our_storage()) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home: Path = tmp_path_factory.mktemp("prometheus")
    with Prometheus(peer("prometheus"), peer("promtool"), home, exposition()) as server:
        yield f"http://127.0.0.1:{server.port}"


def query(*args: str) -> tuple[int, str, str]:
    """Exit code, output and error output of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["query", *args])
    return code, out.getvalue(), err.getvalue()


AT = ("--time", str(T + 30))
RANGE = ("--start", str(T), "--end", str(T + 60), "--step", "20s")
URL = "URL"
QUESTIONS = [
    ("instant", *AT, URL, "up"),
    ("instant", *AT, URL, "odd"),
    ("instant", *AT, URL, "1.5"),
    ("instant", *AT, URL, "up[1m]"),
    ("instant", "--time", f"{T + 30}.5", URL, "sum(up)"),
    ("instant", "--time", "2026-03-02T00:00:30Z", URL, "nothing"),
    ("range", *RANGE, URL, "up or calls_total"),
    ("range", *RANGE, URL, "nothing"),
    ("range", "--start", str(T), "--end", str(T + 900), URL, "up"),
    ("series", "--match", "up", "--match", "odd", URL),
    ("labels", URL, "job"),
    ("labels", "--match", "up", URL, "__name__"),
]


@pytest.mark.parametrize("output", ["promql", "json"])
@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_output_is_that_of_promtool(ours: str, theirs: str, question: tuple[str, ...], output: str) -> None:
    """Both programs print the same for both servers, byte for byte."""
    printed = set()
    for url in (ours, theirs):
        args = [url if arg == URL else arg for arg in question]
        args[1:1] = ["-o", output]
        code, text, errors = query(*args)
        assert (code, errors) == (0, "")
        done = subprocess.run([peer("promtool"), "query", *args], check=False, capture_output=True, text=True)
        printed |= {text, done.stdout}
    assert len(printed) == 1


def test_tables_and_charts(ours: str) -> None:
    """A row for each sample; a chart with axes and a legend."""
    code, text, _ = query("instant", "-o", "table", *AT, ours, "up")
    assert code == 0
    assert 'up{instance="x:1", job="a"}' in text
    assert "2026-03-02 00:00:30" in text
    code, text, _ = query("range", "-o", "chart", *RANGE, ours, "calls_total")
    assert code == 0
    assert "┤" in text
    assert 'calls_total{code="200", job="a"}' in text
    code, text, _ = query("series", "-o", "table", "--match", "up", ours)
    assert (code, text.count('__name__="up"')) == (0, 2)
    code, text, _ = query("range", "-o", "chart", *RANGE, ours, "nothing")
    assert (code, text) == (0, "no finite values to draw\n")


def test_explain_prints_the_tree(ours: str) -> None:
    """Indented lines in a pipe, with value, series and time of each sub-expression; JSON on demand."""
    code, text, _ = query("explain", *AT, ours, "sum by (job) (up) + scalar(vector(2))")
    lines = text.splitlines()
    assert code == 0
    assert lines[0].startswith("sum by (job) (up) + scalar(vector(2))  [2 series, 2 samples; ")
    assert lines[1].startswith("  sum by (job) (up)  [2 series")
    assert lines[2].startswith("    up  [2 series")
    assert lines[3].startswith("  scalar(vector(2)) = 2  [scalar; ")
    code, text, _ = query("explain", "-o", "json", *AT, ours, "1 + 1")
    assert (code, json.loads(text)["tree"]["value"]) == (0, "2")


def test_explain_draws_a_tree_on_a_terminal() -> None:
    """Branches, and no line that says the same twice."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=120)
    root = Step("a + b", "instant vector", 1, 1, 0.002, "3", [Step("a", "instant vector", 1, 1, 0.001, "1")])
    print_tree(root, console)
    assert isinstance(console.file, io.StringIO)
    first, second = console.file.getvalue().splitlines()
    assert first == "a + b = 3  1 series, 1 samples  2.00 ms, own 1.00 ms"
    assert second.startswith("└── a = 1")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ("instant", *AT, URL, "sum("),
            2,
            'invalid parameter "query": 1:5: parse error: unclosed left paren',
        ),
        (("instant", "--time", "x", URL, "up"), 2, 'invalid parameter "time": cannot parse "x"'),
        (
            ("range", "--start", str(T), "--end", str(T - 1), URL, "up"),
            2,
            "start time is not before end time",
        ),
        (("range", "--step", "x", URL, "up"), 2, 'invalid parameter "step": cannot parse "x"'),
        (("series", URL), 2, "no match[] parameter provided"),
        (("instant", "http://127.0.0.1:1", "up"), 1, "http://127.0.0.1:1 does not answer"),
        (("instant", "nowhere", "up"), 2, '"nowhere" is not the URL of a server (allowed: http://HOST:PORT)'),
        (("instant", *AT, URL, "up * on() up"), 1, "found duplicate series for the match group {}"),
    ],
)
def test_errors_say_what_is_wrong(ours: str, args: tuple[str, ...], code: int, message: str) -> None:
    """2 for a wrong question, 1 for an answer that does not come; no traceback."""
    got, out, err = query(*[ours if arg == URL else arg for arg in args])
    assert (got, out) == (code, "")
    assert err.startswith(f"quantum-exporter: error: {message}")


def test_warnings_and_infos_go_beside_the_answer(ours: str) -> None:
    """On the error output, so that the answer can be piped."""
    code, out, err = query("instant", *AT, ours, "quantile(2, up)")
    assert (code, out) == (0, "{} => +Inf @[1772409630]\n")
    assert err.startswith("warning: PromQL warning: quantile value should be between 0 and 1, got 2")
