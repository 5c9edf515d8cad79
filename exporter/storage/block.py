"""A block: series that arrive together and so share one column of timestamps, as a run of chunks."""

from __future__ import annotations

import numpy as np

from exporter.model.samples import Float64s, Int64s
from exporter.storage.chunk import CHUNK_ROWS, FIRST_ROWS, Chunk, Ints, Layout


class Block:
    """Chunks oldest first; only the newest takes rows. Not locked: the head guards it."""

    __slots__ = ("_last", "chunks", "layout")

    def __init__(self, refs: Int64s) -> None:
        self.chunks: list[Chunk] = []
        self._start(Layout(refs), {})

    @property
    def newest(self) -> Chunk:
        """The chunk that takes rows."""
        return self.chunks[-1]

    @property
    def last_ms(self) -> int | None:
        """Time of the newest row; None while there is none."""
        for chunk in reversed(self.chunks):
            if chunk.count:
                return chunk.last_ms
        return None

    def cover(self, refs: Int64s, size: int, newest_ms: Int64s) -> Ints:
        """The column of each ref, giving columns to those that have none.

        `newest_ms` holds the newest sample's time of every ref: series without a sample in the newest
        chunk lose their column when the layout is laid out anew.
        """
        if self.newest.is_full:
            self._roll(newest_ms)
        cols = self.layout.columns(refs, size)
        missing = refs[cols < 0]
        if len(missing):
            if len(missing) > self.layout.spare:
                self._relay(missing, newest_ms)
            else:
                self.layout.extend(missing)
            cols = self.layout.columns(refs, size)
        return cols

    def roll_if_full(self, newest_ms: Int64s) -> None:
        """Start the next chunk where the newest is full."""
        if self.newest.is_full:
            self._roll(newest_ms)

    def append(self, ts_ms: int, cols: Ints | None, values: Float64s) -> None:
        """Write one row; `cols` None: values fill the columns in order."""
        self.newest.append(ts_ms, cols, values, self._last)

    def join(self, ts_ms: int, cols: Ints, values: Float64s) -> bool:
        """Put first samples of columns into the row of that time; False where there is no such row."""
        chunk = self.newest
        row = int(np.searchsorted(chunk.ts_ms[: chunk.count], ts_ms))
        if row >= chunk.count or chunk.ts_ms[row] != ts_ms:
            return False
        chunk.join(row, cols, values, self._last)
        return True

    def truncate(self, before_ms: int) -> int:
        """Drop chunks that end before a time; returns how many samples went."""
        gone = 0
        while len(self.chunks) > 1 and self.chunks[0].last_ms < before_ms:
            gone += self.chunks.pop(0).samples
        return gone

    def _roll(self, newest_ms: Int64s) -> None:
        sealed = self.newest
        refs = self.layout.refs[: self.layout.count]
        alive = newest_ms[refs] >= sealed.first_ms
        if bool(alive.all()):
            sealed.seal()
            self.chunks.append(
                Chunk(self.layout, sealed.tracked.copy(), sealed.falls_after(), self._next_rows())
            )
        else:
            self._relay(np.zeros(0, np.int64), newest_ms)

    def _relay(self, born: Int64s, newest_ms: Int64s) -> None:
        """A new layout: the living columns and the born ones; starts a new chunk."""
        sealed = self.newest
        refs = self.layout.refs[: self.layout.count]
        if sealed.count:
            keep = np.flatnonzero(newest_ms[refs] >= sealed.first_ms)
        else:
            keep = np.arange(len(refs))
        layout = Layout(np.concatenate([refs[keep], born]))
        known = {
            "last": self._last[keep],
            "tracked": sealed.tracked[keep],
            "falls": sealed.falls_after()[keep],
        }
        if sealed.count:
            sealed.seal()
        else:
            self.chunks.pop()
        self._start(layout, known)

    def _start(self, layout: Layout, known: dict[str, np.ndarray]) -> None:
        self.layout = layout
        self._last: Float64s = np.full(layout.capacity, np.nan)
        tracked = np.ones(layout.capacity, np.bool_)
        falls = np.zeros(layout.capacity, np.uint8)
        for name, into in (("last", self._last), ("tracked", tracked), ("falls", falls)):
            if name in known:
                into[: len(known[name])] = known[name]
        self.chunks.append(Chunk(layout, tracked, falls, self._next_rows()))

    def _next_rows(self) -> int:
        """Rows of the next chunk: a quarter of those there are, so that little stands unused."""
        return min(CHUNK_ROWS, max(FIRST_ROWS, sum(chunk.count for chunk in self.chunks) // 4))
