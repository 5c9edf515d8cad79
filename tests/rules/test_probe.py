from __future__ import annotations

from collections.abc import Sequence

import pytest

from exporter.model.labels import LabelSet
from exporter.rules.probe import QueryProbe
from tests.rules.build import alerting

SERIES = {
    "up": [{"job": "a", "instance": "1"}, {"job": "b", "instance": "2"}],
    "weight": [{"job": "a", "zone": "z"}],
}


def probe(expr: str, **keys: object) -> QueryProbe:
    def query(text: str) -> Sequence[tuple[LabelSet, float]]:
        name = next(name for name in (*SERIES, "gone") if name in text)
        return [(LabelSet.of({"__name__": name, **labels}), 7.0) for labels in SERIES.get(name, [])]

    return QueryProbe(alerting(f"'{expr}'", **keys), query)


@pytest.mark.parametrize(
    ("expr", "source", "expected"),
    [
        ("up == 0", {"job": "a", "instance": "1"}, True),
        ("up == 0", {"job": "a", "instance": "9"}, False),
        ("gone == 0", {"job": "a"}, False),
        ("sum(up) > 5", {}, True),
        ("sum(gone) > 5", {}, False),
        ("sum by (job) (up) > 5", {"job": "a"}, True),
        ("sum by (job) (up) > 5", {"job": "c"}, False),
        ("sum without (instance) (up) > 5", {"job": "b"}, True),
        ("up / gone > 1", {"job": "a"}, False),
        ("up and gone", {"job": "a"}, False),
        ("up unless gone", {"job": "a"}, True),
        ("up or gone", {"job": "a"}, True),
        ("gone or gone", {"job": "a"}, False),
        ("absent(gone)", {}, True),
        ("vector(1) > 2", {}, True),
        ("time() - gone > 3", {}, False),
        ("rate(up[5m]) > 1", {"job": "b", "instance": "2"}, True),
        ("max_over_time(sum(gone)[1h:]) > 1", {}, False),
        ("up * on (job) group_left (zone) weight > 1", {"job": "a", "instance": "1", "zone": "z"}, True),
        ("up * on (job) group_left (zone) weight > 1", {"job": "b", "instance": "2", "zone": "z"}, False),
        ("up * on (job) group_left (zone) weight > 1", {"job": "a", "instance": "1", "zone": "old"}, True),
        ('label_replace(up, "n", "$1", "job", "(.*)") > 1', {"job": "a", "instance": "1", "n": "x"}, True),
    ],
)
def test_has_data(expr: str, source: dict[str, str], expected: bool) -> None:
    """Input is there where the selectors that the expression cannot do without return fitting series."""
    assert probe(expr).has_data(LabelSet.of(source)) is expected


def test_values_are_found_by_the_labels_that_were_returned() -> None:
    """value_now asks the measured side, kept_value the second expression, both without the metric name."""
    source = LabelSet.of({"__name__": "up", "job": "a", "instance": "1"})
    one = probe("up > 1 and weight > 0", keep_firing_expr="weight > 0")
    assert one.value_now(source) == 7.0
    assert one.kept_value(source) is None
    assert probe("absent(gone)").value_now(LabelSet.of({})) is None
