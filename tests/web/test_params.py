"""Parameters are read as Prometheus' API reads them."""

from __future__ import annotations

import pytest

from exporter.web.params import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    ParamError,
    check_range,
    flag,
    parse_duration_ms,
    parse_limit,
    parse_time_ms,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1700000000", 1_700_000_000_000),
        ("1700000000.123", 1_700_000_000_123),
        ("-1.5", -1500),
        ("1e3", 1_000_000),
        ("2015-06-03T13:21:58Z", 1_433_337_718_000),
        ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
        ("2015-06-03T14:21:58+01:00", 1_433_337_718_000),
        ("-292273086-05-16T16:47:06Z", MIN_TIME_MS),
        ("292277025-08-18T07:12:54.999999999Z", MAX_TIME_MS),
    ],
)
def test_times_are_unix_seconds_or_rfc3339(text: str, expected: int) -> None:
    """Unix seconds with fractions, RFC 3339 with any offset, and the two ends of time."""
    assert parse_time_ms(text, "time") == expected


@pytest.mark.parametrize(
    "text", ["", "abc", "30s", "nan", "2015-06-03T13:21:58", "2015-13-03T13:21:58Z", "٣"]
)
def test_other_times_are_refused_by_name(text: str) -> None:
    """The message names the parameter and the text."""
    with pytest.raises(
        ParamError, match=r'invalid parameter "start": cannot parse ".*" to a valid timestamp'
    ):
        parse_time_ms(text, "start")


@pytest.mark.parametrize(
    ("text", "expected"), [("15", 15_000), ("0.5", 500), ("1h30m", 5_400_000), ("250ms", 250)]
)
def test_durations_are_seconds_or_prometheus_durations(text: str, expected: int) -> None:
    """A bare number is seconds."""
    assert parse_duration_ms(text, "step") == expected


@pytest.mark.parametrize("text", ["", "x", "1", "5x"])
def test_flags_and_durations_refuse_other_words(text: str) -> None:
    """A flag is what ParseBool takes; a bad duration is named."""
    if text in ("", "1"):
        assert flag(text, "exclude_alerts") is (text == "1")
        return
    with pytest.raises(ParamError):
        flag(text, "exclude_alerts")
    with pytest.raises(ParamError, match="to a valid duration"):
        parse_duration_ms(text, "step")


@pytest.mark.parametrize(
    ("start", "end", "step", "message"),
    [
        (1000, 0, 1000, "end timestamp must not be before start time"),
        (0, 1000, 0, "zero or negative query resolution step"),
        (0, 11_001_000, 1000, "exceeded maximum resolution of 11,000 points"),
    ],
)
def test_ranges_have_bounds(start: int, end: int, step: int, message: str) -> None:
    """The three refusals of query_range."""
    with pytest.raises(ParamError, match=message):
        check_range(start, end, step)


def test_the_largest_range_is_taken() -> None:
    """11,000 steps are still allowed."""
    check_range(0, 11_000_000, 1000)


def test_limits_are_whole_numbers_from_zero() -> None:
    """0 and absence mean no limit."""
    assert (parse_limit(None), parse_limit(""), parse_limit("0"), parse_limit("7")) == (0, 0, 0, 7)
    with pytest.raises(ParamError, match="non-negative"):
        parse_limit("-1")
    with pytest.raises(ParamError, match="limit"):
        parse_limit("many")
