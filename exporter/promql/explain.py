"""Explain: the same evaluation, keeping value, size and time of each sub-expression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from exporter.promql.engine import Engine, Prepared
from exporter.promql.floats import api_float
from exporter.promql.limits import Cancel
from exporter.promql.matrix import Operand, RangeOperand, Scalars, StepMatrix, StringOperand
from exporter.promql.plan import Node
from exporter.promql.printer import to_text
from exporter.promql.values import Result


@dataclass(slots=True)
class Step:
    """One sub-expression as it was evaluated.

    `kind`: scalar, string, instant vector or range vector. `series` with a sample, `samples` held,
    `seconds` with its parts and `own_seconds` without, `value` a short form of the value, `parts` the
    sub-expressions in the order in which they were evaluated.
    """

    text: str
    kind: str = ""
    series: int = 0
    samples: int = 0
    seconds: float = 0.0
    value: str = ""
    parts: list[Step] = field(default_factory=list)

    @property
    def own_seconds(self) -> float:
        """Time spent here and not in the parts."""
        return max(0.0, self.seconds - sum(part.seconds for part in self.parts))

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Step]]:
        """This step and those under it, with their depth."""
        yield depth, self
        for part in self.parts:
            yield from part.walk(depth + 1)


class _Watch:
    """Builds the tree of steps while the engine evaluates."""

    def __init__(self, prepared: Prepared, monotonic: Callable[[], float]) -> None:
        self._prepared = prepared
        self._monotonic = monotonic
        self._open: list[Step] = [Step("")]

    @property
    def root(self) -> Step:
        """The step of the whole query."""
        return self._open[0].parts[0]

    def around(self, node: Node, evaluate: Callable[[], Operand]) -> Operand:
        """Evaluate the node and note what came of it."""
        expr = self._prepared.sources.get(node.key)
        step = Step(to_text(expr) if expr is not None else "")
        self._open[-1].parts.append(step)
        self._open.append(step)
        began = self._monotonic()
        try:
            value = evaluate()
        finally:
            step.seconds = self._monotonic() - began
            self._open.pop()
        _describe(step, value)
        return value


def explain(
    engine: Engine,
    query: str | Prepared,
    time_ms: int,
    monotonic: Callable[[], float],
    *,
    timeout_s: float | None = None,
    cancel: Cancel | None = None,
) -> tuple[Result, Step]:
    """The answer of an instant query and the tree of its sub-expressions. Raises: QueryError."""
    prepared = engine.prepare(query) if isinstance(query, str) else query
    watch = _Watch(prepared, monotonic)
    return engine.query(prepared, time_ms, observer=watch, timeout_s=timeout_s, cancel=cancel), watch.root


def explain_range(
    engine: Engine,
    query: str | Prepared,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    monotonic: Callable[[], float],
) -> tuple[Result, Step]:
    """The answer of a range query and the tree of its sub-expressions. Raises: QueryError."""
    prepared = engine.prepare(query) if isinstance(query, str) else query
    watch = _Watch(prepared, monotonic)
    return engine.query_range(prepared, start_ms, end_ms, step_ms, observer=watch), watch.root


def _describe(step: Step, value: Operand) -> None:
    match value:
        case Scalars():
            step.kind, step.samples = "scalar", len(value.values)
            step.value = api_float(float(value.values[-1]))
        case StringOperand():
            step.kind, step.value = "string", value.value
        case RangeOperand():
            step.kind = "range vector"
            columns = value.columns
            step.series = sum(grid.width for grid in columns.grids)
            step.samples = sum(grid.width * len(grid.ts_ms) for grid in columns.grids)
            for ragged in columns.ragged:
                step.series += int(np.count_nonzero(np.diff(ragged.offsets)))
                step.samples += len(ragged.ts_ms)
        case StepMatrix():
            step.kind, step.samples = "instant vector", value.cells
            held = np.flatnonzero(np.logical_or.reduce(value.mask(), axis=1))
            step.series = len(held)
            if len(held) == 1:
                step.value = _newest(value, int(held[0]))


def _newest(matrix: StepMatrix, row: int) -> str:
    """The newest value of one series."""
    steps = np.flatnonzero(matrix.mask()[row])
    return api_float(float(matrix.values[row, steps[-1]]))


def describe(step: Step) -> tuple[str, str]:
    """What a step held, and its time with and without its parts."""
    size = f"{step.series} series, {step.samples} samples" if step.kind.endswith("vector") else step.kind
    return size, f"{step.seconds * 1e3:.2f} ms, own {step.own_seconds * 1e3:.2f} ms"


def render(root: Step) -> str:
    """The tree as text: one line for each sub-expression, with value or series count, samples and time."""
    lines = []
    for depth, step in root.walk():
        size, times = describe(step)
        value = f" = {step.value}" if step.value else ""
        lines.append(f"{'  ' * depth}{step.text}{value}  [{size}; {times}]")
    return "\n".join(lines)
