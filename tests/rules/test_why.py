"""An expression taken apart: who is judged, with which values, how far off, what is missing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model.labels import LabelSet
from exporter.promql.engine import Engine
from exporter.promql.values import InstantVector, ScalarValue
from exporter.rules.model import AlertingRule
from exporter.rules.probe import Vector
from exporter.rules.why import Comparison, Explained, judge, of_instance, questions
from exporter.storage import MemoryStorage
from tests.rules.build import alerting

T = 1_700_000_000_000
RELIABILITY = (
    "'sum by (provider) (calls{outcome=\"success\"}) / sum by (provider) (calls) < 0.9 and on () fresh > 0'"
)


def engine(*series: tuple[str, dict[str, str], float]) -> Engine:
    storage = MemoryStorage()
    for name, labels, value in series:
        storage.append({"__name__": name, **labels}, T, value)
    return Engine(storage)


def explained(rule: AlertingRule, over: Engine, *, limit: int = 100) -> Explained:
    def ask(text: str) -> Vector:
        value = over.query(text, T).value
        if isinstance(value, ScalarValue):
            return [(LabelSet(()), value.value)]
        assert isinstance(value, InstantVector)
        return list(zip(value.labels, value.values.tolist(), strict=True))

    return judge(rule, {text: ask(text) for text in questions(rule)}, limit=limit)


def calls(provider: str, good: float, bad: float) -> list[tuple[str, dict[str, str], float]]:
    return [
        ("calls", {"provider": provider, "outcome": "success"}, good),
        ("calls", {"provider": provider, "outcome": "timeout"}, bad),
    ]


def test_who_fires_and_how_far_the_others_are() -> None:
    """Returned label sets come first, then those of the left side, the nearest to the threshold first."""
    over = engine(*calls("a", 99, 1), *calls("kraken", 93, 7), *calls("down", 5, 5), ("fresh", {}, 1))
    found = explained(alerting(RELIABILITY), over)
    assert [(one.labels.get("provider"), one.returned) for one in found.judged] == [
        ("down", True),
        ("kraken", False),
        ("a", False),
    ]
    assert found.judged[1].reason == "0.93 is above the threshold 0.9 (3.3 % away)"
    assert found.judged[0].reason == "0.5 is below the threshold 0.9 (44 % away)"


def test_the_tree_has_the_value_of_each_side() -> None:
    """Numerator, denominator and threshold as this label set sees them."""
    over = engine(*calls("a", 50, 0), *calls("kraken", 93, 7), ("fresh", {}, 1))
    found = explained(alerting(RELIABILITY), over)
    kraken = next(one for one in found.judged if one.labels.get("provider") == "kraken")
    values = {part.text: part.value for _, part in kraken.tree.walk()}
    assert values['sum by (provider) (calls{outcome="success"})'] == 93
    assert values["sum by (provider) (calls)"] == 100
    assert values["0.9"] == 0.9
    assert values["fresh"] == 1


def test_a_side_that_blocks_is_named() -> None:
    """A comparison that holds and an `and` that does not."""
    over = engine(*calls("kraken", 5, 5), ("fresh", {}, 0))
    (one,) = explained(alerting(RELIABILITY), over).judged
    assert (one.returned, one.reason) == (
        False,
        "0.5 is below the threshold 0.9 (44 % away), but `and fresh > 0` does not hold",
    )
    over = engine(("up", {"job": "a"}, 0), ("silent", {"job": "a"}, 1))
    (one,) = explained(alerting("up == 0 unless silent"), over).judged
    assert one.reason == "0 is at the threshold 0, but `unless silent` excludes it"


def test_the_missing_selector_is_named() -> None:
    """Without data the selectors that return nothing are named, and no others."""
    found = explained(alerting("'rate(gone{a=\"b\"}[5m]) / present > 1'"), engine(("present", {}, 1)))
    assert [one.reason for one in found.judged] == ['no data: no series matches gone{a="b"}']
    assert [(one.selector, one.series) for one in found.inputs] == [('gone{a="b"}', 0), ("present", 1)]


def test_empty_input_of_an_aggregation_is_no_missing_data() -> None:
    """`count(up == 0)` returns nothing because all are up; nothing is missing then."""
    (one,) = explained(alerting("count(up == 0) > 1"), engine(("up", {"job": "a"}, 1))).judged
    assert (one.missing, one.reason) == ((), "the expression returns nothing")


@pytest.mark.parametrize(
    ("expr", "series", "reason"),
    [
        ("absent(up)", [("up", {}, 1.0)], "the expression returns nothing"),
        ("up", [("up", {}, 3.0)], "the expression returns 3"),
        ("vector(1)", [], "the expression returns 1"),
        ("'1 > up'", [("up", {}, 3.0)], "3 is above the threshold 1 (200 % away)"),
        ("up > 2 * limit", [("up", {}, 3.0), ("limit", {}, 2.0)], "3 is below the threshold 4 (25 % away)"),
        ("up > 0", [("up", {}, 0.0)], "0 is at the threshold 0, not above it"),
        ("up > 1", [("up", {}, 0.001)], "0.001 is below the threshold 1 (100 % away)"),
        ("up == 0", [("up", {}, 1.0)], "1 is not 0"),
        ("up != 1", [("up", {}, 0.0)], "0 is not 1"),
        ("up > 0", [("up", {}, -2.0)], "-2 is below the threshold 0"),
        (
            "up > 1",
            [("up", {}, float("nan"))],
            "the value is NaN, which compares with nothing (threshold 1)",
        ),
        (
            "'used / ignoring (kind) group_left () total > 0.8'",
            [("used", {"kind": "a", "p": "x"}, 6.0), ("total", {"p": "x"}, 10.0)],
            "0.6 is below the threshold 0.8 (25 % away)",
        ),
        (
            "'age > on (job) group_left () bound'",
            [("age", {"job": "a", "i": "1"}, 9), ("bound", {"job": "a"}, 10), ("bound", {"job": "b"}, 1)],
            "9 is below the threshold 10 (10 % away)",
        ),
        (
            "'label_replace(up == 1, \"stage\", \"x\", \"\", \"\")'",
            [("up", {"job": "a"}, 0.0)],
            "0 is not 1",
        ),
    ],
)  # fmt: skip
def test_reasons(expr: str, series: list[tuple[str, dict[str, str], float]], reason: str) -> None:
    """What is said of the one label set there is."""
    (one,) = explained(alerting(expr), engine(*series)).judged
    assert one.reason == reason


def test_each_side_of_or_has_its_own_condition() -> None:
    """The label sets of each side are judged by that side's comparison."""
    over = engine(("a", {"i": "1"}, 5), ("b", {"j": "2"}, 1))
    found = explained(alerting("a > 1 or b > 2"), over)
    assert [(str(one.labels), one.returned, one.reason) for one in found.judged] == [
        ('{i="1"}', True, "5 is above the threshold 1 (400 % away)"),
        ('{j="2"}', False, "1 is below the threshold 2 (50 % away)"),
    ]


def test_an_instance_finds_its_label_set() -> None:
    """By the labels that the expression returned, or that it would return."""
    found = explained(alerting("up < 1"), engine(("up", {"i": "1"}, 0), ("up", {"i": "2"}, 3)))
    for name in ("1", "2"):
        one = of_instance(found.judged, LabelSet.of({"i": name}))
        assert one is not None
        assert one.labels.get("i") == name
    assert of_instance(found.judged, LabelSet.of({"i": "3"})) is None


def test_many_label_sets_are_cut_at_the_far_end() -> None:
    """The limit keeps what fires and what is close, and says how many are left out."""
    over = engine(*(("up", {"i": f"{n}"}, float(n)) for n in range(50)))
    found = explained(alerting("up > 45.5"), over, limit=6)
    assert [one.labels.get("i") for one in found.judged] == ["46", "47", "48", "49", "45", "44"]
    assert found.left_out == 44


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(-10, 10), min_size=1),
    st.sampled_from(["==", "!=", ">", "<", ">=", "<="]),
    st.floats(-10, 10),
)
def test_agrees_with_the_engine(values: dict[str, float], op: str, threshold: float) -> None:
    """Exactly the label sets that the expression returns are returned, and their comparisons hold."""
    over = engine(*(("up", {"i": name}, value) for name, value in values.items()))
    found = explained(alerting(f"'up {op} {threshold!r}'"), over)
    assert {one.labels.get("i") for one in found.judged} == set(values)
    for one in found.judged:
        assert isinstance(one.comparison, Comparison)
        assert one.comparison.holds is one.returned
