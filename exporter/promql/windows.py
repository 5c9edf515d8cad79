"""Windows over samples: from range vectors to arrays that kernels reduce along their first axis.

Series on a grid without gaps need no copy at a single step; many steps are gathered together, and series
with their own timestamps are padded. Work is cut into pieces, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.model.samples import Float64s, Int64s
from exporter.model.staleness import stale_mask
from exporter.promql.limits import Budget
from exporter.promql.matrix import RangeOperand, StepMatrix
from exporter.promql.seriesset import Bools, Ints
from exporter.promql.source import Grid, Ragged

_PIECE_CELLS = 1 << 21  # samples gathered at a time: 16 MiB of values


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Windows side by side: axis 0 runs over the samples of a window, the other axes over windows.

    `values` (N, *W); `ts_ms` (N, *W) or broadcastable to it; `counts` (*W) samples in each window, the
    rest of the column is padding; None: every window has N. `steps_ms` and `ends_ms`: evaluation time and
    right edge of each window, broadcastable to W.
    """

    values: Float64s
    ts_ms: Int64s
    counts: Ints | None
    steps_ms: Int64s
    ends_ms: Int64s
    range_ms: int

    @property
    def size(self) -> Ints | int:
        """Samples in each window."""
        return self.values.shape[0] if self.counts is None else self.counts

    def mask(self) -> Bools:
        """Where the samples are and padding is not, (N, *W)."""
        shape = self.values.shape
        if self.counts is None:
            return np.ones(shape, np.bool_)
        places = np.arange(shape[0]).reshape((-1,) + (1,) * (len(shape) - 1))
        inside: Bools = places < self.counts
        return inside

    def filled(self, value: float) -> Float64s:
        """The values with padding replaced."""
        return self.values if self.counts is None else np.where(self.mask(), self.values, value)

    def at(self, back: int) -> Float64s:
        """The value `back` samples from the end of each window (1: the last)."""
        found: Float64s = _pick(self.values, self.counts, back)
        return found

    def ts_at(self, back: int) -> Int64s:
        """The timestamp `back` samples from the end of each window (1: the last)."""
        ts_ms = self.ts_ms if self.counts is None else np.broadcast_to(self.ts_ms, self.values.shape)
        found: Int64s = _pick(ts_ms, self.counts, back)
        return found


def _pick(array: Any, counts: Ints | None, back: int) -> Any:
    if counts is None:
        return array[-back]
    return np.take_along_axis(array, np.maximum(counts - back, 0)[None], 0)[0]


Kernel = Callable[[Samples], Float64s]


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Row ranges of the windows of a grid: lo, hi (T,); a window is empty where lo == hi."""

    lo: Ints
    hi: Ints

    @classmethod
    def of(cls, ts_ms: Int64s, ends_ms: Int64s, range_ms: int) -> Spans:
        """Left-open, right-closed windows."""
        return cls(
            np.searchsorted(ts_ms, ends_ms - range_ms, "right"), np.searchsorted(ts_ms, ends_ms, "right")
        )


def reduce_windows(operand: RangeOperand, kernel: Kernel, least: int, budget: Budget) -> StepMatrix:
    """The kernel's value of every window with at least that many samples."""
    out, present = allocate(operand, budget)
    for grid in narrow_grids(operand):
        spans = Spans.of(grid.ts_ms, operand.ends_ms, operand.range_ms)
        _reduce_grid(grid, spans, operand, kernel, least, out, present, budget)
    for ragged in operand.columns.ragged:
        for which, samples, steps in ragged_windows(ragged, operand, budget):
            with np.errstate(all="ignore"):
                result = kernel(samples)
            assert samples.counts is not None
            out[steps, which] = result
            present[steps, which] = samples.counts >= least
    return finish(operand, out, present)


def narrow_grids(operand: RangeOperand) -> Iterator[Grid]:
    """The grids of a range, cut so that a window over all columns is no larger than a piece of work."""
    for grid in operand.columns.grids:
        spans = Spans.of(grid.ts_ms, operand.ends_ms, operand.range_ms)
        longest = int((spans.hi - spans.lo).max(initial=1))
        width = max(1, _PIECE_CELLS // max(longest, 1))
        if width >= grid.width:
            yield grid
            continue
        for first in range(0, grid.width, width):
            yield grid.part(first, min(first + width, grid.width))


def allocate(operand: RangeOperand, budget: Budget) -> tuple[Float64s, Bools]:
    """Result arrays, time-major (T, S), all absent."""
    shape = (len(operand.ends_ms), len(operand.columns.series))
    budget.need(shape[0] * shape[1])
    return np.zeros(shape), np.zeros(shape, np.bool_)


def finish(operand: RangeOperand, out: Float64s, present: Bools) -> StepMatrix:
    """The matrix of time-major results, names to be dropped."""
    whole = bool(present.all())
    return StepMatrix(operand.columns.series.dropping(), out.T, None if whole else present.T)


def _reduce_grid(
    grid: Grid,
    spans: Spans,
    operand: RangeOperand,
    kernel: Kernel,
    least: int,
    out: Float64s,
    present: Bools,
    budget: Budget,
) -> None:
    sizes = spans.hi - spans.lo
    index = grid.index
    for size in np.unique(sizes).tolist():
        if size < max(least, 1):
            continue
        steps = np.flatnonzero(sizes == size)
        together = max(1, _PIECE_CELLS // (size * max(grid.width, 1)))
        for first in range(0, len(steps), together):
            budget.check()
            piece = steps[first : first + together]
            with np.errstate(all="ignore"):
                result = kernel(_grid_samples(grid, spans, operand, piece, size))
            out[piece[:, None] if not isinstance(index, slice) else piece, index] = result
            present[piece[:, None] if not isinstance(index, slice) else piece, index] = True


def _grid_samples(grid: Grid, spans: Spans, operand: RangeOperand, steps: Ints, size: int) -> Samples:
    lo = spans.lo[steps]
    if len(steps) == 1:
        first = int(lo[0])
        values = grid.span(first, first + size)[:, None, :]
        ts_ms = grid.ts_ms[first : first + size][:, None, None]
    else:
        start = int(lo.min())
        rows = lo - start + np.arange(size)[:, None]
        values = grid.span(start, int(lo.max()) + size)[rows]
        ts_ms = grid.ts_ms[start + rows][:, :, None]
    return Samples(
        values,
        ts_ms,
        None,
        operand.steps_ms[steps][:, None],
        operand.ends_ms[steps][:, None],
        operand.range_ms,
    )


def without_markers(ragged: Ragged) -> Ragged:
    """The samples without staleness markers, as ranges see them."""
    stale = stale_mask(ragged.values)
    if not bool(stale.any()):
        return ragged
    kept = np.concatenate([[0], np.cumsum(~stale)])
    return Ragged(ragged.index, kept[ragged.offsets], ragged.ts_ms[~stale], ragged.values[~stale])


def ragged_spans(ragged: Ragged, edges_ms: Int64s) -> Ints:
    """For each edge (T,) and series (C,): position in the flat columns after the samples <= edge, (T, C)."""
    series = len(ragged.index)
    owners = np.repeat(np.arange(series), np.diff(ragged.offsets))
    if not len(owners):
        return np.zeros((len(edges_ms), series), np.intp)
    # One ascending key over all series: owner first, time second.
    low = min(int(ragged.ts_ms.min()), int(edges_ms.min())) - 1
    width = max(int(ragged.ts_ms.max()), int(edges_ms.max())) - low + 2
    keys = owners * width + (ragged.ts_ms - low)
    wanted = np.arange(series) * width + (edges_ms[:, None] - low)
    return np.searchsorted(keys, wanted.ravel(), "right").reshape(wanted.shape)


def ragged_windows(
    ragged: Ragged, operand: RangeOperand, budget: Budget
) -> Iterator[tuple[Ints | slice, Samples, slice]]:
    """Padded windows of series with their own timestamps: (positions, windows (N, T, C), steps)."""
    ragged = without_markers(ragged)
    range_ms = operand.range_ms + operand.before_ms + operand.after_ms
    lo = ragged_spans(ragged, operand.ends_ms + operand.after_ms - range_ms)
    hi = ragged_spans(ragged, operand.ends_ms + operand.after_ms)
    steps, series = lo.shape
    size = int((hi - lo).max(initial=0))
    if not size:
        return
    per_step = max(1, _PIECE_CELLS // (size * series))
    per_series = series if per_step > 1 or size * series <= _PIECE_CELLS else max(1, _PIECE_CELLS // size)
    for step in range(0, steps, per_step):
        for first in range(0, series, per_series):
            budget.check()
            rows, cols = slice(step, step + per_step), slice(first, first + per_series)
            begin, counts = lo[rows, cols], (hi - lo)[rows, cols]
            size = int(counts.max(initial=0))
            if not size:
                continue
            places = begin + np.arange(size)[:, None, None]
            np.minimum(places, len(ragged.values) - 1, out=places)
            yield (
                ragged.index[cols],
                Samples(
                    ragged.values[places],
                    ragged.ts_ms[places],
                    counts,
                    operand.steps_ms[rows][:, None],
                    operand.ends_ms[rows][:, None],
                    operand.range_ms,
                ),
                rows,
            )
