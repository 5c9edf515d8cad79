from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.db.chunk_codec import MAX_SAMPLES, RAW, SAME, decode, encode, same
from exporter.model.staleness import STALE_NAN, stale_mask

START = 1_772_366_400_000_000
STEP = 15_000_000


def regular(count: int) -> np.ndarray:
    return START + STEP * np.arange(count, dtype=np.int64)


@settings(max_examples=150)
@given(
    st.lists(st.integers(1, 2**40), min_size=1, max_size=40),
    st.lists(
        st.one_of(
            st.floats(width=64),
            st.integers(-(2**60), 2**60).map(float),
            st.decimals(-10_000, 10_000, places=3).map(float),
            st.sampled_from([0.0, -0.0, float("inf"), STALE_NAN]),
        ),
        min_size=40,
        max_size=40,
    ),
)
def test_whatever_goes_in_comes_out_bit_by_bit(gaps: list[int], values: list[float]) -> None:
    """Any ascending times and any float64, NaN bits and negative zeros included."""
    ts = START + np.cumsum(np.array(gaps, np.int64))
    column = np.array(values[: len(gaps)], np.float64)
    assert same(ts, column, encode(ts, column))


@pytest.mark.parametrize("spread", [1, 3, 12, 200, 60_000, 10**7, 10**9, 10**12, 10**14])
def test_steps_of_every_width(spread: int) -> None:
    """Counters whose steps take one bit and counters whose steps take seven bytes."""
    rng = np.random.default_rng(spread)
    values = np.cumsum(rng.integers(0, spread + 1, 300)).astype(float)
    assert same(regular(300), values, encode(regular(300), values))


def test_regular_times_take_no_bytes_and_equal_values_neither() -> None:
    """A start and a step are all there is to a regular series; one value to a constant one."""
    [chunk] = encode(regular(5760), np.full(5760, 1 / 3))
    assert (chunk.times.data, chunk.values.data, chunk.divisor) == (None, None, SAME)
    assert chunk.end_us == START + STEP * 5759


def test_prices_are_integers_over_a_power_of_ten() -> None:
    """What has two decimals is kept as steps of cents."""
    rng = np.random.default_rng(2)
    cents = 6_723_451 + np.cumsum(rng.integers(-300, 300, 5760))
    [chunk] = encode(regular(5760), cents / 100)
    assert (chunk.divisor, chunk.values.width) == (100, 16)


def test_a_marker_does_not_spoil_its_series() -> None:
    """Odd values stand beside the steps, their bits kept; what is odd throughout is kept as bytes."""
    values = np.arange(100.0)
    values[[0, 50, 99]] = STALE_NAN, np.inf, STALE_NAN
    [chunk] = encode(regular(100), values)
    assert chunk.divisor == 1
    assert chunk.odd_at == (0, 50, 99)
    assert np.flatnonzero(stale_mask(decode(chunk)[1])).tolist() == [0, 99]
    [raw] = encode(regular(100), np.random.default_rng(3).random(100))
    assert raw.divisor == RAW


def test_long_series_are_cut() -> None:
    """A day at one second takes several chunks, none larger than the bound."""
    ts = START + 1_000_000 * np.arange(86_400, dtype=np.int64)
    values = np.arange(86_400.0)
    chunks = encode(ts, values)
    assert max(chunk.n for chunk in chunks) == MAX_SAMPLES
    assert same(ts, values, chunks)


def test_no_samples_make_no_chunk() -> None:
    """An empty series has no row."""
    assert encode(np.zeros(0, np.int64), np.zeros(0)) == []
