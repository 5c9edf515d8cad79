"""Rows become samples; what cannot is refused, counted and told."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest

from exporter.collectors.rows import MissingColumnError, to_families
from exporter.collectors.sqlconfig import SqlMetric

GAUGE = SqlMetric("m", "gauge", "Help.", "value", ("l",))


def samples(metric: SqlMetric, rows: list[dict[str, object]]) -> tuple[dict[str, float], int, list[str]]:
    families, refused, faults = to_families([metric], list(rows[0]) if rows else ["l", "value"], rows)
    return {sample.labels.get("l", ""): sample.value for sample in families[0].samples}, refused, faults


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (2.5, 2.5),
        (Decimal("0.25"), 0.25),
        (True, 1.0),
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), 1704067200.0),
        (datetime.datetime(2024, 1, 1), 1704067200.0),  # noqa: DTZ001 - a timestamp without zone is UTC
        (datetime.timedelta(minutes=2), 120.0),
    ],
)
def test_numbers_times_and_intervals_are_values(value: object, number: float) -> None:
    """Times become Unix seconds, intervals seconds."""
    assert samples(GAUGE, [{"l": "a", "value": value}]) == ({"a": number}, 0, [])


@pytest.mark.parametrize(
    ("value", "word"), [(None, "NULL"), ("5", "str"), (b"5", "bytes"), ([1], "list"), (10**400, "int")]
)
def test_anything_else_is_refused(value: object, word: str) -> None:
    """Text and NULL are no values; the other rows stay."""
    found, refused, faults = samples(GAUGE, [{"l": "a", "value": value}, {"l": "b", "value": 1}])
    assert found == {"b": 1.0}
    assert refused == 1
    assert faults == [f'1 x m: column "value" holds {word}, not a number']


def test_repeated_label_sets_keep_the_first() -> None:
    """Of two rows with equal labels the first counts, the other is refused."""
    rows: list[dict[str, object]] = [{"l": "a", "value": 1}, {"l": "a", "value": 2}, {"l": "a", "value": 3}]
    assert samples(GAUGE, rows) == ({"a": 1.0}, 2, ["2 x m: a label set is repeated"])


def test_null_labels_are_left_out() -> None:
    """A NULL label is an absent label."""
    found, refused, _ = samples(GAUGE, [{"l": None, "value": 1}])
    assert (found, refused) == ({"": 1.0}, 0)


def test_labels_are_text() -> None:
    """Numbers, booleans and times as labels are written out."""
    rows: list[dict[str, object]] = [{"l": 5, "value": 1}, {"l": True, "value": 2}]
    assert samples(GAUGE, rows)[0] == {"5": 1.0, "true": 2.0}


def test_negative_counters_are_refused() -> None:
    """A counter cannot be below 0, and its family has the name without _total."""
    metric = SqlMetric("m_total", "counter", "Help.", "value", ("l",))
    families, refused, _ = to_families(
        [metric], ["l", "value"], [{"l": "a", "value": -1}, {"l": "b", "value": 1}]
    )
    assert (families[0].name, [sample.name for sample in families[0].samples], refused) == (
        "m",
        ["m_total"],
        1,
    )


def test_static_labels_are_on_each_series() -> None:
    """Static labels stand beside the columns."""
    metric = SqlMetric("m", "gauge", "Help.", "value", ("l",), (("shop", "main"),))
    families, _, _ = to_families([metric], ["l", "value"], [{"l": "a", "value": 1}])
    assert families[0].samples[0].labels == {"shop": "main", "l": "a"}


def test_missing_columns_fail_even_without_rows() -> None:
    """A declared column that the query does not return is a fault of the declaration."""
    with pytest.raises(
        MissingColumnError, match=r'm: the query returns no column "value" \(it returns l, n\)'
    ):
        to_families([GAUGE], ["l", "n"], [])


def test_no_rows_is_an_empty_family() -> None:
    """A query without rows yields families without samples: old series vanish."""
    assert samples(GAUGE, []) == ({}, 0, [])
