"""Evaluation of a plan: one method for each node type, one pass for all steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.rollups import Rollup
from exporter.model.samples import Float64s
from exporter.promql import annotations as notes
from exporter.promql.aggregate import check_k, count_values, group, limit_ratio, pick_k, reduce_groups
from exporter.promql.annotations import Note
from exporter.promql.ast import At
from exporter.promql.binary import (
    SETS,
    TRIMS,
    compute,
    set_operation,
    vector_operation,
    with_scalar,
)
from exporter.promql.calls import CALLS, nameless
from exporter.promql.functions.label import is_label_name
from exporter.promql.gotext import quote
from exporter.promql.limits import Budget
from exporter.promql.matrix import (
    Operand,
    RangeOperand,
    Scalars,
    StepMatrix,
    Steps,
    StringOperand,
    empty_matrix,
)
from exporter.promql.memo import EvaluationMemo, Observer, Shared
from exporter.promql.plan import (
    Aggregation,
    Function,
    Negate,
    Node,
    Number,
    Operation,
    Select,
    Sub,
    Text,
    Window,
)
from exporter.promql.rangecalls import RANGE_CALLS
from exporter.promql.read import Reader, flattened, select_points, smooth_select


@dataclass(slots=True)
class Evaluation:
    """One evaluation of a plan over steps.

    `bounds`: start and end of the query, which `@ start()` and `@ end()` mean. `memo` keeps values of
    sub-expressions by key; None: nothing is shared. Notes are collected in order, without repeats.
    """

    reader: Reader
    steps: Steps
    bounds: tuple[int, int]
    budget: Budget
    subquery_step_ms: int
    notes: dict[Note, None] = field(default_factory=dict)
    memo: EvaluationMemo | None = None
    observer: Observer | None = None

    def note(self, note: Note) -> None:
        """Add a remark."""
        self.notes[note] = None

    def value(self, node: Node) -> Operand:
        """The value of a node at every step. Raises: QueryError."""
        self.budget.check()
        if node.invariant and len(self.steps) > 1 and not isinstance(node, (Number, Text, Window, Sub)):
            once = self._at(Steps(self.steps.ts_ms[:1], self.steps.step_ms)).value(node)
            return _repeat(once, len(self.steps))
        memo = self.memo
        if memo is None or isinstance(node, (Number, Text)):
            return self._observed(node)
        known = memo.get(node, self.steps.start_ms)
        if known is None:
            inner = replace(self, notes={})
            known = Shared(inner._observed(node), tuple(inner.notes), node.start)
            memo.put(node, self.steps.start_ms, known)
        for note in known.notes:
            self.note(note.moved(node.start - known.start))
        return known.value

    def _observed(self, node: Node) -> Operand:
        if self.observer is None:
            return self._value(node)
        return self.observer.around(node, lambda: self._value(node))

    def _value(self, node: Node) -> Operand:
        match node:
            case Number():
                return Scalars(np.full(len(self.steps), node.value))
            case Text():
                return StringOperand(node.value)
            case Select():
                return self._select(node)
            case Window():
                return self._window(node)
            case Sub():
                return self._subquery(node)
            case Negate():
                return self._negate(node)
            case Operation():
                return self._operation(node)
            case Aggregation():
                return self._aggregation(node)
            case Function():
                return self._function(node)

    def _at(self, steps: Steps) -> Evaluation:
        """The same evaluation at other steps; notes go to the same place."""
        return replace(self, steps=steps, memo=None)

    def at_ms(self, at: At | None) -> int | None:
        """The time that an @ modifier fixes, or None."""
        if at is None:
            return None
        return {"start": self.bounds[0], "end": self.bounds[1]}.get(at.kind, at.ts_ms)

    # -- leaves -----------------------------------------------------------------------------------------

    def times(self, at: At | None, offset_ms: int) -> np.ndarray:
        """The time that each step refers to, int64 (T,)."""
        fixed = self.at_ms(at)
        if fixed is not None:
            return np.full(len(self.steps), fixed - offset_ms, np.int64)
        return self.steps.ts_ms - offset_ms if offset_ms else self.steps.ts_ms

    def _select(self, node: Select) -> StepMatrix:
        times = self.times(node.at, node.offset_ms)
        if node.smoothed:
            return smooth_select(self.reader, node, times, self.budget)
        return select_points(self.reader, node, times, self.budget)[0]

    def window(self, node: Window, rollup: Rollup) -> RangeOperand:
        """The value of a range selector; where samples are gone, that number of each five minutes."""
        if not self.reader.has_rollups():
            value = self.value(node)
            assert isinstance(value, RangeOperand)
            return value
        if self.observer is None:
            return self._window(node, rollup)
        watched = self.observer.around(node, lambda: self._window(node, rollup))
        assert isinstance(watched, RangeOperand)
        return watched

    def _window(self, node: Window, rollup: Rollup = Rollup.LAST) -> RangeOperand:
        select = node.select
        ends = self.times(select.at, select.offset_ms)
        before = self.reader.lookback_ms if select.smoothed or select.anchored else 0
        after = self.reader.lookback_ms if select.smoothed else 0
        start_ms = int(ends.min()) - node.range_ms - before + 1
        end_ms = int(ends.max()) + after
        flat = select.anchored or select.smoothed
        rolled = self.reader.rollups(select.matchers, start_ms, end_ms, rollup)
        if rolled is None:
            columns = self.reader.columns(select.matchers, start_ms, end_ms, flat=flat)
        else:
            columns = flattened(rolled) if flat else rolled
        return RangeOperand(
            columns,
            ends,
            self.steps.ts_ms,
            node.range_ms,
            node.start,
            before,
            after,
            select.anchored,
            select.smoothed,
            rolled is not None,
        )

    def _subquery(self, node: Sub) -> RangeOperand:
        ends = self.times(node.at, node.offset_ms)
        step_ms = node.step_ms or self.subquery_step_ms
        earliest = int(ends.min()) - node.range_ms
        start_ms = earliest // step_ms * step_ms
        if start_ms <= earliest:
            start_ms += step_ms
        end_ms = int(ends.max())
        count = max(0, (end_ms - start_ms) // step_ms + 1)
        self.budget.need(count)
        if not count:
            return self.reader.steps_as_range(
                empty_matrix(0), np.zeros(0, np.int64), ends, self.steps.ts_ms, node
            )
        steps = Steps.of(start_ms, end_ms, step_ms)
        inner = self._at(steps).value(node.expr)
        matrix = inner if isinstance(inner, StepMatrix) else as_vector(inner)
        return self.reader.steps_as_range(matrix, steps.ts_ms, ends, self.steps.ts_ms, node)

    # -- operators ----------------------------------------------------------------------------------------

    def _negate(self, node: Negate) -> Operand:
        value = self.value(node.expr)
        if isinstance(value, Scalars):
            return Scalars(-value.values)
        matrix = vector(value)
        return matrix.with_values(-matrix.values)

    def _operation(self, node: Operation) -> Operand:
        left = self.value(node.lhs)
        self.budget.hold(left.cells)
        try:
            right = self.value(node.rhs)
        finally:
            self.budget.release(left.cells)
        if isinstance(left, Scalars) and isinstance(right, Scalars):
            return Scalars(compute(node.op, left.values, right.values).astype(np.float64))
        if node.op in TRIMS:
            return self._trim(node, left, right)
        if isinstance(left, Scalars):
            return with_scalar(
                node.op, vector(right), left.values, scalar_left=True, return_bool=node.return_bool
            )
        if isinstance(right, Scalars):
            return with_scalar(
                node.op, vector(left), right.values, scalar_left=False, return_bool=node.return_bool
            )
        assert node.matching is not None
        if node.op in SETS:
            return set_operation(node.op, vector(left), vector(right), node.matching)
        return vector_operation(
            node.op, vector(left), vector(right), node.matching, return_bool=node.return_bool
        )

    def _trim(self, node: Operation, left: Operand, right: Operand) -> StepMatrix:
        """Trimming is for native histograms; floats are left out, with a note where any would have met."""
        if isinstance(left, Scalars) or isinstance(right, Scalars):
            met = vector(right if isinstance(left, Scalars) else left).cells > 0
        else:
            assert node.matching is not None
            pairs = vector_operation("+", vector(left), vector(right), node.matching, return_bool=False)
            met = pairs.cells > 0
        if met:
            self.note(notes.incompatible_types(node.op, node.start))
        return empty_matrix(len(self.steps))

    def _aggregation(self, node: Aggregation) -> StepMatrix:
        param = None if node.param is None else self.value(node.param)
        matrix = vector(self.value(node.expr))
        if node.op == "count_values":
            assert isinstance(param, StringOperand)
            if not is_label_name(param.value):
                raise QueryError(f"invalid label name {quote(param.value)}")
            return count_values(matrix, param.value, node.grouping, without=node.without)
        grouping = group(matrix.series, node.grouping, without=node.without)
        if node.op in ("topk", "bottomk", "limitk", "limit_ratio"):
            assert isinstance(param, Scalars)
            return self._choose(node, matrix, param.values)
        quantiles: Float64s | None = None
        if node.op == "quantile":
            assert isinstance(param, Scalars)
            assert node.param is not None
            quantiles = param.values
            bad = quantiles[np.isnan(quantiles) | (quantiles < 0) | (quantiles > 1)]
            for quantile in dict.fromkeys(_extremes(bad)):
                self.note(notes.bad_quantile(quantile, node.param.start))
        self.budget.need(grouping.count * len(self.steps))
        return reduce_groups(node.op, matrix, grouping, quantiles)

    def _choose(self, node: Aggregation, matrix: StepMatrix, params: Float64s) -> StepMatrix:
        assert node.param is not None
        grouping = group(matrix.series, node.grouping, without=node.without)
        if node.op != "limit_ratio":
            if not bool((params >= 1).any()) and not bool(np.isnan(params).all()):
                return empty_matrix(len(self.steps))
            check_k(params)
            return pick_k(node.op, matrix, grouping, params)
        if bool(np.isnan(params).any()):
            raise QueryError("Ratio value is NaN")
        if float(params.max()) > 1:
            self.note(notes.bad_ratio(float(params.max()), 1, node.param.start))
        if float(params.min()) < -1:
            self.note(notes.bad_ratio(float(params.min()), -1, node.param.start))
        return limit_ratio(matrix, params)

    def _function(self, node: Function) -> Operand:
        call = CALLS.get(node.name)
        if call is not None:
            return call(self, node)
        handler = RANGE_CALLS.get(node.name)
        if handler is None:
            raise QueryError(
                f"function {node.name}() works on native histograms only", QueryErrorKind.UNSUPPORTED
            )
        return handler(self, node)


def vector(value: Operand) -> StepMatrix:
    """A value that the type check says is a vector."""
    assert isinstance(value, StepMatrix)
    return value


def as_vector(value: Operand) -> StepMatrix:
    """A scalar as a vector of one series without labels; a vector as it is."""
    if isinstance(value, Scalars):
        return StepMatrix(nameless(), value.values[None, :])
    return vector(value)


def _repeat(value: Operand, steps: int) -> Operand:
    if isinstance(value, StepMatrix):
        return value.broadcast(steps)
    if isinstance(value, Scalars):
        return Scalars(np.repeat(value.values, steps))
    return value


def _extremes(values: Float64s) -> list[float]:
    """NaN, the greatest and the least of bad quantiles: what Prometheus tells about."""
    if not len(values):
        return []
    found = [float("nan")] if bool(np.isnan(values).any()) else []
    numbers = values[~np.isnan(values)]
    if bool((numbers > 1).any()):
        found.append(float(numbers.max()))
    if bool((numbers < 0).any()):
        found.append(float(numbers.min()))
    return found
