"""The threshold comparison of an alerting expression: which side is measured, which way is worse."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.promql.ast import Binary, Call, Expr, NumberLiteral, Paren, Unary

COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")
_MIRRORED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}


@dataclass(frozen=True, slots=True)
class Condition:
    """`measured op threshold`, turned round where the text has the threshold on the left."""

    measured: Expr
    op: str
    threshold: Expr

    @property
    def lower_is_worse(self) -> bool:
        """Whether the alert asks for less than its threshold."""
        return self.op in ("<", "<=")


def unwrapped(expr: Expr) -> Expr:
    """The expression inside parentheses."""
    while isinstance(expr, Paren):
        expr = expr.expr
    return expr


def condition_of(expr: Expr) -> Condition | None:
    """The comparison that decides, or None: at the top, or on the left of `and`, `unless` and `or`."""
    expr = unwrapped(expr)
    if not isinstance(expr, Binary):
        return None
    if expr.op in ("and", "unless", "or"):
        return condition_of(expr.lhs)
    if expr.op not in COMPARISONS or expr.return_bool:
        return None
    if constant(expr.lhs) is not None and constant(expr.rhs) is None:
        return Condition(expr.rhs, _MIRRORED.get(expr.op, expr.op), expr.lhs)
    return Condition(expr.lhs, expr.op, expr.rhs)


def constant(expr: Expr) -> float | None:
    """The value of an expression of numbers alone (signs, parentheses, + - * /, scalar()), else None."""
    expr = unwrapped(expr)
    if isinstance(expr, NumberLiteral):
        return expr.value
    if isinstance(expr, Unary):
        inner = constant(expr.expr)
        return None if inner is None else -inner if expr.op == "-" else inner
    if isinstance(expr, Call) and expr.func in ("vector", "scalar") and expr.args:
        return constant(expr.args[0])
    if isinstance(expr, Binary) and expr.op in ("+", "-", "*", "/"):
        lhs, rhs = constant(expr.lhs), constant(expr.rhs)
        if lhs is None or rhs is None or (expr.op == "/" and rhs == 0):
            return None
        return {"+": lhs + rhs, "-": lhs - rhs, "*": lhs * rhs}[expr.op] if expr.op != "/" else lhs / rhs
    return None
