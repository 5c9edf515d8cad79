"""The engine: text to plan to answer, within limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import EMPTY_LABELS
from exporter.promql.ast import Expr, ValueType
from exporter.promql.evaluate import Evaluation
from exporter.promql.limits import Budget, Cancel
from exporter.promql.matrix import (
    SAME_LABELSET,
    Operand,
    RangeOperand,
    Scalars,
    StepMatrix,
    Steps,
    StringOperand,
    merge_equal,
)
from exporter.promql.memo import EvaluationMemo, Observer
from exporter.promql.parse import parse_expr
from exporter.promql.plan import Node, Read, most_steps, reads
from exporter.promql.planner import Keys, Planner
from exporter.promql.read import Reader, column_reader, flattened, newest_reader
from exporter.promql.source import RollupSource, SeriesSource, SizedSource
from exporter.promql.values import InstantVector, Origin, RangeMatrix, Result, ScalarValue, StringValue, Value
from exporter.promql.windows import ragged_spans, without_markers

_PREPARED = 512  # texts whose plans are kept


class Prepared:
    """A query parsed and planned once, for one engine. `text` as given, `expr` its syntax tree."""

    __slots__ = ("_keys", "_plan", "expr", "sources", "text")

    def __init__(self, text: str, expr: Expr, keys: Keys) -> None:
        self.text = text
        self.expr = expr
        self._keys = keys
        self._plan: Node | None = None
        self.sources: dict[int, Expr] = {}  # the expression of each key of the newest plan

    def plan(self, start_ms: int, end_ms: int, step_ms: int) -> Node:
        """The plan for these times. Raises: QueryError where a duration makes no sense."""
        if self._plan is not None:
            return self._plan
        planner = Planner(self._keys, start_ms, end_ms, step_ms)
        plan = planner.plan(self.expr)
        self.sources = planner.sources
        if not planner.depends_on_times:
            self._plan = plan
        return plan


class Engine:
    """Evaluates PromQL over a source of series. Safe for many threads at once.

    Args: `lookback_delta_ms` how far back an instant selector looks; `max_samples` a query may hold at
    once; `timeout_s` with `monotonic` (seconds on a clock that never goes back) bounds its time;
    `subquery_step_ms` is the step of subqueries that tell none.
    """

    def __init__(
        self,
        source: SeriesSource,
        *,
        lookback_delta_ms: int = 300_000,
        max_samples: int = 50_000_000,
        timeout_s: float | None = None,
        monotonic: Callable[[], float] | None = None,
        subquery_step_ms: int = 60_000,
    ) -> None:
        self._columns = column_reader(source)
        self._rollups = source if isinstance(source, RollupSource) else None
        self._newest = newest_reader(source)
        self._sized = source if isinstance(source, SizedSource) else None
        self._lookback_ms = lookback_delta_ms
        self._max_samples = max_samples
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._subquery_step_ms = subquery_step_ms
        self._keys = Keys()
        self._prepared: dict[str, Prepared] = {}

    def prepare(self, text: str) -> Prepared:
        """The query, parsed and planned. Raises: QueryError of kind SYNTAX or TYPE."""
        known = self._prepared.get(text)
        if known is None:
            known = Prepared(text, parse_expr(text), self._keys)
            if len(self._prepared) >= _PREPARED:
                self._prepared = {}
            self._prepared[text] = known
        return known

    def over(self, source: SeriesSource) -> Engine:
        """An engine with the same limits over another source."""
        return Engine(
            source,
            lookback_delta_ms=self._lookback_ms,
            max_samples=self._max_samples,
            timeout_s=self._timeout_s,
            monotonic=self._monotonic,
            subquery_step_ms=self._subquery_step_ms,
        )

    def reads(
        self,
        query: str | Prepared,
        start_ms: int,
        end_ms: int,
        step_ms: int = 0,
        *,
        lookback_delta_ms: int | None = None,
    ) -> list[Read]:
        """What an evaluation will ask the source for; closed ranges in milliseconds."""
        prepared = self.prepare(query) if isinstance(query, str) else query
        plan = prepared.plan(start_ms, end_ms, step_ms)
        lookback_ms = self._lookback_ms if lookback_delta_ms is None else lookback_delta_ms
        return reads(plan, start_ms, end_ms, lookback_ms)

    def estimate(self, query: str | Prepared, start_ms: int, end_ms: int, step_ms: int = 0) -> int | None:
        """About how many samples and results an evaluation touches; None where that is not known at once.

        Callers on an event loop evaluate what is small in place and send the rest to a thread: the way to
        a thread and back costs more than a small query. Raises: QueryError as `prepare`.
        """
        if self._sized is None:
            return None
        prepared = self.prepare(query) if isinstance(query, str) else query
        plan = prepared.plan(start_ms, end_ms, step_ms)
        steps = most_steps(plan, start_ms, end_ms, step_ms, self._subquery_step_ms)
        total = steps
        for read in reads(plan, start_ms, end_ms, self._lookback_ms):
            size = self._sized.estimate(read.matchers, read.start_ms, read.end_ms)
            if size is None:
                return None
            total += size * (1 + steps // 8)
        return total

    def query(
        self,
        query: str | Prepared,
        time_ms: int,
        *,
        memo: EvaluationMemo | None = None,
        cancel: Cancel | None = None,
        lookback_delta_ms: int | None = None,
        timeout_s: float | None = None,
        observer: Observer | None = None,
    ) -> Result:
        """The value at one time.

        Raises: QueryError; its kind tells syntax and type faults, limits, timeout and cancellation apart.
        """
        prepared = self.prepare(query) if isinstance(query, str) else query
        steps = Steps(np.array((time_ms,), np.int64), 1)
        node = prepared.plan(time_ms, time_ms, 0)
        evaluation = self._evaluation(
            steps, memo, cancel, lookback_delta_ms, timeout_s, observer, (time_ms, time_ms)
        )
        operand = _guarded(lambda: evaluation.value(node))
        value = _instant_value(operand, time_ms, evaluation)
        return _result(value, evaluation, prepared.text)

    def query_range(
        self,
        query: str | Prepared,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        *,
        cancel: Cancel | None = None,
        lookback_delta_ms: int | None = None,
        timeout_s: float | None = None,
        observer: Observer | None = None,
    ) -> Result:
        """The value at every step from start to end, series in label order.

        Raises: QueryError as `query`, and of kind TYPE where the expression is no scalar or instant vector.
        """
        if step_ms <= 0:
            raise QueryError(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
                QueryErrorKind.TYPE,
            )
        prepared = self.prepare(query) if isinstance(query, str) else query
        node = prepared.plan(start_ms, end_ms, step_ms)
        if node.type not in (ValueType.SCALAR, ValueType.VECTOR):
            name = {ValueType.MATRIX: "range vector", ValueType.STRING: "string"}[node.type]
            raise QueryError(
                f'invalid expression type "{name}" for range query, must be Scalar or instant Vector',
                QueryErrorKind.TYPE,
            )
        if end_ms < start_ms:
            empty = RangeMatrix((), np.zeros(0, np.int64), np.zeros((0, 0)))
            return Result(empty)
        evaluation = self._evaluation(
            None, None, cancel, lookback_delta_ms, timeout_s, observer, (start_ms, end_ms)
        )
        evaluation.budget.need((end_ms - start_ms) // step_ms + 1)
        evaluation.steps = Steps.of(start_ms, end_ms, step_ms)
        operand = _guarded(lambda: evaluation.value(node))
        value = _range_value(operand, evaluation)
        return _result(value, evaluation, prepared.text)

    def _evaluation(
        self,
        steps: Steps | None,
        memo: EvaluationMemo | None,
        cancel: Cancel | None,
        lookback_ms: int | None,
        timeout_s: float | None,
        observer: Observer | None,
        bounds: tuple[int, int] | None = None,
    ) -> Evaluation:
        timeout = self._timeout_s if timeout_s is None else timeout_s
        deadline = None
        if timeout is not None and self._monotonic is not None:
            deadline = self._monotonic() + timeout
        if steps is None:
            steps = Steps(np.zeros(1, np.int64), 1)
        return Evaluation(
            Reader(
                self._columns,
                self._newest,
                self._rollups,
                self._lookback_ms if lookback_ms is None else lookback_ms,
            ),
            steps,
            bounds or (steps.start_ms, steps.end_ms),
            Budget(self._max_samples, deadline, self._monotonic, cancel),
            self._subquery_step_ms,
            memo=memo,
            observer=observer,
        )


def _guarded(evaluate: Callable[[], Operand]) -> Operand:
    try:
        return evaluate()
    except MemoryError:
        raise QueryError(
            "query processing would load too many samples into memory in query execution",
            QueryErrorKind.LIMIT,
        ) from None
    except RecursionError:
        raise QueryError("expression is nested too deeply", QueryErrorKind.LIMIT) from None


def _result(value: Value, evaluation: Evaluation, text: str) -> Result:
    warnings: list[str] = []
    infos: list[str] = []
    for note in evaluation.notes:
        sentence = note.render(text)
        (warnings if note.level.name == "WARNING" else infos).append(sentence)
    return Result(value, tuple(warnings), tuple(infos), evaluation.budget.peak)


def _named(matrix: StepMatrix) -> StepMatrix:
    """The matrix with names dropped where they are to be, equal label sets merged."""
    series = matrix.series.final_set
    if series is not matrix.series:
        matrix = StepMatrix(series, matrix.values, matrix.present, matrix.ordered)
    return merge_equal(matrix, SAME_LABELSET)


def _instant_value(operand: Operand, time_ms: int, evaluation: Evaluation) -> Value:
    if isinstance(operand, Scalars):
        return ScalarValue(time_ms, float(operand.values[0]))
    if isinstance(operand, StringOperand):
        return StringValue(time_ms, operand.value)
    if isinstance(operand, RangeOperand):
        return _range_vector(operand, evaluation)
    matrix = _named(operand)
    labels = matrix.series.labels
    if matrix.present is None:
        origin = Origin(matrix.series, range(len(labels)))
        return InstantVector(labels, np.ascontiguousarray(matrix.values[:, 0]), time_ms, origin)
    here = np.flatnonzero(matrix.present[:, 0])
    places = here.tolist()
    origin = Origin(matrix.series, places)
    return InstantVector([labels[place] for place in places], matrix.values[here, 0], time_ms, origin)


def _range_value(operand: Operand, evaluation: Evaluation) -> RangeMatrix:
    ts_ms = evaluation.steps.ts_ms
    if isinstance(operand, Scalars):
        return RangeMatrix((EMPTY_LABELS,), ts_ms, operand.values[None, :])
    assert isinstance(operand, StepMatrix)
    matrix = _named(operand)
    order = matrix.series.sorted_order
    if matrix.present is not None:
        order = order[np.flatnonzero(matrix.present[order].any(axis=1))]
    places = order.tolist()
    labels = [matrix.series.labels[place] for place in places]
    present = None if matrix.present is None else matrix.present[order]
    origin = Origin(matrix.series, places)
    return RangeMatrix(labels, ts_ms, matrix.values[order], present, origin=origin)


def _range_vector(operand: RangeOperand, evaluation: Evaluation) -> RangeMatrix:
    """The samples of a range vector at one time, series in label order."""
    columns = flattened(operand.columns)
    end_ms = int(operand.ends_ms[0])
    rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for part in columns.ragged:
        ragged = without_markers(part)
        lo = ragged_spans(ragged, np.array([end_ms - operand.range_ms]))[0]
        hi = ragged_spans(ragged, np.array([end_ms]))[0]
        for place, first, last in zip(ragged.index.tolist(), lo.tolist(), hi.tolist(), strict=True):
            if first < last:
                rows[place] = (ragged.ts_ms[first:last], ragged.values[first:last])
    final = columns.series.final
    order = [place for place in columns.series.sorted_order.tolist() if place in rows]
    evaluation.budget.need(sum(len(rows[place][0]) for place in order))
    offsets = np.concatenate([[0], np.cumsum([len(rows[place][0]) for place in order])]).astype(np.int64)
    none = np.zeros(0)
    return RangeMatrix(
        [final[place] for place in order],
        np.concatenate([rows[place][0] for place in order]) if order else none.astype(np.int64),
        np.concatenate([rows[place][1] for place in order]) if order else none,
        None,
        offsets,
    )
