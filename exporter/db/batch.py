"""Samples as rows of a binary COPY: gathered from batches, sorted, encoded by numpy. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from exporter.model.samples import Float64s, Int64s

Int32s = npt.NDArray[np.int32]
Indices = npt.NDArray[np.intp]

MAX_ROWS: Final = 100_000  # rows of one COPY: larger ones are no faster
LINGER_S: Final = 0.1  # how long a batch waits for others of the same moment (snapshot, then rule results)
CHUNK_BYTES: Final = 1 << 17  # handed to the socket at a time, so that the event loop breathes in between

_PG_EPOCH_MS: Final = 946_684_800_000  # 2000-01-01, where timestamptz counts from
_DAY_MS: Final = 86_400_000
_ROW: Final = np.dtype(
    [
        ("fields", ">i2"),
        ("ts_length", ">i4"),
        ("ts", ">i8"),
        ("id_length", ">i4"),
        ("id", ">i4"),
        ("value_length", ">i4"),
        ("value", ">u8"),  # the bits of a float8: a staleness marker must not pass through arithmetic
    ]
)
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"


@dataclass(frozen=True, slots=True, eq=False)
class RowNumbers:
    """Where the series of one `labels` tuple go: `order` picks its storable series so that `ids` ascend.

    `ids` int32 (K,), `order` intp (K,), K <= S; `refused` = S - K series that the database cannot hold.
    """

    ids: Int32s
    order: Indices
    refused: int = 0

    @classmethod
    def of(cls, ids: Int32s) -> RowNumbers:
        """From the ids of all S series in order; a negative id marks one that cannot be stored."""
        order = np.argsort(ids, kind="stable")
        refused = int(np.count_nonzero(ids < 0))
        order = order[refused:]
        return cls(np.ascontiguousarray(ids[order]), order, refused)


@dataclass(frozen=True, slots=True, eq=False)
class SampleRows:
    """Rows sorted by series, then time: `ids` int32, `ts_ms` int64, `values` float64, all (N,)."""

    ids: Int32s
    ts_ms: Int64s
    values: Float64s

    def __len__(self) -> int:
        return len(self.ids)

    def days(self) -> tuple[int, ...]:
        """The UTC days that the rows fall into, as days since 1970-01-01, ascending."""
        if not len(self.ts_ms):
            return ()
        lo, hi = int(self.ts_ms.min()) // _DAY_MS, int(self.ts_ms.max()) // _DAY_MS
        if hi - lo < 2:
            return tuple(range(lo, hi + 1))
        return tuple(np.unique(self.ts_ms // _DAY_MS).tolist())


def gather(parts: Sequence[tuple[RowNumbers, int, Float64s]]) -> SampleRows:
    """Rows of several batches, each as (row numbers, ts_ms, values (S,)), sorted by series and time.

    Sorted because neighbours in the primary key then land on the same index pages, and because two writers
    that insert in one order cannot deadlock.
    """
    if not parts:
        return SampleRows(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float64))
    first = parts[0][0]
    if all(numbers is first for numbers, _, _ in parts):
        times = np.array([ts_ms for _, ts_ms, _ in parts], np.int64)
        columns = np.stack([values[first.order] for _, _, values in parts], axis=1)  # (K, T)
        if np.any(times[1:] < times[:-1]):
            by_time = np.argsort(times, kind="stable")
            times, columns = times[by_time], columns[:, by_time]
        return SampleRows(
            np.repeat(first.ids, len(times)),
            np.tile(times, len(first.ids)),
            np.ascontiguousarray(columns).ravel(),
        )
    ids = np.concatenate([numbers.ids for numbers, _, _ in parts])
    ts = np.concatenate([np.full(len(numbers.ids), ts_ms, np.int64) for numbers, ts_ms, _ in parts])
    values = np.concatenate([values[numbers.order] for numbers, _, values in parts])
    order = np.lexsort((ts, ids))
    return SampleRows(ids[order], ts[order], values[order])


class CopyEncoder:
    """Encodes rows (ts, series_id, value) for COPY ... WITH (FORMAT binary), in one buffer used again.

    The parts of a row that never change (field count and lengths) are written once, when the buffer grows.
    """

    def __init__(self) -> None:
        self._rows = np.zeros(0, _ROW)

    def encode(self, rows: SampleRows) -> CopyData:
        """The encoded rows; valid until the next `encode`."""
        count = len(rows)
        if len(self._rows) < count:
            self._rows = np.zeros(max(count, 1024), _ROW)
            self._rows["fields"] = 3
            self._rows["ts_length"], self._rows["id_length"], self._rows["value_length"] = 8, 4, 8
        out = self._rows[:count]
        out["ts"] = (rows.ts_ms - _PG_EPOCH_MS) * 1000
        out["id"] = rows.ids
        out["value"] = rows.values.view(np.uint64)
        return CopyData(out.view(np.uint8).data)


@dataclass(frozen=True, slots=True)
class CopyData:
    """The bytes of one COPY, in parts."""

    rows: memoryview

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield _HEADER
        for lo in range(0, len(self.rows), CHUNK_BYTES):
            yield self.rows[lo : lo + CHUNK_BYTES]
        yield _TRAILER

    def __len__(self) -> int:
        return len(_HEADER) + len(self.rows) + len(_TRAILER)
