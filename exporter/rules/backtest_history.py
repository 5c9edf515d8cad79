"""Stored samples on their way into a backtest: the port they come through, and what its rules see of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from exporter.model.labels import LabelSet, Matcher
from exporter.model.samples import Float64s, Int64s, SeriesBlock
from exporter.promql.source import Columns, columns_of
from exporter.storage import MemoryStorage
from exporter.storage.stretch import StretchSource, joined


class StoredSamples(Protocol):
    """The history of the series that the rules of a backtest may read."""

    def read(self, start_ms: int, end_ms: int) -> SeriesBlock:
        """All samples with start_ms <= ts <= end_ms, series in label order.

        Asked for stretch after stretch, in order of time.
        """


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
        same: dict[int, tuple[Int64s, Int64s]] = {}  # by id: an array that was looked at, what stands for it
        self._series: list[tuple[LabelSet, Int64s, Float64s]] = []
        self.first_ms, self.last_ms = 0, 0
        for labels in sorted(parts):
            own = parts.pop(labels)
            known = same.get(id(own[0][0])) if len(own) == 1 else None
            if known is not None:
                self._series.append((labels, known[1], own[0][1]))
                continue
            ts_ms, values = _joined(own)
            if not len(ts_ms):
                continue
            kept = times.setdefault(ts_ms.tobytes(), ts_ms)
            if ts_ms is own[0][0]:
                same[id(ts_ms)] = ts_ms, kept
            self._series.append((labels, kept, values))
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


class Past:
    """What the rules of a backtest see: stored samples of the stretch they run through, and what they wrote.

    Where both have samples of a series, those written go on where the stored ones end.
    """

    def __init__(self) -> None:
        self.written = MemoryStorage()
        self.names: set[str] = set()  # of the metrics that were stored, in any stretch
        self._stored = StretchSource(SeriesBlock.empty())

    def move(self, block: SeriesBlock, from_ms: int) -> None:
        """Take on the samples of the next stretch; forget what lies before `from_ms`."""
        self._stored = StretchSource(joined(self._stored.block, block, from_ms), self._stored)
        self.written.truncate(from_ms)
        self.names.update(labels.name for labels in block.labels)

    def columns(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """As the engine's port says."""
        written = self.written.columns(matchers, start_ms, end_ms)
        if not len(written.series):
            return self._stored.columns(matchers, start_ms, end_ms)
        stored = self._stored.columns(matchers, start_ms, end_ms)
        return columns_of(self.select(matchers, start_ms, end_ms)) if len(stored.series) else written

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        """As the engine's port says."""
        stored = self._stored.select(matchers, start_ms, end_ms)
        return joined(stored, self.written.select(matchers, start_ms, end_ms), start_ms)
