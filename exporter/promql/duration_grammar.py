"""Durations in square brackets and after `offset`: literals, or arithmetic over them.

An expression becomes nodes of the syntax tree: NumberLiteral (seconds), Binary (+ - * / % ^), Unary,
Paren, and Call with the names `step`, `range`, `min_of`, `max_of` (or `min`, `max`, as they were first
called). After `offset` a bare literal ends the duration, so that `a offset 1m + 1` adds 1 to `a offset 1m`;
only parentheses, calls and a sign reach further there.
"""

from __future__ import annotations

from typing import Final

from exporter.promql.ast import Binary, Call, Expr, NumberLiteral, Paren, Span, Unary
from exporter.promql.cursor import Cursor, ParseError
from exporter.promql.literals import MAX_DURATION_S, at_number, negated, number_or_duration
from exporter.promql.tokens import DURATION_CALLS, DURATION_PAIRS, Kind, Token

_PRECEDENCE: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3}
_POWER: Final = 3
_OFFSET_CONTEXT: Final = " in offset, expected number, duration, step(), or range()"


def bracket_duration(cursor: Cursor, context: str) -> Expr:
    """A duration greater than zero, arithmetic allowed; faults are reported in `context`."""
    outer, cursor.context = cursor.context, context
    duration = _arithmetic(cursor, 1)
    if isinstance(duration, NumberLiteral) and duration.value <= 0:
        raise ParseError("duration must be greater than 0", duration.span.start)
    cursor.context = outer
    return duration


def offset_duration(cursor: Cursor) -> Expr:
    """The duration after `offset`; may be negative."""
    outer, cursor.context = cursor.context, _OFFSET_CONTEXT
    sign = cursor.take() if _at_sign(cursor) else None
    duration = number_or_duration(cursor) if sign and at_number(cursor) else _primary(cursor)
    cursor.context = outer
    return duration if sign is None else _signed(sign, duration)


def milliseconds(duration: Expr) -> int:
    """The value of a literal duration; 0 for an expression, which the engine evaluates."""
    return round(duration.value * 1000) if isinstance(duration, NumberLiteral) else 0


def expression(duration: Expr | None) -> Expr | None:
    """The duration if it is an expression, None if it is a literal or absent."""
    return None if isinstance(duration, NumberLiteral) else duration


def _at_sign(cursor: Cursor) -> bool:
    return cursor.at("+") or cursor.at("-")


def _arithmetic(cursor: Cursor, lowest: int) -> Expr:
    cursor.enter()
    if _at_sign(cursor):
        sign = cursor.take()
        left = _signed(sign, _arithmetic(cursor, _POWER))
    else:
        left = _primary(cursor)
    operators = 0
    while cursor.token.kind is Kind.OPERATOR and _PRECEDENCE.get(cursor.token.key, 0) >= lowest:
        operator = cursor.take()
        precedence = _PRECEDENCE[operator.key]
        right = _arithmetic(cursor, precedence if precedence == _POWER else precedence + 1)
        if operator.key in "/%" and isinstance(right, NumberLiteral) and right.value == 0:
            name = "division" if operator.key == "/" else "modulo"
            raise ParseError(f"{name} by zero", operator.start)
        left = Binary(operator.key, left, right, Span(left.span.start, right.span.end))
        operators += 1
        cursor.check_height(operators)
    cursor.leave()
    return left


def _primary(cursor: Cursor) -> Expr:
    token = cursor.token
    if at_number(cursor):
        return _in_range(number_or_duration(cursor), token)
    if token.kind in (Kind.PREPROCESSOR, Kind.AGGREGATOR) and token.key in DURATION_CALLS | DURATION_PAIRS:
        cursor.take()
        cursor.expect("(")
        arguments: tuple[Expr, ...] = ()
        if token.key in DURATION_PAIRS:
            first = _arithmetic(cursor, 1)
            cursor.expect(",")
            arguments = (first, _arithmetic(cursor, 1))
        cursor.expect(")")
        return Call(token.key, arguments, Span(token.start, cursor.last_end))
    if cursor.accept("("):
        inner = _arithmetic(cursor, 1)
        cursor.expect(")")
        return Paren(inner, Span(token.start, cursor.last_end))
    raise cursor.unexpected()


def _signed(sign: Token, duration: Expr) -> Expr:
    if isinstance(duration, NumberLiteral):
        return _in_range(negated(duration, sign), sign)
    if sign.key == "-":
        return Unary("-", duration, Span(sign.start, duration.span.end))
    return duration


def _in_range(literal: NumberLiteral, at: Token) -> NumberLiteral:
    if not -MAX_DURATION_S <= literal.value <= MAX_DURATION_S:
        raise ParseError("duration out of range", at.start)
    return literal
