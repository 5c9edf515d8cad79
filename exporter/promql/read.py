"""Selectors: from the source's columns to values at steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from exporter.model.labels import Matcher
from exporter.model.rollups import Rollup
from exporter.model.samples import Float64s, Int64s
from exporter.model.staleness import stale_mask
from exporter.promql.functions.rate import smooth_points
from exporter.promql.limits import Budget
from exporter.promql.matrix import RangeOperand, StepMatrix, empty_matrix
from exporter.promql.plan import Select, Sub
from exporter.promql.seriesset import Bools
from exporter.promql.source import (
    ArrayGrid,
    Columns,
    ColumnSource,
    Grid,
    NewestSource,
    Ragged,
    RollupSource,
    SeriesSource,
    columns_of,
)
from exporter.promql.windows import ragged_spans, ragged_windows

_PIECE_CELLS = 1 << 21  # samples flattened at a time


ReadColumns = Callable[[Sequence[Matcher], int, int], Columns]


def column_reader(source: SeriesSource) -> ReadColumns:
    """How to read the columns of a source, whichever form it gives."""
    if isinstance(source, ColumnSource):
        return source.columns
    return lambda matchers, start_ms, end_ms: columns_of(source.select(matchers, start_ms, end_ms))


def newest_reader(source: SeriesSource) -> ReadColumns:
    """How to read columns that hold at least the newest sample of each series."""
    return source.newest if isinstance(source, NewestSource) else column_reader(source)


class Reader:
    """Reads a source for one evaluation. `lookback_ms`: how far back an instant selector looks."""

    __slots__ = ("_columns", "_rollups", "lookback_ms", "newest")

    def __init__(
        self, columns: ReadColumns, newest: ReadColumns, rollups: RollupSource | None, lookback_ms: int
    ) -> None:
        self._columns = columns
        self.newest = newest
        self._rollups = rollups
        self.lookback_ms = lookback_ms

    def columns(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, *, flat: bool = False
    ) -> Columns:
        """Samples with start_ms <= ts <= end_ms; `flat`: no grids."""
        columns = self._columns(matchers, start_ms, end_ms)
        return flattened(columns) if flat else columns

    def has_rollups(self) -> bool:
        """Whether `rollups` may find any."""
        return self._rollups is not None

    def rollups(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, rollup: Rollup
    ) -> Columns | None:
        """Numbers for each five minutes of the range where samples are gone; None where none are."""
        return None if self._rollups is None else self._rollups.rollups(matchers, start_ms, end_ms, rollup)

    def steps_as_range(
        self, matrix: StepMatrix, ts_ms: Int64s, ends_ms: Int64s, steps_ms: Int64s, node: Sub
    ) -> RangeOperand:
        """The range vector of a subquery: the steps of its inner expression are the samples."""
        grids: list[Grid] = []
        ragged: list[Ragged] = []
        if len(ts_ms) and len(matrix.series):
            whole: Bools = np.logical_and.reduce(matrix.mask(), axis=1)
            if bool(whole.all()):
                grids.append(ArrayGrid(slice(0, len(whole)), ts_ms, matrix.values.T))
            else:
                full, gappy = np.flatnonzero(whole), np.flatnonzero(~whole)
                if len(full):
                    grids.append(ArrayGrid(full, ts_ms, matrix.values[full].T))
                ragged.append(_sparse(matrix, gappy, ts_ms))
        columns = Columns(matrix.series, tuple(grids), tuple(ragged))
        return RangeOperand(columns, ends_ms, steps_ms, node.range_ms, node.start, cells=matrix.cells)


def _sparse(matrix: StepMatrix, which: np.ndarray, ts_ms: Int64s) -> Ragged:
    assert matrix.present is not None
    mask = matrix.present[which]
    rows, cols = np.nonzero(mask)
    offsets = np.concatenate([[0], np.cumsum(np.count_nonzero(mask, axis=1))])
    return Ragged(which, offsets, ts_ms[cols], matrix.values[which][rows, cols])


class _Flat:
    """The parts of columns without grids, cut to pieces; made anew at each iteration."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns.grids) + len(self._columns.ragged)

    def __contains__(self, part: object) -> bool:
        return any(part is own for own in self)

    def __iter__(self) -> Iterator[Ragged]:
        yield from self._columns.ragged
        places = np.arange(len(self._columns.series))
        for grid in self._columns.grids:
            count = len(grid.ts_ms)
            width = max(1, _PIECE_CELLS // max(count, 1))
            for first in range(0, grid.width, width):
                part = grid.part(first, min(first + width, grid.width))
                cells = part.span(0, count).T
                offsets = np.arange(part.width + 1, dtype=np.int64) * count
                times = np.tile(grid.ts_ms, part.width)
                yield Ragged(places[part.index], offsets, times, cells.reshape(-1))


def flattened(columns: Columns) -> Columns:
    """The same samples without grids."""
    return Columns(columns.series, (), _Flat(columns)) if columns.grids else columns


def select_points(
    reader: Reader, node: Select, times_ms: Int64s, budget: Budget, *, stamps: bool = False
) -> tuple[StepMatrix, Float64s | None]:
    """The newest sample of each series within the lookback of each time; with `stamps` its time, seconds."""
    lookback_ms = reader.lookback_ms
    if len(times_ms) == 1:
        time_ms = int(times_ms[0])
        columns = reader.newest(node.matchers, time_ms - lookback_ms + 1, time_ms)
    else:
        columns = reader.columns(node.matchers, int(times_ms.min()) - lookback_ms + 1, int(times_ms.max()))
    shape = (len(times_ms), len(columns.series))
    budget.need(shape[0] * shape[1])
    if not shape[1]:
        return empty_matrix(shape[0]), np.zeros((0, shape[0])) if stamps else None
    if len(columns.grids) == 1 and not columns.ragged and not stamps:
        whole = _whole_grid(columns, times_ms, lookback_ms)
        if whole is not None:
            return whole, None
    out, present = np.zeros(shape), np.zeros(shape, np.bool_)
    at = np.zeros(shape) if stamps else None
    for grid in columns.grids:
        rows, live = _rows(grid, times_ms, lookback_ms)
        steps = np.flatnonzero(live)
        if not len(steps):
            continue
        index = grid.index
        where = steps if isinstance(index, slice) else steps[:, None]
        out[where, index] = grid.rows(rows[steps])
        present[where, index] = True
        if at is not None:
            at[where, index] = grid.ts_ms[rows[steps]][:, None] / 1000
    for ragged in columns.ragged:
        _points(ragged, times_ms, lookback_ms, out, present, at)
    matrix = StepMatrix(columns.series, out.T, None if bool(present.all()) else present.T)
    return matrix, None if at is None else at.T


def _rows(grid: Grid, times_ms: Int64s, lookback_ms: int) -> tuple[np.ndarray, Bools]:
    rows = np.searchsorted(grid.ts_ms, times_ms, "right") - 1
    live = (rows >= 0) & (grid.ts_ms[np.maximum(rows, 0)] > times_ms - lookback_ms)
    return rows, live


def _whole_grid(columns: Columns, times_ms: Int64s, lookback_ms: int) -> StepMatrix | None:
    """The common case, all series present at all steps: rows as they are."""
    grid = columns.grids[0]
    if not isinstance(grid.index, slice):
        return None
    if len(times_ms) == len(grid.ts_ms) == 1:
        return StepMatrix(columns.series, grid.span(0, 1).T)  # read in the range of its lookback
    rows, live = _rows(grid, times_ms, lookback_ms)
    if not bool(live.all()):
        return None
    return StepMatrix(columns.series, grid.rows(rows).T)


def _points(
    ragged: Ragged,
    times_ms: Int64s,
    lookback_ms: int,
    out: Float64s,
    present: Bools,
    at: Float64s | None,
) -> None:
    if not len(ragged.ts_ms):
        return
    places = ragged_spans(ragged, times_ms) - 1
    live = places >= ragged.offsets[:-1]
    np.maximum(places, 0, out=places)
    stamps = ragged.ts_ms[places]
    live &= stamps > (times_ms - lookback_ms)[:, None]
    values = ragged.values[places]
    live &= ~stale_mask(values)
    out[:, ragged.index] = np.where(live, values, 0.0)
    present[:, ragged.index] = live
    if at is not None:
        at[:, ragged.index] = stamps / 1000


def smooth_select(reader: Reader, node: Select, times_ms: Int64s, budget: Budget) -> StepMatrix:
    """A smoothed instant selector: interpolated between the samples around each time."""
    lookback_ms = reader.lookback_ms
    columns = reader.columns(
        node.matchers, int(times_ms.min()) - lookback_ms + 1, int(times_ms.max()) + lookback_ms, flat=True
    )
    shape = (len(times_ms), len(columns.series))
    budget.need(shape[0] * shape[1])
    out, present = np.zeros(shape), np.zeros(shape, np.bool_)
    operand = RangeOperand(
        columns, times_ms, times_ms, 0, node.start, before_ms=lookback_ms, after_ms=lookback_ms
    )
    for ragged in columns.ragged:
        for which, samples, rows in ragged_windows(ragged, operand, budget):
            with np.errstate(all="ignore"):
                out[rows, which], present[rows, which] = smooth_points(samples)
    return StepMatrix(columns.series, out.T, present.T)
