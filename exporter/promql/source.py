"""The port the engine reads samples through, and the columns in which they reach it.

Two forms. Every source gives a `SeriesBlock`: flat columns, series after series. A source that keeps
series sharing their timestamps gives `Columns` as well: `Grid`s (time-major, no copy) for those series,
`Ragged` for the rest. The engine evaluates both with the same kernels. A source may tell, besides, that it
has only rollups of old samples, and give those that a function over a range can use.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from exporter.model.labels import Matcher
from exporter.model.ordering import order_of
from exporter.model.rollups import Rollup
from exporter.model.samples import Float64s, Int64s, SeriesBlock
from exporter.promql.seriesset import SeriesSet

Index = slice | npt.NDArray[np.intp]


class SeriesSource(Protocol):
    """Where samples come from."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        """Samples with start_ms <= ts <= end_ms of all series that satisfy every matcher."""


@runtime_checkable
class ColumnSource(Protocol):
    """A source that also hands out its columns as they lie in memory."""

    def columns(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """As `select`, without a copy where series share their timestamps."""


@runtime_checkable
class NewestSource(Protocol):
    """A source that finds the newest samples without looking at the rest."""

    def newest(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """As `columns`; of each series only the newest sample in the range must be there."""


@runtime_checkable
class SizedSource(Protocol):
    """A source that knows beforehand how much a read would touch."""

    def estimate(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> int | None:
        """About how many samples a read would give; None where that is not known at once."""


@runtime_checkable
class RollupSource(Protocol):
    """A source that keeps old samples as numbers that stand for five minutes each."""

    def rollups(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, rollup: Rollup
    ) -> Columns | None:
        """That number of each five minutes, and of samples where they are kept; None where they all are.

        What a selector gets is LAST of each.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Resets:
    """Falls of values: `rows` and `cols` (E,) of the sample after each fall, `amounts` (E,) before it."""

    rows: Int64s
    cols: Int64s
    amounts: Float64s


class Grid(Protocol):
    """C series that have a sample at each of N shared timestamps: no gap, no staleness marker."""

    @property
    def index(self) -> Index:
        """Position of each column in the series set."""

    @property
    def width(self) -> int:
        """C."""

    @property
    def ts_ms(self) -> Int64s:
        """int64 (N,), ascending."""

    def rows(self, which: Int64s) -> Float64s:
        """Values (len(which), C) of the rows asked for."""

    def span(self, lo: int, hi: int) -> Float64s:
        """Values (hi - lo, C) of consecutive rows; a view where possible, so never write into it."""

    def resets(self, lo: int, hi: int) -> Resets:
        """Falls at rows lo < row < hi."""

    def part(self, first: int, last: int) -> Grid:
        """The grid of the columns [first, last)."""


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Series with timestamps of their own, staleness markers among the samples.

    `index` (C,) positions in the series set, `offsets` int64 (C + 1,), `ts_ms` and `values` (N,).
    """

    index: npt.NDArray[np.intp]
    offsets: Int64s
    ts_ms: Int64s
    values: Float64s


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What a selection read: the series set and where the samples of each series stand.

    A series of the set without samples in the range stands in no grid and in no ragged part. `ragged` may
    make its parts anew at each iteration, so that a wide read never lies in memory as a whole.
    """

    series: SeriesSet
    grids: tuple[Grid, ...]
    ragged: Collection[Ragged]


class ArrayGrid:
    """A grid over one (N, C) array: the steps of a subquery, or a block whose series share their times."""

    __slots__ = ("_index", "_resets", "_ts_ms", "_values")

    def __init__(self, index: Index, ts_ms: Int64s, values: Float64s) -> None:
        self._index = index
        self._ts_ms = ts_ms
        self._values = values
        self._resets: Resets | None = None

    @property
    def index(self) -> Index:
        """Position of each column in the series set."""
        return self._index

    @property
    def width(self) -> int:
        """C."""
        return int(self._values.shape[1])

    @property
    def ts_ms(self) -> Int64s:
        """int64 (N,), ascending."""
        return self._ts_ms

    def rows(self, which: Int64s) -> Float64s:
        """Values (len(which), C)."""
        taken: Float64s = self._values[which]
        return taken

    def span(self, lo: int, hi: int) -> Float64s:
        """A view (hi - lo, C)."""
        return self._values[lo:hi]

    def resets(self, lo: int, hi: int) -> Resets:
        """Falls at rows lo < row < hi, found once for the whole array."""
        if self._resets is None:
            self._resets = find_resets(self._values)
        found = self._resets
        first, last = np.searchsorted(found.rows, [lo + 1, hi])
        return Resets(found.rows[first:last], found.cols[first:last], found.amounts[first:last])

    def part(self, first: int, last: int) -> Grid:
        """The grid of the columns [first, last)."""
        return ArrayGrid(part_of(self._index, first, last), self._ts_ms, self._values[:, first:last])


def part_of(index: Index, first: int, last: int) -> Index:
    """Positions [first, last) of an index."""
    if isinstance(index, slice):
        return slice(index.start + first, index.start + last)
    return index[first:last]


def find_resets(values: Float64s) -> Resets:
    """Every fall in a time-major (N, C) array, ordered by row."""
    rows, cols = np.nonzero(values[1:] < values[:-1])
    return Resets(rows + 1, cols, values[rows, cols])


def columns_of(block: SeriesBlock) -> Columns:
    """The columns of a `SeriesBlock`, series in label order; one grid where all share their timestamps."""
    count = len(block.labels)
    order = order_of(block.labels)
    series = SeriesSet(tuple([block.labels[place] for place in order]))
    if count == 0:
        return Columns(series, (), ())
    index = np.empty(count, np.intp)
    index[order] = np.arange(count)
    lengths = np.diff(block.offsets)
    steps = int(lengths[0])
    if steps and bool((lengths == steps).all()):
        ts_ms = block.ts_ms.reshape(count, steps)
        nan = block.values != block.values
        if bool((ts_ms == ts_ms[0]).all()) and not bool(nan.any()):
            where: Index = slice(0, count) if order == list(range(count)) else index
            grid = ArrayGrid(where, ts_ms[0], block.values.reshape(count, steps).T)
            return Columns(series, (grid,), ())
    return Columns(series, (), (Ragged(index, block.offsets, block.ts_ms, block.values),))
