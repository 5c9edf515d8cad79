from __future__ import annotations

import numpy as np
import pytest

from exporter.db.batch import CHUNK_BYTES, CopyEncoder, RowNumbers, SampleRows, gather
from exporter.model.staleness import STALE_NAN, STALE_NAN_BITS


def _numbers(*ids: int) -> RowNumbers:
    return RowNumbers.of(np.array(ids, np.int32))


def _rows(rows: SampleRows) -> list[tuple[int, int, float]]:
    return list(zip(rows.ids.tolist(), rows.ts_ms.tolist(), rows.values.tolist(), strict=True))


def test_row_numbers_ascend_and_leave_out_what_cannot_be_stored() -> None:
    """Negative ids are refused; the rest come in ascending order with their place in the batch."""
    numbers = _numbers(7, -1, 3, -1, 5)
    assert numbers.ids.tolist() == [3, 5, 7]
    assert numbers.order.tolist() == [2, 4, 0]
    assert numbers.refused == 2


def test_one_series_set_over_time_is_sorted_by_series_then_time() -> None:
    """Batches of the same series become runs of one series each, times ascending even if they came late."""
    numbers = _numbers(9, 4)
    rows = gather([(numbers, 2000, np.array([1.0, 2.0])), (numbers, 1000, np.array([3.0, 4.0]))])
    assert _rows(rows) == [(4, 1000, 4.0), (4, 2000, 2.0), (9, 1000, 3.0), (9, 2000, 1.0)]


def test_different_series_sets_are_merged_in_the_same_order() -> None:
    """The general case sorts as the common one does."""
    rows = gather([(_numbers(2, 1), 10, np.array([1.0, 2.0])), (_numbers(1, 3), 5, np.array([3.0, 4.0]))])
    assert _rows(rows) == [(1, 5, 3.0), (1, 10, 2.0), (2, 10, 1.0), (3, 5, 4.0)]


def test_nothing_gathers_to_nothing() -> None:
    """No batch, no row, no day."""
    rows = gather([])
    assert len(rows) == 0
    assert rows.days() == ()


@pytest.mark.parametrize(
    ("times", "days"),
    [
        ([86_399_999], (0,)),
        ([86_400_000], (1,)),
        ([86_399_999, 86_400_000], (0, 1)),
        ([0, 10 * 86_400_000], (0, 10)),
    ],
)
def test_days_are_utc_days_without_the_gaps(times: list[int], days: tuple[int, ...]) -> None:
    """A row belongs to the UTC day of its time; days between two rows are not named."""
    ts = np.array(times, np.int64)
    assert SampleRows(np.zeros(len(ts), np.int32), ts, np.zeros(len(ts))).days() == days


def test_encoding_follows_the_copy_format_and_keeps_bits() -> None:
    """Header, a 34-byte row of three fields for each sample, trailer; a staleness marker keeps its bits."""
    rows = SampleRows(np.array([7], np.int32), np.array([946_684_801_000], np.int64), np.array([STALE_NAN]))
    data = CopyEncoder().encode(rows)
    raw = b"".join(data)
    assert len(raw) == len(data)
    assert raw[:19] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    assert raw[-2:] == b"\xff\xff"
    body = raw[19:-2]
    assert body == (
        (3).to_bytes(2, "big")
        + (8).to_bytes(4, "big")
        + (1_000_000).to_bytes(8, "big")
        + (4).to_bytes(4, "big")
        + (7).to_bytes(4, "big")
        + (8).to_bytes(4, "big")
        + STALE_NAN_BITS.to_bytes(8, "big")
    )


def test_encoder_is_used_again_and_hands_out_bounded_chunks() -> None:
    """A smaller batch after a larger one holds no row of it; no chunk is larger than the bound."""
    encoder = CopyEncoder()
    large = SampleRows(np.arange(9000, dtype=np.int32), np.zeros(9000, np.int64), np.zeros(9000))
    assert max(map(len, encoder.encode(large))) <= CHUNK_BYTES
    small = SampleRows(np.array([1], np.int32), np.array([0], np.int64), np.array([2.5]))
    assert len(b"".join(encoder.encode(small))) == 19 + 34 + 2
