"""Sums lose nothing, whatever the shape."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.promql.sums import compensated, mean_first_axis, mean_groups, sum_first_axis, sum_groups


@pytest.mark.parametrize("width", [1, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 21, 60, 1000])
def test_the_mean_of_equal_values_is_that_value(width: int, count: int) -> None:
    """0.2 stays 0.2, over time and over series."""
    values = np.full((count, width), 0.2)
    assert (mean_first_axis(values, float(count)) == 0.2).all()
    ids = np.zeros(count, np.intp)
    assert mean_groups(values[:, 0], ids, np.array([count])).tolist() == [0.2]


@pytest.mark.parametrize("width", [1, 5, 200])
def test_sums_are_neumaiers(width: int) -> None:
    """Of values of all sizes and both signs, by rows and by columns, and in groups."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(60, width)) * 10.0 ** rng.integers(-5, 6, (60, width))
    assert (sum_first_axis(values) == compensated(values)).all()
    ids = rng.integers(0, 50, values.size)
    wanted = [compensated(values.ravel()[ids == group]) for group in range(50)]
    assert sum_groups(values.ravel(), ids, 50).tolist() == wanted


def test_cancelling_and_infinite_terms() -> None:
    """Small terms survive large ones that cancel; infinity stays."""
    values = np.array([1.0, 1e100, 1.0, -1e100])
    assert sum_groups(values, np.zeros(4, np.intp), 1).tolist() == [2.0]
    assert sum_first_axis(values[:, None]).tolist() == [2.0]
    assert sum_first_axis(np.array([[np.inf], [1.5]])).tolist() == [np.inf]
    assert mean_first_axis(np.array([[1.7e308], [1.7e308]]), 2.0).tolist() == [1.7e308]


@pytest.mark.parametrize("place", [(0, 0), (59, 1999), (59, 0), (30, 1000)])
@pytest.mark.parametrize("odd", [0.1, 2.0**60, -(2.0**60), np.nan, np.inf])
def test_one_value_that_is_not_whole_or_too_large_is_noticed(place: tuple[int, int], odd: float) -> None:
    """Wherever it stands among many whole ones: then sums are compensated."""
    values = np.full((60, 2000), 1e15)
    values[place] = odd
    found = sum_first_axis(values)
    np.testing.assert_array_equal(found, compensated(values))
