"""The parser against other parsers: promql-parser over community rules, Debian's Prometheus over faults."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import promql_parser
import pytest
import yaml

from exporter.errors import QueryError
from exporter.promql.parse import parse_expr
from exporter.promql.printer import to_pretty, to_text
from tests.helpers.peers import shared
from tests.promql.prometheus import Prometheus

TOKENS = [
    "foo",
    'bar{a="b"}',
    '{a="x",b=~"y.*"}',
    "sum",
    "rate",
    "(",
    ")",
    "(",
    "foo[5m]",
    ")",
    "[5m]",
    "[5m:1m]",
    "{",
    "}",
    "[",
    "]",
    "offset_5m",
    "by",
    "by_(a)",
    "without_(b,)",
    "without",
    "on(a)",
    "ignoring",
    "bool",
    "group_left",
    "group_right(b)",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "==",
    "!=",
    ">",
    "and",
    "or",
    "unless",
    "atan2",
    "1",
    "2.5",
    '"str"',
    "'x'",
    "`raw`",
    ",",
    "=",
    "=~",
    "!~",
    "!",
    "topk(2,",
    'count_values("a",',
    "histogram_quantile(0.9,",
    "time()",
    "label_replace(",
    "avg",
    "max_by_(x)_(",
    "1e3",
    "Inf",
    "NaN",
    ":",
    "a:b",
    "ln(",
    "$",
    '"unterm',
    "foo{",
    'a="b"',
    "clamp(",
    "quantile",
    "absent(",
    "[5m:]",
    "scalar(",
    "vector(1)",
]

# What Prometheus 2.42 answers where Prometheus 3 differs.
CHANGED = re.compile(
    r"unexpected duration"  # durations became numbers
    r"|in offset, expected duration|in subquery|duration syntax|missing unit"  # numbers became durations
    r"|expected identifier or"  # quoted names in braces
    r"|unexpected colon '[^:]"  # the character is named now
)


@pytest.mark.peer
def test_community_rules_parse_as_with_promql_parser() -> None:
    """Every expression of the community rule files parses, and reads back from its canonical text."""
    expressions = set(_expressions())
    assert len(expressions) > 500
    for text in expressions:
        promql_parser.parse(text)
        printed = to_text(parse_expr(text))
        assert to_text(parse_expr(printed)) == printed


def _expressions() -> Iterator[str]:
    for path in sorted(shared("data/rules-community").rglob("*.y*ml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield str(rule["expr"])


@pytest.mark.peer
def test_faults_are_worded_as_by_prometheus(prometheus: Prometheus) -> None:
    """Random strings of tokens: the same pretty text or the same error as Debian's Prometheus 2.42."""
    rng = random.Random(20261123)
    for _ in range(1500):
        count = rng.randint(1, 9)
        text = " ".join(rng.choice(TOKENS).replace("_", " ") for _ in range(count))
        theirs = prometheus.format_query(text)
        if CHANGED.search(theirs) or _has_new_syntax(text):
            continue
        assert (text, _format(text)) == (text, theirs)


def _has_new_syntax(text: str) -> bool:
    """A duration where only 3 takes one, or a number that 2.42 prints with an exponent."""
    return "offset" in text or re.search(r"(^|[^\[:\w])5m", text) is not None


def _format(text: str) -> str:
    try:
        return to_pretty(parse_expr(text))
    except QueryError as error:
        return str(error)
