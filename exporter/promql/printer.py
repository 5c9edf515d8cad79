"""Syntax tree to text: Prometheus' canonical form on one line, and its form over several lines.

`parse_expr(to_text(expr))` gives `expr` again, spans and the order of matchers aside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

from exporter.model.durations import format_duration
from exporter.model.labels import METRIC_NAME, Matcher, MatchOp
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
    StringLiteral,
    Subquery,
    Unary,
    VectorMatching,
    VectorSelector,
)
from exporter.promql.gotext import format_float, format_general, quote

_MAX_LINE: Final = 100
_INDENT: Final = "  "
_PLAIN_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def to_text(expr: Expr) -> str:
    """The expression on one line, as Prometheus prints it (`Expr.String()`)."""
    match expr:
        case NumberLiteral():
            return _number(expr)
        case StringLiteral():
            return quote(expr.value)
        case VectorSelector():
            extended = _extended(expr)
            return _series(expr) + _at(expr.at) + extended + _offset(expr.offset_ms, expr.offset_expr)
        case MatrixSelector():
            inner = expr.selector
            length = _duration(expr.range_ms, expr.range_expr)
            after = _extended(inner) + _at(inner.at) + _offset(inner.offset_ms, inner.offset_expr)
            return f"{_series(inner)}[{length}]{after}"
        case Subquery():
            return to_text(expr.expr) + _subquery_suffix(expr)
        case Paren():
            return f"({to_text(expr.expr)})"
        case Unary():
            return expr.op + to_text(expr.expr)
        case Binary():
            return f"{to_text(expr.lhs)} {_operator(expr)} {to_text(expr.rhs)}"
        case Aggregate():
            param = "" if expr.param is None else f"{to_text(expr.param)}, "
            return f"{_aggregate_head(expr)}({param}{to_text(expr.expr)})"
        case Call():
            return f"{expr.func}({', '.join(map(to_text, expr.args))})"


def to_pretty(expr: Expr) -> str:
    """The expression with every part of more than 100 bytes broken over lines (`/api/v1/format_query`)."""
    return _pretty(expr, 0)


def _pretty(expr: Expr, level: int) -> str:
    pad = _INDENT * level
    if isinstance(expr, Unary):
        return f"{pad}{expr.op}{_pretty(expr.expr, level).strip()}"
    text = to_text(expr)
    if len(text.encode("utf-8", "surrogateescape")) <= _MAX_LINE:
        return text if isinstance(expr, Subquery) else pad + text
    match expr:
        case Aggregate():
            param = "" if expr.param is None else f"{_pretty(expr.param, level + 1)},\n"
            return f"{pad}{_aggregate_head(expr)}(\n{param}{_pretty(expr.expr, level + 1)}\n{pad})"
        case Binary():
            lhs, rhs = _pretty(expr.lhs, level + 1), _pretty(expr.rhs, level + 1)
            return f"{lhs}\n{pad}{_operator(expr)}\n{rhs}"
        case Call():
            arguments = ",\n".join(_pretty(argument, level + 1) for argument in expr.args)
            return f"{pad}{expr.func}(\n{arguments}\n{pad})"
        case Paren():
            return f"{pad}(\n{_pretty(expr.expr, level + 1)}\n{pad})"
        case Subquery():
            return _pretty(expr.expr, level) + _subquery_suffix(expr)
    return pad + text


def _number(literal: NumberLiteral) -> str:
    if literal.is_duration:
        sign = "-" if literal.value < 0 else ""
        return sign + format_duration(int(abs(literal.value) * 1000 + 0.5))
    return format_float(literal.value)


def _series(selector: VectorSelector) -> str:
    texts = sorted(matcher_text(matcher) for matcher in selector.matchers if not _is_name(selector, matcher))
    return f"{selector.name}{{{','.join(texts)}}}" if texts else selector.name


def _is_name(selector: VectorSelector, matcher: Matcher) -> bool:
    """Whether a matcher is the one that stands for the bare metric name."""
    if matcher.name != METRIC_NAME or matcher.op is not MatchOp.EQUAL:
        return False
    return matcher.value == selector.name != ""


def matcher_text(matcher: Matcher) -> str:
    """`name="value"`, a name outside the classic characters quoted."""
    return f"{_label(matcher.name)}{matcher.op.value}{quote(matcher.value)}"


def _label(name: str) -> str:
    return name if _PLAIN_LABEL.fullmatch(name) else quote(name)


def _labels(names: Iterable[str]) -> str:
    return ", ".join(map(_label, names))


def _at(at: At | None) -> str:
    if at is None:
        return ""
    return f" @ {at.ts_ms / 1000:.3f}" if at.kind == "time" else f" @ {at.kind}()"


def _extended(selector: VectorSelector) -> str:
    if selector.anchored:
        return " anchored"
    return " smoothed" if selector.smoothed else ""


def _offset(offset_ms: int, offset_expr: Expr | None) -> str:
    if offset_expr is None and offset_ms == 0:
        return ""
    return f" offset {_duration(offset_ms, offset_expr)}"


def _duration(literal_ms: int, expr: Expr | None) -> str:
    return format_duration(literal_ms) if expr is None else to_text(expr)


def _subquery_suffix(expr: Subquery) -> str:
    step = "" if expr.step_ms == 0 and expr.step_expr is None else _duration(expr.step_ms, expr.step_expr)
    window = f"[{_duration(expr.range_ms, expr.range_expr)}:{step}]"
    return window + _at(expr.at) + _offset(expr.offset_ms, expr.offset_expr)


def _aggregate_head(expr: Aggregate) -> str:
    if expr.without:
        return f"{expr.op} without ({_labels(expr.grouping)}) "
    return f"{expr.op} by ({_labels(expr.grouping)}) " if expr.grouping else expr.op


def _operator(expr: Binary) -> str:
    return expr.op + (" bool" if expr.return_bool else "") + _matching(expr.matching)


def _matching(matching: VectorMatching | None) -> str:
    if matching is None:
        return ""
    text = ""
    grouped = matching.cardinality in (Cardinality.MANY_TO_ONE, Cardinality.ONE_TO_MANY)
    if matching.labels or matching.on or grouped:
        text = f" {'on' if matching.on else 'ignoring'} ({_labels(matching.labels)})"
    if grouped:
        side = "left" if matching.cardinality is Cardinality.MANY_TO_ONE else "right"
        text += f" group_{side} ({_labels(matching.include)})"
    return text + _fill(matching.fill_left, matching.fill_right)


def _fill(left: float | None, right: float | None) -> str:
    if left is not None and right is not None and (left == right or (math.isnan(left) and math.isnan(right))):
        return f" fill ({format_general(left)})"
    text = "" if left is None else f" fill_left ({format_general(left)})"
    return text if right is None else f"{text} fill_right ({format_general(right)})"
