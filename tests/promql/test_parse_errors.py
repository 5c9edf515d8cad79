"""What the parser refuses, in Prometheus' words and with its positions."""

from __future__ import annotations

import time

import pytest

from exporter.errors import QueryError, QueryErrorKind
from exporter.promql.cursor import MAX_DEPTH, MAX_TOKENS, position_text
from exporter.promql.parse import parse_expr

SYNTAX = [
    ("", "unknown position: parse error: no expression found in input"),
    ("# only this\n", "1:1: parse error: no expression found in input"),
    ("1+", "1:3: parse error: unexpected end of input"),
    (".", "1:1: parse error: unexpected character: '.'"),
    ("é", "1:1: parse error: unexpected character: 'é'"),
    ("2.5.", '1:1: parse error: bad number or duration syntax: "2.5."'),
    ("100..4", '1:1: parse error: bad number or duration syntax: "100.."'),
    ("0deadbeef", '1:1: parse error: bad number or duration syntax: "0de"'),
    ("1_", '1:1: parse error: bad number or duration syntax: "1_"'),
    ("5y1hs", '1:1: parse error: unknown unit "hs" in duration "5y1hs"'),
    ("x[5mm]", '1:3: parse error: bad number or duration syntax: "5mm"'),
    ("x @ -1e19", "1:1: parse error: timestamp out of bounds for @ modifier: -10000000000000000000.000000"),
    ("5m3h", '1:1: parse error: not a valid duration string: "5m3h"'),
    ("9" * 309, "value out of range"),
    ("*1", "1:1: parse error: unexpected <op:*>"),
    ("(1))", "1:5: parse error: unexpected right parenthesis ')'"),
    ("((1)", "1:5: parse error: unclosed left parenthesis"),
    ("a\n  + )", "2:6: parse error: unexpected right parenthesis ')'"),
    ("1 !~ 1", "1:3: parse error: unexpected character after '!': '~'"),
    ("1 =~ 1", "1:3: parse error: unexpected character after '=': '~'"),
    ("1 !", "1:3: parse error: unexpected character after '!': '�'"),
    ("@@", "1:1: parse error: unexpected <op:@>"),
    ("a by", "1:3: parse error: unexpected <by>"),
    ("a SUM", "1:3: parse error: unexpected <aggr:SUM>"),
    ("a start", '1:3: parse error: unexpected "start"'),
    ("a b:c", '1:3: parse error: unexpected metric identifier "b:c"'),
    ('a "a long string"', '1:3: parse error: unexpected string "\\"a long st"...'),
    ("a - on(b) ignoring(c) d", "1:11: parse error: unexpected <ignoring>"),
    ("sum(x) by (a) by (b)", "1:15: parse error: unexpected <by>"),
    ("sum x", '1:5: parse error: unexpected identifier "x"'),
    ("sum(x y)", '1:7: parse error: unexpected identifier "y" in aggregation'),
    ("sum(rate(x y))", '1:12: parse error: unexpected identifier "y" in aggregation'),
    ("sum by (a) x", '1:12: parse error: unexpected identifier "x" in aggregation'),
    ("sum(x) by a", '1:11: parse error: unexpected identifier "a" in grouping opts, expected "("'),
    ("sum without(==)(x)", "1:13: parse error: unexpected <op:==> in grouping opts, expected label"),
    (
        "sum by (a b) (x)",
        '1:11: parse error: unexpected identifier "b" in grouping opts, expected "," or ")"',
    ),
    ("sum by (a,,) (x)", '1:11: parse error: unexpected "," in grouping opts, expected label'),
    ('sum by ("") (x)', '1:9: parse error: invalid label name for grouping: ""'),
    ("rate(x,)", "1:7: parse error: trailing commas not allowed in function call args"),
    ("x{", "1:3: parse error: unexpected end of input inside braces"),
    ("x{a}", '1:4: parse error: unexpected "}" in label matching, expected label matching operator'),
    ("x{a=b}", '1:5: parse error: unexpected identifier "b" in label matching, expected string'),
    ("x{,}", '1:3: parse error: unexpected "," in label matching, expected identifier or "}"'),
    ('x{a="b" c}', '1:9: parse error: unexpected identifier "c" in label matching, expected "," or "}"'),
    ("x{a!b}", "1:4: parse error: unexpected character after '!' inside braces: 'b'"),
    ("x{a$b}", "1:4: parse error: unexpected character inside braces: '$'"),
    ("x{{}", "1:3: parse error: unexpected left brace '{'"),
    ("x}", "1:2: parse error: unexpected character: '}'"),
    ("x[", "1:3: parse error: unexpected end of input in duration expression"),
    ("x[5m", "1:5: parse error: unclosed left bracket"),
    ("x]", "1:2: parse error: unexpected right bracket ']'"),
    ("x[5m[", "1:5: parse error: unexpected left bracket '['"),
    (
        "x[]",
        (
            '1:3: parse error: unexpected "]" in subquery or range selector, '
            "expected number, duration, step(), or range()"
        ),
    ),
    (
        "x[5m+]",
        (
            '1:6: parse error: unexpected "]" in subquery or range selector, '
            "expected number, duration, step(), or range()"
        ),
    ),
    ("x[5m 3m]", '1:6: parse error: unexpected duration "3m" in subquery or range, expected ":" or "]"'),
    ("x[5m:1m 3m]", '1:9: parse error: unexpected duration "3m" in subquery selector, expected "]"'),
    (
        "x[5m:*]",
        (
            "1:6: parse error: unexpected <op:*> in subquery selector, "
            'expected number, duration, step(), range(), or "]"'
        ),
    ),
    ("x[5m:1m:1m]", "1:8: parse error: unexpected colon ':'"),
    ("x[:1m]", "1:4: parse error: unexpected colon before duration in duration expression"),
    ('x["5m"]', "1:3: parse error: unexpected character in duration expression: '\"'"),
    ("x[5m y]", "1:6: parse error: unexpected character: 'y', expected ':'"),
    ("x[0m]", "1:3: parse error: duration must be greater than 0"),
    ("x[5m:-1s]", "1:6: parse error: duration must be greater than 0"),
    ("x[5m/0]", "1:5: parse error: division by zero"),
    ("x[5m%0]", "1:5: parse error: modulo by zero"),
    ("x[1e300]", "1:3: parse error: duration out of range"),
    ("x offset -1e300", "1:10: parse error: duration out of range"),
    (
        "x offset",
        "1:9: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
    ),
    ("x offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times"),
    (
        "1 offset 1m",
        (
            "1:1: parse error: offset modifier must be preceded by an instant vector selector "
            "or range vector selector or a subquery"
        ),
    ),
    ("x @ y", '1:5: parse error: unexpected identifier "y" in @, expected timestamp'),
    ("x @ start(1)", '1:11: parse error: unexpected number "1" in @, expected timestamp'),
    ("x @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times"),
    ("x @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf"),
    (
        "(x) @ 1",
        (
            "1:1: parse error: @ modifier must be preceded by an instant vector selector "
            "or range vector selector or a subquery"
        ),
    ),
    ("sum(x)[5m]", "1:7: parse error: ranges only allowed for vector selectors"),
    ("x offset 1m [5m]", "1:13: parse error: no offset modifiers allowed before range"),
    ("x @ 1 [5m]", "1:7: parse error: no @ modifiers allowed before range"),
    ("x[5m:] smoothed", "1:1: parse error: smoothed modifier is not supported for subqueries"),
    ("x anchored smoothed", "1:1: parse error: anchored and smoothed modifiers cannot be used together"),
    ("1 anchored", "1:1: parse error: anchored modifier not implemented"),
    ('"a', "1:1: parse error: unterminated quoted string"),
    ('"a\n"', "1:1: parse error: unterminated quoted string"),
    ("`a", "1:1: parse error: unterminated raw string"),
    (r'"\c"', "1:1: parse error: unknown escape sequence U+0063 'c'"),
    (r'"\xg0"', "1:1: parse error: illegal character U+0067 'g' in escape sequence"),
    (r'"\400"', "1:1: parse error: escape sequence is an invalid Unicode code point"),
    ('"\\', "1:1: parse error: escape sequence not terminated"),
    ("a + fill(1) fill_left(2) b", "1:13: parse error: unexpected <fill_left>"),
    ("a + fill(x) b", '1:10: parse error: unexpected identifier "x"'),
]

TYPES = [
    ("1 and 1", '1:1: parse error: set operator "and" not allowed in binary scalar expression'),
    ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
    ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
    ("a  +  bool b", "1:4: parse error: bool modifier can only be used on comparison operators"),
    (
        '-"s"',
        "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, ",
    ),
    ("a + b[5m]", "1:5: parse error: binary expression must contain only scalar and instant vector types"),
    ("a + on(b) 1", "1:1: parse error: vector matching only allowed between instant vectors"),
    ("a + fill(0) 1", "1:1: parse error: filling in missing series only allowed between instant vectors"),
    ("a and fill(0) b", "1:1: parse error: filling in missing series not allowed for set operators"),
    ("a and on(x) group_left b", '1:1: parse error: no grouping allowed for "and" operation'),
    (
        "a + on(x) group_left(x) b",
        '1:3: parse error: label "x" must not occur in ON and GROUP clause at once',
    ),
    ("f(x)", '1:1: parse error: unknown function with name "f"'),
    ("RATE(x[5m])", '1:1: parse error: unknown function with name "RATE"'),
    (
        "rate(x)",
        '1:6: parse error: expected type range vector in call to function "rate", got instant vector',
    ),
    ("ceil(1)", '1:6: parse error: expected type instant vector in call to function "ceil", got scalar'),
    ("rate(x[5m], 1)", '1:1: parse error: expected 1 argument(s) in call to "rate", got 2'),
    ("round()", '1:1: parse error: expected at least 1 argument(s) in call to "round", got 0'),
    ("round(x, 1, 2)", '1:1: parse error: expected at most 2 argument(s) in call to "round", got 3'),
    (
        'label_join(x, "a")',
        '1:1: parse error: expected at least 3 argument(s) in call to "label_join", got 2',
    ),
    ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
    (
        "topk(x)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
    ),
    ('topk("a", x)', "1:6: parse error: expected type scalar in aggregation parameter, got string"),
    ("count_values(5, x)", "1:14: parse error: expected type string in aggregation parameter, got scalar"),
    ("sum(1)", "1:5: parse error: expected type instant vector in aggregation expression, got scalar"),
    ("x[5m][5m:1m]", "1:1: parse error: subquery is only allowed on instant vector, got matrix instead"),
    ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    ('{a="",b=~".*"}', "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    ('x{__name__="y"}', '1:1: parse error: metric name must not be set twice: "x" or "y"'),
    ('x{"y"}', '1:1: parse error: metric name must not be set twice: "x" or "y"'),
    ("info(x, y)", "1:9: parse error: expected label selectors only, got vector selector instead"),
    ("info(x, 1)", '1:1: parse error: expected type instant vector in call to function "info", got scalar'),
    ("info(x, (y))", "1:9: parse error: expected label selectors only"),
]


@pytest.mark.parametrize(("text", "message"), SYNTAX)
def test_syntax_error(text: str, message: str) -> None:
    """A fault in the grammar: line, column, what was met, where, and what would be right."""
    with pytest.raises(QueryError) as caught:
        parse_expr(text)
    assert message in str(caught.value)
    assert caught.value.kind is QueryErrorKind.SYNTAX


@pytest.mark.parametrize(("text", "message"), TYPES)
def test_type_error(text: str, message: str) -> None:
    """A well-formed query whose types, arguments or matchers do not fit."""
    with pytest.raises(QueryError) as caught:
        parse_expr(text)
    assert str(caught.value).startswith(message)
    assert caught.value.kind is QueryErrorKind.TYPE


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a", "missing closing ): `(a`"),
        ("[a", "missing closing ]: `[a`"),
        ("a)", "unexpected ): `a)`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
    ],
)
def test_bad_regex_names_the_matcher(pattern: str, words: str) -> None:
    """A matcher outside RE2's syntax is refused at its label, in the words of Go's regexp package."""
    with pytest.raises(QueryError) as caught:
        parse_expr(f'x{{a="b", c=~"{pattern}"}}')
    assert str(caught.value) == f"1:10: parse error: error parsing regexp: {words}"


def test_syntax_is_checked_before_types() -> None:
    """Types are looked at only where the grammar holds."""
    with pytest.raises(QueryError, match="unexpected end of input"):
        parse_expr("rate(x) + ")


def test_first_fault_counts() -> None:
    """A fault of the text before a bad character is reported rather than the character."""
    with pytest.raises(QueryError, match="unknown function"):
        parse_expr("nothing()$")


def test_columns_count_bytes() -> None:
    """Line and column count from 1, columns in bytes, as Prometheus does."""
    assert position_text("é\né+", 6) == "2:4"


HOSTILE = {
    "parentheses": "(" * 1_000_000,
    "calls": "abs(" * 250_000,
    "aggregations": "sum by (a) (" * 80_000,
    "signs": "-" * 1_000_000,
    "chain": "1+" * 500_000,
    "or chain": "a or " * 200_000,
    "durations": "a[1m" + "+1m" * 300_000 + "]",
    "nested durations": "a[" + "(" * 500_000,
    "arguments": "label_join(a," + '"b",' * 250_000,
    "matchers": "{" + 'a="b",' * 160_000,
    "labels": "sum by (" + "a," * 500_000,
    "offsets": "a" + " offset 5m" * 100_000,
    "brackets": "a[5m:]" * 160_000,
    "digits": "1" * 1_000_000,
    "hexadecimal": "0x" + "f" * 1_000_000,
    "underscores": "1_" * 500_000,
    "units": "1m" * 500_000,
    "open string": '"' + "x" * 1_000_000,
    "escapes": '"' + "\\n" * 500_000,
    "hex escapes": '"' + "\\x41" * 250_000 + "\\",
    "space": " " * 1_000_000 + "$",
    "comments": "#\n" * 500_000,
    "regex": '{a=~"' + "(a|" * 300_000 + '"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_anything_fails_quickly(name: str) -> None:
    """Queries of about 1 MB end in an error, in linear time and without deep recursion."""
    start = time.process_time()
    with pytest.raises(QueryError):
        parse_expr(HOSTILE[name])
    assert time.process_time() - start < 1  # mostly below 50 ms; the bound catches what is not linear


def test_depth_is_bounded() -> None:
    """A tree up to the bound parses; one level more is refused with a place."""
    fits = "(" * (MAX_DEPTH - 1) + "x" + ")" * (MAX_DEPTH - 1)
    parse_expr(fits)
    with pytest.raises(QueryError, match=rf"parse error: expression is nested more than {MAX_DEPTH} levels"):
        parse_expr(f"({fits})")
    parse_expr(" + ".join("x" * MAX_DEPTH))
    with pytest.raises(QueryError, match="nested more than"):
        parse_expr(" + ".join("x" * (MAX_DEPTH + 1)))


def test_length_is_bounded_in_tokens() -> None:
    """Long strings are fine, too many tokens are not."""
    parse_expr('{a="' + "b" * 1_000_000 + '"}')
    with pytest.raises(QueryError, match=f"query has more than {MAX_TOKENS} tokens"):
        parse_expr("sum by (" + "a," * MAX_TOKENS + ") (x)")
