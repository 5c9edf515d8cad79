"""Values between operators: a matrix of series by steps, scalars by step, a string, windows over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.errors import QueryError
from exporter.model.samples import Float64s, Int64s
from exporter.promql.seriesset import EMPTY_SET, Bools, Ints, SeriesSet
from exporter.promql.source import Columns


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The times of an evaluation: `ts_ms` int64 (T,), from `start_ms` every `step_ms`."""

    ts_ms: Int64s
    step_ms: int

    @classmethod
    def of(cls, start_ms: int, end_ms: int, step_ms: int) -> Steps:
        """Steps from start to end, both included where the step hits the end."""
        return cls(np.arange(start_ms, end_ms + 1, max(step_ms, 1), dtype=np.int64), step_ms)

    def __len__(self) -> int:
        return len(self.ts_ms)

    @property
    def start_ms(self) -> int:
        """The first step."""
        return int(self.ts_ms[0])

    @property
    def end_ms(self) -> int:
        """The last step."""
        return int(self.ts_ms[-1])


@dataclass(frozen=True, slots=True, eq=False)
class StepMatrix:
    """An instant vector at every step.

    `values` float64 (S, T) in any memory order; `present` bool (S, T), None where every cell is: absence
    is told by `present`, as NaN is a legal value. Arrays may be shared or read-only: operators never
    write into what they were given. `ordered`: the order of the series is part of the value.
    """

    series: SeriesSet
    values: Float64s
    present: Bools | None = None
    ordered: bool = False

    @property
    def cells(self) -> int:
        """Samples held."""
        return int(self.values.size) if self.present is None else int(np.count_nonzero(self.present))

    def mask(self) -> Bools:
        """`present` as an array."""
        if self.present is not None:
            return self.present
        return np.ones(self.values.shape, np.bool_)

    def with_values(self, values: Float64s, *, drop_name: bool = True) -> StepMatrix:
        """The same cells with other values, the metric name to be dropped unless told otherwise."""
        series = self.series.dropping() if drop_name else self.series
        return StepMatrix(series, values, self.present, self.ordered)

    def where(self, keep: Bools) -> StepMatrix:
        """The cells where `keep` holds."""
        present = keep if self.present is None else keep & self.present
        return StepMatrix(self.series, self.values, present, self.ordered)

    def take(self, which: Ints) -> StepMatrix:
        """The series at the given positions, in that order."""
        present = None if self.present is None else self.present[which]
        return StepMatrix(self.series.take(which), self.values[which], present)

    def broadcast(self, steps: int) -> StepMatrix:
        """The one step of this matrix, repeated."""
        shape = (len(self.series), steps)
        present = None if self.present is None else np.broadcast_to(self.present, shape)
        return StepMatrix(self.series, np.broadcast_to(self.values, shape), present, self.ordered)


def empty_matrix(steps: int) -> StepMatrix:
    """A vector of no series."""
    return StepMatrix(EMPTY_SET, np.zeros((0, steps)))


@dataclass(frozen=True, slots=True, eq=False)
class Scalars:
    """A scalar at every step: `values` float64 (T,)."""

    values: Float64s

    @property
    def cells(self) -> int:
        """Samples held."""
        return len(self.values)


@dataclass(frozen=True, slots=True)
class StringOperand:
    """A string."""

    value: str
    cells: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RangeOperand:
    """A range vector at every step: the samples, and the window of each step.

    The window of step t is (ends_ms[t] - range_ms, ends_ms[t]]; `steps_ms` are the times of evaluation.
    `before_ms` and `after_ms` widen what was read (anchored, smoothed). `rolled_up`: some of the samples, or
    all, are rollups of samples that are gone.
    """

    columns: Columns
    ends_ms: Int64s
    steps_ms: Int64s
    range_ms: int
    start: int
    before_ms: int = 0
    after_ms: int = 0
    anchored: bool = False
    smoothed: bool = False
    rolled_up: bool = False
    cells: int = 0


Operand = StepMatrix | Scalars | StringOperand | RangeOperand


def merge_equal(matrix: StepMatrix, message: str) -> StepMatrix:
    """One row for each label set. Raises: QueryError(message) where two series share label set and step."""
    series = matrix.series
    if not series.has_duplicates:
        return matrix
    unique = series.unique
    mask = matrix.mask()
    counts = np.zeros((len(unique.labels), mask.shape[1]), np.int64)
    np.add.at(counts, unique.ids, mask)
    if bool((counts > 1).any()):
        raise QueryError(message)
    values = np.zeros(counts.shape)
    rows, cols = np.nonzero(mask)
    values[unique.ids[rows], cols] = matrix.values[rows, cols]
    # The first series that has a sample says whether the name goes.
    drop = np.zeros(len(unique.labels), np.bool_)
    speakers = np.flatnonzero(mask.any(axis=1))[::-1]
    drop[unique.ids[speakers]] = series.drop_name[speakers]
    merged = series.memo(("merged", drop.tobytes()), lambda: SeriesSet(unique.labels, drop))
    return StepMatrix(merged, values, counts > 0, matrix.ordered)


SAME_LABELSET = "vector cannot contain metrics with the same labelset"
