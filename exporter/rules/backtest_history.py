"""Stored samples on their way into a backtest: the port they come through, and how they enter its head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from exporter.model.labels import LabelSet
from exporter.model.samples import Float64s, Int64s, SampleBatch, SeriesBlock
from exporter.storage import MemoryStorage


class StoredSamples(Protocol):
    """The history of the series that the rules of a backtest may read."""

    def read(self, start_ms: int, end_ms: int) -> SeriesBlock:
        """All samples with start_ms <= ts <= end_ms. Asked for stretch after stretch, in order of time."""


class SamplesInMemory:
    """History that was read as a whole: runs of one series each, in any order of series.

    Series may share one array of times. A series that comes in several runs is put together; a time that
    comes again keeps its first value.
    """

    def __init__(self, runs: Iterable[tuple[LabelSet, Int64s, Float64s]]) -> None:
        parts: dict[LabelSet, list[tuple[Int64s, Float64s]]] = {}
        for labels, ts_ms, values in runs:
            parts.setdefault(labels, []).append((ts_ms, values))
        times: dict[bytes, Int64s] = {}
        self._series: list[tuple[LabelSet, Int64s, Float64s]] = []
        self.first_ms, self.last_ms = 0, 0
        for labels in sorted(parts):
            ts_ms, values = _joined(parts.pop(labels))
            if not len(ts_ms):
                continue
            self._series.append((labels, times.setdefault(ts_ms.tobytes(), ts_ms), values))
            self.first_ms = min(self.first_ms or int(ts_ms[0]), int(ts_ms[0]))
            self.last_ms = max(self.last_ms, int(ts_ms[-1]))

    def __len__(self) -> int:
        """How many series there are."""
        return len(self._series)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(len(values) for _, _, values in self._series)

    def read(self, start_ms: int, end_ms: int) -> SeriesBlock:
        """All samples with start_ms <= ts <= end_ms, series in label order."""
        spans: dict[int, tuple[int, int]] = {}
        labels, times, values, counts = [], [], [], [0]
        for series, ts_ms, column in self._series:
            span = spans.get(id(ts_ms))
            if span is None:
                low, high = np.searchsorted(ts_ms, [start_ms, end_ms + 1]).tolist()
                span = spans[id(ts_ms)] = (low, high)
            low, high = span
            if low < high:
                labels.append(series)
                times.append(ts_ms[low:high])
                values.append(column[low:high])
                counts.append(high - low)
        if not labels:
            return SeriesBlock.empty()
        return SeriesBlock(
            tuple(labels), np.cumsum(counts, dtype=np.int64), np.concatenate(times), np.concatenate(values)
        )


def _joined(parts: list[tuple[Int64s, Float64s]]) -> tuple[Int64s, Float64s]:
    ts_ms = parts[0][0] if len(parts) == 1 else np.concatenate([ts for ts, _ in parts])
    values = parts[0][1] if len(parts) == 1 else np.concatenate([column for _, column in parts])
    if len(ts_ms) > 1 and not bool((ts_ms[1:] > ts_ms[:-1]).all()):
        ts_ms, first = np.unique(ts_ms, return_index=True)
        values = values[first]
    return ts_ms, values


class Feeder:
    """Puts blocks into a storage row by row, so that series that share their times share columns there."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage
        self._tuples: dict[tuple[LabelSet, ...], tuple[LabelSet, ...]] = {}

    def feed(self, block: SeriesBlock) -> None:
        """Append the samples of a block."""
        companions: dict[bytes, list[int]] = {}
        bounds = block.offsets.tolist()
        for place in range(len(block.labels)):
            stamp = block.ts_ms[bounds[place] : bounds[place + 1]].tobytes()
            companions.setdefault(stamp, []).append(place)
        rows: list[tuple[int, int, tuple[LabelSet, ...], Float64s]] = []
        for number, places in enumerate(companions.values()):
            labels = tuple([block.labels[place] for place in places])
            labels = self._tuples.setdefault(labels, labels)
            first = places[0]
            ts_ms = block.ts_ms[bounds[first] : bounds[first + 1]].tolist()
            columns = np.stack([block.values[bounds[place] : bounds[place + 1]] for place in places])
            cells = np.ascontiguousarray(columns.T)
            rows.extend((ts, number, labels, cells[row]) for row, ts in enumerate(ts_ms))
        if len(companions) > 1:
            rows.sort(key=lambda row: row[:2])
        for ts, _, labels, values in rows:
            self._storage.append_batch(SampleBatch(ts, labels, values))
