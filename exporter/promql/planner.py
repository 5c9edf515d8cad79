"""From syntax tree to plan: durations evaluated, constants folded, equal parts given equal keys."""

from __future__ import annotations

import math
from collections.abc import Hashable
from itertools import count
from typing import Any

from exporter.errors import QueryError
from exporter.promql import ast
from exporter.promql.ast import Expr, ValueType
from exporter.promql.binary import scalar_operation
from exporter.promql.functions.elementwise import DATES
from exporter.promql.functions.registry import SIGNATURES
from exporter.promql.plan import (
    Aggregation,
    Function,
    Negate,
    Node,
    Number,
    Operation,
    Select,
    Sub,
    Text,
    Window,
)

# The value depends on the time of evaluation even where the arguments do not.
_TIME_BOUND = frozenset((*DATES, "predict_linear", "time", "timestamp"))
_MAX_KEYS = 100_000


class Keys:
    """Numbers for canonical forms: equal forms get equal numbers. Shared by the queries of an engine."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}
        self._next = count(1)

    def of(self, form: Hashable) -> int:
        """The number of a form."""
        key = self._known.get(form)
        if key is None:
            if len(self._known) >= _MAX_KEYS:
                self._known = {}  # old numbers stay unique; equal forms just meet less often
            key = self._known[form] = next(self._next)
        return key


class Planner:
    """Builds the plan of one query for one step and one range (durations may be told in both)."""

    def __init__(self, keys: Keys, start_ms: int, end_ms: int, step_ms: int) -> None:
        self._keys = keys
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._step_ms = step_ms
        self.depends_on_times = False  # whether the plan holds for these times only
        self.sources: dict[int, Expr] = {}  # the expression that each key of the plan stands for

    def plan(self, expr: Expr) -> Node:
        """The plan of an expression. Raises: QueryError where a duration makes no sense."""
        node = self._plan(expr)
        self.sources.setdefault(node.key, expr)
        return node

    def _plan(self, expr: Expr) -> Node:
        match expr:
            case ast.Paren():
                return self.plan(expr.expr)
            case ast.NumberLiteral():
                return self._number(expr.value, expr.span.start)
            case ast.StringLiteral():
                return Text(self._keys.of(("text", expr.value)), expr.span.start, expr.value)
            case ast.VectorSelector():
                return self._select(expr)
            case ast.MatrixSelector():
                select = self._select(expr.selector)
                range_ms = expr.range_ms
                if expr.range_expr is not None:
                    range_ms = self._duration(expr.range_expr, negative=False)
                key = self._keys.of(("window", select.key, range_ms))
                return Window(key, expr.span.start, select.invariant, select, range_ms)
            case ast.Subquery():
                return self._subquery(expr)
            case ast.Unary():
                return self._unary(expr)
            case ast.Binary():
                return self._binary(expr)
            case ast.Aggregate():
                return self._aggregate(expr)
            case ast.Call():
                return self._call(expr)

    def _number(self, value: float, start: int) -> Number:
        return Number(self._keys.of(("number", value.hex())), start, value)

    def _select(self, expr: ast.VectorSelector) -> Select:
        offset_ms = expr.offset_ms
        if expr.offset_expr is not None:
            offset_ms = self._duration(expr.offset_expr, negative=True)
        matchers = tuple(expr.matchers)
        form = ("select", frozenset(matchers), offset_ms, expr.at, expr.smoothed, expr.anchored)
        return Select(
            self._keys.of(form),
            expr.span.start,
            expr.at is not None,
            expr.name,
            matchers,
            offset_ms,
            expr.at,
            expr.smoothed,
            expr.anchored,
        )

    def _subquery(self, expr: ast.Subquery) -> Sub:
        inner = self.plan(expr.expr)
        range_ms, step_ms, offset_ms = expr.range_ms, expr.step_ms, expr.offset_ms
        if expr.range_expr is not None:
            range_ms = self._duration(expr.range_expr, negative=False)
        if expr.step_expr is not None:
            step_ms = self._duration(expr.step_expr, negative=False)
        if expr.offset_expr is not None:
            offset_ms = self._duration(expr.offset_expr, negative=True)
        key = self._keys.of(("sub", inner.key, range_ms, step_ms, offset_ms, expr.at))
        invariant = expr.at is not None
        return Sub(key, expr.span.start, invariant, inner, range_ms, step_ms, offset_ms, expr.at)

    def _unary(self, expr: ast.Unary) -> Node:
        inner = self.plan(expr.expr)
        if expr.op == "+":
            return inner
        if isinstance(inner, Number):
            return self._number(-inner.value, expr.span.start)
        key = self._keys.of(("negate", inner.key))
        return Negate(key, expr.span.start, inner.invariant, inner, inner.type)

    def _binary(self, expr: ast.Binary) -> Node:
        lhs, rhs = self.plan(expr.lhs), self.plan(expr.rhs)
        if isinstance(lhs, Number) and isinstance(rhs, Number):
            return self._number(scalar_operation(expr.op, lhs.value, rhs.value), expr.span.start)
        scalars = lhs.type is ValueType.SCALAR and rhs.type is ValueType.SCALAR
        matching = expr.matching
        form = ("binary", expr.op, lhs.key, rhs.key, expr.return_bool, _matching_form(matching))
        return Operation(
            self._keys.of(form),
            expr.span.start,
            lhs.invariant and rhs.invariant,
            expr.op,
            lhs,
            rhs,
            expr.return_bool,
            matching,
            ValueType.SCALAR if scalars else ValueType.VECTOR,
        )

    def _aggregate(self, expr: ast.Aggregate) -> Aggregation:
        inner = self.plan(expr.expr)
        param = None if expr.param is None else self.plan(expr.param)
        grouping = tuple(sorted(set(expr.grouping)))
        form = ("aggregate", expr.op, inner.key, param and param.key, grouping, expr.without)
        return Aggregation(
            self._keys.of(form),
            expr.span.start,
            inner.invariant and (param is None or param.invariant),
            expr.op,
            inner,
            param,
            grouping,
            expr.without,
        )

    def _call(self, expr: ast.Call) -> Node:
        name = expr.func
        if name in ("start", "end", "range", "step"):
            self.depends_on_times = True
            value = {
                "start": self._start_ms,
                "end": self._end_ms,
                "range": self._end_ms - self._start_ms,
                "step": self._step_ms,
            }[name]
            return self._number(value / 1000, expr.span.start)
        args = tuple(self.plan(arg) for arg in expr.args)
        invariant = name not in _TIME_BOUND and all(arg.invariant for arg in args)
        if name == "pi":
            return self._number(math.pi, expr.span.start)
        key = self._keys.of(("call", name, *[arg.key for arg in args]))
        return Function(key, expr.span.start, invariant, name, args, SIGNATURES[name].returns)

    # -- durations told as expressions ----------------------------------------------------------------

    def _duration(self, expr: Expr, *, negative: bool) -> int:
        seconds = self._seconds(expr)
        place = f"{expr.span.start}:{expr.span.end}"
        if seconds <= 0 and not negative:
            raise QueryError(f"{place}: duration must be greater than 0")
        if seconds != seconds or not -(2**63) <= seconds * 1e9 < 2**63:
            raise QueryError(f"{place}: duration is out of range")
        return int(seconds * 1000)

    def _seconds(self, expr: Expr) -> float:
        match expr:
            case ast.NumberLiteral():
                return expr.value
            case ast.Paren():
                return self._seconds(expr.expr)
            case ast.Unary():
                value = self._seconds(expr.expr)
                return -value if expr.op == "-" else value
            case ast.Call():
                return self._duration_call(expr)
            case ast.Binary():
                return self._duration_operation(expr)
            case _:
                raise QueryError(f"unexpected duration expression type {type(expr).__name__}")

    def _duration_call(self, expr: ast.Call) -> float:
        if expr.func == "step":
            self.depends_on_times = True
            return self._step_ms / 1000
        if expr.func == "range":
            self.depends_on_times = True
            return (self._end_ms - self._start_ms) / 1000
        first, second = (self._seconds(arg) for arg in expr.args)
        return min(first, second) if expr.func.startswith("min") else max(first, second)

    def _duration_operation(self, expr: ast.Binary) -> float:
        lhs, rhs = self._seconds(expr.lhs), self._seconds(expr.rhs)
        if rhs == 0 and expr.op in ("/", "%"):
            word = "division" if expr.op == "/" else "modulo"
            raise QueryError(f"{expr.span.start}:{expr.span.end}: {word} by zero")
        return scalar_operation(expr.op, lhs, rhs)


def _matching_form(matching: ast.VectorMatching | None) -> Any:
    if matching is None:
        return None
    fills = [None if fill is None else fill.hex() for fill in (matching.fill_left, matching.fill_right)]
    return matching.cardinality, matching.on, matching.labels, matching.include, *fills
