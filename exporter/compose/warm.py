"""Fills the head from Postgres at the start, so that rules over an hour do not begin with an empty window."""

from __future__ import annotations

import asyncio
import logging

import numpy as np

from exporter.db.history import History
from exporter.errors import QueryError, StorageError
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch, SeriesBlock
from exporter.storage import MemoryStorage

log = logging.getLogger(__name__)
_SLICE_MS = 3_600_000
_MAX_SAMPLES = 5_000_000  # some seconds of reading
_GAP_MS = 120_000  # a longer pause than this leaves windows with a hole


async def warm_head(storage: MemoryStorage, history: History, now_ms: int, window_ms: int) -> int:
    """Load the newest stored samples, hour by hour backwards, up to the window or five million samples.

    Returns: the time from which on the head is complete; `now_ms` where nothing was loaded or the
    exporter was away for over two minutes. A store that cannot be read leaves the head as it is.
    """
    slices: list[SeriesBlock] = []
    left = _MAX_SAMPLES
    start_ms = end_ms = now_ms
    try:
        while start_ms > now_ms - window_ms and left > 0:
            end_ms, start_ms = start_ms, max(start_ms - _SLICE_MS, now_ms - window_ms)
            block = await history.read([], start_ms + 1, end_ms, max_samples=left)
            if not len(block.ts_ms):
                break
            slices.append(block)
            left -= len(block.ts_ms)
    except (StorageError, QueryError) as error:
        if not isinstance(error, QueryError):
            log.warning("the head starts empty, stored samples cannot be read: %s", error)
    if not slices:
        return now_ms
    await asyncio.to_thread(_load, storage, slices[::-1])
    oldest = min(int(block.ts_ms.min()) for block in slices)
    newest = int(slices[0].ts_ms.max())
    log.info("loaded %d stored samples into the head", _MAX_SAMPLES - left)
    return oldest if now_ms - newest <= _GAP_MS else now_ms


def _load(storage: MemoryStorage, blocks: list[SeriesBlock]) -> None:
    """Append blocks, oldest first, as one batch for each time."""
    for block in blocks:
        rows = np.repeat(np.arange(len(block.labels)), np.diff(block.offsets))
        order = np.lexsort((rows, block.ts_ms))
        ts_ms, rows, values = block.ts_ms[order], rows[order], block.values[order]
        bounds = np.flatnonzero(np.diff(ts_ms)) + 1
        known: dict[bytes, tuple[LabelSet, ...]] = {}  # the same series again find their columns at once
        for lo, hi in zip([0, *bounds.tolist()], [*bounds.tolist(), len(ts_ms)], strict=True):
            key = rows[lo:hi].tobytes()
            if key not in known:
                known[key] = tuple(block.labels[row] for row in rows[lo:hi].tolist())
            storage.append_batch(SampleBatch(int(ts_ms[lo]), known[key], values[lo:hi]))
