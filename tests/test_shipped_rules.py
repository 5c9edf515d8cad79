"""The shipped rules are those of the contract, tested, documented, and good in plain Prometheus too."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.assets import asset_dir
from exporter.ingest.target import REPORT_NAMES
from exporter.model.durations import format_duration
from exporter.rules.format import read_rule_files
from exporter.rules.lint import LintOptions, lint
from exporter.rules.model import AlertingRule, MissingData, RuleGroup
from exporter.rules.ruletest import FileResult, run_tests
from exporter.rules.ruletest_format import read_test_file
from exporter.rules.ruletest_report import coverage_lines
from tests.helpers.peers import peer

ROOT = Path(__file__).parents[1]
OUR_KEYS = ("cooldown", "cooldown_by", "missing_data", "keep_firing_expr")
TABLES = ("quantum_anomaly_logs", "quantum_alert_notifications")
NEWER_KEYS = ("keep_firing_for",)  # unknown to Debian's promtool

TWELVE = {
    "SystemSuspended": ("critical", "5m"),
    "FatalAnomaly": ("critical", "5m"),
    "DatabaseConnectionLost": ("critical", "2m"),
    "AllApisFailing": ("critical", "5m"),
    "MetricsPipelineStalled": ("critical", "5m"),
    "DataQualityLow": ("warning", "30m"),
    "ApiReliabilityLow": ("warning", "1h"),
    "HighErrorRate": ("warning", "30m"),
    "SlowResponseTime": ("warning", "30m"),
    "AccuracyDrop": ("info", "2h"),
    "AnomalySpike": ("info", "1h"),
    "UserEngagementDrop": ("info", "4h"),
}


def rule_files() -> list[Path]:
    return sorted(asset_dir("rules").glob("*.yml"))


@pytest.fixture(scope="module")
def groups() -> tuple[RuleGroup, ...]:
    return read_rule_files([(str(path), path.read_text()) for path in rule_files()])


@pytest.fixture(scope="module")
def alerts(groups: tuple[RuleGroup, ...]) -> dict[str, AlertingRule]:
    return {rule.name: rule for group in groups for rule in group.rules if isinstance(rule, AlertingRule)}


@pytest.fixture(scope="module")
def results() -> list[FileResult]:
    done = []
    for path in sorted((ROOT / "rules/tests").glob("*_test.yml")):
        test_file = read_test_file(path.read_text(), str(path))
        rules = [(str(path.parent / name), (path.parent / name).read_text()) for name in test_file.rule_files]
        done.append(run_tests(test_file, read_rule_files(rules)))
    return done


def test_the_twelve_rules(alerts: dict[str, AlertingRule]) -> None:
    """Names, severities and cooldowns are the contract's."""
    found = {
        name: (alerts[name].severity, format_duration(alerts[name].cooldown_ms))
        for name in TWELVE
        if name in alerts
    }
    assert found == TWELVE


def test_the_unit_tests_pass_and_cover_every_rule(results: list[FileResult]) -> None:
    """Each shipped rule is made to fire and kept silent by its unit tests, which all pass."""
    assert [failure for result in results for test in result.tests for failure in test.failures] == []
    head, *gaps = coverage_lines(results)
    assert gaps == [], head


def test_nothing_to_find(groups: tuple[RuleGroup, ...]) -> None:
    """The linter finds nothing in the shipped rules."""
    assert [str(finding) for finding in lint(groups, LintOptions())] == []


def test_every_metric_exists(groups: tuple[RuleGroup, ...]) -> None:
    """Every metric name in an expression, and in a runbook, is one that the exporter has."""
    reference = (ROOT / "docs/metrics.md").read_text()
    known = [*re.findall(r"^\| `(quantum_\w+)`", reference, re.MULTILINE), *REPORT_NAMES]
    findings = lint(groups, LintOptions(known_metrics=known))
    assert [str(finding) for finding in findings if finding.code == "metric-unknown"] == []
    for path in sorted((ROOT / "docs/runbooks").glob("*.md")):
        for name in re.findall(r"quantum_\w+", path.read_text()):
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            assert {name, family} & {*known, *TABLES}, f"{path.name}: {name}"


def test_each_rule_has_a_runbook(alerts: dict[str, AlertingRule]) -> None:
    """runbook_url leads to a file in docs/ that says what the alert means and what to do."""
    for name, rule in alerts.items():
        assert rule.annotations["runbook_url"] == f"docs/runbooks/{name}.md"
        text = (ROOT / rule.annotations["runbook_url"]).read_text()
        assert text.startswith(f"# {name}\n")
        assert re.search(r"^## (What it means|What to do)", text, re.MULTILINE)


def test_rules_from_the_database_keep_without_data(alerts: dict[str, AlertingRule]) -> None:
    """What stands on the platform's tables does not resolve because the database is away."""
    names = "SystemSuspended FatalAnomaly DataQualityLow AccuracyDrop AnomalySpike UserEngagementDrop"
    assert {alerts[name].missing_data for name in names.split()} == {MissingData.KEEP}


@pytest.mark.peer
def test_promtool_agrees(tmp_path: Path) -> None:
    """Without our own keys the files pass promtool's check, and its unit tests give the same verdict."""
    promtool = peer("promtool")
    (tmp_path / "tests").mkdir()
    for path in rule_files():
        document = yaml.safe_load(path.read_text())
        for entry in [
            *document["groups"],
            *(rule for group in document["groups"] for rule in group["rules"]),
        ]:
            for key in (*OUR_KEYS, *NEWER_KEYS):
                entry.pop(key, None)
        (tmp_path / path.name).write_text(yaml.safe_dump(document, sort_keys=False))
    tests = sorted((ROOT / "rules/tests").glob("*_test.yml"))
    for path in tests:
        (tmp_path / "tests" / path.name).write_text(path.read_text())
    checked = subprocess.run(
        [promtool, "check", "rules", *(path.name for path in rule_files())],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = subprocess.run(
        [promtool, "test", "rules", *(path.name for path in tests)],
        cwd=tmp_path / "tests", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout + tested.stderr
