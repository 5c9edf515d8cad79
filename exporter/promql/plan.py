"""The plan of a query: what the engine evaluates, with everything resolved that needs no samples.

Frozen nodes. `key` is equal for equal sub-expressions of any query (positions aside): it is what shared
evaluation goes by. `invariant` says that the value is the same at every step. `start` is the byte offset
of the expression in its query, for annotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from exporter.model.labels import METRIC_NAME, Matcher, MatchOp
from exporter.model.rollups import Rollup
from exporter.promql.ast import At, ValueType, VectorMatching


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A scalar literal, or a scalar expression of literals, folded."""

    key: int
    start: int
    value: float
    invariant: bool = True
    type = ValueType.SCALAR


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A string literal."""

    key: int
    start: int
    value: str
    invariant: bool = True
    type = ValueType.STRING


@dataclass(frozen=True, slots=True, eq=False)
class Select:
    """An instant selector."""

    key: int
    start: int
    invariant: bool
    name: str
    matchers: tuple[Matcher, ...]
    offset_ms: int
    at: At | None
    smoothed: bool
    anchored: bool
    type = ValueType.VECTOR


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A range selector."""

    key: int
    start: int
    invariant: bool
    select: Select
    range_ms: int
    type = ValueType.MATRIX


@dataclass(frozen=True, slots=True, eq=False)
class Sub:
    """A subquery. `step_ms` 0: the default step."""

    key: int
    start: int
    invariant: bool
    expr: Node
    range_ms: int
    step_ms: int
    offset_ms: int
    at: At | None
    type = ValueType.MATRIX


@dataclass(frozen=True, slots=True, eq=False)
class Negate:
    """Unary minus."""

    key: int
    start: int
    invariant: bool
    expr: Node
    type: ValueType


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A binary operation."""

    key: int
    start: int
    invariant: bool
    op: str
    lhs: Node
    rhs: Node
    return_bool: bool
    matching: VectorMatching | None
    type: ValueType


@dataclass(frozen=True, slots=True, eq=False)
class Aggregation:
    """An aggregation; `param_start` places its parameter."""

    key: int
    start: int
    invariant: bool
    op: str
    expr: Node
    param: Node | None
    grouping: tuple[str, ...]
    without: bool
    type = ValueType.VECTOR


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function call."""

    key: int
    start: int
    invariant: bool
    name: str
    args: tuple[Node, ...]
    type: ValueType


Node = Number | Text | Select | Window | Sub | Negate | Operation | Aggregation | Function


def children(node: Node) -> tuple[Node, ...]:
    """The nodes that a node evaluates."""
    match node:
        case Window():
            return (node.select,)
        case Sub() | Negate():
            return (node.expr,)
        case Operation():
            return (node.lhs, node.rhs)
        case Aggregation():
            return (node.expr,) if node.param is None else (node.param, node.expr)
        case Function():
            return node.args
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and everything under it."""
    yield node
    for child in children(node):
        yield from walk(child)


def first_select(node: Node) -> Select | None:
    """The first selector of an expression."""
    return next((one for one in walk(node) if isinstance(one, Select)), None)


def info_names(matchers: tuple[Matcher, ...]) -> tuple[Matcher, ...]:
    """The matchers on the name of the series that `info` takes labels from, of its selector's matchers."""
    names = tuple(matcher for matcher in matchers if matcher.name == METRIC_NAME)
    if not names:
        return (Matcher(METRIC_NAME, MatchOp.EQUAL, "target_info"),)
    if all(matcher.op in (MatchOp.NOT_EQUAL, MatchOp.NOT_REGEX) for matcher in names):
        return (*names, Matcher(METRIC_NAME, MatchOp.REGEX, ".+_info"))
    return names


def info_select(node: Function) -> Select:
    """The read of `info` for its series: at the time of the first selector of its first argument."""
    selector = node.args[1] if len(node.args) > 1 else None
    matchers = selector.matchers if isinstance(selector, Select) else ()
    data = tuple(matcher for matcher in matchers if matcher.name != METRIC_NAME)
    first = first_select(node.args[0])
    offset_ms, at = (first.offset_ms, first.at) if first is not None else (0, None)
    wanted = info_names(matchers) + data
    return Select(0, node.args[0].start, at is not None, "", wanted, offset_ms, at, False, False)


_LAST: Final = (Rollup.LAST,)
# what functions over a range are computed from where five minutes are one number; all others from LAST
_ROLLUPS: Final[Mapping[str, tuple[Rollup, ...]]] = MappingProxyType(
    {
        "min_over_time": (Rollup.MINIMUM,),
        "ts_of_min_over_time": (Rollup.MINIMUM,),
        "max_over_time": (Rollup.MAXIMUM,),
        "ts_of_max_over_time": (Rollup.MAXIMUM,),
        "sum_over_time": (Rollup.SUM,),
        "count_over_time": (Rollup.COUNT,),
        "avg_over_time": (Rollup.SUM, Rollup.COUNT),
        "rate": (Rollup.COUNTER,),
        "increase": (Rollup.COUNTER,),
        "resets": (Rollup.COUNTER,),
    }
)


def rollups_for(function: str) -> tuple[Rollup, ...]:
    """The rollups that a function over a range reads."""
    return _ROLLUPS.get(function, _LAST)


@dataclass(frozen=True, slots=True)
class Read:
    """Samples that a query will ask for: matchers and a closed range in milliseconds.

    `rollups`: which numbers serve where the source has one for each five minutes instead.
    """

    matchers: tuple[Matcher, ...]
    start_ms: int
    end_ms: int
    rollups: frozenset[Rollup] = frozenset(_LAST)


def reads(
    node: Node, start_ms: int, end_ms: int, lookback_ms: int, bounds: tuple[int, int] | None = None
) -> list[Read]:
    """What an evaluation from `start_ms` to `end_ms` will read, for sources that fetch beforehand."""
    bounds = bounds or (start_ms, end_ms)

    def fixed(at: At | None, lo: int, hi: int) -> tuple[int, int]:
        if at is None:
            return lo, hi
        when = {"start": bounds[0], "end": bounds[1]}.get(at.kind, at.ts_ms)
        return when, when

    match node:
        case Select():
            lo, hi = fixed(node.at, start_ms, end_ms)
            reach = lookback_ms if node.smoothed else 0
            return [Read(node.matchers, lo - node.offset_ms - lookback_ms, hi - node.offset_ms + reach)]
        case Window():
            select = node.select
            lo, hi = fixed(select.at, start_ms, end_ms)
            before = lookback_ms if select.smoothed or select.anchored else 0
            after = lookback_ms if select.smoothed else 0
            lo, hi = lo - select.offset_ms - node.range_ms - before, hi - select.offset_ms + after
            return [Read(select.matchers, lo, hi)]
        case Sub():
            lo, hi = fixed(node.at, start_ms, end_ms)
            return reads(
                node.expr, lo - node.offset_ms - node.range_ms, hi - node.offset_ms, lookback_ms, bounds
            )
        case _:
            found: list[Read] = []
            parts = children(node)
            if isinstance(node, Function) and node.name == "info":
                parts = (node.args[0], info_select(node))
            for child in parts:
                under = reads(child, start_ms, end_ms, lookback_ms, bounds)
                if isinstance(child, Window) and isinstance(node, Function):
                    under = [replace(read, rollups=frozenset(rollups_for(node.name))) for read in under]
                found += under
            return found


def most_steps(node: Node, start_ms: int, end_ms: int, step_ms: int, default_step_ms: int) -> int:
    """The largest number of steps at which a part is evaluated: the query's, or those of a subquery."""
    found = 1 + (end_ms - start_ms) // step_ms if step_ms else 1
    if isinstance(node, Sub):
        if node.at is not None:
            start_ms = end_ms  # one time, whichever it is
        start_ms, step_ms = start_ms - node.range_ms, node.step_ms or default_step_ms
        return max(found, most_steps(node.expr, start_ms, end_ms, step_ms, default_step_ms))
    parts = (most_steps(child, start_ms, end_ms, step_ms, default_step_ms) for child in children(node))
    return max(found, *parts, 1)
