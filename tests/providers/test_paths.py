from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.providers.paths import SchemaError, find, integer, iso_ms, number, parse_path, text

DOCUMENT = {"a": {"b": [1, "2.5", {"c.d": 9.08e7}]}, "t": "2026-01-01T00:00:00.000Z", "n": None, "yes": True}


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a.b[0]", ("a", "b", 0)),
        ('a["c.d"].e', ("a", "c.d", "e")),
        ("[1][2]", (1, 2)),
        ("", ()),
        ("15m", ("15m",)),
    ],
)
def test_paths_are_keys_and_indexes(path: str, steps: tuple[str | int, ...]) -> None:
    """Dots, brackets, quoted keys."""
    assert parse_path(path) == steps


@pytest.mark.parametrize("path", ["a..b", "a[", "a[x]", 'a["b', "a]"])
def test_what_is_no_path_is_refused(path: str) -> None:
    """The message shows the path and where it stops."""
    with pytest.raises(ValueError, match="not a JSON path"):
        parse_path(path)


@pytest.mark.parametrize(("path", "value"), [("a.b[0]", 1.0), ("a.b[1]", 2.5), ('a.b[2]["c.d"]', 9.08e7)])
def test_numbers_may_be_text(path: str, value: float) -> None:
    """Integers, strings and exponents."""
    assert number(DOCUMENT, path) == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x", 'field "x" is missing'),
        ("a.x", 'field "a.x" is missing'),
        ("a.b[7]", 'field "a.b[7]" is missing'),
        ("a.b.c", 'field "a.b" should be an object, not a list'),
        ("a[0]", 'field "a" should be a list, not an object'),
        ("a", 'field "a" should be a number, not an object'),
        ("n", 'field "n" should be a number, not null'),
        ("yes", 'field "yes" should be a number, not a boolean'),
        ("t", 'field "t" should be a number, not other text'),
    ],
)
def test_a_drift_names_the_first_field_that_is_wrong(path: str, message: str) -> None:
    """One error, with the path up to the fault and never the value."""
    with pytest.raises(SchemaError) as caught:
        number(DOCUMENT, path)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "Infinity", 10**400])
def test_numbers_are_finite(value: object) -> None:
    """No provider means NaN or infinity."""
    with pytest.raises(SchemaError):
        number({"v": value}, "v")


def test_other_types() -> None:
    """Whole numbers, strings, times."""
    assert integer({"v": "12"}, "v") == 12
    with pytest.raises(SchemaError, match="whole"):
        integer({"v": 1.5}, "v")
    assert text(DOCUMENT, "t").startswith("2026")
    assert iso_ms(DOCUMENT, "t") == 1_767_225_600_000
    assert iso_ms({"t": "2026-01-01"}, "t") == 1_767_225_600_000
    assert iso_ms(DOCUMENT, "n") is None
    assert iso_ms(DOCUMENT, "missing") is None
    with pytest.raises(SchemaError, match="ISO 8601"):
        iso_ms({"t": "yesterday"}, "t")


@given(st.text(max_size=20))
def test_any_text_is_a_path_or_a_value_error(path: str) -> None:
    """The parser of paths fails in one way only."""
    try:
        steps = parse_path(path)
    except ValueError:
        return
    with pytest.raises(SchemaError):
        find({}, (*steps, "x"))
