"""Advice on thresholds: the variants are right, and what is advised keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.errors import QueryError
from exporter.model.durations import format_duration
from exporter.model.labels import LabelSet
from exporter.rules.backtest import replay
from exporter.rules.backtest_history import SamplesInMemory
from exporter.rules.backtest_notify import notifications
from exporter.rules.format import read_rule_file
from exporter.rules.tune import (
    Tuning,
    _candidates,
    find_rule,
    needed_rules,
    threshold_of,
    tune,
    with_threshold,
)
from tests.rules.build import alerting

START_MS = 1_700_000_000_000
WEEK_S = 604_800


def history() -> SamplesInMemory:
    """A week, a minute apart: a value that peaks at 1 + n in the n-th of seven hours of trouble."""
    ts_ms = START_MS + np.arange(0, WEEK_S, 60) * 1000
    values = np.full(len(ts_ms), 0.5)
    for day in range(7):
        values[1440 * day + 600 : 1440 * day + 660] = 1 + day
    return SamplesInMemory([(LabelSet.of({"__name__": "x", "a": "1"}), ts_ms, values)])


def tuned(text: str, wanted: float) -> Tuning:
    groups = read_rule_file(f"groups: [{{name: g, interval: 1m, rules: [{text}]}}]", "a.yml")
    rule = find_rule(groups, "A")
    end_ms = START_MS + WEEK_S * 1000
    found = tune(needed_rules(groups, rule), rule, history(), START_MS, end_ms, wanted=wanted)
    if found.advice is not None:
        advised = with_threshold(rule, found.advice.threshold)
        keys = f"{{alert: A, expr: '{advised.expr_text}', for: {format_duration(rule.for_ms)}}}"
        text = f"groups: [{{name: g, interval: 1m, rules: [{keys}]}}]"
        (alert,) = replay(read_rule_file(text, "a.yml"), history(), START_MS, end_ms).alerts
        pages = [one for one in notifications(alert, end_ms, rule.cooldown_ms) if one.is_firing]
        assert len(pages) == pytest.approx(found.advice.per_week)
    return found


@pytest.mark.parametrize(("wanted", "threshold"), [(7, 0.5), (6, 1.0), (2, 5.0), (0, 7.0)])
def test_advice_keeps_to_the_wanted_pages(wanted: float, threshold: float) -> None:
    """The advice is the most sensitive threshold with at most the wanted pages."""
    found = tuned("{alert: A, expr: x > 2}", wanted)
    assert found.advice is not None
    assert found.advice.reachable
    assert found.advice.per_week <= wanted
    assert found.advice.threshold <= max(threshold, 2.0)


def test_less_is_worse() -> None:
    """For an alert on too little, the advice lies at the low end."""
    found = tuned("{alert: A, expr: 7.5 > x}", 0)
    assert (found.op, found.threshold) == ("<", 7.5)
    assert found.advice is not None
    assert found.advice.threshold <= 0.5


def test_variants() -> None:
    """Thresholds, for and cooldown are scaled, each with what it would have sent."""
    found = tuned("{alert: A, expr: x > 2, for: 30m, cooldown: 20m}", 3)
    by_label = {one.label: one for one in found.thresholds}
    assert by_label["1x"].is_current
    assert by_label["1x"].episodes == 5
    assert by_label["2x"].episodes == 3
    assert by_label["0.5x"].episodes == 6
    assert {one.label: one.episodes for one in found.fors} == {
        "15m": 5,
        "22m30s": 5,
        "30m": 5,
        "45m": 5,
        "1h": 0,
    }
    assert {one.label: one.pages for one in found.cooldowns}["0s"] == 5
    assert found.distribution.count == 10_080
    assert dict(found.distribution.quantiles)[1.0] == 7


@pytest.mark.parametrize(
    ("expr", "new"),
    [
        ("x > 1", "x > 3"),
        ("(x > 1)", "(x > 3)"),
        ("1 < x", "3 < x"),
        ("x > 1 and y > 7", "x > 3 and y > 7"),
        ("x > -(1)", "x > 3"),
        ("sum by (a) (x) / 2 <= 10 or y > 1", "sum by (a) (x) / 2 <= 3 or y > 1"),
    ],
)
def test_with_threshold(expr: str, new: str) -> None:
    """Only the number of the deciding comparison changes."""
    assert with_threshold(alerting(f"'{expr}'"), 3).expr_text == new


@pytest.mark.parametrize("expr", ["x == 1", "x > y", "x", "absent(x)", "x > bool 1"])
def test_no_threshold(expr: str) -> None:
    """A rule without a threshold is refused with its expression."""
    with pytest.raises(QueryError, match="not a threshold rule"):
        threshold_of(alerting(f"'{expr}'"))


@pytest.mark.parametrize(
    ("values", "higher", "wanted"),
    [
        ([0.6868, 0.9], False, [0.686, 0.685]),
        ([0.2, 0.96666], True, [0.967, 0.968]),
        ([-5.0, -1.234], True, [-1.23, -1.22]),
        ([0.0, 7.0], False, [0.0, -0.01]),
        ([120.0], True, [120.0, 121.0]),
    ],
)
def test_the_thresholds_just_beyond_all_values_are_tried(
    values: list[float], higher: bool, wanted: list[float]
) -> None:
    """What never fires on this history by the least is among the candidates."""
    found = _candidates(np.array(values), 50.0, higher)
    assert set(wanted) <= set(found)
