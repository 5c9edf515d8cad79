"""Chunks as rows of quantum_chunks, and five minutes in one number each. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from exporter.db.chunk_codec import EXACT, Chunk, Steps, decimal_divisor, decode, encode
from exporter.model.rollups import ROLLUP_MS
from exporter.model.samples import Float64s, Int64s
from exporter.model.staleness import stale_mask

COLUMNS: Final = (
    "start_ts", "end_ts", "series_id", "n", "t_step", "t_unit", "t_width", "t_data",
    "v_base", "v_step", "v_unit", "v_width", "v_data", "divisor", "odd_at", "odd",
)  # fmt: skip
MINIMUM, MAXIMUM, TOTAL, NUMBER, LAST = range(1, 6)  # `stat` of quantum_rollups
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_ROLLUP_US: Final = ROLLUP_MS * 1000


def to_row(series_id: int, chunk: Chunk) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    times, values = chunk.times, chunk.values
    return (
        _EPOCH + _US * times.base, _EPOCH + _US * chunk.end_us, series_id, chunk.n,
        times.step, times.unit, times.width, times.data,
        values.base, values.step, values.unit, values.width, values.data, chunk.divisor,
        list(chunk.odd_at) or None, list(chunk.odd) or None,
    )  # fmt: skip


def from_row(row: Sequence[Any]) -> Chunk:
    """The chunk of a row that begins with COLUMNS."""
    start, end, _, n, t_step, t_unit, t_width, t_data = row[0:8]
    v_base, v_step, v_unit, v_width, v_data, divisor, odd_at, odd = row[8:16]
    return Chunk(
        n,
        Steps((start - _EPOCH) // _US, t_step, t_unit, t_width, t_data),
        (end - _EPOCH) // _US,
        Steps(v_base, v_step, v_unit, v_width, v_data),
        divisor,
        tuple(odd_at or ()),
        tuple(odd or ()),
    )


def unpacked(rows: Sequence[Sequence[Any]]) -> tuple[Int64s, Int64s, Float64s]:
    """Series ids, times in microseconds and values of many rows, one after the other."""
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64)
    parts = [decode(from_row(row)) for row in rows]
    ids = np.repeat([row[2] for row in rows], [row[3] for row in rows]).astype(np.int64)
    return ids, np.concatenate([ts for ts, _ in parts]), np.concatenate([values for _, values in parts])


def rollups(series_id: int, ts_us: Int64s, values: Float64s) -> list[tuple[Any, ...]]:
    """The rows of quantum_rollups of one series and day: COLUMNS and `stat`, times where five minutes begin.

    Staleness markers are no values; a NaN counts, makes the sum NaN, and is minimum only among NaNs. Sums of
    decimals are those decimals' sum: 0.1 and 0.2 are 0.3, which fits in a third of the bytes too.
    """
    there = ~stale_mask(values)
    ts_us, values = ts_us[there], values[there]
    if not len(ts_us):
        return []
    slots = ts_us // _ROLLUP_US
    firsts = np.concatenate([[0], np.flatnonzero(np.diff(slots)) + 1])
    ends = np.append(firsts[1:], len(slots))
    begin = slots[firsts] * _ROLLUP_US
    columns = {
        MINIMUM: np.fmin.reduceat(values, firsts),
        MAXIMUM: np.fmax.reduceat(values, firsts),
        TOTAL: _sums(values, firsts),
        NUMBER: (ends - firsts).astype(np.float64),
        LAST: values[ends - 1],
    }
    return [
        (*to_row(series_id, chunk), stat)
        for stat, column in columns.items()
        for chunk in encode(begin, np.ascontiguousarray(column))
    ]


def _sums(values: Float64s, firsts: Int64s) -> Float64s:
    """The sum from each of `firsts` to the next."""
    divisor = decimal_divisor(values)
    if divisor is not None:
        with np.errstate(invalid="ignore"):  # infinities of both signs
            whole = np.add.reduceat(np.rint(values * divisor), firsts)
        if not bool((np.abs(whole) >= EXACT).any()):
            exact: Float64s = whole / divisor
            return exact
    with np.errstate(invalid="ignore"):
        sums: Float64s = np.add.reduceat(values, firsts)
    return sums
