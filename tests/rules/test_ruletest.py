from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from exporter.errors import RuleFormatError
from exporter.rules.ruletest import FileResult, run_tests
from exporter.rules.ruletest_format import read_test_file
from exporter.rules.ruletest_report import coverage_lines, junit_xml
from tests.rules.build import groups

RULES = """
groups:
- name: second
  rules:
  - {record: total, expr: sum(x)}
- name: first
  rules:
  - alert: High
    expr: total > 5
    for: 2m
    cooldown: 10m
    labels: {severity: page}
    annotations: {summary: "{{ $value }} at {{ $externalLabels.site }}"}
- name: third
  rules:
  - {alert: Never, expr: gone > 1}
"""

PASSING = """
evaluation_interval: 1m
group_eval_order: [second, first]
tests:
- name: rises
  interval: 1m
  external_labels: {site: here}
  input_series:
  - {series: 'x{i="a"}', values: 1 6x20}
  alert_rule_test:
  - {eval_time: 2m59s, alertname: High, exp_alerts: []}
  - eval_time: 3m
    alertname: High
    exp_alerts: [{exp_labels: {severity: page}, exp_annotations: {summary: 6 at here}}]
  promql_expr_test:
  - {expr: total, eval_time: 5m, exp_samples: [{labels: total, value: 6}]}
  - {expr: time(), eval_time: 90s, exp_samples: [{value: 90}]}
  - {expr: total > 9, eval_time: 5m}
"""


def run(text: str, rules: str = RULES) -> FileResult:
    return run_tests(read_test_file(text, "t.yml"), groups(rules))


def failures(text: str, rules: str = RULES) -> str:
    return "\n".join(one for test in run(text, rules).tests for one in test.failures)


def test_a_passing_file() -> None:
    """Alerts, annotations, expressions and evaluation order are judged as promtool judges them."""
    assert failures(PASSING) == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("2m59s, alertname: High, exp_alerts: []", "3m, alertname: High", "+ not expected: {alertname="),
        ("severity: page}, exp_ann", "severity: info}, exp_ann", "- not firing:  {alertname="),
        ("summary: 6 at here", "summary: 7 at here", "- annotation summary: 7 at here"),
        ("value: 90", "value: 91", "- exp: {} 91"),
        ("expr: total > 9", "expr: 'total > (x'", "err: 1:11: parse error"),
        ("expr: total, eval", "expr: nosuch, eval", "got: nothing"),
    ],
)  # fmt: skip
def test_a_failure_shows_the_difference(old: str, new: str, expected: str) -> None:
    """Each kind of wrong expectation fails with what was expected and what came."""
    assert old in PASSING
    text = failures(PASSING.replace(old, new))
    assert expected in text
    assert "name: rises" in text


def test_group_eval_order() -> None:
    """A group that reads another one's records sees this evaluation's only if it runs later."""
    late = PASSING.replace("[second, first]", "[first, second]")
    assert '- not firing:  {alertname="High"' in failures(late)


def test_a_rule_that_cannot_be_evaluated_ends_its_test() -> None:
    """The error names rule and time, and nothing else of that test is judged."""
    rules = "groups:\n- name: g\n  rules:\n  - {record: bad, expr: x * on () x}\n"
    text = (
        "tests:\n- interval: 1m\n  input_series:\n"
        "  - {series: 'x{i=\"a\"}', values: 1x5}\n  - {series: 'x{i=\"b\"}', values: 1x5}\n"
        "  promql_expr_test: [{expr: vector(1), eval_time: 1m, exp_samples: [{value: 2}]}]\n"
    )
    assert failures(text, rules).startswith("    rule: bad, time: 0s, err: found duplicate series")


def test_fuzzy_compare_takes_the_last_bit() -> None:
    """fuzzy_compare lets neighbouring floats pass, and no more; NaN equals NaN."""
    text = (
        "fuzzy_compare: {fuzzy}\ntests:\n- interval: 1m\n  input_series: [{{series: x, values: '{value}'}}]\n"
        "  promql_expr_test: [{{expr: x, eval_time: 0s, exp_samples: [{{labels: x, value: {expected}}}]}}]\n"
    )
    assert failures(text.format(fuzzy="true", value="2.9999999999999996", expected=3)) == ""
    assert failures(text.format(fuzzy="false", value="2.9999999999999996", expected=3))
    assert failures(text.format(fuzzy="true", value="2.9999999999999987", expected=3))
    assert failures(text.format(fuzzy="false", value="NaN", expected=".nan")) == ""


@pytest.mark.parametrize("start", ["1609459200", '"2021-01-01T00:00:00Z"'])
def test_start_timestamp(start: str) -> None:
    """Samples, evaluations and time() begin at the start timestamp."""
    text = (
        f"tests:\n- interval: 1m\n  start_timestamp: {start}\n  input_series: [{{series: x, values: 1x5}}]\n"
        "  promql_expr_test:\n"
        "  - {expr: time(), eval_time: 1m, exp_samples: [{value: 1609459260}]}\n"
        "  - {expr: timestamp(x), eval_time: 2m, exp_samples: [{value: 1609459320}]}\n"
    )
    assert failures(text) == ""


NOTIFIED = """
tests:
- interval: 1m
  input_series: [{series: x, values: 6x4 0 6x3 0 6x20}]
  alert_rule_test:
  - eval_time: 20m
    alertname: High
    exp_alerts: [{exp_labels: {severity: page}, exp_annotations: {summary: '6 at '}}]
    exp_notifications:
    - {at: 2m, status: firing, exp_labels: {severity: page}, suppressed: 0}
    - {at: 5m, status: resolved, exp_labels: {severity: page}}
    - {at: 13m, status: firing, exp_labels: {severity: page}, suppressed: 1}
"""


def test_exp_notifications_apply_the_cooldown() -> None:
    """What is sent follows the cooldown; another cooldown sends something else, and the test fails."""
    assert failures(NOTIFIED) == ""
    assert "not sent: firing at 13m" in failures(NOTIFIED, RULES.replace("cooldown: 10m", "cooldown: 1h"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tests: 3", "t.yml:1:8: tests must be a list"),
        ("test: []", 'unknown key "test" in a rule-test file, did you mean "tests"?'),
        ("tests:\n- {input_series: [{series: 'x{', values: '1'}]}", "input series does not parse"),
        ("tests:\n- {input_series: [{series: x, values: '1 two'}]}", "input series does not parse"),
        ("tests:\n- {alert_rule_test: [{eval_time: 1m}]}", "misses required attribute alertname"),
        ("tests:\n- {alert_rule_test: [{eval_time: 1x, alertname: A}]}", "t.yml:2:34: eval_time: "),
        ("tests:\n- {promql_expr_test: [{expr: x, exp_samples: [{value: x}]}]}", "value must be a number"),
        ("tests:\n- {start_timestamp: yesterday}", "start_timestamp must not be"),
        ("group_eval_order: [a, a]", 'group "a" is repeated in group_eval_order'),
        (
            "tests:\n- {alert_rule_test: [{alertname: A, exp_notifications: [{status: sent}]}]}",
            'status must not be "sent" (allowed: firing, resolved)',
        ),
    ],
)
def test_a_malformed_file_is_refused(text: str, expected: str) -> None:
    """Faults have a place and an explanation."""
    with pytest.raises(RuleFormatError) as caught:
        read_test_file(text, "t.yml")
    assert any(expected in str(problem) for problem in caught.value.problems), caught.value.problems


def test_coverage_names_what_no_test_looks_at() -> None:
    """A rule is covered when one case sees it fire and one sees it silent."""
    head, *gaps = coverage_lines([run(PASSING)])
    assert head.startswith("Coverage: 1 of 2 alerting rules")
    assert gaps == ["  Never (a.yml;third;Never{}): no test makes it fire or keeps it silent"]


def test_junit_holds_every_test() -> None:
    """One suite per file, one case per test, failures and load errors with their text."""
    failing = run(PASSING.replace("value: 90", "value: 91"))
    root = ElementTree.fromstring(junit_xml([run(PASSING), failing, FileResult("bad.yml", error="no\x00")]))
    assert [(suite.get("tests"), suite.get("failures")) for suite in root] == [
        ("1", "0"),
        ("1", "1"),
        ("0", "0"),
    ]
    (failure,) = root.iter("failure")
    assert "- exp: {} 91" in (failure.text or "")


def test_the_documented_examples() -> None:
    """The rule file in docs/rules.md loads, and its test passes against the rule that it speaks of."""
    text = (Path(__file__).parents[2] / "docs/rules.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        if block.startswith("groups:"):
            groups(block)
    (test,) = [block for block in blocks if block.startswith("rule_files:")]
    rules = (
        "groups:\n- name: g\n  rules:\n"
        "  - {alert: Errors, expr: errors > 5, cooldown: 1h, labels: {severity: warning}}\n"
    )
    assert failures("evaluation_interval: 1m\n" + test, rules) == ""
