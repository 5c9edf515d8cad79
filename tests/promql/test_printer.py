"""Printing: canonical text, pretty text and the JSON of the tree."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest
from hypothesis import HealthCheck, given, settings

from exporter.promql.ast import Span, VectorSelector
from exporter.promql.gotext import format_float, format_general, quote
from exporter.promql.parse import parse_expr
from exporter.promql.printer import to_pretty, to_text
from exporter.promql.tree_json import to_json
from tests.promql.trees import query


def bare(node: object) -> object:
    """A tree without spans, matchers sorted, as something that compares NaN equal to itself."""
    if isinstance(node, Span):
        return None
    if is_dataclass(node) and not isinstance(node, type):
        parts = {field.name: bare(getattr(node, field.name)) for field in fields(node)}
        if isinstance(node, VectorSelector):
            parts["matchers"] = sorted(map(str, node.matchers))
        return type(node).__name__, parts
    if isinstance(node, tuple):
        return [bare(part) for part in node]
    return repr(node)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(query)
def test_text_reads_back(text: str) -> None:
    """Printing and parsing again gives the same tree; printing is then a fixed point."""
    expr = parse_expr(text)
    printed = to_text(expr)
    assert bare(parse_expr(printed)) == bare(expr)
    assert to_text(parse_expr(printed)) == printed


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(query)
def test_pretty_text_reads_back(text: str) -> None:
    """The pretty form is the same query."""
    expr = parse_expr(text)
    assert bare(parse_expr(to_pretty(expr))) == bare(expr)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("sum(x)by(a , b)", "sum by (a, b) (x)"),
        ("sum by () (x)", "sum(x)"),
        ("SUM without () (x)", "sum without () (x)"),
        ("TOPK(3,x)", "topk(3, x)"),
        ("x{b='1',a=\"2\"}", 'x{a="2",b="1"}'),
        ("{__name__='x'}", '{__name__="x"}'),
        ('{"my.metric"}', '{__name__="my.metric"}'),
        ("x{}", "x"),
        ('x{"a b"="c"}', 'x{"a b"="c"}'),
        ('sum by ("a b", c) (x)', 'sum by ("a b", c) (x)'),
        ("x offset 90m @ 1", "x @ 1.000 offset 1h30m"),
        ("x[5m]offset -1d", "x[5m] offset -1d"),
        ("x[5m] @ start() smoothed", "x[5m] smoothed @ start()"),
        ("(x)[1h:] offset 8d", "(x)[1h:] offset 8d"),
        ("x[60:]", "x[1m:]"),
        ("a*on(x)group_left b", "a * on (x) group_left () b"),
        ("a>bool 1e3", "a > bool 1000"),
        ("a and ignoring() b", "a and b"),
        ("a + on() b", "a + on () b"),
        ("a + fill_left(1) fill_right(1) b", "a + fill (1) b"),
        ("a + fill_right(1e30) b", "a + fill_right (1e+30) b"),
        ("-(1)", "-(1)"),
        ("- x", "-x"),
        ("1e-7", "0.0000001"),
        ("5m", "5m"),
        ("-Inf", "-Inf"),
        ('"a\\x00\\t\'\\""', '"a\\x00\\t\'\\""'),
        ("a # why\n + b", "a + b"),
        ("a ATAN2 b", "a atan2 b"),
    ],
)
def test_text(text: str, printed: str) -> None:
    """The canonical text is the one that Prometheus prints."""
    assert to_text(parse_expr(text)) == printed


LONG = "a_rather_long_metric_name_for_a_counter_total"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("sum(rate(x[5m]))", ["sum(rate(x[5m]))"]),
        (
            f'sum by (job) (rate({LONG}{{job="api-server"}}[5m])) / sum by (job) (rate({LONG}[5m]))',
            [
                f'  sum by (job) (rate({LONG}{{job="api-server"}}[5m]))',
                "/",
                f"  sum by (job) (rate({LONG}[5m]))",
            ],
        ),
        (
            f'topk(5, label_replace({LONG}, "destination", "$1", "source", "a-rather-long-regex-(.*)"))',
            [
                "topk(",
                "  5,",
                "  label_replace(",
                f"    {LONG},",
                '    "destination",',
                '    "$1",',
                '    "source",',
                '    "a-rather-long-regex-(.*)"',
                "  )",
                ")",
            ],
        ),
        (
            f"-({LONG} + on (job, instance) group_left (version) {LONG} > bool 12345678901234567890)",
            [
                "-(",
                f"      {LONG}",
                "    + on (job, instance) group_left (version)",
                f"      {LONG}",
                "  > bool",
                "    12345678901234567000",
                ")",
            ],
        ),
        (
            f"max_over_time((rate({LONG}[5m]) + rate({LONG}[5m]))[30m:1m] offset 1h)",
            [
                "max_over_time(",
                "  (",
                f"      rate({LONG}[5m])",
                "    +",
                f"      rate({LONG}[5m])",
                "  )[30m:1m] offset 1h",
                ")",
            ],
        ),
    ],
)
def test_pretty(text: str, lines: list[str]) -> None:
    """What is longer than 100 bytes is broken, its parts indented by two more."""
    assert to_pretty(parse_expr(text)).split("\n") == lines


@pytest.mark.parametrize(
    ("value", "plain", "general"),
    [
        (0.1, "0.1", "0.1"),
        (1e21, "1000000000000000000000", "1e+21"),
        (123456789.125, "123456789.125", "123456789.125"),
        (1e-5, "0.00001", "1e-05"),
        (-2.5e-8, "-0.000000025", "-2.5e-08"),
        (5e20, "500000000000000000000", "500000000000000000000"),
        (-0.0, "-0", "-0"),
    ],
)
def test_floats(value: float, plain: str, general: str) -> None:
    """Floats print with the fewest digits that read back, without or with exponent as in Go."""
    assert format_float(value) == plain
    assert format_general(value) == general


def test_quote_escapes_what_go_escapes() -> None:
    """Control characters, unprintable ones and broken bytes are escaped, other UTF-8 is not."""
    assert quote('é\a\x01\u200b\udcc5"') == '"é\\a\\x01\\u200b\\xc5\\""'


def test_json_of_the_tree() -> None:
    """Every node has its type and Prometheus' keys."""
    left = 'sum by (a) (rate(x{a="b"}[5m] @ 1 offset 1m))'
    tree = to_json(parse_expr(f"{left} > on(a) group_left(c) max_over_time(y[1h:1m] @ end())"))
    assert tree["type"] == "binaryExpr"
    assert tree["matching"] == {
        "card": "many-to-one",
        "labels": ["a"],
        "on": True,
        "include": ["c"],
        "fillValues": {"lhs": None, "rhs": None},
    }
    call = tree["lhs"]["expr"]
    assert call["func"] == {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"}
    assert call["args"][0] == {
        "type": "matrixSelector",
        "name": "x",
        "offset": 60_000,
        "matchers": [
            {"name": "a", "value": "b", "type": "="},
            {"name": "__name__", "value": "x", "type": "="},
        ],
        "timestamp": 1000,
        "startOrEnd": None,
        "anchored": False,
        "smoothed": False,
        "range": 300_000,
    }
    subquery = tree["rhs"]["args"][0]
    assert (subquery["type"], subquery["step"], subquery["startOrEnd"]) == ("subquery", 60_000, "end")


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(query)
def test_every_tree_has_json(text: str) -> None:
    """No node is left out of the JSON form."""
    assert "type" in to_json(parse_expr(text))
