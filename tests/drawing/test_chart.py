"""Charts over time: every series is drawn where it has points, and can be read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.drawing.chart import Look, Series, chart
from exporter.drawing.ink import Ink
from exporter.drawing.shapes import Area, Box, Frame, Label, Line, Picture
from tests.drawing.places import outside, overlaps

STEP = 15_000
SPAN = 40 * STEP
NAMES = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz_/: "), min_size=1, max_size=40)
NUMBERS = st.one_of(st.floats(0, 1e9), st.just(math.nan))


def drawn(series: list[Series], look: Look, width: int = 600, height: int = 260) -> Picture:
    frame = Frame(10, 10, width - 20, height - 20)
    return Picture("t", width, height, tuple(chart(frame, series, 0, SPAN, look)))


def series(name: str, *values: float, first: int = 0) -> Series:
    times = tuple((first + at) * STEP for at in range(len(values)))
    return Series(name, times, values)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(NAMES, st.lists(NUMBERS, min_size=1, max_size=40)), min_size=1, max_size=12),
    st.sampled_from(["short", "s", "bytes", "percentunit"]),
    st.sampled_from([280, 430, 660, 1340]),
    st.booleans(),
)
def test_nothing_is_cut_off_or_written_over(
    rows: list[tuple[str, list[float]]], unit: str, width: int, stacked: bool
) -> None:
    """Whatever the values and names: labels stay inside the frame and apart."""
    found = drawn(
        [series(name, *values) for name, values in rows],
        Look(unit, lowest=0, stacked=stacked, calcs=("lastNotNull", "max")),
        width,
    )
    assert not outside(found)
    assert not overlaps(found)


def test_a_gap_is_a_gap() -> None:
    """Where points are missing the line is broken, not drawn through."""
    one = Series("a", (0, STEP, 5 * STEP, 6 * STEP), (1.0, 1.0, 1.0, 1.0))
    lines = [shape for shape in drawn([one], Look(fill=0)).shapes if isinstance(shape, Line)]
    assert len([line for line in lines if line.ink is Ink.SERIES_1]) == 2


def test_a_lonely_point_is_seen() -> None:
    """One sample between gaps is a dot."""
    found = drawn([series("a", math.nan, 2.0, math.nan)], Look())
    assert any(isinstance(shape, Box) and shape.width == 3 for shape in found.shapes)


def test_stacked_series_stand_on_one_another() -> None:
    """The upper edge of the second is the sum of both."""
    found = drawn([series("a", 1.0, 1.0), series("b", 2.0, 2.0)], Look(lowest=0, stacked=True, fill=0.3))
    edges = {shape.ink: shape.points[0][1] for shape in found.shapes if isinstance(shape, Area)}
    zero = max(y for shape in found.shapes if isinstance(shape, Area) for _, y in shape.points)
    assert (zero - edges[Ink.SERIES_2]) == pytest.approx(3 * (zero - edges[Ink.SERIES_1]))


def test_limits_are_drawn_where_they_are_in_view() -> None:
    """A threshold above everything does not squeeze the data, as in the browser."""
    look = Look(lowest=0, limits=((5.0, Ink.RED), (500.0, Ink.RED)))
    found = drawn([series("a", 1.0, 9.0)], look)
    assert sum(isinstance(shape, Line) and shape.dashed for shape in found.shapes) == 1


def test_the_legend_says_what_is_left_out() -> None:
    """Forty series do not fit; the legend counts the rest."""
    found = drawn([series(f"s{at}", float(at), 1.0) for at in range(40)], Look(calcs=("max",)), 600, 200)
    words = [shape.text for shape in found.shapes if isinstance(shape, Label)]
    assert any(text.startswith("and ") and text.endswith(" more") for text in words)
    assert "s39" in words  # the largest first
