"""JSON looks as Go's encoder writes it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model.labels import LabelSet
from exporter.web.encode import RawJson, dump, go_exponent, go_json_number, rfc3339


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (15.0, "15"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (123456789.123, "123456789.123"),
        (-2.5, "-2.5"),
    ],
)
def test_numbers_are_shortest(value: float, text: str) -> None:
    """Plain digits from 1e-6 up to 1e21, an exponent outside."""
    assert go_json_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1e+00"),
        (15.0, "1.5e+01"),
        (0.0, "0e+00"),
        (0.001, "1e-03"),
        (1e100, "1e+100"),
        (5.960464477539063e-08, "5.960464477539063e-08"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_alert_values_have_an_exponent(value: float, text: str) -> None:
    """strconv's 'e' format with the fewest digits."""
    assert go_exponent(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_loses_a_bit(value: float) -> None:
    """Both formats read back as the same float."""
    assert float(go_json_number(value)) == value
    assert float(go_exponent(value)) == value


def test_times_have_no_trailing_zeros() -> None:
    """RFC 3339 in UTC; 0 is Go's zero time."""
    assert rfc3339(1_700_000_000_000) == "2023-11-14T22:13:20Z"
    assert rfc3339(1_700_000_000_120) == "2023-11-14T22:13:20.12Z"
    assert rfc3339(0) == "0001-01-01T00:00:00Z"


def test_html_signs_are_escaped() -> None:
    """Go's encoder escapes <, > and & inside strings."""
    assert dump({"a": "x > 1 & y < 2"}) == rb'{"a":"x \u003e 1 \u0026 y \u003c 2"}'


def test_label_sets_raw_json_and_the_rest() -> None:
    """Label sets are objects, raw JSON is put in as it is, tuples are arrays."""
    document = {"l": LabelSet.of({"b": "1", "a": "é"}), "r": RawJson(b"[1]"), "t": (1, 2.0, None, True)}
    assert dump(document) == '{"l":{"a":"é","b":"1"},"r":[1],"t":[1,2,null,true]}'.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_written_reads_back(document: object) -> None:
    """Any document survives a round trip (surrogates apart, which UTF-8 has not)."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert json.loads(dump(document)) == document
