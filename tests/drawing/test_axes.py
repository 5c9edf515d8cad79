"""Axes, units, text and times: what a reader relies on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.drawing.scale import axis
from exporter.drawing.text import fitted, text_width
from exporter.drawing.times import tick_text, ticks
from exporter.drawing.units import value_text

VALUES = st.lists(st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-9), min_size=1, max_size=30)
UNITS = st.sampled_from(["short", "s", "bytes", "percentunit"])


@given(VALUES, UNITS, st.integers(2, 8))
def test_an_axis_holds_every_value(values: list[float], unit: str, most: int) -> None:
    """No value lies outside, the marks ascend within the ends and are not many more than asked for."""
    found = axis(values, most=most, unit=unit)
    slack = 1e-9 * max(abs(found.low), abs(found.high))
    assert found.low - slack <= min(values)
    assert max(values) <= found.high + slack
    assert list(found.marks) == sorted(set(found.marks))
    assert all(found.low - slack <= mark <= found.high + slack for mark in found.marks)
    assert len(found.marks) <= most + 3
    assert all(0 <= found.share(value) <= 1 for value in values)


@pytest.mark.parametrize(
    ("values", "options", "marks"),
    [
        ([0.2, 0.9], {"lowest": 0, "highest": 1, "most": 4}, (0, 0.25, 0.5, 0.75, 1)),
        ([3.0, 7.0], {"lowest": 0, "most": 4}, (0, 2, 4, 6, 8)),
        ([0.0], {"lowest": 0, "most": 4}, (0, 0.25, 0.5, 0.75, 1)),
        ([100.0, 3000.0], {"lowest": 0, "most": 3, "unit": "s"}, (0, 1800, 3600)),
        ([5e6], {"lowest": 0, "most": 3, "unit": "bytes"}, (0, 2 << 20, 4 << 20, 6 << 20)),
        ([math.nan, math.inf], {"lowest": 0, "most": 2}, (0, 0.5, 1)),
    ],
)
def test_marks_are_round(values: list[float], options: dict[str, float], marks: tuple[float, ...]) -> None:
    """Round in the unit: powers of two for bytes, parts of an hour for seconds. A given end stays."""
    assert axis(values, **options).marks == pytest.approx(marks)  # type: ignore[arg-type]


def test_a_given_end_gives_way_to_the_data() -> None:
    """An axis to 1 still shows a value of 3: a picture does not cut off what is too much."""
    assert axis([3.0], lowest=0, highest=1).high >= 3


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0512, "percentunit", "5.12%"),
        (1, "percentunit", "100%"),
        (0.0037, "s", "3.7 ms"),
        (90, "s", "1.5 min"),
        (0.9999, "s", "1 s"),
        (250, "ms", "250 ms"),
        (86_400 * 3, "s", "3 d"),
        (1536, "bytes", "1.5 KiB"),
        (1023.9, "bytes", "1 KiB"),
        (2_500_000, "short", "2.5 Mil"),
        (65_432.1, "currencyUSD", "$65.4 K"),
        (1.05e21, "Hs", "1.05 ZH/s"),
        (12.345, "reqps", "12.3 req/s"),
        (0, "Bps", "0 B/s"),
        (-0.5, "short", "-0.5"),
        (math.inf, "s", "∞"),
        (math.nan, "s", "NaN"),
        (7, "furlongs", "7 furlongs"),
    ],
)
def test_values_have_their_unit(value: float, unit: str, text: str) -> None:
    """Three digits and the unit, scaled so that a person can say it."""
    assert value_text(value, unit) == text


def test_decimals_are_obeyed() -> None:
    """A panel's `decimals` decides the places."""
    assert value_text(0.02, "percentunit", 3) == "2.000%"


@given(st.text(max_size=40), st.floats(5, 300), st.integers(8, 20))
def test_fitted_text_fits(text: str, width: float, size: int) -> None:
    """What is returned is no wider than the room, and whole where there is room."""
    found = fitted(text, width, size)
    assert text_width(found, size) <= width or found == ""
    assert found == text or text_width(text, size) > width


def test_ticks_are_round_times_and_few() -> None:
    """Twenty minutes get a mark every five, a month one a week."""
    start = 1_700_000_000_000
    assert [tick_text(at, 1_200_000) for at in ticks(start, start + 1_200_000, 5)] == [
        "22:15", "22:20", "22:25", "22:30",
    ]  # fmt: skip
    assert len(ticks(start, start + 30 * 86_400_000, 6)) <= 6
