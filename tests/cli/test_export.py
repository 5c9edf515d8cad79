"""`quantum-exporter export prometheus-rules`, judged by promtool and amtool."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.cli import main
from tests.helpers.peers import peer

CONFIG = """
rule_files: [rules.yml]
route:
  receiver: chat
  routes:
  - matchers: ['severity="critical"']
    receiver: ops
    cooldown: 10m
    group_by: [alertname]
    group_wait: 10s
    routes:
    - {matchers: ['team=~"a|b"'], receiver: log, mute_time_intervals: [nights], continue: true}
receivers:
- name: ops
  fallback: chat
  webhook_configs:
  - url: http://127.0.0.1:9099/hook
    send_resolved: false
    max_alerts: 5
    http_config: {basic_auth: {username: u, password: 'p"w'}, tls_config: {insecure_skip_verify: true}}
- {name: chat, apprise_configs: [{urls: ["json://127.0.0.1"]}]}
inhibit_rules:
- {source_matchers: [alertname="Down"], target_matchers: ['severity!="critical"'], equal: [a]}
time_intervals:
- name: nights
  time_intervals:
  - times: [{start_time: "22:00", end_time: "24:00"}]
    weekdays: [monday:friday]
    months: ["1:3"]
    days_of_month: ["-3:-1"]
    location: Europe/Berlin
"""
RULES = """
groups:
- name: g
  interval: 30s
  limit: 10
  labels: {team: a}
  cooldown: 30m
  rules:
  - {record: x:sum, expr: sum(x)}
  - alert: Down
    expr: |
      up == 0
    for: 1m
    keep_firing_for: 2m
    keep_firing_expr: up < 1
    missing_data: keep
    labels: {severity: critical}
    annotations: {summary: '{{ $labels.a }} "is" down'}
  - {alert: Shared, expr: x > 1, cooldown: 1h, cooldown_by: [a]}
  - {alert: Once, expr: x > 2, cooldown: 0s}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yml").write_text(CONFIG)
    (tmp_path / "rules.yml").write_text(RULES)
    return tmp_path


def run_peer(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.peer
def test_what_is_written_is_accepted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """promtool takes the rule files, amtool the configuration, with all receivers."""
    out = folder / "out"
    assert main(["export", "prometheus-rules", str(out), "--config.file", str(folder / "config.yml")]) == 0
    assert "4 rules written to" in capsys.readouterr().out
    assert "4 rules found" in run_peer(peer("promtool"), "check", "rules", str(out / "rules.yml"))
    assert "3 receivers" in run_peer(peer("amtool"), "check-config", str(out / "alertmanager.yml"))
    routed = run_peer(
        peer("amtool"), "config", "routes", "test", f"--config.file={out / 'alertmanager.yml'}",
        "severity=critical", "alertname=Down",
    )  # fmt: skip
    assert routed.splitlines()[0] == "ops"
    text = (out / "rules.yml").read_text()
    for words in ("# cooldown 30m", "# missing_data keep", "# keep_firing_expr left out", "team"):
        assert words in text
    assert "cooldown_by:" not in text
    assert (out / "alertmanager.yml").stat().st_mode & 0o077 == 0


@pytest.mark.peer
def test_shipped_rules(tmp_path: Path) -> None:
    """The shipped rules and the built-in routes are accepted too."""
    assert main(["export", "prometheus-rules", str(tmp_path)]) == 0
    files = [str(path) for path in tmp_path.glob("*.yml") if path.name != "alertmanager.yml"]
    assert len(files) >= 4
    assert "SUCCESS" in run_peer(peer("promtool"), "check", "rules", *files)
    run_peer(peer("amtool"), "check-config", str(tmp_path / "alertmanager.yml"))


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that are there stay, unless --force says otherwise."""
    command = ["export", "prometheus-rules", str(folder), "--config.file", str(folder / "config.yml")]
    assert main(command) == 2
    assert "rules.yml already" in capsys.readouterr().err
    assert (folder / "rules.yml").read_text() == RULES


def test_cooldowns_become_routes(folder: Path) -> None:
    """Each cooldown has its route, the route's floor applied."""
    out = folder / "out"
    main(["export", "prometheus-rules", str(out), "--config.file", str(folder / "config.yml")])
    text = (out / "alertmanager.yml").read_text()
    assert "repeat_interval: 30m" in text
    assert "repeat_interval: 1h" in text
    assert 'group_by: ["alertname", "a"]' in text
    assert "repeat_interval: 5d" in text


@pytest.mark.peer
def test_prometheus_rule_holds_the_rules(folder: Path, tmp_path: Path) -> None:
    """The spec of the PrometheusRule is a rule file that promtool takes; name and labels are as asked for."""
    out = folder / "out"
    command = ["export", "kubernetes", "--config.file", str(folder / "config.yml"), "--name", "mine"]
    assert main([*command, "--label", "release=prom", "--label", "a.b/c=d", str(out)]) == 0
    manifest = yaml.safe_load((out / "prometheusrule.yml").read_text())
    assert manifest["kind"] == "PrometheusRule"
    assert manifest["metadata"] == {"name": "mine", "labels": {"release": "prom", "a.b/c": "d"}}
    (tmp_path / "spec.yml").write_text(yaml.safe_dump(manifest["spec"]))
    assert "4 rules found" in run_peer(peer("promtool"), "check", "rules", str(tmp_path / "spec.yml"))


def test_what_was_written_is_told_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--output json names each file; a second run without --force changes nothing."""
    command = ["export", "kubernetes", "--config.file", str(folder / "config.yml"), "-o", "json"]
    assert main([*command, str(folder / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"rules": 4, "files": [str(folder / "out" / "prometheusrule.yml")]}
    assert main([*command, str(folder / "out")]) == 2
    assert "give --force" in capsys.readouterr().err
