"""Types of expressions, and the checks that Prometheus makes once a query has been parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NoReturn

from exporter.errors import QueryErrorKind
from exporter.model.labels import METRIC_NAME
from exporter.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    Span,
    StringLiteral,
    Subquery,
    Unary,
    ValueType,
    VectorSelector,
)
from exporter.promql.cursor import ParseError
from exporter.promql.functions.registry import SIGNATURES, Signature
from exporter.promql.gotext import quote

COMPARISONS: Final = frozenset({"==", "!=", ">", "<", ">=", "<="})
SET_OPERATORS: Final = frozenset({"and", "or", "unless"})
_TYPE_NAMES: Final = {
    ValueType.SCALAR: "scalar",
    ValueType.STRING: "string",
    ValueType.VECTOR: "instant vector",
    ValueType.MATRIX: "range vector",
}
_OPERANDS: Final = (ValueType.SCALAR, ValueType.VECTOR)


def type_name(value_type: ValueType) -> str:
    """The type as error messages spell it: scalar, string, instant vector or range vector."""
    return _TYPE_NAMES[value_type]


def type_of(expr: Expr) -> ValueType:
    """The type of a checked expression."""
    while isinstance(expr, Paren | Unary):
        expr = expr.expr
    match expr:
        case NumberLiteral():
            return ValueType.SCALAR
        case StringLiteral():
            return ValueType.STRING
        case MatrixSelector() | Subquery():
            return ValueType.MATRIX
        case Call():
            return SIGNATURES[expr.func].returns
        case Binary():
            scalar = type_of(expr.lhs) is type_of(expr.rhs) is ValueType.SCALAR
            return ValueType.SCALAR if scalar else ValueType.VECTOR
    return ValueType.VECTOR


def check(expr: Expr, query: str) -> Expr:
    """The expression with the matching of each binary operation settled.

    Raises: ParseError of kind TYPE for the first fault, in Prometheus' order and words.
    """
    return _Checker(query).check(expr)[0]


_Checked = tuple[Expr, ValueType]


class _Checker:
    """Walks the tree once; each step returns the (possibly rebuilt) node and its type."""

    def __init__(self, query: str) -> None:
        self._query = query.encode("utf-8", "surrogatepass")

    def check(self, expr: Expr) -> _Checked:
        match expr:
            case VectorSelector():
                _check_selector(expr)
                return expr, ValueType.VECTOR
            case NumberLiteral():
                return expr, ValueType.SCALAR
            case StringLiteral():
                return expr, ValueType.STRING
            case MatrixSelector():
                _check_selector(expr.selector)
                return expr, ValueType.MATRIX
            case Paren():
                inner, kind = self.check(expr.expr)
                return (expr if inner is expr.expr else replace(expr, expr=inner)), kind
            case Call():
                return self._call(expr)
            case Aggregate():
                return self._aggregate(expr)
            case Binary():
                return self._binary(expr)
            case Unary():
                inner, kind = self.check(expr.expr)
                if kind not in _OPERANDS:
                    _fail(
                        "unary expression only allowed on expressions of type scalar or instant vector, "
                        f"got {quote(type_name(kind))}",
                        expr.span,
                    )
                return replace(expr, expr=inner), kind
            case Subquery():
                inner, kind = self.check(expr.expr)
                if kind is not ValueType.VECTOR:
                    _fail(f"subquery is only allowed on instant vector, got {kind.value} instead", expr.span)
                return replace(expr, expr=inner), ValueType.MATRIX

    def _expect(self, expr: Expr, wanted: ValueType, where: str) -> Expr:
        checked, kind = self.check(expr)
        if kind is not wanted:
            _fail(f"expected type {type_name(wanted)} in {where}, got {type_name(kind)}", expr.span)
        return checked

    def _aggregate(self, node: Aggregate) -> _Checked:
        inner = self._expect(node.expr, ValueType.VECTOR, "aggregation expression")
        param = node.param
        if param is not None:
            wanted = ValueType.STRING if node.op == "count_values" else ValueType.SCALAR
            param = self._expect(param, wanted, "aggregation parameter")
        return replace(node, expr=inner, param=param), ValueType.VECTOR

    def _call(self, node: Call) -> _Checked:
        signature = SIGNATURES[node.func]
        _check_argument_count(node, signature)
        if node.func == "info" and len(node.args) > 1:
            _check_info_selector(node)
        arguments: list[Expr] = []
        for number, argument in enumerate(node.args):
            wanted = signature.args[min(number, len(signature.args) - 1)]
            if node.func == "info" and number == 1:
                arguments.append(argument)
                continue
            arguments.append(self._expect(argument, wanted, f"call to function {quote(node.func)}"))
        return replace(node, args=tuple(arguments)), signature.returns

    def _binary(self, node: Binary) -> _Checked:
        lhs, left = self.check(node.lhs)
        rhs, right = self.check(node.rhs)
        operator = Span(self._operator_start(node.lhs.span.end), node.rhs.span.start)
        matching = node.matching
        assert matching is not None
        if node.return_bool and node.op not in COMPARISONS:
            _fail("bool modifier can only be used on comparison operators", operator)
        scalars = left is right is ValueType.SCALAR
        if node.op in COMPARISONS and not node.return_bool and scalars:
            _fail("comparisons between scalars must use BOOL modifier", operator)
        if matching.on and (both := _first_common(matching.labels, matching.include)) is not None:
            _fail(f"label {quote(both)} must not occur in ON and GROUP clause at once", operator)
        for side, kind in ((node.lhs, left), (node.rhs, right)):
            if kind not in _OPERANDS:
                _fail("binary expression must contain only scalar and instant vector types", side.span)
        vectors = left is right is ValueType.VECTOR
        fills = matching.fill_left is not None or matching.fill_right is not None
        if not vectors:
            if matching.labels:
                _fail("vector matching only allowed between instant vectors", node.span)
            if fills:
                _fail("filling in missing series only allowed between instant vectors", node.span)
            if node.op in SET_OPERATORS:
                _fail(f"set operator {quote(node.op)} not allowed in binary scalar expression", node.span)
        elif node.op in SET_OPERATORS:
            if matching.cardinality is not Cardinality.ONE_TO_ONE:
                _fail(f"no grouping allowed for {quote(node.op)} operation", node.span)
            if fills:
                _fail("filling in missing series not allowed for set operators", node.span)
            matching = replace(matching, cardinality=Cardinality.MANY_TO_MANY)
        kind = ValueType.SCALAR if scalars else ValueType.VECTOR
        return replace(node, lhs=lhs, rhs=rhs, matching=matching if vectors else None), kind

    def _operator_start(self, at: int) -> int:
        while self._query[at : at + 1] in (b" ", b"\t", b"\n", b"\r"):
            at += 1
        return at


def _first_common(labels: Sequence[str], include: Sequence[str]) -> str | None:
    return next((label for label in labels if label in include), None)


def _check_argument_count(node: Call, signature: Signature) -> None:
    wanted, got = len(signature.args), len(node.args)
    if signature.variadic == 0:
        if got != wanted:
            _fail(f"expected {wanted} argument(s) in call to {quote(node.func)}, got {got}", node.span)
        return
    least = wanted - 1
    most = least + signature.variadic
    if got < least:
        _fail(f"expected at least {least} argument(s) in call to {quote(node.func)}, got {got}", node.span)
    if signature.variadic > 0 and got > most:
        _fail(f"expected at most {most} argument(s) in call to {quote(node.func)}, got {got}", node.span)


def _check_info_selector(node: Call) -> None:
    """The second argument of info() names labels only; there it may match every series."""
    labels = node.args[1]
    kind = type_of(labels)
    if kind is not ValueType.VECTOR:
        _fail(f'expected type instant vector in call to function "info", got {type_name(kind)}', node.span)
    if not isinstance(labels, VectorSelector):
        _fail("expected label selectors only", labels.span)
    if labels.name:
        _fail("expected label selectors only, got vector selector instead", labels.span)


def _check_selector(node: VectorSelector) -> None:
    if node.name:
        for matcher in node.matchers[:-1]:
            if matcher.name == METRIC_NAME:
                names = f"{quote(node.name)} or {quote(matcher.value)}"
                _fail(f"metric name must not be set twice: {names}", node.span)
    elif all(matcher.matches_empty for matcher in node.matchers):
        _fail("vector selector must contain at least one non-empty matcher", node.span)


def _fail(message: str, span: Span) -> NoReturn:
    raise ParseError(message, span.start, QueryErrorKind.TYPE)
