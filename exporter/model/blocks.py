"""Blocks cut and joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.model.labels import LabelSet
from exporter.model.samples import Float64s, Int64s, SeriesBlock


def cut(block: SeriesBlock, start_ms: int, end_ms: int) -> SeriesBlock:
    """The samples with start_ms <= ts <= end_ms; series without any are left out."""
    keep = (block.ts_ms >= start_ms) & (block.ts_ms <= end_ms)
    if bool(keep.all()):
        return block
    before = np.concatenate([[0], np.cumsum(keep)])
    counts = np.diff(before[block.offsets])
    return _without_empty(block.labels, counts, block.ts_ms[keep], block.values[keep])


def join_blocks(older: SeriesBlock, newer: SeriesBlock) -> SeriesBlock:
    """The samples of both, series in label order; no series has two samples of one time among them."""
    if not len(newer.labels):
        return older
    if not len(older.labels):
        return newer
    labels = sorted({*older.labels, *newer.labels}, key=lambda one: one.pairs)
    place = {one: at for at, one in enumerate(labels)}
    ranks = []
    for block in (older, newer):
        rank = np.array([place[one] for one in block.labels], np.int64)
        ranks.append(np.repeat(rank, np.diff(block.offsets)))
    rank = np.concatenate(ranks)
    ts_ms = np.concatenate([older.ts_ms, newer.ts_ms])
    values = np.concatenate([older.values, newer.values])
    if older.ts_ms.max() < newer.ts_ms.min():
        order = np.argsort(rank, kind="stable")  # stable: the older samples of a series stay in front
    else:
        order = np.lexsort((ts_ms, rank))
    counts = np.bincount(rank, minlength=len(labels))
    return _without_empty(labels, counts, ts_ms[order], values[order])


def _without_empty(
    labels: Sequence[LabelSet], counts: Int64s, ts_ms: Int64s, values: Float64s
) -> SeriesBlock:
    kept = np.flatnonzero(counts)
    offsets = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(counts[kept], out=offsets[1:])
    return SeriesBlock(tuple([labels[at] for at in kept.tolist()]), offsets, ts_ms, values)
