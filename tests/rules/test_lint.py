from __future__ import annotations

import json

import pytest

from exporter.errors import Problem
from exporter.promql.parse import parse_expr
from exporter.rules.bounds import bounds_of
from exporter.rules.emptiness import is_empty
from exporter.rules.lint import Level, LintOptions, lint
from exporter.rules.lint_report import json_report, sarif_report
from exporter.rules.shape import shape_of
from tests.rules.build import groups

GOOD = "annotations: {summary: s, runbook_url: r}, labels: {severity: info}"


def told(expr: str, labels: str = "severity: info", summary: str = "s") -> str:
    return (
        f"alert: A, expr: {expr}, labels: {{{labels}}}, annotations: {{summary: '{summary}', runbook_url: r}}"
    )


def codes(rule: str, options: LintOptions | None = None) -> list[str]:
    return [one.code for one in lint(groups(f"groups:\n- name: g\n  rules:\n  - {{{rule}}}\n"), options)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (f"alert: A, expr: x > 1, {GOOD}", []),
        ("alert: A, expr: x > 1", ["severity-missing", "summary-missing", "runbook-missing"]),
        (told("x", "severity: page"), ["severity-unknown"]),
        (told("x", "severity: info, v: '{{ $value }}'"), ["value-in-label"]),
        (
            told("x", "severity: '{{ if gt $value 2.0 }}critical{{ else }}info{{ end }}'"),
            ["value-decides-label"],
        ),
        (f"alert: A, expr: count(x) == 0, {GOOD}", ["never-true"]),
        (f"alert: A, expr: 'x[5m]', {GOOD}", ["wrong-type"]),
        (told("sum by (a) (x)", summary="{{ $labels.a }} {{ $labels.b }}"), ["label-dropped"]),
        (told("x", summary="{{ $labels.b }}"), []),
        (f"alert: A, expr: x, cooldown: 5s, {GOOD}", ["cooldown-short"]),
        (f"alert: A, expr: x, cooldown: 2d, {GOOD}", ["cooldown-long"]),
        (f"alert: A, expr: sum(x) > 1, cooldown: 1h, cooldown_by: [provider], {GOOD}", ["cooldown-label"]),
        (f"alert: A, expr: x, cooldown: 1h, cooldown_by: [severity, i], {GOOD}", []),
        ("record: y, expr: sum(x)", []),
    ],
)
def test_findings(rule: str, expected: list[str]) -> None:
    """Each finding has its code, and a good rule none."""
    assert codes(rule) == expected


def test_unknown_metrics_come_with_the_nearest_name() -> None:
    """Names are judged against known ones and those that the rules record; ALERTS is always known."""
    text = (
        "groups:\n- name: g\n  rules:\n  - {record: y, expr: quantum_btc_price}\n"
        "  - {record: z, expr: y + on () count(ALERTS)}\n"
    )
    (finding,) = lint(groups(text), LintOptions(known_metrics=["quantum_btc_price_usd"]))
    assert 'no series is named "quantum_btc_price", did you mean "quantum_btc_price_usd"?' in str(finding)


def test_duplicates_and_ignored_codes() -> None:
    """Two rules of one name and labels are told once; an ignored code is left out."""
    text = "groups:\n- name: g\n  rules:\n  - {record: y, expr: a}\n  - {record: y, expr: b}\n"
    (finding,) = lint(groups(text))
    assert (finding.code, finding.level, finding.line) == ("duplicate-rule", Level.WARNING, 5)
    assert lint(groups(text), LintOptions(ignore=frozenset(["duplicate-rule"]))) == []


@pytest.mark.parametrize(
    "expr",
    [
        "vector(1) > 2", "count(x) == 0", "count(x) < 1", "rate(x[5m]) < 0", "absent(x) > 1", "hour() > 23",
        "x > 5 and x < 3", "(x > 5) < 3", "abs(x) < 0", "clamp_max(x, 5) > 5", "(x > bool 1) > 1",
        "sum(rate(x[5m])) / sum(rate(y[5m])) < 0", "vector(0) > 1", "day_of_week() == 7",
        "(count(x) == 0) * 2",
        "avg by (a) (rate(x[5m])) < 0", "x > 5 and (x <= 5)",
    ],
)  # fmt: skip
def test_never_true(expr: str) -> None:
    """These comparisons can never return anything."""
    assert bounds_of(parse_expr(expr)).is_empty


@pytest.mark.parametrize(
    "expr",
    [
        "x > 1", "count(x) > 0", "rate(x[5m]) == 0", "count(x) == 0 or vector(1)", "hour() >= 23",
        "x < 3 and y > 5",
        "x > 5 or x < 3", "delta(x[5m]) < 0", "absent(x)", "absent(x) == 1", "clamp_max(x, 5) >= 5",
        "1 == bool 2",
        "x - y < 0", "-rate(x[5m]) < 0", "quantile(0.9, x) > 1", "x unless x > 1", "deriv(x[5m]) < 0",
    ],
)  # fmt: skip
def test_may_be_true(expr: str) -> None:
    """These can."""
    assert not bounds_of(parse_expr(expr)).is_empty


@pytest.mark.parametrize(
    ("expr", "may", "may_not"),
    [
        ("x", ["a"], []),
        ('x{a=""}', ["b"], ["a"]),
        ("sum by (a) (x)", ["a"], ["b"]),
        ("sum without (a) (x)", ["b"], ["a"]),
        ("sum(x)", [], ["a"]),
        ("topk(1, x)", ["a"], []),
        ('count_values("v", x)', ["v"], ["a"]),
        ("x + on (a) y", ["a"], ["b"]),
        ("x + ignoring (a) y", ["b"], ["a"]),
        ("x * on (a) group_left (c) sum by (a) (y)", ["a", "b"], ["c"]),
        ("x * on (a) group_left (c) y", ["a", "b", "c"], []),
        ("sum by (a) (x) or sum by (b) (y)", ["a", "b"], ["c"]),
        ("sum by (a) (x) > 0 and y", ["a"], ["b"]),
        ('label_replace(sum(x), "n", "v", "", "")', ["n"], ["a"]),
        ('absent(x{a="1",b=~"2"})', ["a"], ["b"]),
        ("histogram_quantile(0.9, sum by (le, a) (x))", ["a"], ["le"]),
        ("quantile_over_time(0.9, x[5m])", ["a"], []),
        ("2 * sum by (a) (x)", ["a"], ["b"]),
        ("vector(1)", [], ["a"]),
    ],
)
def test_shape(expr: str, may: list[str], may_not: list[str]) -> None:
    """Aggregations, joins and functions decide which labels can be there."""
    shape = shape_of(parse_expr(expr))
    assert [name for name in may if not shape.may_have(name)] == []
    assert [name for name in may_not if shape.may_have(name)] == []


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("gone", True),
        ("x", False),
        ("sum(rate(gone[5m])) > 1", True),
        ("x / gone", True),
        ("x or gone", False),
        ("x unless gone", False),
        ("absent(gone)", False),
        ("vector(1)", False),
        ('{__name__=~"x|y"}', False),
        ("histogram_quantile(0.9, gone)", True),
        ("time() - gone", True),
        ("scalar(gone)", False),
    ],
)
def test_emptiness(expr: str, expected: bool) -> None:
    """What needs a series that does not exist returns nothing."""
    assert is_empty(parse_expr(expr), {"x"}) is expected


def test_machine_readable_reports() -> None:
    """JSON and SARIF hold refused files and findings with their places."""
    findings = lint(groups("groups:\n- name: g\n  rules:\n  - {alert: A, expr: count(x) == 0}\n"))
    problems = [Problem("wrong", "b.yml", 3, 4, "right")]
    document = json.loads(json_report(problems, findings))
    assert document["problems"][0]["line"] == 3
    assert document["findings"][0] | {"message": ""} == {
        "code": "never-true", "level": "error", "file": "a.yml", "line": 4, "column": 5, "group": "g",
        "rule": "A", "message": "",
    }  # fmt: skip
    sarif = json.loads(sarif_report(problems, findings, "1.0"))
    (run,) = sarif["runs"]
    known = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} <= known
    assert run["results"][0]["message"]["text"] == "wrong (allowed: right)"
