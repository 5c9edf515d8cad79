"""Kernels and helpers on plain numbers."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from exporter.model.labels import LabelSet
from exporter.promql.floats import api_float, api_floats, api_seconds, general_float, plain_float
from exporter.promql.functions.elementwise import DATES, UNARY, round_to
from exporter.promql.functions.histogram import bucket_fraction, bucket_quantile, parse_bound
from exporter.promql.functions.label import natural_less, order_by_labels
from exporter.promql.seriesset import SeriesSet
from exporter.promql.sums import mean_first_axis, mean_groups, sum_first_axis, sum_groups

INF = float("inf")


@pytest.mark.parametrize(
    ("value", "api", "plain", "general"),
    [
        (0.0, "0", "0", "0"),
        (-0.0, "-0", "-0", "-0"),
        (1.0, "1", "1", "1"),
        (0.1, "0.1", "0.1", "0.1"),
        (1e15, "1000000000000000", "1000000000000000", "1000000000000000"),
        (1e20, "100000000000000000000", "100000000000000000000", "100000000000000000000"),
        (1e21, "1e+21", "1000000000000000000000", "1e+21"),
        (1.5e300, "1.5e+300", "15" + "0" * 299, "1.5e+300"),
        (1e-6, "0.000001", "0.000001", "1e-06"),
        (1e-7, "1e-07", "0.0000001", "1e-07"),
        (0.0001, "0.0001", "0.0001", "0.0001"),
        (123456.789, "123456.789", "123456.789", "123456.789"),
        (INF, "+Inf", "+Inf", "+Inf"),
        (-INF, "-Inf", "-Inf", "-Inf"),
        (math.nan, "NaN", "NaN", "NaN"),
    ],
)
def test_floats_print_as_go_prints_them(value: float, api: str, plain: str, general: str) -> None:
    """Shortest digits; an exponent only where the form has one."""
    assert api_float(value) == api
    assert plain_float(value) == plain
    assert general_float(value) == general
    assert api_floats(np.array([value, 0.5])) == [api, "0.5"]
    assert api_floats(np.array([value, 2.0])) == [api, "2"]


def test_times_print_in_seconds() -> None:
    """Milliseconds show as three decimals, and only where there are any."""
    assert [api_seconds(ts) for ts in (0, 1000, 1500, 1001, -1500)] == ["0", "1", "1.500", "1.001", "-1.500"]


@pytest.mark.parametrize("ts", [0, 86_399, 951_782_400, 1_709_164_800, 4_102_444_799, -1, -86_401, 1e9 + 0.7])
def test_dates_are_those_of_the_calendar(ts: float) -> None:
    """Parts of a date in UTC, leap years and times before 1970 included."""
    when = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=math.trunc(ts))
    following = (when.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)
    expected = {
        "minute": when.minute,
        "hour": when.hour,
        "day_of_week": (when.weekday() + 1) % 7,
        "day_of_month": when.day,
        "day_of_year": when.timetuple().tm_yday,
        "days_in_month": (following - datetime.timedelta(days=1)).day,
        "month": when.month,
        "year": when.year,
    }
    assert {name: int(part(np.array([ts]))[0]) for name, part in DATES.items()} == expected


def test_elementwise() -> None:
    """Rounding is half up; sgn keeps NaN."""
    assert round_to(np.array([-2.5, 2.5, 7.4]), 1.0).tolist() == [-2.0, 3.0, 7.0]
    assert round_to(np.array([7.4]), 0.5).tolist() == [7.5]
    signs = UNARY["sgn"](np.array([-3.0, 0.0, 4.0, math.nan]))
    assert signs[:3].tolist() == [-1, 0, 1]
    assert math.isnan(signs[3])


class TestSums:
    """Sums that cancel, overflow, or hold infinities."""

    def test_cancellation(self) -> None:
        """Small terms among large ones that cancel are kept."""
        terms = np.array([[1e100], [1.0], [-1e100], [1.0]])
        assert sum_first_axis(terms).tolist() == [2.0]
        assert sum_groups(terms[:, 0], np.array([0, 0, 0, 0]), 1).tolist() == [2.0]

    def test_infinities(self) -> None:
        """Infinite terms give an infinite sum, opposite ones NaN."""
        assert sum_first_axis(np.array([[INF], [1.0], [2.0]])).tolist() == [INF]
        assert math.isnan(sum_first_axis(np.array([[INF], [1.0], [-INF]]))[0])

    def test_mean_beyond_the_range_of_a_float(self) -> None:
        """The mean of numbers whose sum is too large is still their mean."""
        terms = np.full((4, 1), 1.5e308)
        assert mean_first_axis(terms, 4)[0] == pytest.approx(1.5e308)
        assert mean_groups(terms[:, 0], np.zeros(4, np.intp), np.array([4]))[0] == pytest.approx(1.5e308)


class TestHistograms:
    """Classic histograms."""

    bounds = np.array([0.1, 1.0, 10.0, INF])

    def quantile(self, quantile: float, *counts: float) -> tuple[float, bool]:
        value, falls = bucket_quantile(np.array([quantile]), self.bounds, np.array(counts)[:, None])
        return float(value[0]), falls is not None and bool(falls.there[0])

    def test_interpolation(self) -> None:
        """Linear inside a bucket, from 0 in the first, the last finite bound beyond it."""
        assert self.quantile(0.5, 10, 20, 30, 40) == (1.0, False)
        assert self.quantile(0.125, 10, 20, 30, 40)[0] == pytest.approx(0.05)
        assert self.quantile(0.99, 10, 20, 30, 40)[0] == 10.0

    def test_edges(self) -> None:
        """Quantiles outside 0 to 1, no observations, no +Inf bucket."""
        assert self.quantile(-0.1, 1, 2, 3, 4)[0] == -INF
        assert self.quantile(1.1, 1, 2, 3, 4)[0] == INF
        assert math.isnan(self.quantile(math.nan, 1, 2, 3, 4)[0])
        assert math.isnan(self.quantile(0.5, 0, 0, 0, 0)[0])
        value, _ = bucket_quantile(np.array([0.5]), self.bounds[:3], np.ones((3, 1)))
        assert math.isnan(value[0])

    def test_falling_counts(self) -> None:
        """Falls are levelled and told; falls of rounding size are levelled silently."""
        assert self.quantile(0.5, 10, 5, 30, 40)[1]
        assert not self.quantile(0.5, 10, 10 - 1e-13, 30, 40)[1]

    def test_fraction(self) -> None:
        """The inverse of the quantile."""

        def fraction(lower: float, upper: float) -> float:
            counts = np.array([10.0, 20.0, 30.0, 40.0])[:, None]
            value, _ = bucket_fraction(np.array([lower]), np.array([upper]), self.bounds, counts)
            return float(value[0])

        assert fraction(-INF, 1.0) == 0.5
        assert fraction(0.1, 10) == 0.5
        assert fraction(-INF, INF) == 1.0
        assert fraction(1.0, 0.5) == 0.0
        assert fraction(0, 0.05) == pytest.approx(0.125)
        assert math.isnan(fraction(math.nan, 1))

    def test_bounds(self) -> None:
        """`le` is read as a number; anything else is no bound."""
        assert parse_bound("+Inf") == INF
        assert parse_bound("1e-3") == 0.001
        for text in ("", " 1", "1_0", "abc"):
            assert parse_bound(text) is None


def test_natural_order() -> None:
    """Runs of digits compare as numbers."""
    assert natural_less("cpu2", "cpu10")
    assert not natural_less("cpu10", "cpu2")
    assert natural_less("a", "b1")
    own = SeriesSet.of([LabelSet.of({"i": text}) for text in ("10", "9", "1", "")])
    assert order_by_labels(own, ("i",), descending=False).tolist() == [3, 2, 1, 0]
    assert order_by_labels(own, ("i",), descending=True).tolist() == [0, 1, 2, 3]
