"""`check rules`, `check config` and `test rules` as a user meets them: output and exit codes."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from exporter.cli import main

GOOD = """
groups:
- name: g
  rules:
  - {alert: A, expr: x > 1, labels: {severity: info}, annotations: {summary: s, runbook_url: r}}
"""
TEST = """
rule_files: [{rules}]
tests:
- name: one
  interval: 1m
  input_series: [{{series: x, values: {value}}}]
  alert_rule_test: [{{eval_time: 0s, alertname: A, exp_alerts: []}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.yml").write_text(GOOD)
    (tmp_path / "never.yml").write_text(GOOD.replace("x > 1", "count(x) == 0"))
    (tmp_path / "plain.yml").write_text(GOOD.replace("summary: s, ", ""))
    (tmp_path / "bad.yml").write_text(GOOD.replace("x > 1", "sum("))
    (tmp_path / "pass_test.yml").write_text(TEST.format(rules="good.yml", value=0))
    (tmp_path / "fail_test.yml").write_text(TEST.format(rules="good.yml", value=5))
    (tmp_path / "config.yml").write_text("rule_files: [good.yml]\n")
    (tmp_path / "bad_config.yml").write_text("rule_files: [bad.yml]\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["check", "rules", "good.yml"], 0, "SUCCESS: 1 rules found"),
        (["check", "rules", "never.yml"], 1, "[never-true]"),
        (["check", "rules", "never.yml"], 1, "FAILED: 1 rules found, 1 error\n"),
        (["check", "rules", "g*d.yml"], 0, "Checking good.yml"),
        (["check", "rules", "no*.yml"], 1, "no*.yml: no file matches"),
        (
            ["check", "rules", "--metrics", "http://127.0.0.1:1", "good.yml"],
            2,
            "cannot reach http://127.0.0.1:1",
        ),
        (["check", "rules", "--ignore", "never-true", "never.yml"], 0, "SUCCESS"),
        (["check", "rules", "plain.yml"], 0, "SUCCESS: 1 rules found, 1 warning\n"),
        (["check", "rules", "--lint-fatal", "plain.yml"], 1, "[summary-missing]"),
        (["check", "rules", "good.yml", "bad.yml"], 1, "bad.yml:5:26: could not parse expression"),
        (["check", "rules", "none.yml"], 1, "none.yml: No such file"),
        (["check", "rules", "--evaluation-interval", "x", "good.yml"], 2, "--evaluation-interval"),
        (["check", "config", "config.yml"], 0, "SUCCESS: 1 rules found in 1 rule files"),
        (["check", "config", "bad_config.yml"], 1, "bad.yml:5:26: could not parse expression"),
        (["test", "rules", "pass_test.yml"], 0, "SUCCESS"),
        (["test", "rules", "pass_test.yml", "fail_test.yml"], 1, "+ not expected: {alertname="),
        (["test", "rules", "--run", "other", "fail_test.yml"], 0, "SUCCESS"),
        (["test", "rules", "--run", "(", "fail_test.yml"], 2, "--run"),
        (["test", "rules", "--coverage", "pass_test.yml"], 0, "no test makes it fire"),
        (["test", "rules", "none_test.yml"], 1, "No such file"),
    ],
)
def test_output_and_exit_code(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    """0 fine, 1 a check failed, 2 wrong use; the output says what and where."""
    monkeypatch.chdir(folder)
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert expected in shown.out + shown.err


@pytest.mark.parametrize("output", ["json", "sarif"])
def test_machine_readable(folder: Path, capsys: pytest.CaptureFixture[str], output: str) -> None:
    """JSON and SARIF are one document on standard output."""
    code = main(["check", "rules", "-o", output, str(folder / "never.yml"), str(folder / "bad.yml")])
    text = capsys.readouterr().out
    json.loads(text)
    assert code == 1
    assert "never-true" in text
    assert "could not parse expression" in text


def test_known_metrics_come_from_an_exposition(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--metrics takes what /metrics gives."""
    (folder / "metrics.txt").write_text("# HELP y A thing.\n# TYPE y gauge\ny 1\n")
    assert main(["check", "rules", "--metrics", str(folder / "metrics.txt"), str(folder / "good.yml")]) == 0
    assert 'no series is named "x"' in capsys.readouterr().out


def test_known_metrics_come_from_a_running_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--metrics takes the address of an exporter or Prometheus, and asks it for the names."""

    class Names(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "success", "data": [self.path, "xy"]}).encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Names) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert main(["check", "rules", "--metrics", address, str(folder / "good.yml")]) == 0
        thread.join()
    assert 'no series is named "x", did you mean "xy"?' in capsys.readouterr().out


def test_junit_file(folder: Path) -> None:
    """--junit writes the results beside the report."""
    main(["test", "rules", "--junit", str(folder / "out.xml"), str(folder / "fail_test.yml")])
    assert 'failures="1"' in (folder / "out.xml").read_text()
