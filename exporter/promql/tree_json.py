"""Syntax tree to the JSON of `/api/v1/parse_query`, which Prometheus' page shows as a tree."""

from __future__ import annotations

from typing import Any

from exporter.promql.ast import (
    Aggregate,
    At,
    Binary,
    Call,
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
from exporter.promql.functions.registry import SIGNATURES
from exporter.promql.gotext import format_float

Json = dict[str, Any]


def to_json(expr: Expr) -> Json:
    """A JSON-able dict; durations in milliseconds, those given as expressions 0."""
    match expr:
        case NumberLiteral():
            return {"type": "numberLiteral", "val": format_float(expr.value)}
        case StringLiteral():
            return {"type": "stringLiteral", "val": expr.value}
        case VectorSelector():
            return {"type": "vectorSelector", **_selector(expr)}
        case MatrixSelector():
            return {"type": "matrixSelector", **_selector(expr.selector), "range": expr.range_ms}
        case Subquery():
            times = {"range": expr.range_ms, "offset": expr.offset_ms, "step": expr.step_ms}
            return {"type": "subquery", "expr": to_json(expr.expr), **times, **_at(expr.at)}
        case Paren():
            return {"type": "parenExpr", "expr": to_json(expr.expr)}
        case Unary():
            return {"type": "unaryExpr", "op": expr.op, "expr": to_json(expr.expr)}
        case Binary():
            return {
                "type": "binaryExpr",
                "op": expr.op,
                "lhs": to_json(expr.lhs),
                "rhs": to_json(expr.rhs),
                "matching": None if expr.matching is None else _matching(expr.matching),
                "bool": expr.return_bool,
            }
        case Aggregate():
            return {
                "type": "aggregation",
                "op": expr.op,
                "expr": to_json(expr.expr),
                "param": None if expr.param is None else to_json(expr.param),
                "grouping": list(expr.grouping),
                "without": expr.without,
            }
        case Call():
            return {"type": "call", "func": _function(expr.func), "args": [to_json(arg) for arg in expr.args]}


def _selector(selector: VectorSelector) -> Json:
    return {
        "name": selector.name,
        "offset": selector.offset_ms,
        "matchers": [
            {"name": matcher.name, "value": matcher.value, "type": matcher.op.value}
            for matcher in selector.matchers
        ],
        **_at(selector.at),
        "anchored": selector.anchored,
        "smoothed": selector.smoothed,
    }


def _at(at: At | None) -> Json:
    fixed = at is not None and at.kind == "time"
    return {
        "timestamp": at.ts_ms if at is not None and fixed else None,
        "startOrEnd": at.kind if at is not None and not fixed else None,
    }


def _matching(matching: VectorMatching) -> Json:
    return {
        "card": matching.cardinality.value,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    }


def _function(name: str) -> Json:
    signature = SIGNATURES[name]
    return {
        "name": name,
        "argTypes": [value_type.value for value_type in signature.args],
        "variadic": signature.variadic,
        "returnType": signature.returns.value,
    }
