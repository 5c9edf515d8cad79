"""Numbers, durations and strings: from token to value, with Go's words for what does not fit."""

from __future__ import annotations

import math
from typing import Final

from exporter.model.durations import parse_duration
from exporter.promql.ast import NumberLiteral, Span, StringLiteral
from exporter.promql.cursor import Cursor, ParseError
from exporter.promql.gotext import quote, unquote
from exporter.promql.tokens import Kind, Token

MAX_DURATION_S: Final = 2.0**63 / 1e9  # Go keeps durations in int64 nanoseconds
_INT64: Final = range(-(2**63), 2**63)


def number_value(text: str) -> float:
    """The value of a number as Go reads it: 0x and leading-zero octal integers, else a decimal float.

    Raises: ValueError in the words of Go's strconv.
    """
    integer = _integer_value(text)
    if integer is not None and integer in _INT64:
        return float(integer)
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax") from None
    if math.isinf(value) and text.lower().lstrip("+-") not in ("inf", "infinity"):
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: value out of range")
    return value


def _integer_value(text: str) -> int | None:
    digits = text.replace("_", "") if _underscores_fit(text) else text
    lowered = digits.lower()
    try:
        if lowered.startswith("0x"):
            return int(digits[2:], 16)
        if not digits.isdecimal() or not digits.isascii():
            return None
        if len(digits) > 1 and digits[0] == "0":
            return int(digits, 8)
        return int(digits) if len(digits) < 20 else None
    except ValueError:
        return None


def _underscores_fit(text: str) -> bool:
    body = text[1:] if text.lower().startswith("0x") else text
    return "_" in text and "__" not in body and not body.endswith("_") and not body.startswith("_")


def number_or_duration(cursor: Cursor) -> NumberLiteral:
    """Take a NUMBER or DURATION token."""
    token = cursor.take()
    span = Span(token.start, token.end)
    try:
        if token.kind is Kind.DURATION:
            return NumberLiteral(parse_duration(token.text) / 1000, span, is_duration=True)
    except ValueError as error:
        raise ParseError(str(error), token.start) from None
    try:
        return NumberLiteral(number_value(token.text), span)
    except ValueError as error:
        raise ParseError(f"error parsing number: {error}", token.start) from None


def at_number(cursor: Cursor) -> bool:
    """Whether the current token is a number or a duration."""
    return cursor.token.kind in (Kind.NUMBER, Kind.DURATION)


def negated(literal: NumberLiteral, sign: Token) -> NumberLiteral:
    """A literal with the sign before it folded in."""
    value = -literal.value if sign.key == "-" else literal.value
    return NumberLiteral(value, Span(sign.start, literal.span.end), literal.is_duration)


def string_value(token: Token) -> str:
    """The value of a STRING token."""
    try:
        return unquote(token.text)
    except ValueError as error:
        raise ParseError(f"error unquoting string {quote(token.text)}: {error}", token.start) from None


def string_literal(cursor: Cursor) -> StringLiteral:
    """Take a STRING token."""
    token = cursor.take()
    return StringLiteral(string_value(token), Span(token.start, token.end))
