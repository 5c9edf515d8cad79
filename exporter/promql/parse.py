"""PromQL of Prometheus 3: text to a type-checked syntax tree, or an error with line and column.

The whole language is on, its experimental parts too. Recursive descent with precedence climbing; the
errors are worded, placed and ordered as Prometheus' are. A query may hold at most `cursor.MAX_TOKENS`
tokens and its tree be at most `cursor.MAX_DEPTH` high, so that nothing downstream meets a tree that it
cannot walk. Raises everywhere: QueryError of kind SYNTAX or TYPE.
Source: the "Querying" pages of Prometheus' documentation.
"""

from __future__ import annotations

from typing import Final, NoReturn

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import Matcher
from exporter.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Cardinality,
    Expr,
    NumberLiteral,
    Paren,
    Span,
    Unary,
    VectorMatching,
)
from exporter.promql.cursor import MAX_DEPTH, Cursor, ParseError
from exporter.promql.functions.registry import SIGNATURES
from exporter.promql.gotext import quote
from exporter.promql.literals import at_number, negated, number_or_duration, string_literal
from exporter.promql.modifiers import with_modifiers
from exporter.promql.selectors import label_names, named_selector, names_metric, selector
from exporter.promql.tokens import AGGREGATORS_WITH_PARAMETER, FILL_WORDS, Kind, Token
from exporter.promql.typecheck import check

_PRECEDENCE: Final = {
    "or": 1,
    "and": 2,
    "unless": 2,
    **dict.fromkeys(("==", "!=", ">", "<", ">=", "<=", "</", ">/"), 3),
    "+": 4,
    "-": 4,
    **dict.fromkeys(("*", "/", "%", "atan2"), 5),
    "^": 6,
}
_POWER: Final = 6
_AGGREGATION_CONTEXT: Final = " in aggregation"


def parse_expr(text: str) -> Expr:
    """The syntax tree of a query, types checked. Raises: QueryError worded as Prometheus words it."""
    try:
        parser = _Parser(Cursor(text))
        return check(parser.query(), text)
    except ParseError as error:
        raise error.to_query_error(text) from None
    except RecursionError:
        raise _too_deep(text) from None


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of a series selector (`match[]` of the HTTP API). Raises: QueryError of kind SYNTAX.

    A selector that every series satisfies is accepted here; callers refuse it where they must.
    """
    try:
        cursor = Cursor(text)
        found = selector(cursor)
        if not cursor.at_end():
            raise cursor.unexpected()
    except ParseError as error:
        raise error.to_query_error(text) from None
    return found.matchers


def _too_deep(text: str) -> QueryError:
    message = f"expression is nested more than {MAX_DEPTH} levels deep"
    return ParseError(message, 0, QueryErrorKind.SYNTAX).to_query_error(text)


class _Parser:
    """One parse of one query. `_height` is that of the tree returned last."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._height = 0

    def query(self) -> Expr:
        cursor = self._cursor
        if cursor.at_end():
            raise ParseError("no expression found in input", 0)
        expr = self._binary(1)
        if not cursor.at_end():
            raise cursor.unexpected()
        return expr

    def _binary(self, lowest: int) -> Expr:
        """An expression of operators that bind at least as tightly as `lowest`."""
        cursor = self._cursor
        cursor.enter()
        left = self._operand()
        while cursor.token.kind is Kind.OPERATOR:
            precedence = _PRECEDENCE.get(cursor.token.key, 0)
            if precedence < lowest or precedence == 0:
                break
            operator = cursor.take()
            height = self._height
            return_bool, matching = self._matching()
            right = self._binary(precedence if precedence == _POWER else precedence + 1)
            self._grow(max(height, self._height))
            span = Span(left.span.start, right.span.end)
            left = Binary(operator.key, left, right, span, return_bool, matching)
        cursor.leave()
        return left

    def _grow(self, height: int) -> None:
        self._height = self._cursor.check_height(height + 1)

    def _matching(self) -> tuple[bool, VectorMatching]:
        """bool, on or ignoring with group_left or group_right, and the fill modifiers, in this order."""
        cursor = self._cursor
        return_bool = cursor.accept("bool") is not None
        cardinality = Cardinality.ONE_TO_ONE
        labels: tuple[str, ...] = ()
        include: tuple[str, ...] = ()
        rule = cursor.accept("on") or cursor.accept("ignoring")
        if rule is not None:
            labels = label_names(cursor)
            if cursor.accept("group_left"):
                cardinality = Cardinality.MANY_TO_ONE
            elif cursor.accept("group_right"):
                cardinality = Cardinality.ONE_TO_MANY
            if cardinality is not Cardinality.ONE_TO_ONE and cursor.at("("):
                include = label_names(cursor)
        on = rule is not None and rule.key == "on"
        left, right = self._fills()
        return return_bool, VectorMatching(cardinality, on, labels, include, left, right)

    def _fills(self) -> tuple[float | None, float | None]:
        """`fill(v)`, or `fill_left(v)` and `fill_right(v)` in either order."""
        values: dict[str, float] = {}
        cursor = self._cursor
        while cursor.token.kind is Kind.KEYWORD and cursor.token.key in FILL_WORDS:
            word = cursor.token.key
            if word in values or "fill" in values or (values and word == "fill"):
                raise cursor.unexpected()
            cursor.take()
            values[word] = self._fill_value()
        both = values.get("fill")
        return values.get("fill_left", both), values.get("fill_right", both)

    def _fill_value(self) -> float:
        cursor = self._cursor
        cursor.expect("(")
        sign = cursor.accept("+") or cursor.accept("-")
        if not at_number(cursor):
            raise cursor.unexpected()
        literal = number_or_duration(cursor)
        cursor.expect(")")
        return (literal if sign is None else negated(literal, sign)).value

    def _operand(self) -> Expr:
        """A signed expression, or a simple one with the modifiers that follow it."""
        cursor = self._cursor
        token = cursor.token
        kind = token.kind
        self._height = 1
        expr: Expr
        if kind is Kind.OPERATOR and token.text in "+-":
            return self._signed(cursor.take())
        if kind is Kind.IDENTIFIER or kind is Kind.PREPROCESSOR:
            cursor.take()
            expr = self._call(token) if cursor.at("(") else named_selector(cursor, token)
        elif at_number(cursor):
            expr = number_or_duration(cursor)
        elif kind is Kind.AGGREGATOR:
            cursor.take()
            aggregates = cursor.at("(") or cursor.at("by") or cursor.at("without")
            expr = self._aggregate(token) if aggregates else named_selector(cursor, token)
        elif cursor.accept("("):
            inner = self._binary(1)
            self._grow(self._height)
            cursor.expect(")")
            expr = Paren(inner, Span(token.start, cursor.last_end))
        elif kind is Kind.STRING:
            expr = string_literal(cursor)
        else:
            expr = selector(cursor)
        height = self._height
        modified = with_modifiers(cursor, expr)
        if modified is not expr:
            self._grow(height + 1)
        return modified

    def _signed(self, sign: Token) -> Expr:
        operand = self._binary(_POWER)
        if isinstance(operand, NumberLiteral):
            return negated(operand, sign)
        self._grow(self._height)
        return Unary(sign.text, operand, Span(sign.start, operand.span.end))

    def _arguments(self) -> tuple[Expr, ...]:
        """`(a, b, ...)`."""
        cursor = self._cursor
        cursor.take()
        arguments: list[Expr] = []
        height = 0
        while not cursor.at(")"):
            arguments.append(self._binary(1))
            height = max(height, self._height)
            comma = cursor.accept(",")
            if comma is None:
                break
            if not _begins_expression(cursor):
                raise ParseError("trailing commas not allowed in function call args", comma.start)
        cursor.expect(")")
        self._grow(height)
        return tuple(arguments)

    def _call(self, name: Token) -> Call:
        arguments = self._arguments()
        if name.text not in SIGNATURES:
            raise ParseError(
                f"unknown function with name {quote(name.text)}", name.start, QueryErrorKind.TYPE
            )
        return Call(name.text, arguments, Span(name.start, self._cursor.last_end))

    def _aggregate(self, name: Token) -> Aggregate:
        """`sum by (a) (x)` or `sum(x) by (a)`; faults inside are reported as being in an aggregation."""
        cursor = self._cursor
        outer, cursor.context = cursor.context, _AGGREGATION_CONTEXT
        rule = cursor.accept("by") or cursor.accept("without")
        grouping = label_names(cursor) if rule is not None else ()
        if not cursor.at("("):
            raise cursor.unexpected()
        arguments = self._arguments()
        cursor.context = outer
        if rule is None:
            rule = cursor.accept("by") or cursor.accept("without")
            grouping = label_names(cursor) if rule is not None else ()
        _check_count(name, arguments)
        return Aggregate(
            name.key,
            arguments[-1],
            Span(name.start, cursor.last_end),
            arguments[0] if len(arguments) == 2 else None,
            grouping,
            rule is not None and rule.key == "without",
        )


def _check_count(name: Token, arguments: tuple[Expr, ...]) -> None:
    wanted = 2 if name.key in AGGREGATORS_WITH_PARAMETER else 1
    if not arguments:
        _refuse(name, "no arguments for aggregate expression provided")
    if len(arguments) != wanted:
        _refuse(
            name,
            "wrong number of arguments for aggregate expression provided, "
            f"expected {wanted}, got {len(arguments)}",
        )


def _refuse(name: Token, message: str) -> NoReturn:
    raise ParseError(message, name.start, QueryErrorKind.TYPE)


def _begins_expression(cursor: Cursor) -> bool:
    token = cursor.token
    if token.kind in (Kind.NUMBER, Kind.DURATION, Kind.STRING):
        return True
    return names_metric(token) or token.text in ("(", "{", "+", "-")
