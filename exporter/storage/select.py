"""Reading: from the refs of a selection to the columns of the engine, without copies where possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.model.samples import Float64s, Int64s
from exporter.promql.seriesset import SeriesSet
from exporter.promql.source import ArrayGrid, Columns, Grid, Index, Ragged, Resets, find_resets, part_of
from exporter.storage.block import Block
from exporter.storage.chunk import ABSENT_BITS, Bools, Chunk, Ints, Layout
from exporter.storage.loose import LooseStore

_ABSENT_KEPT = 4096  # layouts without a series of a selection that it remembers
_PIECE_CELLS = 1 << 22  # cells looked at at a time where series are not on a grid


class Placed:
    """The columns of a selection in one layout: `cols` (C,), -1 where a series has none."""

    __slots__ = ("_capacity", "_inverse", "cols", "known", "where", "whole")

    def __init__(self, cols: Ints, capacity: int) -> None:
        self.cols = cols
        self.known: bool = bool((cols >= 0).any())  # whether any series stands here
        self.whole: bool = bool((cols >= 0).all())  # whether all stand here
        self.where: Index = _together(cols)
        self._capacity = capacity
        self._inverse: npt.NDArray[np.int32] | None = None

    @property
    def inverse(self) -> npt.NDArray[np.int32]:
        """Position in the selection of each column, -1 for others."""
        if self._inverse is None:
            inverse = np.full(self._capacity, -1, np.int32)
            held = np.flatnonzero(self.cols >= 0)
            inverse[self.cols[held]] = held
            self._inverse = inverse
        return self._inverse


def _together(cols: Ints) -> Index:
    """The columns as a slice where they stand side by side."""
    if not len(cols):
        return cols
    first = int(cols[0])
    if int(cols[-1]) - first == len(cols) - 1 and bool((np.diff(cols) == 1).all()):
        return slice(first, first + len(cols))
    return cols


class Selection:
    """The series that a set of matchers selects, and their columns in each layout seen so far."""

    __slots__ = ("_absent", "_ends", "_placed", "refs", "series")

    def __init__(self, refs: Int64s, series: SeriesSet) -> None:
        self.refs = refs
        self.series = series
        self._placed: dict[int, tuple[Layout, int, Placed]] = {}
        self._absent: dict[int, tuple[Layout, int]] = {}
        self._ends = (int(refs.min()), int(refs.max())) if len(refs) else (0, -1)

    def stands_in(self, layout: Layout, size: int) -> bool:
        """Whether a layout has any of the series. Each alert may have a layout: most have none, for long."""
        absent = self._absent.get(id(layout))
        if absent is not None and absent[0] is layout and absent[1] == layout.version:
            return False
        known = self._placed.get(id(layout))
        if known is not None and known[0] is layout and known[1] == layout.version:
            return known[2].known
        low, high = self._ends
        held = layout.refs[: layout.count]
        # The ends first: they spare a layout the table of all refs.
        if bool(((held >= low) & (held <= high)).any()) and self.placed(layout, size).known:
            return True
        if len(self._absent) > _ABSENT_KEPT:
            self._absent.clear()
        self._absent[id(layout)] = (layout, layout.version)
        return False

    def placed(self, layout: Layout, size: int) -> Placed:
        """Where the series stand in a layout."""
        known = self._placed.get(id(layout))
        if known is not None and known[0] is layout and known[1] == layout.version:
            return known[2]
        placed = Placed(layout.columns(self.refs, size), layout.capacity)
        if len(self._placed) > 32:
            self._placed.clear()
        self._placed[id(layout)] = (layout, layout.version, placed)
        return placed


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The rows [lo, hi) of one chunk that a selection reads, as they were when it was made."""

    chunk: Chunk
    lo: int
    hi: int
    ts_ms: Int64s
    values: Float64s
    placed: Placed

    @property
    def cols(self) -> Ints:
        """The column of each series of the selection, -1 where it has none."""
        return self.placed.cols

    @classmethod
    def of(cls, chunk: Chunk, placed: Placed, start_ms: int, end_ms: int) -> _Part | None:
        ts_ms = chunk.ts_ms[: chunk.count]
        lo = int(np.searchsorted(ts_ms, start_ms, "left"))
        hi = int(np.searchsorted(ts_ms, end_ms, "right"))
        return cls(chunk, lo, hi, ts_ms[lo:hi], chunk.values[lo:hi], placed) if lo < hi else None


def read_columns(
    selection: Selection, blocks: Iterable[Block], loose: LooseStore, start_ms: int, end_ms: int, size: int
) -> Columns:
    """The columns of a selection in a range. Called under the head's lock."""
    found = [parts for block in blocks if (parts := _parts(selection, block, start_ms, end_ms, size))]
    refs = selection.refs
    spans = _loose_spans(refs, loose, start_ms, end_ms)
    if not found and not spans:
        return Columns(selection.series, (), ())
    places: Ints | None = None
    if len(found) > 1 or spans:
        places = np.zeros(len(refs), np.intp)
        for parts in found:
            places += np.any([part.cols >= 0 for part in parts], axis=0)
        places[list(spans)] += 1
    grids: list[Grid] = []
    rest = np.zeros(len(refs), np.bool_)
    rest[list(spans)] = True
    for parts in found:
        member, clean = _clean(parts)
        if places is not None:
            clean &= places == 1
        if bool(clean.any()):
            grids.append(_grid(parts, clean))
        rest |= member & ~clean
    if not bool(rest.any()):
        return Columns(selection.series, tuple(grids), ())
    ragged = _Pieces(np.flatnonzero(rest), found, _read_loose(refs, loose, spans))
    return Columns(selection.series, tuple(grids), ragged)


def newest_row(
    selection: Selection, blocks: Iterable[Block], loose: LooseStore, start_ms: int, end_ms: int, size: int
) -> Columns | None:
    """The row with the newest sample of every series in a range; None where no one row is that.

    Most selectors ask for the newest samples of series that are written together. Under the head's lock.
    """
    if _loose_spans(selection.refs, loose, start_ms, end_ms):
        return None
    newest: Chunk | None = None
    for block in blocks:
        chunks = _chunks_in(block, start_ms, end_ms)
        if any(selection.stands_in(chunk.layout, size) for chunk in chunks):
            if newest is not None:
                return None
            newest = chunks[-1]
    if newest is None:
        return Columns(selection.series, (), ())
    row = int(newest.ts_ms[: newest.count].searchsorted(end_ms, "right")) - 1
    placed = selection.placed(newest.layout, size)
    if newest.ts_ms[row] < start_ms or not placed.whole or newest.clean_from[placed.where].max() > row:
        return None
    grid = ArrayGrid(
        slice(0, len(placed.cols)), newest.ts_ms[row : row + 1], newest.values[row : row + 1, placed.where]
    )
    return Columns(selection.series, (grid,), ())


def read_ragged(
    selection: Selection, blocks: Iterable[Block], loose: LooseStore, start_ms: int, end_ms: int, size: int
) -> Ragged:
    """The samples of every series of a selection in a range, as flat columns."""
    found = [parts for block in blocks if (parts := _parts(selection, block, start_ms, end_ms, size))]
    spans = _loose_spans(selection.refs, loose, start_ms, end_ms)
    return _gather(np.arange(len(selection.refs)), found, _read_loose(selection.refs, loose, spans))


_LooseSamples = dict[int, tuple[Int64s, Float64s]]


def _read_loose(refs: Int64s, loose: LooseStore, spans: dict[int, tuple[int, int]]) -> _LooseSamples:
    """Copies of loose samples by position in the selection: their columns may move after the lock."""
    return {place: loose.series[int(refs[place])].read(*span) for place, span in spans.items()}


class _Pieces:
    """The ragged parts of a read, gathered some series at a time. Holds what the chunks were at the read."""

    def __init__(self, places: Ints, found: list[list[_Part]], loose: _LooseSamples) -> None:
        self._places = places
        self._found = found
        self._loose = loose
        rows = sum(part.hi - part.lo for parts in found for part in parts)
        self._step = max(1, _PIECE_CELLS // max(rows, 1))

    def __len__(self) -> int:
        return -(-len(self._places) // self._step)

    def __contains__(self, part: object) -> bool:
        return any(part is own for own in self)

    def __iter__(self) -> Iterator[Ragged]:
        for first in range(0, len(self._places), self._step):
            yield _gather(self._places[first : first + self._step], self._found, self._loose)


def _parts(selection: Selection, block: Block, start_ms: int, end_ms: int, size: int) -> list[_Part]:
    """The rows of a block in the range; a chunk that knows no series of the selection counts as a gap."""
    chunks = _chunks_in(block, start_ms, end_ms)
    if not any(selection.stands_in(chunk.layout, size) for chunk in chunks):
        return []
    parts = (_Part.of(chunk, selection.placed(chunk.layout, size), start_ms, end_ms) for chunk in chunks)
    return [part for part in parts if part is not None]


def _chunks_in(block: Block, start_ms: int, end_ms: int) -> list[Chunk]:
    """The chunks of a block with rows around the range, oldest first."""
    return [
        chunk
        for chunk in block.chunks
        if chunk.count and chunk.last_ms >= start_ms and chunk.first_ms <= end_ms
    ]


def _loose_spans(refs: Int64s, loose: LooseStore, start_ms: int, end_ms: int) -> dict[int, tuple[int, int]]:
    """Position in the selection -> span of samples, for series with loose samples in the range."""
    spans: dict[int, tuple[int, int]] = {}
    store = loose.series
    if not store:
        return spans
    if len(store) < len(refs):
        among = np.fromiter(store, np.int64, len(store))
        places = np.flatnonzero(np.isin(refs, among))
        pairs = zip(places.tolist(), refs[places].tolist(), strict=True)
    else:
        pairs = zip(range(len(refs)), refs.tolist(), strict=True)
    for place, ref in pairs:
        series = store.get(ref)
        if series is not None:
            lo, hi = series.span(start_ms, end_ms)
            if lo < hi:
                spans[place] = (lo, hi)
    return spans


def _clean(parts: list[_Part]) -> tuple[Bools, Bools]:
    """Which series stand in these parts, and which of them without a gap or marker."""
    member = np.zeros(len(parts[0].cols), np.bool_)
    clean = np.ones(len(parts[0].cols), np.bool_)
    for part in parts:
        here = part.cols >= 0
        member |= here
        clean &= here
        clean &= part.chunk.clean_from[part.cols] <= part.lo
    return member, clean


def _grid(parts: list[_Part], clean: Bools) -> ChunkGrid:
    whole = bool(clean.all())
    index: Index = slice(0, len(clean)) if whole else np.flatnonzero(clean)
    return ChunkGrid(index, int(np.count_nonzero(clean)), [_Run.of(part, index) for part in parts])


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """The columns of a grid in one chunk. `events` are falls as (row of the part, column, amount)."""

    part: _Part
    where: Index
    events: tuple[Int64s, Int64s, Float64s]
    tracked: Bools

    @classmethod
    def of(cls, part: _Part, index: Index) -> _Run:
        """Made under the head's lock: the chunk is asked for its falls."""
        rows, at, amounts = part.chunk.events()
        if isinstance(index, slice):
            where, cols = part.placed.where, part.cols
        else:
            cols = part.cols[index]
            where = _together(cols)
        return cls(part, where, (rows - part.lo, at, amounts), part.chunk.tracked[cols])

    @property
    def count(self) -> int:
        """Rows."""
        return len(self.part.ts_ms)

    @property
    def values(self) -> Float64s:
        """The rows of all columns of the chunk."""
        return self.part.values

    def cut(self, first: int, last: int) -> _Run:
        """The columns [first, last) of these."""
        where = part_of(self.where, first, last)
        return _Run(self.part, where, self.events, self.tracked[first:last])


class ChunkGrid:
    """A grid over the chunks of a block."""

    __slots__ = ("_index", "_runs", "_starts", "_ts_ms", "_width")

    def __init__(self, index: Index, width: int, runs: list[_Run]) -> None:
        self._index = index
        self._width = width
        self._runs = runs
        times = [run.part.ts_ms for run in runs]
        self._ts_ms = times[0] if len(times) == 1 else np.concatenate(times)
        self._starts = np.cumsum([0, *[run.count for run in runs]])

    @property
    def index(self) -> Index:
        """Position of each column in the series set."""
        return self._index

    @property
    def width(self) -> int:
        """C."""
        return self._width

    @property
    def ts_ms(self) -> Int64s:
        """int64 (N,), ascending."""
        return self._ts_ms

    def rows(self, which: Int64s) -> Float64s:
        """Values (len(which), C)."""
        out = np.empty((len(which), self._width))
        runs = np.searchsorted(self._starts, which, "right") - 1
        for place, (row, run) in enumerate(zip(which.tolist(), runs.tolist(), strict=True)):
            source = self._runs[run]
            cells = source.values[row - int(self._starts[run])]
            if isinstance(source.where, slice):
                out[place] = cells[source.where]
            else:
                cells.take(source.where, out=out[place], mode="clip")
        return out

    def span(self, lo: int, hi: int) -> Float64s:
        """Values (hi - lo, C); a view where the columns stand together in one chunk."""
        pieces = [
            (run, max(lo - start, 0), min(hi - start, run.count))
            for start, run in zip(self._starts.tolist(), self._runs, strict=False)
            if lo < start + run.count and hi > start
        ]
        if len(pieces) == 1:
            run, first, last = pieces[0]
            if isinstance(run.where, slice):
                return run.values[first:last, run.where]
        out = np.empty((hi - lo, self._width))
        place = 0
        for run, first, last in pieces:
            cells, into = run.values[first:last], out[place : place + last - first]
            if isinstance(run.where, slice):
                into[:] = cells[:, run.where]
            else:
                cells.take(run.where, axis=1, out=into, mode="clip")
            place += last - first
        return out

    def part(self, first: int, last: int) -> ChunkGrid:
        """The grid of the columns [first, last)."""
        runs = [run.cut(first, last) for run in self._runs]
        return ChunkGrid(part_of(self._index, first, last), last - first, runs)

    def resets(self, lo: int, hi: int) -> Resets:
        """Falls at rows lo < row < hi: those noted at ingest, and those of columns not tracked."""
        rows, cols, amounts = [], [], []
        untracked = np.zeros(self._width, np.bool_)
        for run in self._runs:
            untracked |= ~run.tracked
        # Position in the selection -> column of this grid; the last entry stands for "not selected".
        places = np.full(len(self._runs[0].part.cols) + 1, -1, np.intp)
        places[self._index] = np.arange(self._width)
        places[-1] = -1
        for start, run in zip(self._starts.tolist(), self._runs, strict=False):
            first, last = np.searchsorted(run.events[0], [max(lo + 1 - start, 0), min(hi - start, run.count)])
            if first >= last:
                continue
            mine = places[run.part.placed.inverse[run.events[1][first:last]]]
            keep = mine >= 0
            keep &= ~untracked[mine]
            if bool(keep.any()):
                rows.append(run.events[0][first:last][keep] + start)
                cols.append(mine[keep])
                amounts.append(run.events[2][first:last][keep])
        if bool(untracked.any()):
            which = np.flatnonzero(untracked)
            found = find_resets(self.span(lo, hi)[:, which])
            rows.append(found.rows + lo)
            cols.append(which[found.cols])
            amounts.append(found.amounts)
        if not rows:
            return Resets(np.zeros(0, np.int64), np.zeros(0, np.intp), np.zeros(0))
        all_rows, all_cols, all_amounts = np.concatenate(rows), np.concatenate(cols), np.concatenate(amounts)
        order = np.argsort(all_rows, kind="stable")
        return Resets(all_rows[order], all_cols[order], all_amounts[order])


def _gather(places: Ints, found: list[list[_Part]], loose: _LooseSamples) -> Ragged:
    """Flat columns of the series at `places`, whatever stores their samples stand in."""
    owners, times, values = [], [], []
    for parts in found:
        for part in parts:
            cols = part.cols[places]
            there = np.flatnonzero(cols >= 0)
            if not len(there):
                continue
            cells = part.values.take(cols[there], axis=1).T
            column, row = np.nonzero(np.ascontiguousarray(cells).view(np.uint64) != ABSENT_BITS)
            owners.append(there[column])
            times.append(part.ts_ms[row])
            values.append(cells[column, row])
    for order, place in enumerate(places.tolist()) if loose else ():
        known = loose.get(place)
        if known is not None:
            owners.append(np.full(len(known[0]), order, np.intp))
            times.append(known[0])
            values.append(known[1])
    if not owners:
        return Ragged(places, np.zeros(len(places) + 1, np.int64), np.zeros(0, np.int64), np.zeros(0))
    owner, ts, value = np.concatenate(owners), np.concatenate(times), np.concatenate(values)
    if len(owners) > 1:
        order_ = np.lexsort((ts, owner))
        owner, ts, value = owner[order_], ts[order_], value[order_]
    offsets = np.searchsorted(owner, np.arange(len(places) + 1))
    return Ragged(places, offsets, ts, value)
