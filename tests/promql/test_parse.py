"""The parser: what it accepts and the tree that it builds."""

from __future__ import annotations

import math
from typing import TypeVar

import pytest

from exporter.errors import QueryError
from exporter.model.labels import Matcher, MatchOp
from exporter.promql.ast import (
    Aggregate,
    At,
    Binary,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
)
from exporter.promql.functions.registry import SIGNATURES
from exporter.promql.parse import parse_expr, parse_selector
from exporter.promql.printer import to_text
from exporter.promql.typecheck import type_of

Node = TypeVar("Node", bound=Expr)


def parse_as(kind: type[Node], text: str) -> Node:
    """The tree of `text`, whose root must be of this kind."""
    expr = parse_expr(text)
    assert isinstance(expr, kind)
    return expr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("+Inf", math.inf),
        ("-inf", -math.inf),
        (".5", 0.5),
        ("5.", 5),
        ("5e-3", 0.005),
        ("1E3", 1000),
        ("0xC", 12),
        ("0755", 493),
        ("0799", 799),
        ("-0755", -493),
        ("1_000_000", 1e6),
        ("0x_1F", 31),
        ("5m", 300),
        ("1h30m", 5400),
        ("-250ms", -0.25),
        ("- -1", 1),
    ],
)
def test_number(text: str, value: float) -> None:
    """A number is decimal, hexadecimal, octal by a leading zero, or a duration in seconds; signs fold in."""
    assert parse_as(NumberLiteral, text).value == value


def test_nan_is_a_number() -> None:
    """NaN may be written in any case."""
    assert math.isnan(parse_as(NumberLiteral, "nAn").value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a"', "a"),
        ("'a\"b'", 'a"b'),
        (r'"\n\t\\\"\x41\101\u00e9\U0001F600"', '\n\t\\"AAé😀'),
        ("`raw \\n`", "raw \\n"),
        ('"été"', "été"),
        (r"'it\'s'", "it's"),
        (r'"a\xc5z"', "a\udcc5z"),
    ],
)
def test_string(text: str, value: str) -> None:
    """Strings have Go's escapes; between backquotes nothing is escaped; broken UTF-8 is kept as escapes."""
    assert parse_as(StringLiteral, text).value == value


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("1 + 2 * 3", "1 + (2 * 3)"),
        ("1 * 2 + 3", "(1 * 2) + 3"),
        ("2 ^ 3 ^ 2", "2 ^ (3 ^ 2)"),
        ("8 / 4 / 2", "(8 / 4) / 2"),
        ("8 % 4 atan2 2", "(8 % 4) atan2 2"),
        ("a or b and c unless d", "a or ((b and c) unless d)"),
        ("a == b + c", "a == (b + c)"),
        ("a and b == c", "a and (b == c)"),
        ("a </ 1 > 2", "(a </ 1) > 2"),
        ("a + b >/ 2", "(a + b) >/ 2"),
        ("-1 ^ 2", "-(1 ^ 2)"),
        ("-a * b", "(-a) * b"),
        ("-a ^ b", "-(a ^ b)"),
        ("2 ^ -a ^ b", "2 ^ (-(a ^ b))"),
        ("a + b offset 5m", "a + (b offset 5m)"),
        ("a offset 1m + 1", "(a offset 1m) + 1"),
        ("a offset -2 ^ 2", "(a offset -2s) ^ 2"),
        ("a offset step() * 2", "(a offset step()) * 2"),
    ],
)
def test_precedence(text: str, grouped: str) -> None:
    """Operators bind as in Prometheus; modifiers bind tightest, a sign like `*` but looser than `^`."""
    assert shape(parse_expr(text)) == shape(parse_expr(grouped))


def shape(expr: Expr) -> object:
    """The tree as nested tuples without parentheses and spans."""
    match expr:
        case Paren():
            return shape(expr.expr)
        case Binary():
            return expr.op, shape(expr.lhs), shape(expr.rhs)
        case Unary():
            return expr.op, shape(expr.expr)
    return to_text(expr)


def test_selector_holds_its_matchers_and_the_name_last() -> None:
    """Matchers stand in the order of the text; the bare name adds one for __name__ at the end."""
    selector = parse_as(VectorSelector, "foo{a='b', c!=\"d\", e=~`f.*`, g!~'h',}")
    assert selector.name == "foo"
    assert selector.matchers == (
        Matcher("a", MatchOp.EQUAL, "b"),
        Matcher("c", MatchOp.NOT_EQUAL, "d"),
        Matcher("e", MatchOp.REGEX, "f.*"),
        Matcher("g", MatchOp.NOT_REGEX, "h"),
        Matcher("__name__", MatchOp.EQUAL, "foo"),
    )


def test_utf8_names_are_quoted_inside_the_braces() -> None:
    """A quoted name alone is the metric's; quoted before an operator it is a label's."""
    selector = parse_as(VectorSelector, '{"my.metric", "label.é"=~"x"}')
    assert selector.name == ""
    assert selector.matchers == (
        Matcher("__name__", MatchOp.EQUAL, "my.metric"),
        Matcher("label.é", MatchOp.REGEX, "x"),
    )


@pytest.mark.parametrize(
    "word",
    [
        "sum",
        "by",
        "offset",
        "without",
        "and",
        "or",
        "unless",
        "start",
        "end",
        "step",
        "range",
        "min_of",
        "topk",
        "limit_ratio",
        "anchored",
        "smoothed",
        "fill",
        "fill_left",
        "job:rate:5m",
        ":",
    ],
)
def test_keywords_name_metrics(word: str) -> None:
    """Most keywords may stand as a metric name where an expression begins."""
    assert parse_as(VectorSelector, word + '{a="b"}').name == word
    assert type_of(parse_expr(f"1 + {word}")) is ValueType.VECTOR


def test_keywords_name_labels() -> None:
    """Keywords, quoted names and a trailing comma may stand in by(), on() and the like."""
    expr = parse_as(Aggregate, 'sum by (on, by, sum, offset, bool, "l.n", start, atan2,) (x)')
    assert expr.grouping == ("on", "by", "sum", "offset", "bool", "l.n", "start", "atan2")
    assert parse_as(VectorSelector, 'x{offset="1", by="2", sum="3", inf="4"}').matchers[0].name == "offset"


def test_modifiers_are_set_on_the_selector() -> None:
    """offset and @ may follow a range; both stand on the selector inside."""
    expr = parse_as(MatrixSelector, "foo[5m] @ 1.5 offset -1h30m")
    assert expr.range_ms == 300_000
    assert expr.selector.offset_ms == -5_400_000
    assert expr.selector.at == At("time", 1500)
    assert expr.span == Span(0, 27)
    assert expr.selector.span == Span(0, 3)


@pytest.mark.parametrize(
    ("text", "at"),
    [("x @ start()", At("start")), ("x @ END ( )", At("end")), ("x @ -1", At("time", -1000))],
)
def test_at(text: str, at: At) -> None:
    """@ takes a time in seconds, start() or end()."""
    assert parse_as(VectorSelector, text).at == at


def test_offset_takes_numbers() -> None:
    """A bare number after offset or in brackets is in seconds."""
    assert parse_as(VectorSelector, "x offset 90").offset_ms == 90_000
    assert parse_as(MatrixSelector, "x[0.5]").range_ms == 500


def test_subquery() -> None:
    """A subquery has a range, and a step that may be left out."""
    whole = parse_as(Subquery, "rate(x[1m])[30m:10s] offset 5m @ end()")
    assert (whole.range_ms, whole.step_ms, whole.offset_ms) == (1_800_000, 10_000, 300_000)
    assert whole.at == At("end")
    assert parse_as(Subquery, "x[30m:]").step_ms == 0


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("x[5m*2]", "x[5m * 2]"),
        ("x[1m+1m*2^-1]", "x[1m + 1m * 2 ^ -1]"),
        ("x[(5m)+step()]", "x[(5m) + step()]"),
        ("x[max_of(step(),range()/4)]", "x[max_of(step(), range() / 4)]"),
        ("x[MIN(5m, 10m)]", "x[min(5m, 10m)]"),
        ("x[-(-5m)]", "x[-(-5m)]"),
        ("x[step()+1m:step()*2]", "x[step() + 1m:step() * 2]"),
        ("x offset -(5m*2)", "x offset -(5m * 2)"),
        ("x offset -min_of(step(),1m)", "x offset -min_of(step(), 1m)"),
        ("x[5m] offset range()", "x[5m] offset range()"),
    ],
)
def test_duration_expressions(text: str, printed: str) -> None:
    """Durations may be computed, in brackets and after offset; the literal field is 0 then."""
    expr = parse_expr(text)
    assert to_text(expr) == printed
    if isinstance(expr, VectorSelector):
        assert (expr.offset_ms, expr.offset_expr is None) == (0, False)
    elif isinstance(expr, Subquery) or (isinstance(expr, MatrixSelector) and expr.range_expr is not None):
        assert expr.range_ms == 0


def test_extended_range_modifiers() -> None:
    """anchored and smoothed are kept on the selector, of a range as of an instant."""
    assert parse_as(MatrixSelector, "x[5m] anchored offset 1m").selector.anchored
    assert parse_as(VectorSelector, "x smoothed").smoothed


def test_matching() -> None:
    """on, group_left with labels, bool and fill values are kept."""
    expr = parse_as(Binary, "a > bool on(x, y) group_left(z,) fill_left(-1) fill_right(NaN) b")
    assert expr.return_bool
    matching = expr.matching
    assert matching is not None
    assert (matching.on, matching.labels, matching.include) == (True, ("x", "y"), ("z",))
    assert matching.cardinality is Cardinality.MANY_TO_ONE
    assert matching.fill_left == -1
    assert matching.fill_right is not None
    assert math.isnan(matching.fill_right)


@pytest.mark.parametrize(
    ("text", "cardinality"),
    [
        ("a + b", Cardinality.ONE_TO_ONE),
        ("a * ignoring(x) group_right b", Cardinality.ONE_TO_MANY),
        ("a and on() b", Cardinality.MANY_TO_MANY),
        ("a + fill(0) b", Cardinality.ONE_TO_ONE),
    ],
)
def test_cardinality(text: str, cardinality: Cardinality) -> None:
    """Set operators match many to many; others one to one unless grouped."""
    matching = parse_as(Binary, text).matching
    assert matching is not None
    assert matching.cardinality is cardinality


def test_no_matching_with_scalars() -> None:
    """A side that is a scalar leaves nothing to match."""
    assert parse_as(Binary, "a + 1").matching is None
    assert parse_as(Binary, "1 < bool 2").matching is None


def test_aggregation_clause_before_and_after() -> None:
    """by and without may stand on either side; the parameter comes first."""
    before = parse_as(Aggregate, "TOPK without (a) (3, x)")
    after = parse_as(Aggregate, "topk(3, x) without (a)")
    assert (before.op, before.grouping, before.without) == ("topk", ("a",), True)
    assert isinstance(before.param, NumberLiteral)
    assert to_text(before) == to_text(after)


def test_comments_and_space_are_skipped() -> None:
    """Comments run to the end of the line, inside braces and parentheses too."""
    assert to_text(parse_expr("# head\n sum( # why\n x{ # here\n a='b' } )\t\r\n")) == 'sum(x{a="b"})'


def test_spans_are_byte_offsets() -> None:
    """Offsets count bytes of UTF-8, as Prometheus' positions do."""
    expr = parse_as(Binary, 'x{a="é"} + foo')
    assert expr.rhs.span == Span(12, 15)


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_every_function_parses(name: str) -> None:
    """Each function takes arguments of its types and gives its result type."""
    samples = {
        ValueType.SCALAR: "0.5",
        ValueType.VECTOR: "x",
        ValueType.MATRIX: "x[5m]",
        ValueType.STRING: '"s"',
    }
    signature = SIGNATURES[name]
    arguments = [samples[kind] for kind in signature.args]
    if name == "info":
        arguments[1] = '{a=~".*"}'
    expr = parse_as(Call, f"{name}({', '.join(arguments)})")
    assert type_of(expr) is signature.returns


def test_old_name_of_double_exponential_smoothing() -> None:
    """Prometheus 2's holt_winters is still understood."""
    assert SIGNATURES["holt_winters"].args == SIGNATURES["double_exponential_smoothing"].args


def test_info_selector_may_match_everything() -> None:
    """The labels of info() need no non-empty matcher."""
    assert parse_as(Call, "info(x, {})").args[1].span == Span(8, 10)


def test_parse_selector() -> None:
    """match[] takes one series selector and nothing after it."""
    assert parse_selector('up{job="a"}')[-1] == Matcher("__name__", MatchOp.EQUAL, "up")
    assert parse_selector("{}") == ()
    with pytest.raises(QueryError, match=r'^1:4: parse error: unexpected "\["$'):
        parse_selector("up [5m]")
