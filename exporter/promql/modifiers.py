"""What follows a selector: offset, @, anchored and smoothed, each set on the node it belongs to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from exporter.promql.ast import At, Expr, MatrixSelector, Span, Subquery, VectorSelector
from exporter.promql.cursor import Cursor, ParseError
from exporter.promql.duration_grammar import (
    bracket_duration,
    expression,
    milliseconds,
    offset_duration,
)
from exporter.promql.literals import at_number, number_or_duration
from exporter.promql.tokens import Kind

_INT64_LIMIT = 2.0**63
_RANGE_CONTEXT = " in subquery or range selector, expected number, duration, step(), or range()"
_STEP_CONTEXT = ' in subquery selector, expected number, duration, step(), range(), or "]"'
_PRECEDED_BY = "must be preceded by an instant vector selector or range vector selector or a subquery"

_Selecting = VectorSelector | Subquery


def with_modifiers(cursor: Cursor, expr: Expr) -> Expr:
    """`expr` with every modifier and bracket that follows it."""
    while True:
        token = cursor.token
        if token.kind is Kind.PUNCTUATION:
            if token.text != "[":
                return expr
            expr = _bracket(cursor, expr)
        elif token.kind is Kind.KEYWORD and token.key == "offset":
            cursor.take()
            expr = _offset(cursor, expr)
        elif token.kind is Kind.OPERATOR and token.text == "@":
            cursor.take()
            expr = _at(cursor, expr)
        elif token.kind is Kind.KEYWORD and token.key in ("anchored", "smoothed"):
            cursor.take()
            expr = _extended(cursor, expr, token.key)
        else:
            return expr


def _bracket(cursor: Cursor, expr: Expr) -> Expr:
    """`[range]` or `[range:step]`."""
    opening = cursor.take()
    length = bracket_duration(cursor, _RANGE_CONTEXT)
    if cursor.accept(":"):
        step = None if cursor.at("]") else bracket_duration(cursor, _STEP_CONTEXT)
        if not cursor.at("]"):
            raise cursor.unexpected("subquery selector", '"]"')
        cursor.take()
        return Subquery(
            expr,
            milliseconds(length),
            milliseconds(step) if step is not None else 0,
            Span(expr.span.start, cursor.last_end),
            expression(length),
            expression(step),
        )
    if not cursor.at("]"):
        raise cursor.unexpected("subquery or range", '":" or "]"')
    cursor.take()
    if not isinstance(expr, VectorSelector):
        raise ParseError("ranges only allowed for vector selectors", opening.start)
    if expr.offset_ms:
        raise ParseError("no offset modifiers allowed before range", opening.start)
    if expr.at is not None and expr.at.kind == "time":
        raise ParseError("no @ modifiers allowed before range", opening.start)
    span = Span(expr.span.start, cursor.last_end)
    return MatrixSelector(expr, milliseconds(length), span, expression(length))


def _modified(cursor: Cursor, expr: Expr, change: Callable[[_Selecting], _Selecting], misplaced: str) -> Expr:
    """`expr` with `change` applied to its selector or subquery, its span reaching to here."""
    span = Span(expr.span.start, cursor.last_end)
    if isinstance(expr, VectorSelector | Subquery):
        return replace(change(expr), span=span)
    if isinstance(expr, MatrixSelector):
        selector = change(expr.selector)
        assert isinstance(selector, VectorSelector)
        return replace(expr, selector=selector, span=span)
    raise ParseError(misplaced, expr.span.start)


def _offset(cursor: Cursor, expr: Expr) -> Expr:
    duration = offset_duration(cursor)

    def change(target: _Selecting) -> _Selecting:
        if target.offset_ms or target.offset_expr is not None:
            raise ParseError("offset may not be set multiple times", expr.span.start)
        return replace(target, offset_ms=milliseconds(duration), offset_expr=expression(duration))

    return _modified(cursor, expr, change, f"offset modifier {_PRECEDED_BY}")


def _at(cursor: Cursor, expr: Expr) -> Expr:
    at = _timestamp(cursor, expr.span.start)

    def change(target: _Selecting) -> _Selecting:
        if target.at is not None:
            raise ParseError("@ <timestamp> may not be set multiple times", expr.span.start)
        return replace(target, at=at)

    return _modified(cursor, expr, change, f"@ modifier {_PRECEDED_BY}")


def _timestamp(cursor: Cursor, start: int) -> At:
    token = cursor.token
    if token.kind is Kind.PREPROCESSOR and token.key in ("start", "end"):
        cursor.take()
        for bracket in "()":
            if not cursor.at(bracket):
                raise cursor.unexpected("@", "timestamp")
            cursor.take()
        return At(token.key)
    sign = cursor.take() if token.kind is Kind.OPERATOR and token.text in "+-" else None
    if not at_number(cursor):
        raise cursor.unexpected("@", "timestamp")
    seconds = number_or_duration(cursor).value
    if sign is not None and sign.text == "-":
        seconds = -seconds
    if not -_INT64_LIMIT < seconds < _INT64_LIMIT:
        shown = "NaN" if math.isnan(seconds) else f"{seconds:+f}" if math.isinf(seconds) else f"{seconds:f}"
        raise ParseError(f"timestamp out of bounds for @ modifier: {shown.replace('inf', 'Inf')}", start)
    return At("time", _round_half_away(seconds * 1000))


def _round_half_away(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def _extended(cursor: Cursor, expr: Expr, modifier: str) -> Expr:
    """`anchored` or `smoothed`, which exclude each other."""
    if isinstance(expr, Subquery):
        raise ParseError(f"{modifier} modifier is not supported for subqueries", expr.span.start)

    def change(target: _Selecting) -> _Selecting:
        assert isinstance(target, VectorSelector)
        if target.smoothed if modifier == "anchored" else target.anchored:
            raise ParseError("anchored and smoothed modifiers cannot be used together", expr.span.start)
        if modifier == "anchored":
            return replace(target, anchored=True)
        return replace(target, smoothed=True)

    return _modified(cursor, expr, change, f"{modifier} modifier not implemented")
