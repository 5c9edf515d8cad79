"""A query function that knows all times it will be asked for, and answers expressions with one range query.

For rule tests and replays: thousands of evaluations of the same rules over samples that are all known before.
An expression is answered ahead only if that cannot show: it reads nothing that the rules themselves write,
looks at no time but its own and before, and does not ask for the query's range. Everything else, and every
error, comes from the engine that sees the samples appended so far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from exporter.errors import QueryError
from exporter.model.labels import LabelSet
from exporter.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    Paren,
    Subquery,
    Unary,
    VectorSelector,
)
from exporter.promql.engine import Engine
from exporter.promql.values import InstantVector, RangeMatrix, Value
from exporter.rules.emptiness import names_read
from exporter.rules.engine_query import EngineQueries
from exporter.rules.model import RecordingRule, Rule

_OF_THE_RANGE = ("start", "end", "range", "step")
_MAX_CELLS = 20_000_000


@dataclass(frozen=True, slots=True)
class Grid:
    """The times of evaluation: `count` steps from `start_ms`, `step_ms` apart."""

    start_ms: int
    step_ms: int
    count: int

    def position(self, ts_ms: int) -> int | None:
        """The number of the step at a time, if it is one."""
        number, rest = divmod(ts_ms - self.start_ms, self.step_ms)
        return number if not rest and 0 <= number < self.count else None


class AheadQueries:
    """Gives each evaluation its query function, as `EngineQueries` does."""

    def __init__(self, live: EngineQueries, whole: Engine, rules: Iterable[Rule], grid: Grid) -> None:
        """`live` sees the samples appended so far, `whole` all that are given, and none that rules write."""
        rules = tuple(rules)
        written = {rule.record for rule in rules if isinstance(rule, RecordingRule)}
        written |= {"ALERTS", "ALERTS_FOR_STATE"}
        self._live = live
        self._whole = whole
        self._grid = grid
        self._ahead = {rule.expr_text for rule in rules if can_run_ahead(rule.expr, written)}
        self._known: dict[str, _Columns] = {}

    def __call__(self) -> AheadQuery:
        """A query function for one evaluation."""
        return AheadQuery(self)

    def answer(self, text: str, ts_ms: int) -> Value | None:
        """The value at a time of the grid; None where it has to be asked live."""
        position = self._grid.position(ts_ms) if text in self._ahead else None
        if position is None:
            return None
        columns = self._known.get(text)
        if columns is None:
            try:
                columns = self._evaluate(text)
            except QueryError:  # the live engine will say so, at the step where it happens
                self._ahead.discard(text)
                return None
            self._known[text] = columns
        return columns.at(position, ts_ms)

    def live(self) -> EngineQueries:
        """The queries for everything else."""
        return self._live

    def _evaluate(self, text: str) -> _Columns:
        grid = self._grid
        end_ms = grid.start_ms + (grid.count - 1) * grid.step_ms
        matrix = self._whole.query_range(text, grid.start_ms, end_ms, grid.step_ms).value
        if not isinstance(matrix, RangeMatrix) or matrix.values.size > _MAX_CELLS:
            raise QueryError("too large to be kept")
        return _Columns(matrix)


class AheadQuery:
    """(expression, Unix ms) -> value."""

    def __init__(self, queries: AheadQueries) -> None:
        self._queries = queries
        self._live = queries.live()()

    def __call__(self, text: str, ts_ms: int) -> Value:
        """The value of an expression at a time.

        Raises: QueryError.
        """
        found = self._queries.answer(text, ts_ms)
        return self._live(text, ts_ms) if found is None else found

    def forget(self) -> None:
        """Read anew what is asked next."""
        self._live.forget()


class _Columns:
    """The steps of a range matrix as instant vectors."""

    def __init__(self, matrix: RangeMatrix) -> None:
        self._labels = tuple(matrix.labels)
        self._values = np.ascontiguousarray(matrix.values.T)
        self._present = None if matrix.present is None else np.ascontiguousarray(matrix.present.T)

    def at(self, position: int, ts_ms: int) -> InstantVector:
        if self._present is None:
            return InstantVector(self._labels, self._values[position], ts_ms)
        here = np.flatnonzero(self._present[position])
        if len(here) == len(self._labels):
            return InstantVector(self._labels, self._values[position], ts_ms)
        labels: list[LabelSet] = [self._labels[place] for place in here.tolist()]
        return InstantVector(labels, self._values[position][here], ts_ms)


def can_run_ahead(expr: Expr, written: Collection[str]) -> bool:
    """Whether an expression is the same for a range query as for instant queries along the way."""
    names = names_read((expr,))
    return names is not None and names.isdisjoint(written) and _looks_back(expr)


def _looks_back(expr: Expr) -> bool:
    match expr:
        case VectorSelector():
            return expr.at is None and expr.offset_expr is None and expr.offset_ms >= 0
        case MatrixSelector():
            return expr.range_expr is None and _looks_back(expr.selector)
        case Subquery():
            plain = expr.at is None and expr.offset_expr is None and expr.offset_ms >= 0
            return plain and expr.range_expr is None and expr.step_expr is None and _looks_back(expr.expr)
        case Paren() | Unary():
            return _looks_back(expr.expr)
        case Aggregate():
            return _looks_back(expr.expr) and (expr.param is None or _looks_back(expr.param))
        case Call():
            return expr.func not in _OF_THE_RANGE and all(_looks_back(argument) for argument in expr.args)
        case Binary():
            return _looks_back(expr.lhs) and _looks_back(expr.rhs)
        case _:
            return True
