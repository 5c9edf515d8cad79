"""Answers about an alert instance that its expression no longer returns: is there input, what is the value.

An expression returns nothing for an instance either because the condition no longer holds or because its
input has vanished; Prometheus cannot tell the two apart. Here the input is there when its selectors still
return series that fit the instance's labels:

- a selector (or range) has input if one of its series agrees with the instance on every label both have;
- arithmetic, comparisons and `and` need both sides, `or` one side, `unless` its left side;
- `on(..)`, `ignoring(..)`, `by (..)` and `without (..)` narrow the labels that are compared below them;
- literals, `time()` and the `absent` functions always have input: for `absent` silence is the condition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.model.labels import METRIC_NAME, LabelSet
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
    VectorSelector,
)
from exporter.promql.printer import to_text
from exporter.rules.condition import condition_of
from exporter.rules.model import AlertingRule

Vector = Sequence[tuple[LabelSet, float]]
_ABSENCE = ("absent", "absent_over_time")
_LABEL_WRITERS = ("label_replace", "label_join")


class QueryProbe:
    """Answers by querying; each query runs at most once, and only if it is asked for."""

    def __init__(self, rule: AlertingRule, query: Callable[[str], Vector]) -> None:
        self._rule = rule
        self._query = query
        self._answers: dict[str, Vector] = {}
        self._missing: list[str] = []

    def has_data(self, source: LabelSet) -> bool:
        """Whether the expression still has input for these labels.

        Raises: QueryError where a selector cannot be evaluated.
        """
        return self._has(self._rule.expr, source.without((METRIC_NAME,)), 0)

    def missing_inputs(self, source: LabelSet) -> tuple[str, ...]:
        """The selectors without a series that fits these labels, where the expression has no input for them.

        Raises: QueryError where a selector cannot be evaluated.
        """
        self._missing = []
        return () if self.has_data(source) else tuple(self._missing)

    def value_now(self, source: LabelSet) -> float | None:
        """What the measured side of the condition gives now; None without a comparison or value."""
        condition = condition_of(self._rule.expr)
        return None if condition is None else self._value(to_text(condition.measured), source)

    def kept_value(self, source: LabelSet) -> float | None:
        """The value that `keep_firing_expr` returns for these labels; None if none."""
        text = self._rule.keep_firing_text
        return self._value(text, source) if text else None

    def _ask(self, text: str) -> Vector:
        if text not in self._answers:
            self._answers[text] = self._query(text)
        return self._answers[text]

    def _value(self, text: str, source: LabelSet) -> float | None:
        wanted = source.without((METRIC_NAME,))
        for labels, value in self._ask(text):
            if labels.without((METRIC_NAME,)) == wanted:
                return value
        return None

    def _has(self, expr: Expr, labels: LabelSet, range_ms: int) -> bool:
        """`range_ms` is the width of the subqueries around."""
        match expr:
            case NumberLiteral() | StringLiteral():
                return True
            case Paren() | Unary():
                return self._has(expr.expr, labels, range_ms)
            case VectorSelector():
                return self._selects(expr, labels, range_ms)
            case MatrixSelector():
                return self._selects(expr.selector, labels, range_ms + expr.range_ms)
            case Subquery():
                return self._has(expr.expr, labels, range_ms + expr.range_ms)
            case Aggregate():
                below = labels.without(expr.grouping) if expr.without else labels.keep(expr.grouping)
                if expr.op in ("topk", "bottomk", "limitk", "limit_ratio"):
                    below = labels  # these keep the labels of their input
                return self._has(expr.expr, below, range_ms)
            case Call():
                if expr.func in _ABSENCE:
                    return True
                return self._call_has(expr, labels, range_ms)
            case Binary():
                return self._binary_has(expr, labels, range_ms)

    def _call_has(self, call: Call, labels: LabelSet, range_ms: int) -> bool:
        if call.func in _LABEL_WRITERS and len(call.args) > 1 and isinstance(call.args[1], StringLiteral):
            labels = labels.without((call.args[1].value,))
        if call.func == "scalar":
            labels = labels.keep(())
        return all(self._has(argument, labels, range_ms) for argument in call.args)

    def _binary_has(self, expr: Binary, labels: LabelSet, range_ms: int) -> bool:
        left = right = labels
        if expr.matching is not None:
            shared = (
                labels.keep(expr.matching.labels)
                if expr.matching.on
                else labels.without(expr.matching.labels)
            )
            shared = shared.without(expr.matching.include)
            if expr.matching.cardinality.value == "one-to-many":
                left, right = shared, labels.without(expr.matching.include)
            else:
                right, left = shared, labels.without(expr.matching.include)
        if expr.op == "or":
            return self._has(expr.lhs, labels, range_ms) or self._has(expr.rhs, labels, range_ms)
        if expr.op == "unless":
            return self._has(expr.lhs, labels, range_ms)
        return self._has(expr.lhs, left, range_ms) and self._has(expr.rhs, right, range_ms)

    def _selects(self, selector: VectorSelector, labels: LabelSet, range_ms: int) -> bool:
        expr: Expr = selector
        if range_ms:
            expr = Call("last_over_time", (MatrixSelector(selector, range_ms, selector.span),), selector.span)
        wanted = labels.as_dict()
        found = any(
            all(wanted.get(name, value) == value for name, value in one)
            for one, _ in self._ask(to_text(expr))
        )
        if not found:
            self._missing.append(to_text(selector))
        return found
