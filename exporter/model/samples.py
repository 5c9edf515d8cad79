"""Samples in columns: the shapes in which they travel between observation, head, rules and Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.model.labels import LabelSet

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series at one time (Unix milliseconds)."""

    labels: LabelSet
    ts_ms: int
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class SampleBatch:
    """Samples of many series at one time: what a snapshot, a scrape or a rule evaluation yields.

    `labels` has length S and no repeats; `values` is float64 (S,). Staleness markers are ordinary entries.
    A producer that yields the same series each time passes the *same* `labels` tuple object again, so that
    consumers can key their prepared row numbers on its identity.
    """

    ts_ms: int
    labels: tuple[LabelSet, ...]
    values: Float64s

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesBlock:
    """Samples of many series in one range: series s owns `offsets[s]:offsets[s + 1]` of the columns.

    `labels` (S,), `offsets` int64 (S + 1,), `ts_ms` int64 (N,) ascending inside a series, `values`
    float64 (N,). Staleness markers are kept. Readers must not change the arrays.
    """

    labels: Sequence[LabelSet]
    offsets: Int64s
    ts_ms: Int64s
    values: Float64s

    @classmethod
    def empty(cls) -> SeriesBlock:
        """A block of no series."""
        return cls((), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))

    @classmethod
    def of(cls, series: Sequence[tuple[LabelSet, Sequence[tuple[int, float]]]]) -> SeriesBlock:
        """A block from (labels, [(ts_ms, value), ...]) pairs; for tests and small reads."""
        counts = [len(points) for _, points in series]
        offsets = np.zeros(len(series) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        flat = [point for _, points in series for point in points]
        return cls(
            tuple(labels for labels, _ in series),
            offsets,
            np.array([ts for ts, _ in flat], np.int64),
            np.array([value for _, value in flat], np.float64),
        )
