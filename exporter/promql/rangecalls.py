"""Functions over range vectors, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from exporter.errors import QueryError
from exporter.model.rollups import ROLLUP_MS, Rollup
from exporter.promql import annotations as notes
from exporter.promql.calls import Handler, absence, scalar_arg
from exporter.promql.floats import general_float
from exporter.promql.functions import over_time
from exporter.promql.functions.over_time import KERNELS
from exporter.promql.functions.rate import extrapolated, instant
from exporter.promql.matrix import Operand, RangeOperand, StepMatrix
from exporter.promql.plan import Function, Node, Window, rollups_for
from exporter.promql.seriesset import Bools, SeriesSet
from exporter.promql.windows import Samples, allocate, finish, ragged_windows, reduce_windows

if TYPE_CHECKING:
    from exporter.promql.evaluate import Evaluation

_ANCHORED = ("changes", "delta", "increase", "rate", "resets")
_SMOOTHED = ("delta", "increase", "rate")
_COUNTER_ENDS = ("_total", "_sum", "_count", "_bucket")
_OF_TWO = ("delta", "deriv", "idelta", "increase", "irate", "predict_linear", "rate")
_KEEP_NAME = ("first_over_time", "last_over_time")


def range_arg(evaluation: Evaluation, node: Node, name: str) -> RangeOperand:
    """The value of an argument that is a range vector.

    Raises: QueryError where the function does not work with the range's modifier.
    """
    if not isinstance(node, Window):
        value = evaluation.value(node)
        assert isinstance(value, RangeOperand)
    else:
        value = evaluation.window(node, rollups_for(name)[0])
        if value.rolled_up:
            _note_narrow(evaluation, node, name)
        for word, on, allowed in (
            ("anchored", value.anchored, _ANCHORED),
            ("smoothed", value.smoothed, _SMOOTHED),
        ):
            if on and name not in allowed:
                raise QueryError(
                    f"{word} modifier can only be used with: {', '.join(allowed)} - not with {name}"
                )
    return value


def _note_narrow(evaluation: Evaluation, node: Window, name: str) -> None:
    """Five minutes are one number: two of them need ten minutes."""
    least_ms = 2 * ROLLUP_MS if name in _OF_TWO else ROLLUP_MS
    if node.range_ms < least_ms:
        evaluation.note(notes.narrow_window(name, least_ms // 60_000, node.start))


def _growth(*, counter: bool, per_second: bool) -> Handler:
    def handle(evaluation: Evaluation, node: Function) -> Operand:
        operand = range_arg(evaluation, node.args[0], node.name)
        result = extrapolated(operand, evaluation.budget, counter=counter, per_second=per_second)
        if counter:
            _note_non_counters(evaluation, operand.columns.series, result, node.args[0])
        return result

    return handle


def _note_non_counters(evaluation: Evaluation, series: SeriesSet, result: StepMatrix, arg: Node) -> None:
    def make() -> tuple[tuple[str, np.ndarray], ...]:
        codes, names = series.codes("__name__")
        return tuple(
            (name, np.flatnonzero(codes == code))
            for code, name in enumerate(names)
            if name and not name.endswith(_COUNTER_ENDS)
        )

    for name, which in series.memo("no counters", make):
        if result.present is None or bool(result.present[which].any()):
            evaluation.note(notes.maybe_no_counter(name, arg.start))


def _instant(*, per_second: bool) -> Handler:
    def handle(evaluation: Evaluation, node: Function) -> Operand:
        operand = range_arg(evaluation, node.args[0], node.name)
        return instant(operand, evaluation.budget, per_second=per_second)

    return handle


def _kernel(evaluation: Evaluation, node: Function) -> Operand:
    operand = range_arg(evaluation, node.args[0], node.name)
    kernel, least = KERNELS[node.name]
    if operand.rolled_up and node.name == "avg_over_time":
        return _mean_of_rollups(evaluation, node.args[0], operand)
    if operand.rolled_up and node.name == "count_over_time":
        kernel = over_time.sum_over_time  # of counts
    if operand.anchored:
        return _anchored(evaluation, operand, node.name)
    result = reduce_windows(operand, kernel, least, evaluation.budget)
    if node.name in _KEEP_NAME:
        return StepMatrix(operand.columns.series, result.values, result.present)
    return result


def _mean_of_rollups(evaluation: Evaluation, arg: Node, sums: RangeOperand) -> StepMatrix:
    """The sums of five minutes and of single samples over their counts."""
    assert isinstance(arg, Window)
    counts = evaluation.window(arg, Rollup.COUNT)
    total, count = (
        reduce_windows(operand, over_time.sum_over_time, 1, evaluation.budget) for operand in (sums, counts)
    )
    with np.errstate(all="ignore"):
        return StepMatrix(total.series, total.values / count.values, total.present)


def _anchored(evaluation: Evaluation, operand: RangeOperand, name: str) -> StepMatrix:
    """changes and resets from the last sample before the window on."""
    count = over_time.changes if name == "changes" else over_time.resets
    out, present = allocate(operand, evaluation.budget)
    for ragged in operand.columns.ragged:
        for which, samples, rows in ragged_windows(ragged, operand, evaluation.budget):
            first, there = over_time.anchor(samples)
            with np.errstate(all="ignore"):
                out[rows, which] = count(samples, first)
            present[rows, which] = there
    return finish(operand, out, present)


def _at_steps(evaluation: Evaluation, values: np.ndarray) -> Callable[[Samples], np.ndarray]:
    """Looks up a scalar argument at the steps of windows, broadcastable to them."""
    if bool((values == values[0]).all()) or len(values) == 1:
        return lambda _: values[0]
    ts_ms = evaluation.steps.ts_ms
    return lambda samples: values[np.searchsorted(ts_ms, samples.steps_ms)]


def _quantile_over_time(evaluation: Evaluation, node: Function) -> Operand:
    quantiles = scalar_arg(evaluation, node.args[0])
    operand = range_arg(evaluation, node.args[1], node.name)
    at = _at_steps(evaluation, quantiles)
    result = reduce_windows(
        operand,
        lambda samples: over_time.quantile_over_time(samples, at(samples)),
        1,
        evaluation.budget,
    )
    if result.cells:
        bad = quantiles[np.isnan(quantiles) | (quantiles < 0) | (quantiles > 1)]
        for text in dict.fromkeys(map(general_float, bad.tolist())):
            evaluation.note(notes.bad_quantile(float(text), node.args[0].start))
    return result


def _predict_linear(evaluation: Evaluation, node: Function) -> Operand:
    operand = range_arg(evaluation, node.args[0], node.name)
    at = _at_steps(evaluation, scalar_arg(evaluation, node.args[1]))
    return reduce_windows(
        operand, lambda samples: over_time.predict_linear(samples, at(samples)), 2, evaluation.budget
    )


def _smoothing(evaluation: Evaluation, node: Function) -> Operand:
    operand = range_arg(evaluation, node.args[0], node.name)
    factors = [scalar_arg(evaluation, arg) for arg in node.args[1:]]
    for word, values in zip(("smoothing", "trend"), factors, strict=True):
        bad = values[~((values > 0) & (values < 1))]
        if len(bad) and operand.columns.series.labels:
            symbol = word[0]
            raise QueryError(f"invalid {word} factor. Expected: 0 < {symbol}f < 1, got: {float(bad[0]):f}")
    smoothing, trend = (_at_steps(evaluation, values) for values in factors)
    return reduce_windows(
        operand,
        lambda samples: over_time.double_exponential_smoothing(samples, smoothing(samples), trend(samples)),
        2,
        evaluation.budget,
    )


def _absent_over_time(evaluation: Evaluation, node: Function) -> Operand:
    arg = node.args[0]
    operand = range_arg(evaluation, arg, node.name)
    found = reduce_windows(operand, over_time.present_over_time, 1, evaluation.budget)
    there: Bools = np.logical_or.reduce(found.mask(), axis=0)
    return absence(there, arg.select.matchers if isinstance(arg, Window) else ())


RANGE_CALLS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        **dict.fromkeys(KERNELS, _kernel),
        "rate": _growth(counter=True, per_second=True),
        "increase": _growth(counter=True, per_second=False),
        "delta": _growth(counter=False, per_second=False),
        "irate": _instant(per_second=True),
        "idelta": _instant(per_second=False),
        "quantile_over_time": _quantile_over_time,
        "predict_linear": _predict_linear,
        "double_exponential_smoothing": _smoothing,
        "holt_winters": _smoothing,
        "absent_over_time": _absent_over_time,
    }
)
