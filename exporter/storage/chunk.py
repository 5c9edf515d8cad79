"""Chunks of a block: rows of samples at one time each, columns of series, and what is known of the columns.

Time-major, so that a snapshot is one row copy and a rate over all series is two row look-ups. A cell
without a sample holds `ABSENT_BITS`, a NaN that no source produces; a staleness marker keeps its bits.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from exporter.model.samples import Float64s, Int64s
from exporter.model.staleness import STALE_NAN_BITS

ABSENT_BITS = 0x7FFC5155414E5455
ABSENT: float = struct.unpack("<d", struct.pack("<Q", ABSENT_BITS))[0]

CHUNK_ROWS = 240  # one hour at 15 s; a truncation keeps at most one such chunk too much
FIRST_ROWS = 16
_TRIM_BYTES = 4 << 20  # a larger array is not copied to give back rows that were never touched
_MAX_RESETS = 3  # a column that falls more often in about a chunk's time is no counter: not tracked

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


class Layout:
    """Which series stand in which column. Columns are added at the end, never moved."""

    __slots__ = ("_table", "_table_version", "capacity", "count", "refs", "version")

    def __init__(self, refs: Int64s) -> None:
        self.count = len(refs)
        self.capacity = self.count + max(8, self.count // 32)  # room for series born later
        self.refs: Int64s = np.full(self.capacity, -1, np.int64)
        self.refs[: self.count] = refs
        self.version = 0
        self._table: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._table_version = -1

    @property
    def spare(self) -> int:
        """Columns that can still be added."""
        return self.capacity - self.count

    def extend(self, refs: Int64s) -> None:
        """Give columns to series; the caller has checked `spare`."""
        self.refs[self.count : self.count + len(refs)] = refs
        self.count += len(refs)
        self.version += 1

    def columns(self, refs: Int64s, size: int) -> Ints:
        """The column of each ref, -1 where it has none. `size` is above the greatest ref."""
        if self._table_version != self.version or len(self._table) < size:
            table = np.full(size, -1, np.int32)
            table[self.refs[: self.count]] = np.arange(self.count, dtype=np.int32)
            self._table, self._table_version = table, self.version
        return self._table[refs].astype(np.intp)


class Chunk:
    """Up to `capacity` rows under one layout. Rows are published by `count` after they are written.

    Rows lie in one array that is taken whole and never moved: the system gives memory to rows as they are
    written, and a reader keeps pointing at them.
    """

    __slots__ = (
        "_events",
        "_pending",
        "clean_from",
        "count",
        "falls",
        "first_ms",
        "last_ms",
        "layout",
        "samples",
        "tracked",
        "ts_ms",
        "values",
    )

    def __init__(self, layout: Layout, tracked: Bools, falls: npt.NDArray[np.uint8], rows: int) -> None:
        self.layout = layout
        self.count = 0
        self.samples = 0
        self.first_ms = 0  # times of the first and the newest row, once there is one
        self.last_ms = 0
        self.ts_ms: Int64s = np.empty(rows, np.int64)
        self.values: Float64s = np.empty((rows, layout.capacity), np.float64)
        # First row from which a column has had a sample in every row so far.
        self.clean_from: npt.NDArray[np.int32] = np.zeros(layout.capacity, np.int32)
        self.tracked = tracked
        self.falls = falls  # how often each column fell lately
        self._events: tuple[Int64s, Int64s, Float64s] = _NO_EVENTS
        self._pending: list[tuple[int, Ints, Float64s]] = []

    @property
    def is_full(self) -> bool:
        """Whether the next row needs a new chunk."""
        return self.count >= len(self.ts_ms)

    @property
    def nbytes(self) -> int:
        """Memory of the rows written, and of what is known of the columns, in bytes."""
        events = sum(part.nbytes for part in self._events)
        return (
            self.values[: self.count].nbytes
            + self.ts_ms.nbytes
            + self.clean_from.nbytes
            + 2 * self.falls.nbytes
            + events
        )

    def append(self, ts_ms: int, cols: Ints | None, values: Float64s, last: Float64s) -> None:
        """Write one row. `cols` None: values fill the columns in order. Updates `last` (newest values)."""
        row = self.count
        width = self.layout.count
        cells = self.values[row]
        if cols is None:
            cells[: len(values)] = values
            if len(values) < len(cells):
                cells[len(values) :] = ABSENT
        else:
            cells.fill(ABSENT)
            cells[cols] = values
        now = cells[:width]
        before = last[:width]
        nan = np.flatnonzero(now != now)
        fallen = np.flatnonzero(now < before)
        if len(fallen):
            self._note_falls(row, fallen, before[fallen])
        if len(nan):
            bits = now[nan].view(np.uint64)
            holes = nan[(bits == ABSENT_BITS) | (bits == STALE_NAN_BITS)]
            self.clean_from[holes] = row + 1
            kept = before[holes]
            before[:] = now
            before[holes] = kept
        else:
            before[:] = now
        if width < self.layout.capacity:
            self.clean_from[width:] = row + 1
        self.ts_ms[row] = self.last_ms = ts_ms
        if not row:
            self.first_ms = ts_ms
        self.samples += len(values)
        self.count = row + 1  # last: a reader that sees the count sees the row

    def join(self, row: int, cols: Ints, values: Float64s, last: Float64s) -> None:
        """Put first samples of new columns into a row that is there already."""
        self.values[row, cols] = values
        self.samples += len(values)
        last[cols] = values
        self.clean_from[cols] = row if row == self.count - 1 else self.count
        stale = values.view(np.uint64) == STALE_NAN_BITS
        self.clean_from[cols[stale]] = row + 1

    def events(self) -> tuple[Int64s, Int64s, Float64s]:
        """Falls of tracked columns as (rows, columns, value before), ordered by row."""
        if self._pending:
            rows = np.concatenate(
                [self._events[0], *[np.full(len(cols), row, np.int64) for row, cols, _ in self._pending]]
            )
            at = np.concatenate([self._events[1], *[cols for _, cols, _ in self._pending]])
            amounts = np.concatenate([self._events[2], *[before for _, _, before in self._pending]])
            keep = self.tracked[at]
            self._events = (rows[keep], at[keep], amounts[keep])
            self._pending = []
        return self._events

    def falls_after(self) -> npt.NDArray[np.uint8]:
        """The count of falls to go on with: halved after a chunk of full size."""
        return self.falls // np.uint8(2 if self.count >= CHUNK_ROWS else 1)

    def seal(self) -> None:
        """Give back what the rows and the falls no longer need."""
        self.events()
        if self.count < len(self.ts_ms) and self.values.nbytes <= _TRIM_BYTES:
            self.values = self.values[: self.count].copy()
            self.ts_ms = self.ts_ms[: self.count].copy()

    def _note_falls(self, row: int, cols: Ints, before: Float64s) -> None:
        tracked = self.tracked[cols]
        if not bool(tracked.all()):
            cols, before = cols[tracked], before[tracked]
            if not len(cols):
                return
        self.falls[cols] += 1
        often = cols[self.falls[cols] > _MAX_RESETS]
        if len(often):
            self.tracked[often] = False
        self._pending.append((row, cols, before))


_NO_EVENTS: tuple[Int64s, Int64s, Float64s] = (
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.float64),
)
