"""Five minutes in one number each, as packing computes them."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporter.db.chunk_codec import decimal_divisor, decode
from exporter.db.chunk_rows import COLUMNS, LAST, MAXIMUM, MINIMUM, NUMBER, TOTAL, from_row, rollups
from exporter.model.staleness import STALE_NAN

START = 1_772_366_400_000_000
STAT = len(COLUMNS)


def computed(values: list[float], every_s: int = 60) -> dict[int, list[float]]:
    """The numbers of each statistic, of samples from a five minutes' beginning on."""
    ts_us = START + 1_000_000 * every_s * np.arange(len(values), dtype=np.int64)
    rows = rollups(7, ts_us, np.array(values))
    return {row[STAT]: decode(from_row(row))[1].tolist() for row in rows}


CENTS = st.integers(-(10**9), 10**9).map(lambda cents: Decimal(cents) / 100)


@given(st.lists(CENTS, min_size=1, max_size=60))
def test_the_sum_of_decimals_is_the_decimal(values: list[Decimal]) -> None:
    """The float nearest to the true sum, where adding floats one by one gives 0.30000000000000004."""
    found = computed([float(value) for value in values])
    groups = [values[at : at + 5] for at in range(0, len(values), 5)]
    assert found[TOTAL] == [float(sum(group)) for group in groups]
    assert found[NUMBER] == [float(len(group)) for group in groups]
    assert found[LAST] == [float(group[-1]) for group in groups]
    assert found[MINIMUM] == [float(min(group)) for group in groups]
    assert found[MAXIMUM] == [float(max(group)) for group in groups]


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=60))
def test_the_sum_of_any_numbers_is_theirs_to_rounding(values: list[float]) -> None:
    """Whatever they are."""
    totals = computed(values)[TOTAL]
    for at, total in zip(range(0, len(values), 5), totals, strict=True):
        group = values[at : at + 5]
        assert math.isclose(total, math.fsum(group), rel_tol=1e-12, abs_tol=1e-12 * max(map(abs, group)))


def test_odd_values_stay_where_they_are() -> None:
    """A NaN makes its own sum NaN, infinities add up as such, a staleness marker is no value."""
    found = computed([0.1, 0.2, math.nan, 0.1, 0.1, math.inf, 1.0, -math.inf, 1.0, 1.0, 0.1, STALE_NAN, 0.2])
    assert math.isnan(found[TOTAL][0])
    assert math.isnan(found[TOTAL][1])
    assert found[TOTAL][2] == 0.3
    assert found[NUMBER] == [5.0, 5.0, 2.0]
    assert (found[MINIMUM][0], found[MAXIMUM][1]) == (0.1, math.inf)


def test_sums_beyond_exact_integers_are_added_as_floats() -> None:
    """A sum over 2^53 of the last place has no exact integer."""
    found = computed([4e15 + 1, 4e15 + 1, 4e15 + 1])
    assert found[TOTAL] == [12e15 + 3]
    assert computed([]) == {}


def test_the_divisor_of_decimals() -> None:
    """The least power of ten; none for what is no decimal; odd values do not count."""
    assert decimal_divisor(np.array([1.0, 20.0, math.nan, math.inf])) == 1
    assert decimal_divisor(np.array([1.0, 0.25])) == 100
    assert decimal_divisor(np.array([*[1.0] * 50, 1 / 3])) is None
