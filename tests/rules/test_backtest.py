"""Backtests give the episodes and notifications of a step-by-step evaluation, whatever rules and data."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.promql.engine import Engine
from exporter.rules.alert import AlertInstance, AlertState, TransitionKind
from exporter.rules.backtest import Replay, ReplayOptions, replay
from exporter.rules.backtest_history import SamplesInMemory
from exporter.rules.backtest_notify import notifications
from exporter.rules.backtest_plan import plan_units, wanted_series
from exporter.rules.cooldown import NotifyReason
from exporter.rules.engine_query import EngineQueries
from exporter.rules.format import read_rule_file
from exporter.rules.group import GroupState, evaluate_group
from exporter.rules.model import AlertingRule, RuleGroup
from exporter.rules.ruletest_notify import Sender
from exporter.rules.schedule import next_slot
from exporter.storage import MemoryStorage

START_MS = 1_700_000_000_000
STEP_MS = 15_000
RULES = """
groups:
- name: plain
  rules:
  - {alert: Above, expr: x > 1, for: 45s, cooldown: 2m, labels: {severity: info}}
  - {alert: Below, expr: x < 0.5, cooldown: 5m, cooldown_by: []}
  - {alert: Kept, expr: x > 1.5, keep_firing_for: 1m, cooldown: 1m, cooldown_by: [a]}
  - {alert: Held, expr: x > 1.2, missing_data: keep}
  - {alert: Fires, expr: y > 1, missing_data: fire, for: 30s}
  - {alert: Hysteresis, expr: x > 1.5, keep_firing_expr: x > 0.7}
  - {alert: Labelled, expr: x > 1.4, labels: {level: '{{ if gt $value 1.7 }}high{{ else }}low{{ end }}'}}
  - {alert: Counted, expr: 'rate(c[2m]) > 0.1', for: 30s, cooldown: 3m}
  - {alert: Later, expr: x offset -30s > 1.5}
  - {alert: Always, expr: vector(1), cooldown: 4m}
  - {alert: Missing, expr: absent(y), for: 1m}
  - {alert: Clashing, expr: '{__name__=~"x|y"} > 1.3'}
- name: recorded
  interval: 30s
  query_offset: 10s
  rules:
  - {record: x:mean, expr: avg by (a) (x)}
  - {record: x:unread, expr: sum(x)}
  - {alert: MeanHigh, expr: x:mean > 1.2, for: 1m}
  - {alert: MeanHighToo, expr: 'x:mean > 1 and on () ALERTS{alertname="MeanHigh", alertstate="firing"}'}
- name: backwards
  rules:
  - {alert: Early, expr: late:sum > 1}
  - {record: late:sum, expr: sum(x) + (count(late:sum) or vector(0)) * 0.1}
  - {alert: Chain, expr: 'count(ALERTS{alertname="Above"}) > 1'}
- name: limited
  limit: 1
  rules:
  - {alert: Limited, expr: x > 1}
"""

Series = dict[LabelSet, list[tuple[int, float]]]


def made_up(seed: int, steps: int) -> Series:
    """Gauges that wander, with gaps and staleness markers; a counter with resets."""
    rng = random.Random(seed)
    found: Series = {}
    for name, a, b in [("x", "1", "1"), ("x", "1", "2"), ("x", "2", "1"), ("y", "1", ""), ("c", "1", "")]:
        points: list[tuple[int, float]] = []
        value, gap = rng.uniform(0, 2), 0
        for step in range(-10, steps):
            if gap == 0 and rng.random() < 0.02:
                gap = rng.randint(1, 40)
                if rng.random() < 0.5:
                    points.append((START_MS + step * STEP_MS, STALE_NAN))
                    continue
            if gap > 0:
                gap -= 1
                continue
            if name == "c":
                value = 0.0 if rng.random() < 0.02 else value + rng.choice([0, 0, 0, 4])
            elif rng.random() < 0.3:
                value = min(2.0, max(0.0, value + rng.uniform(-0.8, 0.8)))
            points.append((START_MS + step * STEP_MS, math.nan if rng.random() < 0.003 else value))
        found[LabelSet.of({"__name__": name, "a": a, "b": b})] = points
    return found


def in_memory(series: Series) -> SamplesInMemory:
    return SamplesInMemory(
        (labels, np.array([ts for ts, _ in points]), np.array([value for _, value in points]))
        for labels, points in series.items()
    )


def step_by_step(
    groups: Sequence[RuleGroup], series: Series, end_ms: int
) -> tuple[dict[str, dict[str, AlertInstance]], Sender]:
    """Live evaluation: samples and slots in the order of time. Episodes by alert and id."""
    storage = MemoryStorage()
    queries = EngineQueries(Engine(storage))
    states = {group.key: GroupState() for group in groups}
    rows = sorted((ts, labels, value) for labels, points in series.items() for ts, value in points)
    slots = []
    for order, group in enumerate(groups):
        interval_ms = group.interval_ms or STEP_MS
        first_ms = next_slot(group.key, interval_ms, START_MS - 1)
        slots += [(ts, order) for ts in range(first_ms, end_ms + 1, interval_ms)]
    episodes: dict[str, dict[str, AlertInstance]] = {}
    sender = Sender()
    fed = 0
    for ts_ms, order in sorted(slots):
        while fed < len(rows) and rows[fed][0] <= ts_ms:
            at_ms, labels, value = rows[fed]
            storage.append_batch(SampleBatch(at_ms, (labels,), np.array([value])))
            fed += 1
        group = groups[order]
        evaluation = evaluate_group(group, states[group.key], ts_ms, queries(), storage.append_batch)
        sender.take(evaluation)
        for one in evaluation.rules:
            instances = [
                change.instance for change in one.transitions if change.kind is TransitionKind.RESOLVED
            ]
            for instance in (*one.active, *instances):
                if instance.episode_id:
                    episodes.setdefault(one.rule.name, {})[instance.episode_id] = instance
    return episodes, sender


def same_peak(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def check_against_steps(text: str, series: Series, steps: int, stretch_steps: int) -> Replay:
    groups = read_rule_file(text, "a.yml")
    end_ms = START_MS + steps * STEP_MS
    want, sender = step_by_step(groups, series, end_ms)
    options = ReplayOptions(interval_ms=STEP_MS, stretch_steps=stretch_steps)
    got = replay(groups, in_memory(series), START_MS, end_ms, options)
    for alert in got.alerts:
        name = alert.rule.name
        wanted = want.get(name, {})
        assert {one.id for one in alert.episodes} == set(wanted), name
        for one in alert.episodes:
            instance = wanted[one.id]
            assert one.labels == instance.labels.without(("alertname",)), name
            assert (one.since_ms, one.start_ms) == (instance.active_at_ms, instance.fired_at_ms), name
            fires = instance.state is AlertState.FIRING
            assert one.end_ms == (0 if fires else instance.resolved_at_ms), name
            assert same_peak(one.peak, instance.peak), name
            assert one.reason == (None if fires else instance.resolve_reason), name
        sent = [
            (one.at_ms, "firing" if one.is_firing else "resolved", one.labels.pairs, one.suppressed)
            for one in notifications(alert, end_ms)
        ]
        reference = [
            (one.at_ms, one.status, one.labels.without(("alertname",)).pairs, one.suppressed)
            for one in sender.sent
            if one.labels.get("alertname") == name
        ]
        assert sorted(sent) == sorted(reference), name
    return got


@pytest.mark.parametrize("seed", range(4))
def test_same_as_step_by_step(seed: int) -> None:
    """Episodes, peaks, reasons and notifications are those of live evaluation, over random data."""
    got = check_against_steps(
        RULES, made_up(seed, 300), 300, stretch_steps=random.Random(seed).randint(20, 90)
    )
    assert sum(len(alert.episodes) for alert in got.alerts) > 30


@given(
    st.lists(st.sampled_from([0.0, 0.4, 1.1, 1.4, 1.8, math.nan, STALE_NAN, None]), min_size=5, max_size=60),
    st.integers(3, 20),
)
@settings(max_examples=12)
def test_same_for_any_series(values: list[float | None], stretch_steps: int) -> None:
    """The steps that are left out change nothing, for any sequence of values."""
    points = [(START_MS + at * STEP_MS, value) for at, value in enumerate(values) if value is not None]
    series = {LabelSet.of({"__name__": "x", "a": "1"}): points}
    check_against_steps(RULES, series, len(values) + 30, stretch_steps)


def platform(steps: int) -> Series:
    """What the shipped rules read, with an hour of trouble: calls fail and are slow, the database is away."""
    rng = random.Random(5)
    values: dict[tuple[tuple[str, str], ...], list[float]] = {}

    def put(name: str, value: float, **labels: str) -> None:
        values.setdefault((("__name__", name), *labels.items()), []).append(value)

    calls: dict[tuple[str, str], float] = {}
    for step in range(steps):
        now_s = START_MS / 1000 + 15 * step
        bad = steps // 3 <= step < 2 * steps // 3
        for provider in ("kraken", "coingecko"):
            for outcome in ("success", "timeout"):
                key = (provider, outcome)
                calls[key] = calls.get(key, 0) + (
                    rng.random() < (0.5 if bad or outcome == "success" else 0.02)
                )
                put("quantum_api_requests_total", calls[key], provider=provider, outcome=outcome)
                for le, share in (("0.1", 0.2 if bad else 1.0), ("1", 0.5 if bad else 1.0), ("+Inf", 1.0)):
                    labels = {"provider": provider, "outcome": outcome, "le": le}
                    put("quantum_api_request_duration_seconds_bucket", calls[key] * share, **labels)
            put("quantum_provider_up", float(not bad or step % 7 > 2), provider=provider)
            put("quantum_rate_limit_used", 40 + 15 * math.sin(step / 9), provider=provider, window="1m")
            put("quantum_rate_limit_limit", 60.0, provider=provider, window="1m")
            put("quantum_btc_price_deviation_ratio", 0.015 + 0.01 * math.sin(step / 11), provider=provider)
        put("quantum_database_up", float(not bad or step % 50 > 20))
        put("quantum_snapshot_last_timestamp_seconds", now_s - (200 if step % 97 > 90 else 0))
        put("quantum_persistence_last_progress_timestamp_seconds", now_s - (step % 40) * 5)
        put("quantum_process_start_time_seconds", START_MS / 1000)
        put("quantum_data_quality_ratio", 0.7 + 0.1 * math.sin(step / 20))
        put("quantum_anomalies_recent", float(step % 60 > 50), severity="FATAL")
    return {
        LabelSet.of(labels): [(START_MS + step * STEP_MS, value) for step, value in enumerate(column)]
        for labels, column in values.items()
    }


def test_shipped_rules_do_what_they_do_step_by_step() -> None:
    """The rules that are shipped, over hours in which most of them fire."""
    folder = Path(__file__).parents[2] / "rules"
    text = "groups:\n" + "".join(
        file.read_text().partition("\ngroups:\n")[2] for file in sorted(folder.glob("*.yml"))
    )
    got = check_against_steps(text, platform(300), 300, stretch_steps=70)
    fired = {alert.rule.name for alert in got.alerts if alert.episodes}
    assert {"ApiReliabilityLow", "HighErrorRate", "DatabaseConnectionLost", "DataQualityLow"} <= fired
    assert {"PriceDisagrees", "MetricsPipelineStalled", "AllApisFailing", "FatalAnomaly"} <= fired


def plan(text: str) -> dict[str, bool]:
    return {unit.rule.name: unit.ahead for unit in plan_units(read_rule_file(text, "a.yml"))}


def test_plan() -> None:
    """Rules that stand behind what they read go in stretches, loops step by step."""
    found = plan(RULES)
    assert "x:unread" not in found
    assert not found["Early"]
    assert not found["late:sum"]
    assert all(found[name] for name in ("Above", "x:mean", "MeanHigh", "MeanHighToo", "Chain"))
    assert list(found).index("x:mean") < list(found).index("MeanHigh")


def test_what_is_read() -> None:
    """Series that the rules write themselves are not read from the history."""
    wanted = wanted_series(read_rule_file(RULES.replace('{__name__=~"x|y"}', "x"), "a.yml"))
    assert wanted(LabelSet.of({"__name__": "x"}))
    assert not wanted(LabelSet.of({"__name__": "z"}))
    assert not wanted(LabelSet.of({"__name__": "x:mean"}))
    assert not wanted(LabelSet.of({"__name__": "ALERTS", "alertname": "MeanHigh", "alertstate": "firing"}))


def test_a_long_firing_costs_few_steps() -> None:
    """An alert that fires for days is evaluated where something changes, and repeats by its cooldown."""
    text = "groups: [{name: g, rules: [{alert: A, expr: x > 0, cooldown: 12h}]}]"
    steps = 4 * 5760
    points = [(START_MS + at * STEP_MS, 1.0 + (at == 7)) for at in range(steps)]
    history = in_memory({LabelSet.of({"__name__": "x"}): points})
    groups = read_rule_file(text, "a.yml")
    end_ms = START_MS + (steps - 1) * STEP_MS
    (alert,) = replay(groups, history, START_MS, end_ms).alerts
    (episode,) = alert.episodes
    assert episode.peak == 2
    sent = notifications(alert, end_ms)
    assert [one.reason for one in sent] == [NotifyReason.FIRST] + [NotifyReason.REPEAT_DUE] * 7
    assert len(notifications(alert, end_ms, 0)) == 1


def test_a_rule_that_fails_says_so() -> None:
    """Evaluations that fail are counted with the first reason, and end nothing."""
    text = "groups: [{name: g, rules: [{alert: A, expr: 'x * on (a) z > 0'}]}]"
    series: Series = {
        LabelSet.of({"__name__": name, "a": "1", "b": b}): [
            (START_MS + at * STEP_MS, 1.0) for at in range(20)
        ]
        for name, b in [("x", "1"), ("z", "1"), ("z", "2")]
    }
    end_ms = START_MS + 19 * STEP_MS
    (alert,) = replay(read_rule_file(text, "a.yml"), in_memory(series), START_MS, end_ms).alerts
    assert alert.failed > 10
    assert "many-to-many" in alert.error or "found duplicate series" in alert.error
    assert isinstance(alert.rule, AlertingRule)


def test_a_rule_without_data_names_what_is_missing() -> None:
    """Silence for want of a metric is told from silence; what other rules record counts as there."""
    text = """
groups:
- name: g
  rules:
  - {record: made, expr: x}
  - {record: blind, expr: nowhere}
  - {alert: Quiet, expr: made > 100}
  - {alert: Blind, expr: gone / x > 1}
  - {alert: Half, expr: gone > 1 or x > 100}
  - {alert: Behind, expr: blind > 1}
  - {alert: Absent, expr: absent(gone)}
  - {alert: Open, expr: '{job="a"} > 1'}
  - {alert: Fire, expr: gone > 1, missing_data: fire}
"""
    history = in_memory({LabelSet.of({"__name__": "x"}): [(START_MS, 1.0)]})
    got = replay(read_rule_file(text, "a.yml"), history, START_MS, START_MS + 60_000)
    found = {alert.rule.name: alert.missing for alert in got.alerts}
    assert found == {
        "Quiet": (), "Blind": ("gone",), "Half": (), "Behind": ("blind",),
        "Absent": (), "Open": (), "Fire": (),
    }  # fmt: skip
