"""Durations as Prometheus writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0", 0),
        ("0s", 0),
        ("15s", 15_000),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        ("1d", 86_400_000),
        ("1w", 604_800_000),
        ("1y", 31_536_000_000),
        ("4d1h7m10s500ms", 349_630_500),
    ],
)
def test_durations_are_read(text: str, ms: int) -> None:
    """Units from years to milliseconds, the largest first."""
    assert parse_duration(text) == ms


@pytest.mark.parametrize("text", ["", "1", "-1s", "1m1h", "1s1s", "1.5h", "5x", "s", "1 s", "٣s", "300y"])
def test_other_texts_are_refused(text: str) -> None:
    """No sign, no fraction, no unit twice, nothing beyond what Go can hold."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (604_800_000, "1w"),
        (691_200_000, "8d"),
        (90_000_000, "25h"),
        (-5000, "-5s"),
        (90_500, "1m30s500ms"),
    ],
)
def test_durations_are_printed_as_prometheus_does(ms: int, text: str) -> None:
    """Years, weeks and days only where they fit exactly."""
    assert format_duration(ms) == text


@given(st.integers(min_value=0, max_value=9_000_000_000_000))
def test_what_is_printed_reads_back(ms: int) -> None:
    """Any duration survives the round trip."""
    assert parse_duration(format_duration(ms)) == ms
