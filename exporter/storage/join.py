"""One store out of two: samples read back from the long memory, and the head from its floor on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from exporter.model.labels import LabelSet, Matcher
from exporter.model.samples import Float64s, Int64s, SeriesBlock
from exporter.promql.source import Columns, columns_of
from exporter.storage.head import MemoryStorage

Matchers = tuple[Matcher, ...]


class JoinedSource:
    """What one store would give that held the samples of both.

    `history` holds, for each set of matchers, all samples that were stored in the range the query will
    read, up to the head's floor and somewhat beyond: while a query runs, the floor may rise.
    """

    def __init__(self, head: MemoryStorage, history: Mapping[Matchers, SeriesBlock]) -> None:
        self._head = head
        self._history = history

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        """Samples with start_ms <= ts <= end_ms of all series that satisfy every matcher, in label order."""
        older = self._history.get(tuple(matchers))
        floor_ms = self._head.floor_ms
        while True:
            newer = self._head.select(matchers, start_ms if floor_ms is None else floor_ms, end_ms)
            now_ms = self._head.floor_ms
            if now_ms == floor_ms:
                break
            floor_ms = now_ms  # truncated in between: what went stands in the history block
        if floor_ms is not None and start_ms > floor_ms:
            newer = cut(newer, start_ms, end_ms)
        if older is None:
            return newer
        return join_blocks(
            cut(older, start_ms, end_ms if floor_ms is None else min(end_ms, floor_ms - 1)), newer
        )

    def columns(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """As `select`; the head's columns as they lie where the history has nothing to add."""
        older = self._history.get(tuple(matchers))
        floor_ms = self._head.floor_ms
        if older is None or not len(older.ts_ms) or (floor_ms is not None and start_ms >= floor_ms):
            return self._head.columns(matchers, start_ms, end_ms)
        return columns_of(self.select(matchers, start_ms, end_ms))


def cut(block: SeriesBlock, start_ms: int, end_ms: int) -> SeriesBlock:
    """The samples with start_ms <= ts <= end_ms; series without any are left out."""
    keep = (block.ts_ms >= start_ms) & (block.ts_ms <= end_ms)
    if bool(keep.all()):
        return block
    before = np.concatenate([[0], np.cumsum(keep)])
    counts = np.diff(before[block.offsets])
    return _without_empty(block.labels, counts, block.ts_ms[keep], block.values[keep])


def join_blocks(older: SeriesBlock, newer: SeriesBlock) -> SeriesBlock:
    """The samples of both, series in label order; every sample of `older` lies before those of `newer`."""
    if not len(newer.labels):
        return older
    if not len(older.labels):
        return newer
    labels = sorted({*older.labels, *newer.labels}, key=lambda one: one.pairs)
    place = {one: at for at, one in enumerate(labels)}
    ranks, times, values = [], [], []
    for block in (older, newer):
        rank = np.array([place[one] for one in block.labels], np.int64)
        ranks.append(np.repeat(rank, np.diff(block.offsets)))
        times.append(block.ts_ms)
        values.append(block.values)
    rank = np.concatenate(ranks)
    order = np.argsort(rank, kind="stable")  # stable: the older samples of a series stay in front
    counts = np.bincount(rank, minlength=len(labels))
    return _without_empty(labels, counts, np.concatenate(times)[order], np.concatenate(values)[order])


def _without_empty(
    labels: Sequence[LabelSet], counts: Int64s, ts_ms: Int64s, values: Float64s
) -> SeriesBlock:
    kept = np.flatnonzero(counts)
    offsets = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(counts[kept], out=offsets[1:])
    return SeriesBlock(tuple([labels[at] for at in kept.tolist()]), offsets, ts_ms, values)
