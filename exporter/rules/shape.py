"""Which labels the result of an expression can have, from its text alone."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.model.labels import METRIC_NAME, MatchOp
from exporter.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
)

_NO_LABELS = ("vector", "scalar", "time", "pi", "end", "range", "start", "step")


@dataclass(frozen=True, slots=True)
class Shape:
    """`names` alone where the result is closed, else everything except `names`."""

    closed: bool = False
    names: frozenset[str] = frozenset()

    def may_have(self, name: str) -> bool:
        """Whether an element of the result can have the label."""
        return (name in self.names) is self.closed

    def keep(self, names: frozenset[str]) -> Shape:
        """The shape after `by` or `on`."""
        return Shape(True, frozenset(name for name in names if self.may_have(name)))

    def drop(self, names: frozenset[str]) -> Shape:
        """The shape after `without` or `ignoring`."""
        return Shape(self.closed, self.names - names if self.closed else self.names | names)

    def add(self, names: frozenset[str]) -> Shape:
        """The shape with labels set."""
        return Shape(self.closed, self.names | names if self.closed else self.names - names)

    def either(self, other: Shape) -> Shape:
        """The shape of `or`."""
        if self.closed and other.closed:
            return Shape(True, self.names | other.names)
        if not self.closed and not other.closed:
            return Shape(False, self.names & other.names)
        open_one, closed_one = (other, self) if self.closed else (self, other)
        return Shape(False, open_one.names - closed_one.names)


_NOTHING = Shape(True)


def shape_of(expr: Expr) -> Shape:
    """The labels that the result of an expression can have, the metric name apart."""
    match expr:
        case VectorSelector():
            empty = {one.name for one in expr.matchers if one.op is MatchOp.EQUAL and not one.value}
            return Shape(False, frozenset(empty))
        case MatrixSelector():
            return shape_of(expr.selector)
        case Subquery() | Paren() | Unary():
            return shape_of(expr.expr)
        case Aggregate():
            return _aggregate(expr)
        case Call():
            return _call(expr)
        case Binary():
            return _binary(expr)
        case _:
            return _NOTHING


def _aggregate(expr: Aggregate) -> Shape:
    inner = shape_of(expr.expr)
    if expr.op in ("topk", "bottomk", "limitk", "limit_ratio"):
        return inner
    names = frozenset(expr.grouping)
    shape = inner.drop(names) if expr.without else inner.keep(names)
    if expr.op == "count_values" and isinstance(expr.param, StringLiteral):
        shape = shape.add(frozenset((expr.param.value,)))
    return shape


def _call(expr: Call) -> Shape:
    if expr.func in ("absent", "absent_over_time"):
        return _absent(expr.args[0])
    if expr.func in _NO_LABELS or not expr.args:
        return _NOTHING
    if expr.func == "histogram_quantile":
        return shape_of(expr.args[1]).drop(frozenset(("le",)))
    if expr.func == "histogram_fraction":
        return shape_of(expr.args[2]).drop(frozenset(("le",)))
    if expr.func == "quantile_over_time":
        return shape_of(expr.args[1])
    shape = shape_of(expr.args[0])
    if expr.func == "info":
        return Shape()
    if expr.func in ("label_replace", "label_join") and isinstance(expr.args[1], StringLiteral):
        return shape.add(frozenset((expr.args[1].value,)))
    return shape


def _absent(argument: Expr) -> Shape:
    """absent() has the labels of the selector's equality matchers."""
    while isinstance(argument, (Paren, Subquery)):
        argument = argument.expr
    if isinstance(argument, MatrixSelector):
        argument = argument.selector
    if not isinstance(argument, VectorSelector):
        return _NOTHING
    equal = [one.name for one in argument.matchers if one.op is MatchOp.EQUAL and one.name != METRIC_NAME]
    return Shape(True, frozenset(name for name in equal if equal.count(name) == 1))


def _binary(expr: Binary) -> Shape:
    left, right = shape_of(expr.lhs), shape_of(expr.rhs)
    if expr.matching is None:  # a scalar on one side
        return right if left == _NOTHING else left
    if expr.op in ("and", "unless"):
        return left
    if expr.op == "or":
        return left.either(right)
    names, include = frozenset(expr.matching.labels), frozenset(expr.matching.include)
    if expr.matching.cardinality is Cardinality.ONE_TO_ONE:
        return left.keep(names) if expr.matching.on else left.drop(names)
    many, one = (left, right) if expr.matching.cardinality is Cardinality.MANY_TO_ONE else (right, left)
    return many.drop(include).add(frozenset(name for name in include if one.may_have(name)))
