"""Which rules can return nothing at all, given the metric names that exist.

Used by rule tests, which then need not evaluate them at every step, and by the linter's messages. The answer
holds at every time: it depends on names only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from exporter.model.labels import METRIC_NAME, MatchOp
from exporter.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
)
from exporter.promql.functions.registry import SIGNATURES
from exporter.rules.model import AlertingRule, MissingData, RecordingRule, Rule

_NEVER_EMPTY = ("absent", "absent_over_time", "scalar", "vector")


def is_empty(expr: Expr, names: Collection[str]) -> bool:
    """Whether the expression returns nothing whatever the samples of series with these metric names."""
    match expr:
        case NumberLiteral() | StringLiteral():
            return False
        case VectorSelector():
            return not any(_may_name(expr, name) for name in names)
        case MatrixSelector():
            return is_empty(expr.selector, names)
        case Subquery() | Paren() | Unary() | Aggregate():
            return is_empty(expr.expr, names)
        case Call():
            if expr.func in _NEVER_EMPTY:
                return False
            types = SIGNATURES[expr.func].args
            return any(
                is_empty(argument, names)
                for position, argument in enumerate(expr.args)
                if types[min(position, len(types) - 1)] in (ValueType.VECTOR, ValueType.MATRIX)
            )
        case Binary():
            left, right = is_empty(expr.lhs, names), is_empty(expr.rhs, names)
            if expr.op == "or":
                return left and right
            if expr.op == "unless":
                return left
            fills = expr.matching is not None and (
                expr.matching.fill_left is not None or expr.matching.fill_right is not None
            )
            return left and right if fills else left or right


def fruitful(rules: Iterable[Rule], names: Iterable[str]) -> frozenset[str]:
    """The keys of the rules that may return something, names recorded by such rules counted as existing.

    ALERTS and ALERTS_FOR_STATE exist as soon as an alerting rule may return something.
    """
    rules = tuple(rules)
    known = set(names)
    keys: set[str] = set()
    before = -1
    while len(keys) != before:
        before = len(keys)
        for rule in rules:
            if rule.key in keys or (is_empty(rule.expr, known) and not _fires_without_data(rule)):
                continue
            keys.add(rule.key)
            known.update(
                (rule.record,) if isinstance(rule, RecordingRule) else ("ALERTS", "ALERTS_FOR_STATE")
            )
    return frozenset(keys)


def _fires_without_data(rule: Rule) -> bool:
    return isinstance(rule, AlertingRule) and rule.missing_data is MissingData.FIRE


def _may_name(selector: VectorSelector, name: str) -> bool:
    return all(matcher.matches(name) for matcher in selector.matchers if matcher.name == METRIC_NAME)


def metric_names(expr: Expr) -> frozenset[str]:
    """The metric names that the selectors of an expression ask for by equality."""
    found: set[str] = set()
    for selector in selectors_of(expr):
        for matcher in selector.matchers:
            if matcher.name == METRIC_NAME and matcher.op is MatchOp.EQUAL:
                found.add(matcher.value)
    return frozenset(found)


def names_read(exprs: Iterable[Expr]) -> frozenset[str] | None:
    """All metric names that expressions ask for; None where a selector leaves the name open."""
    found: set[str] = set()
    for expr in exprs:
        for selector in selectors_of(expr):
            names = [
                one.value for one in selector.matchers if one.name == METRIC_NAME and one.op is MatchOp.EQUAL
            ]
            if not names:
                return None
            found.update(names)
    return frozenset(found)


def names_awaited(expr: Expr) -> frozenset[str]:
    """The metric names without which selectors of an expression return nothing, but for those of `absent`."""
    match expr:
        case VectorSelector():
            equal = (one for one in expr.matchers if one.name == METRIC_NAME and one.op is MatchOp.EQUAL)
            return frozenset(one.value for one in equal)
        case MatrixSelector():
            return names_awaited(expr.selector)
        case Subquery() | Paren() | Unary():
            return names_awaited(expr.expr)
        case Aggregate():
            inside = names_awaited(expr.expr)
            return inside if expr.param is None else inside | names_awaited(expr.param)
        case Call():
            if expr.func in ("absent", "absent_over_time"):
                return frozenset()
            return frozenset().union(*(names_awaited(argument) for argument in expr.args))
        case Binary():
            return names_awaited(expr.lhs) | names_awaited(expr.rhs)
        case _:
            return frozenset()


def selectors_of(expr: Expr) -> Iterable[VectorSelector]:
    """Every selector of an expression, left to right."""
    match expr:
        case VectorSelector():
            yield expr
        case MatrixSelector():
            yield expr.selector
        case Subquery() | Paren() | Unary():
            yield from selectors_of(expr.expr)
        case Aggregate():
            if expr.param is not None:
                yield from selectors_of(expr.param)
            yield from selectors_of(expr.expr)
        case Call():
            for argument in expr.args:
                yield from selectors_of(argument)
        case Binary():
            yield from selectors_of(expr.lhs)
            yield from selectors_of(expr.rhs)
        case _:
            return


def longest_range_ms(expr: Expr) -> int:
    """How far before its time an expression reads, lookback apart: ranges and offsets added up."""
    match expr:
        case VectorSelector():
            return max(0, expr.offset_ms)
        case MatrixSelector():
            return expr.range_ms + longest_range_ms(expr.selector)
        case Subquery():
            return expr.range_ms + max(0, expr.offset_ms) + longest_range_ms(expr.expr)
        case Paren() | Unary():
            return longest_range_ms(expr.expr)
        case Aggregate():
            return longest_range_ms(expr.expr)
        case Call():
            return max((longest_range_ms(argument) for argument in expr.args), default=0)
        case Binary():
            return max(longest_range_ms(expr.lhs), longest_range_ms(expr.rhs))
        case _:
            return 0
