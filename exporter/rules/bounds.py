"""Bounds of what an expression can return, from its text alone: for comparisons that can never be true."""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporter.promql.ast import Aggregate, Binary, Call, Expr, NumberLiteral, Paren, Subquery, Unary
from exporter.promql.printer import to_text
from exporter.rules.condition import COMPARISONS


@dataclass(frozen=True, slots=True)
class Bounds:
    """A closed range that holds every value; `open_low`, `open_high`: the end itself is never taken."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether no value fits."""
        return self.low > self.high or (self.low == self.high and (self.open_low or self.open_high))

    def __and__(self, other: Bounds) -> Bounds:
        """What lies in both."""
        low = max(self.low, other.low)
        high = min(self.high, other.high)
        open_low = (self.open_low and self.low == low) or (other.open_low and other.low == low)
        open_high = (self.open_high and self.high == high) or (other.open_high and other.high == high)
        return Bounds(low, high, open_low, open_high)


ANY = Bounds()
_AT_LEAST_0 = Bounds(low=0.0)
_AT_LEAST_1 = Bounds(low=1.0)
_RANGES = {
    "absent": Bounds(1, 1),
    "absent_over_time": Bounds(1, 1),
    "present_over_time": Bounds(1, 1),
    "group": Bounds(1, 1),
    "count": _AT_LEAST_1,
    "count_over_time": _AT_LEAST_1,
    "minute": Bounds(0, 59),
    "hour": Bounds(0, 23),
    "day_of_week": Bounds(0, 6),
    "day_of_month": Bounds(1, 31),
    "day_of_year": Bounds(1, 366),
    "days_in_month": Bounds(28, 31),
    "month": Bounds(1, 12),
    "sgn": Bounds(-1, 1),
    "sin": Bounds(-1, 1),
    "cos": Bounds(-1, 1),
    "tanh": Bounds(-1, 1),
    "acosh": _AT_LEAST_0,
    "exp": _AT_LEAST_0,
    **dict.fromkeys(
        ("rate", "irate", "increase", "resets", "changes", "abs", "sqrt", "stddev", "stdvar", "time",
         "stddev_over_time", "stdvar_over_time", "mad_over_time", "histogram_stddev", "histogram_stdvar"),
        _AT_LEAST_0,
    ),
}  # fmt: skip
_THROUGH = (
    "min", "max", "avg", "topk", "bottomk", "limitk", "limit_ratio", "sort", "sort_desc", "sort_by_label",
    "sort_by_label_desc", "label_replace", "label_join", "scalar", "vector", "last_over_time",
    "first_over_time", "min_over_time", "max_over_time", "avg_over_time",
)  # fmt: skip


def bounds_of(expr: Expr) -> Bounds:
    """Bounds of the values that an expression can return; empty where it can return nothing."""
    match expr:
        case NumberLiteral():
            return Bounds(expr.value, expr.value)
        case Paren() | Subquery():
            return bounds_of(expr.expr)
        case Unary():
            inner = bounds_of(expr.expr)
            if expr.op != "-":
                return inner
            return Bounds(-inner.high, -inner.low, inner.open_high, inner.open_low)
        case Aggregate():
            return _called(expr.op, expr.expr)
        case Call():
            return _call(expr)
        case Binary():
            return _binary(expr)
        case _:
            return ANY


def _called(name: str, argument: Expr | None) -> Bounds:
    inner = bounds_of(argument) if argument is not None else ANY
    if inner.is_empty:
        return inner
    if name in _THROUGH and argument is not None:
        return inner
    if name in ("sum", "sum_over_time") and argument is not None:
        return (
            Bounds(low=inner.low) if inner.low >= 0 else Bounds(high=inner.high) if inner.high <= 0 else ANY
        )
    return _RANGES.get(name, ANY)


def _call(expr: Call) -> Bounds:
    if expr.func in ("clamp_min", "clamp_max", "clamp") and len(expr.args) > 1:
        limits = [bounds_of(one) for one in expr.args[1:]]
        inner = bounds_of(expr.args[0])
        low = limits[0].low if expr.func != "clamp_max" else -math.inf
        high = limits[-1].high if expr.func != "clamp_min" else math.inf
        return Bounds(max(inner.low, low) if inner.low < high else low, min(inner.high, high))
    return _called(expr.func, expr.args[0] if expr.args else None)


def _binary(expr: Binary) -> Bounds:
    left, right = bounds_of(expr.lhs), bounds_of(expr.rhs)
    if expr.op == "or":
        if left.is_empty or right.is_empty:
            return right if left.is_empty else left
        return Bounds(min(left.low, right.low), max(left.high, right.high))
    if left.is_empty:
        return left
    if expr.op == "unless":
        return left
    if right.is_empty:
        return right
    if expr.op == "and":
        return _contradiction(expr, left)
    if expr.op in COMPARISONS:
        if expr.return_bool:
            return Bounds(0, 1)
        return left & _filter(expr.op, right)
    return _arithmetic(expr.op, left, right)


def _contradiction(expr: Binary, left: Bounds) -> Bounds:
    """`x > 5 and x < 3`: both sides filter the same values."""
    one, other = _filtered(expr.lhs), _filtered(expr.rhs)
    if one is None or other is None or one[0] != other[0]:
        return left
    both = one[1] & other[1]
    return both if both.is_empty else left


def _filtered(expr: Expr) -> tuple[str, Bounds] | None:
    while isinstance(expr, Paren):
        expr = expr.expr
    if not isinstance(expr, Binary) or expr.op not in COMPARISONS or expr.return_bool:
        return None
    return to_text(expr.lhs), bounds_of(expr)


def _filter(op: str, right: Bounds) -> Bounds:
    """What passes `value op right` for some value of the right side."""
    if op == "==":
        return right
    if op == "!=":
        return ANY
    if op in ("<", "<="):
        return Bounds(high=right.high, open_high=op == "<" or right.open_high)
    return Bounds(low=right.low, open_low=op == ">" or right.open_low)


def _arithmetic(op: str, left: Bounds, right: Bounds) -> Bounds:
    if op == "+":
        return Bounds(left.low + right.low, left.high + right.high)
    if op == "-":
        return Bounds(left.low - right.high, left.high - right.low)
    if op in ("*", "/") and right.low == right.high and math.isfinite(right.low) and right.low != 0:
        factor = right.low if op == "*" else 1 / right.low
        ends = sorted((left.low * factor, left.high * factor))
        return Bounds(ends[0], ends[1])
    if op in ("*", "/") and left.low >= 0 and right.low >= 0:
        return _AT_LEAST_0
    return ANY
