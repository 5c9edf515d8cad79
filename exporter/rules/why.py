"""Why an alerting rule returns what it returns: its expression taken apart with values. Pure.

`questions` names the expressions that must be evaluated at one time, `judge` turns their answers into one
`Judged` for each label set that the rule's condition is asked of: those that it returns, and those of the
measured side that it does not return, with the distance to the threshold. Where nothing is measured, the
selectors that return nothing are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.model.labels import EMPTY_LABELS, METRIC_NAME, LabelSet
from exporter.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
)
from exporter.promql.printer import to_text
from exporter.rules.condition import COMPARISONS, Condition, condition_of, constant, unwrapped
from exporter.rules.model import AlertingRule
from exporter.rules.probe import QueryProbe, Vector

Answers = Mapping[str, Vector]
_SEEN_THROUGH = ("label_replace", "label_join", "sort", "sort_desc")  # they keep what they are given
_MAPPING = ("round", "clamp", "clamp_min", "clamp_max", "abs", "ceil", "floor")  # value by value
_SELECTING = ("topk", "bottomk", "limitk", "limit_ratio")
_SETS = ("and", "unless", "or")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`value op threshold` for one label set. `distance` is value - threshold, `relative` its share of the
    threshold, None where that is 0 or no number."""

    value: float
    op: str
    threshold: float
    holds: bool

    @property
    def distance(self) -> float:
        """How far the value is above (below: negative) the threshold."""
        return self.value - self.threshold

    @property
    def relative(self) -> float | None:
        """The distance as a share of the threshold, without sign."""
        share = abs(self.distance / self.threshold) if self.threshold else math.nan
        return share if math.isfinite(share) else None

    @property
    def text(self) -> str:
        """In words: 0.93 is above the threshold 0.9 (3.3 % away)."""
        value, threshold = f"{self.value:.6g}", f"{self.threshold:.6g}"
        if math.isnan(self.value):
            return f"the value is NaN, which compares with nothing (threshold {threshold})"
        if self.value == self.threshold:
            short = {">": ", not above it", "<": ", not below it"}.get(self.op, "")
            return f"{value} is at the threshold {threshold}{short}"
        if self.op in ("==", "!="):
            return f"{value} is not {threshold}"
        side = "above" if self.distance > 0 else "below"
        away = ""
        if self.relative is not None:
            percent = 100 * self.relative
            away = f" ({percent:.0f} % away)" if percent >= 99 else f" ({percent:.2g} % away)"
        return f"{value} is {side} the threshold {threshold}{away}"


@dataclass(frozen=True, slots=True)
class Part:
    """A sub-expression as one label set sees it: `value` where `series`, those that fit the labels, is 1."""

    text: str
    op: str = ""
    value: float | None = None
    series: int = 0
    comparison: Comparison | None = None
    parts: tuple[Part, ...] = ()

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Part]]:
        """This part and those under it, with their depth."""
        yield depth, self
        for part in self.parts:
            yield from part.walk(depth + 1)


@dataclass(frozen=True, slots=True)
class Input:
    """A selector of the expression and how many series it returns."""

    selector: str
    series: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One label set: whether the expression returns it, the tree of values, the comparison that decides.

    `missing` are the selectors that return nothing which fits; `blocked` is the side of `and` or `unless`
    that refuses a label set whose comparison holds, '' if none does.
    """

    labels: LabelSet
    returned: bool
    tree: Part
    comparison: Comparison | None = None
    missing: tuple[str, ...] = ()
    blocked: str = ""

    @property
    def reason(self) -> str:
        """Why it is returned, or why not, in words."""
        if self.missing and not self.returned:
            return f"no data: no series matches {', '.join(self.missing)}"
        if self.blocked:
            held = f"{self.comparison.text}, but " if self.comparison else ""
            return f"{held}{self.blocked}"
        if self.comparison is not None:
            return self.comparison.text
        if self.returned:
            value = "" if self.tree.value is None else f" {self.tree.value:.6g}"
            return f"the expression returns{value}" if value else "the expression returns it"
        return "the expression returns nothing"


@dataclass(frozen=True, slots=True)
class Explained:
    """A rule at one time; `judged` has those that are returned first, then by the distance left."""

    inputs: tuple[Input, ...]
    judged: tuple[Judged, ...]
    left_out: int = 0


def questions(rule: AlertingRule) -> tuple[str, ...]:
    """The expressions whose answers `judge` needs."""
    found = dict.fromkeys([to_text(rule.expr)])
    _ask(rule.expr, found)
    for selector, width_ms in _selectors(rule.expr, 0):
        found[_selected(selector, width_ms)] = None
    if rule.keep_firing_text:
        found[rule.keep_firing_text] = None
    return tuple(found)


def judge(rule: AlertingRule, answers: Answers, *, limit: int = 100) -> Explained:
    """What the answers say. An expression without an answer counts as one that returns nothing."""
    probe = QueryProbe(rule, lambda text: answers.get(text, ()))
    judged: dict[tuple[int, LabelSet], Judged] = {}
    for number, branch in enumerate(_branches(rule.expr)):
        condition = _condition(branch)
        measured = _measured(branch, condition)
        returned = answers.get(to_text(branch), ())
        sets = [*answers.get(to_text(measured), ()), *returned] if measured is not None else returned
        for labels in dict.fromkeys(found.without((METRIC_NAME,)) for found, _ in sets):
            if (number, labels) not in judged and not _covered(labels, judged, number):
                judged[number, labels] = _judged(branch, condition, labels, answers, probe)
    found = list(judged.values())
    if not found:
        missing = tuple(dict.fromkeys(probe.missing_inputs(EMPTY_LABELS)))
        tree = _part(rule.expr, EMPTY_LABELS, answers)
        found.append(Judged(EMPTY_LABELS, False, tree, None, missing))
    found.sort(key=_order)
    inputs = {
        to_text(selector): Input(to_text(selector), len(answers.get(_selected(selector, width_ms), ())))
        for selector, width_ms in _selectors(rule.expr, 0)
    }
    return Explained(tuple(inputs.values()), tuple(found[:limit]), max(0, len(found) - limit))


def of_instance(judged: Sequence[Judged], source: LabelSet) -> Judged | None:
    """The one that belongs to an instance with these labels: returned before not, most labels in common."""
    fitting = [one for one in judged if _agree(one.labels, source)]
    wanted = source.as_dict()
    return max(
        fitting,
        key=lambda one: (one.returned, sum(wanted.get(name) == value for name, value in one.labels)),
        default=None,
    )


# -- inside -------------------------------------------------------------------------------------------


def _order(one: Judged) -> tuple[bool, bool, float]:
    relative = one.comparison.relative if one.comparison else None
    distance = abs(one.comparison.distance) if one.comparison else math.inf
    away = distance if relative is None else relative
    return not one.returned, math.isnan(away), 0.0 if math.isnan(away) else away


def _ask(expr: Expr, found: dict[str, None]) -> None:
    expr = unwrapped(expr)
    if constant(expr) is None and not isinstance(expr, StringLiteral):
        found[to_text(expr)] = None
        for below in _below(expr):
            _ask(below, found)


def _below(expr: Expr) -> tuple[Expr, ...]:
    """What an expression is taken apart into: the sides of operators, what holds such sides."""
    if isinstance(expr, Binary):
        return (expr.lhs, expr.rhs)
    if isinstance(expr, Call) and expr.func in (*_SEEN_THROUGH, *_MAPPING):
        return (expr.args[0],)
    if isinstance(expr, Aggregate) and isinstance(unwrapped(expr.expr), Binary):
        return (expr.expr,)
    return ()


def _branches(expr: Expr) -> tuple[Expr, ...]:
    """The sides of `or` at the top: each has a condition of its own."""
    inner = unwrapped(expr)
    if isinstance(inner, Binary) and inner.op == "or":
        return (*_branches(inner.lhs), *_branches(inner.rhs))
    if isinstance(inner, Call) and inner.func in _SEEN_THROUGH:
        below = _branches(inner.args[0])
        return below if len(below) > 1 else (inner,)
    return (inner,)


def _through(expr: Expr) -> Expr:
    expr = unwrapped(expr)
    while isinstance(expr, Call) and expr.func in _SEEN_THROUGH:
        expr = unwrapped(expr.args[0])
    return expr


def _condition(branch: Expr) -> Condition | None:
    return condition_of(_through(branch))


def _measured(branch: Expr, condition: Condition | None) -> Expr | None:
    """The side whose label sets are candidates."""
    if condition is not None:
        return unwrapped(condition.measured)
    inner = _through(branch)
    if isinstance(inner, Binary) and inner.op in ("and", "unless"):
        return unwrapped(inner.lhs)
    return inner


def _covered(labels: LabelSet, judged: Mapping[tuple[int, LabelSet], Judged], number: int) -> bool:
    """Whether a label set of the result is that of a measured one under fewer or more labels."""
    return any(
        at == number and one.returned and len(found) and _agree(found, labels)
        for (at, found), one in judged.items()
    )


def _judged(
    branch: Expr, condition: Condition | None, labels: LabelSet, answers: Answers, probe: QueryProbe
) -> Judged:
    tree = _part(branch, labels, answers)
    returned = bool(_fitting(answers.get(to_text(branch), ()), labels))
    comparison = None
    if condition is not None:
        value = _part(condition.measured, labels, answers).value
        threshold = _threshold(condition, branch, labels, answers)
        if value is not None and threshold is not None:
            comparison = Comparison(value, condition.op, threshold, _holds(value, condition.op, threshold))
    missing: tuple[str, ...] = ()
    blocked = ""
    if not returned:
        if comparison is None or comparison.holds:
            blocked = _blocked(tree)
        if comparison is None and not blocked:
            missing = tuple(dict.fromkeys(probe.missing_inputs(labels)))
    return Judged(labels, returned, tree, comparison, missing, blocked)


def _threshold(condition: Condition, branch: Expr, labels: LabelSet, answers: Answers) -> float | None:
    found = constant(condition.threshold)
    if found is not None:
        return found
    binary = _through(branch)
    while isinstance(binary, Binary) and binary.op in _SETS:
        binary = _through(binary.lhs)
    if isinstance(binary, Binary):
        left, right = _sides(binary, labels)
        labels = right if unwrapped(condition.threshold) is unwrapped(binary.rhs) else left
    return _part(condition.threshold, labels, answers).value


def _blocked(part: Part) -> str:
    """The side of `and` or `unless` that refuses the label set."""
    for _, one in part.walk():
        if one.op == "and" and one.parts[0].series and not one.parts[1].series:
            return f"`and {one.parts[1].text}` does not hold"
        if one.op == "unless" and one.parts[0].series and one.parts[1].series:
            return f"`unless {one.parts[1].text}` excludes it"
    return ""


def _part(expr: Expr, labels: LabelSet, answers: Answers) -> Part:
    expr = unwrapped(expr)
    text = to_text(expr)
    number = constant(expr)
    if number is not None:
        return Part(text, "", number, 1)
    found = _fitting(answers.get(text, ()), labels)
    value = found[0][1] if len(found) == 1 else None
    if not isinstance(expr, Binary):
        inner = _narrowed(expr, labels)
        parts = tuple(_part(below, inner, answers) for below in _below(expr))
        return Part(text, "", value, len(found), None, parts)
    left, right = _sides(expr, labels)
    lhs, rhs = _part(expr.lhs, left, answers), _part(expr.rhs, right, answers)
    comparison = None
    if expr.op in COMPARISONS and not expr.return_bool and lhs.value is not None and rhs.value is not None:
        comparison = Comparison(lhs.value, expr.op, rhs.value, _holds(lhs.value, expr.op, rhs.value))
    return Part(text, expr.op, value, len(found), comparison, (lhs, rhs))


def _narrowed(expr: Expr, labels: LabelSet) -> LabelSet:
    """The labels that are compared below a function or an aggregation."""
    if isinstance(expr, Aggregate) and expr.op not in _SELECTING:
        return labels.without(expr.grouping) if expr.without else labels.keep(expr.grouping)
    if isinstance(expr, Call) and expr.func in _SEEN_THROUGH[:2] and isinstance(expr.args[1], StringLiteral):
        return labels.without((expr.args[1].value,))
    return labels


def _sides(expr: Binary, labels: LabelSet) -> tuple[LabelSet, LabelSet]:
    """The labels that are compared on the left and on the right of an operator."""
    if expr.matching is None or expr.op == "or":
        return labels, labels
    names = expr.matching.labels
    shared = labels.keep(names) if expr.matching.on else labels.without(names)
    shared = shared.without(expr.matching.include)
    if expr.matching.cardinality.value == "one-to-many":
        return shared, labels.without(expr.matching.include)
    return labels.without(expr.matching.include), shared


def _fitting(vector: Vector, labels: LabelSet) -> Vector:
    """The elements with these labels, or else those that contradict none of them."""
    same = [one for one in vector if one[0].without((METRIC_NAME,)) == labels]
    return same or [one for one in vector if _agree(one[0].without((METRIC_NAME,)), labels)]


def _agree(one: LabelSet, other: LabelSet) -> bool:
    """Whether two label sets have the same values of the labels that both have."""
    wanted = other.as_dict()
    return all(wanted.get(name, value) == value for name, value in one)


def _holds(value: float, op: str, threshold: float) -> bool:
    return {
        "==": value == threshold,
        "!=": value != threshold,
        ">": value > threshold,
        "<": value < threshold,
        ">=": value >= threshold,
        "<=": value <= threshold,
    }[op]


def _selectors(expr: Expr, range_ms: int) -> Iterator[tuple[VectorSelector, int]]:
    """Every selector with the width of the windows around it."""
    match expr:
        case VectorSelector():
            yield expr, range_ms
        case MatrixSelector():
            yield expr.selector, range_ms + expr.range_ms
        case Subquery():
            yield from _selectors(expr.expr, range_ms + expr.range_ms)
        case Paren() | Unary() | Aggregate():
            yield from _selectors(expr.expr, range_ms)
        case Binary():
            yield from _selectors(expr.lhs, range_ms)
            yield from _selectors(expr.rhs, range_ms)
        case Call():
            for argument in expr.args:
                yield from _selectors(argument, range_ms)


def _selected(selector: VectorSelector, range_ms: int) -> str:
    """The question whether a selector returns something, as the probe asks it."""
    if not range_ms:
        return to_text(selector)
    return to_text(
        Call("last_over_time", (MatrixSelector(selector, range_ms, selector.span),), selector.span)
    )
