"""A second evaluator for the commonest part of PromQL: plain loops over lists, one time at a time.

Slow, short and written apart from the engine, so that the two can be compared on random queries. It walks
the syntax tree directly. A range query is a loop of instant queries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.staleness import is_stale
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
from exporter.promql.gotext import format_float
from exporter.promql.parse import parse_expr
from tests.promql.naive_histogram import histogram_quantile
from tests.promql.naive_windows import OVER_TIME, Points, quantile

Vector = dict[LabelSet, float]
Value = Vector | float
Series = Sequence[tuple[LabelSet, Points]]

LOOKBACK_MS = 300_000
DEFAULT_STEP_MS = 60_000
_DROPS_NAME = frozenset({"+", "-", "*", "/", "%", "^", "atan2"})
_COMPARISONS = frozenset({"==", "!=", "<", ">", "<=", ">="})
_SETS = frozenset({"and", "or", "unless"})
_KEEPS_NAME = frozenset({"last_over_time", "first_over_time"})


class NaiveError(Exception):
    """The query cannot be evaluated on this data."""


def divide(a: float, b: float) -> float:
    """IEEE 754 division."""
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1, b)


def _modulo(a: float, b: float) -> float:
    return math.nan if b == 0 or math.isinf(a) or math.isnan(a) or math.isnan(b) else math.fmod(a, b)


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        return (math.copysign(math.inf, a) if b % 2 == 1 else math.inf) if a == 0 else math.nan


_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": divide,
    "%": _modulo,
    "^": _power,
    "atan2": math.atan2,
}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


def _guarded(function: Callable[[float], float]) -> Callable[[float], float]:
    def call(value: float) -> float:
        try:
            return function(value)
        except ValueError:
            return -math.inf if function is math.log and value == 0 else math.nan
        except OverflowError:
            return math.inf

    return call


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """Rounding that keeps the sign of zero."""

    def call(value: float) -> float:
        if not math.isfinite(value):
            return value
        whole = float(function(value))
        return whole if whole else math.copysign(0.0, value)

    return call


_ELEMENTWISE: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": _whole(math.ceil),
    "floor": _whole(math.floor),
    "exp": _guarded(math.exp),
    "ln": _guarded(math.log),
    "sqrt": _guarded(math.sqrt),
    "sgn": lambda value: math.copysign(1, value) if value != 0 and not math.isnan(value) else value,
}


def _nameless(labels: LabelSet) -> LabelSet:
    return labels.without([METRIC_NAME])


def _vector(pairs: Sequence[tuple[LabelSet, float]]) -> Vector:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise NaiveError("vector cannot contain metrics with the same labelset")
    return out


@dataclass(frozen=True)
class Naive:
    """Evaluates queries over these series, each with ascending (ts_ms, value) points."""

    series: Series
    start_ms: int = 0
    end_ms: int = 0

    def query(self, text: str, ts_ms: int, end_ms: int | None = None, start_ms: int | None = None) -> Value:
        """The value of a query at one time, which may be a step of a range from start to end."""
        first, last = ts_ms if start_ms is None else start_ms, ts_ms if end_ms is None else end_ms
        return replace(self, start_ms=first, end_ms=last)._eval(parse_expr(text), ts_ms)

    def _eval(self, expr: Expr, ts: int) -> Value:
        match expr:
            case NumberLiteral():
                return expr.value
            case Paren():
                return self._eval(expr.expr, ts)
            case Unary():
                inner = self._eval(expr.expr, ts)
                if expr.op == "+":
                    return inner
                if isinstance(inner, float):
                    return -inner
                return _vector([(_nameless(labels), -value) for labels, value in inner.items()])
            case VectorSelector():
                return self._select(expr, ts)
            case Binary():
                return self._binary(expr, ts)
            case Aggregate():
                return self._aggregate(expr, ts)
            case Call():
                return self._call(expr, ts)
        raise AssertionError(f"no query of QueryMaker has a {type(expr).__name__}")

    def _of_vector(self, expr: Expr, ts: int) -> Vector:
        value = self._eval(expr, ts)
        assert isinstance(value, dict)
        return value

    def _of_scalar(self, expr: Expr, ts: int) -> float:
        value = self._eval(expr, ts)
        assert isinstance(value, float)
        return value

    def _time(self, at: At | None, ts: int) -> int:
        if at is None:
            return ts
        return {"time": at.ts_ms, "start": self.start_ms, "end": self.end_ms}[at.kind]

    def _matching(self, selector: VectorSelector) -> Series:
        return [
            (labels, points)
            for labels, points in self.series
            if all(matcher.matches(labels.get(matcher.name)) for matcher in selector.matchers)
        ]

    def _select(self, selector: VectorSelector, ts: int) -> Vector:
        at = self._time(selector.at, ts) - selector.offset_ms
        out = {}
        for labels, points in self._matching(selector):
            inside = [value for time, value in points if at - LOOKBACK_MS < time <= at]
            if inside and not is_stale(inside[-1]):
                out[labels] = inside[-1]
        return out

    def _times(self, expr: Expr, ts: int) -> list[tuple[LabelSet, int]]:
        """When the samples of a selector were taken; anything else is of the time it is asked for."""
        while isinstance(expr, Paren):
            expr = expr.expr
        if not isinstance(expr, VectorSelector):
            return [(labels, ts) for labels in self._of_vector(expr, ts)]
        at = self._time(expr.at, ts) - expr.offset_ms
        newest = {labels: max((t for t, _ in points if t <= at), default=0) for labels, points in self.series}
        return [(labels, newest[labels]) for labels in self._select(expr, ts)]

    def _windows(self, expr: Expr, ts: int) -> tuple[list[tuple[LabelSet, Points]], int, int]:
        """Series with their points in the range, and the range's bounds."""
        while isinstance(expr, Paren):
            expr = expr.expr
        if isinstance(expr, MatrixSelector):
            selector = expr.selector
            end = self._time(selector.at, ts) - selector.offset_ms
            start = end - expr.range_ms
            found = [
                (labels, [(t, v) for t, v in points if start < t <= end and not is_stale(v)])
                for labels, points in self._matching(selector)
            ]
            return [(labels, points) for labels, points in found if points], start, end
        assert isinstance(expr, Subquery)
        end = self._time(expr.at, ts) - expr.offset_ms
        start = end - expr.range_ms
        step = expr.step_ms or DEFAULT_STEP_MS
        first = (start // step + 1) * step
        columns: dict[LabelSet, Points] = {}
        for at in range(first, end + 1, step):
            for labels, value in self._of_vector(expr.expr, at).items():
                columns.setdefault(labels, []).append((at, value))
        return list(columns.items()), start, end

    def _call(self, expr: Call, ts: int) -> Value:
        name, args = expr.func, expr.args
        if name in OVER_TIME:
            return self._over_time(expr, ts)
        if name == "time":
            return ts / 1000
        if name == "vector":
            return {LabelSet(()): self._of_scalar(args[0], ts)}
        if name == "scalar":
            values = list(self._of_vector(args[0], ts).values())
            return values[0] if len(values) == 1 else math.nan
        if name == "absent":
            return {} if self._of_vector(args[0], ts) else {_absent_labels(args[0]): 1.0}
        if name == "histogram_quantile":
            return _vector(histogram_quantile(self._of_scalar(args[0], ts), self._of_vector(args[1], ts)))
        if name == "timestamp":
            return _vector([(_nameless(labels), at / 1000) for labels, at in self._times(args[0], ts)])
        vector = self._of_vector(args[0], ts)
        if name == "sort":
            return vector
        if name == "label_join":
            return _label_join(vector, [_string(argument) for argument in args[1:]])
        if name == "label_replace":
            return _label_replace(vector, [_string(argument) for argument in args[1:]])
        numbers = [self._of_scalar(argument, ts) for argument in args[1:]]
        return _vector([(_nameless(labels), _apply(name, v, numbers)) for labels, v in vector.items()])

    def _over_time(self, expr: Call, ts: int) -> Vector:
        quantiled = expr.func == "quantile_over_time"
        windows, start, end = self._windows(expr.args[1 if quantiled else 0], ts)
        param = self._of_scalar(expr.args[0], ts) if quantiled else 0.0
        if expr.func == "predict_linear":
            param = self._of_scalar(expr.args[1], ts)
        out = []
        for labels, points in windows:
            value = OVER_TIME[expr.func](points, start, end, param, ts)
            if value is not None:
                out.append((labels if expr.func in _KEEPS_NAME else _nameless(labels), value))
        return _vector(out)

    def _aggregate(self, expr: Aggregate, ts: int) -> Vector:
        vector = self._of_vector(expr.expr, ts)
        groups: dict[LabelSet, list[tuple[LabelSet, float]]] = {}
        for labels, value in vector.items():
            gone = (*expr.grouping, METRIC_NAME)
            key = labels.without(gone) if expr.without else labels.keep(expr.grouping)
            groups.setdefault(key, []).append((labels, value))
        if expr.op in ("topk", "bottomk"):
            assert expr.param is not None
            count = int(self._of_scalar(expr.param, ts))
            sign = -1 if expr.op == "topk" else 1

            def rank(pair: tuple[LabelSet, float]) -> tuple[bool, float]:
                return math.isnan(pair[1]), sign * pair[1]

            return {
                labels: value
                for members in groups.values()
                for labels, value in sorted(members, key=rank)[: max(count, 0)]
            }
        param = 0.0
        if expr.op == "quantile":
            assert expr.param is not None
            param = self._of_scalar(expr.param, ts)
        if expr.op == "count_values":
            assert expr.param is not None
            return _count_values(_string(expr.param), groups)
        return {
            key: _reduce(expr.op, [value for _, value in members], param) for key, members in groups.items()
        }

    def _binary(self, expr: Binary, ts: int) -> Value:
        left, right = self._eval(expr.lhs, ts), self._eval(expr.rhs, ts)
        if isinstance(left, float) and isinstance(right, float):
            if expr.op in _COMPARISONS:
                return float(_COMPARE[expr.op](left, right))
            return _ARITHMETIC[expr.op](left, right)
        if isinstance(left, dict) and isinstance(right, dict):
            assert expr.matching is not None
            if expr.op in _SETS:
                return _set_operation(expr.op, expr.matching, left, right)
            return _match(expr, expr.matching, left, right)
        vector = left if isinstance(left, dict) else right
        assert isinstance(vector, dict)
        out = []
        for labels, value in vector.items():
            a = left if isinstance(left, float) else value
            b = right if isinstance(right, float) else value
            if expr.op in _ARITHMETIC:
                out.append((_nameless(labels), _ARITHMETIC[expr.op](a, b)))
            elif expr.return_bool:
                out.append((_nameless(labels), float(_COMPARE[expr.op](a, b))))
            elif _COMPARE[expr.op](a, b):
                out.append((labels, value))
        return _vector(out)


def _string(expr: Expr) -> str:
    assert isinstance(expr, StringLiteral)
    return expr.value


def _absent_labels(expr: Expr) -> LabelSet:
    """Labels that the selector pins by equality, each once."""
    while isinstance(expr, Paren):
        expr = expr.expr
    if not isinstance(expr, VectorSelector):
        return LabelSet(())
    names = [matcher.name for matcher in expr.matchers]
    return LabelSet.of(
        {
            matcher.name: matcher.value
            for matcher in expr.matchers
            if matcher.name != METRIC_NAME and matcher.op.value == "=" and names.count(matcher.name) == 1
        }
    )


def _apply(name: str, value: float, numbers: Sequence[float]) -> float:
    if name in _ELEMENTWISE:
        return _ELEMENTWISE[name](value)
    if name == "round":
        inverse = 1 / (numbers[0] if numbers else 1.0)
        scaled = value * inverse + 0.5
        return math.floor(scaled) / inverse if math.isfinite(scaled) else scaled
    assert name in ("clamp_min", "clamp_max"), f"QueryMaker knows no {name} but in its wide form"
    if math.isnan(value) or math.isnan(numbers[0]):
        return math.nan
    return (max if name == "clamp_min" else min)(value, numbers[0])


def _label_replace(vector: Vector, texts: Sequence[str]) -> Vector:
    target, replacement, source, pattern = texts
    out = []
    for labels, value in vector.items():
        found = re.fullmatch(pattern, labels.get(source), re.DOTALL)
        if found is not None:
            labels = labels.merged({target: found.expand(re.sub(r"\$(\d)", r"\\\1", replacement))})
        out.append((labels, value))
    return _vector(out)


def _label_join(vector: Vector, texts: Sequence[str]) -> Vector:
    target, separator, *sources = texts
    return _vector(
        [
            (labels.merged({target: separator.join(labels.get(source) for source in sources)}), value)
            for labels, value in vector.items()
        ]
    )


def _count_values(label: str, groups: dict[LabelSet, list[tuple[LabelSet, float]]]) -> Vector:
    out: dict[LabelSet, float] = {}
    for key, members in groups.items():
        for _, value in members:
            labels = key.merged({label: format_float(value)})
            out[labels] = out.get(labels, 0.0) + 1
    return out


def _reduce(op: str, values: list[float], param: float) -> float:
    if op == "group":
        return 1.0
    if op == "count":
        return float(len(values))
    if op in ("min", "max"):
        numbers = [value for value in values if not math.isnan(value)]
        return (min if op == "min" else max)(numbers) if numbers else math.nan
    if op == "quantile":
        return quantile(values, param)
    total = sum(values)
    if op == "sum":
        return total
    mean = total / len(values)
    if op == "avg":
        return mean
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return variance if op == "stdvar" else math.sqrt(variance) if variance >= 0 else math.nan


def _signature(matching: VectorMatching, labels: LabelSet) -> LabelSet:
    if matching.on:
        return labels.keep(matching.labels)
    return labels.without((*matching.labels, METRIC_NAME))


def _set_operation(op: str, matching: VectorMatching, left: Vector, right: Vector) -> Vector:
    ours = {_signature(matching, labels) for labels in left}
    theirs = {_signature(matching, labels) for labels in right}
    if op == "and":
        return {labels: v for labels, v in left.items() if _signature(matching, labels) in theirs}
    if op == "unless":
        return {labels: v for labels, v in left.items() if _signature(matching, labels) not in theirs}
    extra = [(labels, v) for labels, v in right.items() if _signature(matching, labels) not in ours]
    return _vector([*left.items(), *extra])


def _match(expr: Binary, matching: VectorMatching, left: Vector, right: Vector) -> Vector:
    if not left or not right:
        return {}
    swapped = matching.cardinality is Cardinality.ONE_TO_MANY
    many, one = (right, left) if swapped else (left, right)
    ones: dict[LabelSet, tuple[LabelSet, float]] = {}
    for labels, value in one.items():
        key = _signature(matching, labels)
        if key in ones:
            raise NaiveError("found duplicate series for the match group")
        ones[key] = labels, value
    out: dict[LabelSet, float] = {}
    used: set[LabelSet] = set()
    for labels, value in many.items():
        key = _signature(matching, labels)
        if key not in ones:
            continue
        other, other_value = ones[key]
        a, b = (other_value, value) if swapped else (value, other_value)
        if expr.op in _ARITHMETIC:
            result = _ARITHMETIC[expr.op](a, b)
        else:
            holds = _COMPARE[expr.op](a, b)
            if not holds and not expr.return_bool:
                continue
            result = float(holds) if expr.return_bool else a
        merged = _result_labels(expr, matching, labels, other)
        if matching.cardinality is Cardinality.ONE_TO_ONE:
            if key in used:
                raise NaiveError("multiple matches for labels: many-to-one matching must be explicit")
            used.add(key)
        elif merged in out:
            raise NaiveError("multiple matches for labels: grouping labels must ensure unique matches")
        out[merged] = result
    return out


def _result_labels(expr: Binary, matching: VectorMatching, labels: LabelSet, other: LabelSet) -> LabelSet:
    if expr.op in _DROPS_NAME or expr.return_bool:
        labels = _nameless(labels)
    if matching.cardinality is Cardinality.ONE_TO_ONE:
        return labels.keep(matching.labels) if matching.on else labels.without(matching.labels)
    return labels.merged({name: other.get(name) for name in matching.include})
