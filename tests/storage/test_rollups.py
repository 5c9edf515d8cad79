"""Queries over old stretches of which only five-minute rollups are left, against the samples themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.rollups import Remembered, Rollup, counter_rollup
from exporter.model.samples import SampleBatch, SeriesBlock
from exporter.model.staleness import STALE_NAN, is_stale
from exporter.promql.engine import Engine
from exporter.promql.plan import rollups_for
from exporter.storage import MemoryStorage
from exporter.storage.join import JoinedSource

FIVE = 300_000
START = 1_772_409_600_000
GONE = START + 12 * FIVE  # samples of before that are gone
KEPT = GONE + 4 * FIVE  # the head begins here
END = KEPT + 4 * FIVE
NAME = (Matcher(METRIC_NAME, MatchOp.EQUAL, "x"),)
Points = list[tuple[int, float]]


def rolled(points: Points) -> dict[Rollup, Points]:
    """Five minutes in one number each, in plain loops."""
    found: dict[Rollup, Points] = {kind: [] for kind in Rollup if kind is not Rollup.COUNTER}
    for first in range(START, GONE, FIVE):
        values = [value for ts, value in points if first <= ts < first + FIVE and not is_stale(value)]
        if not values:
            continue
        numbers = [value for value in values if not math.isnan(value)] or [math.nan]
        for kind, value in (
            (Rollup.LAST, values[-1]),
            (Rollup.MINIMUM, min(numbers)),
            (Rollup.MAXIMUM, max(numbers)),
            (Rollup.SUM, sum(values)),
            (Rollup.COUNT, float(len(values))),
        ):
            found[kind].append((first + FIVE - 1, value))
    return found


def block(series: Sequence[tuple[LabelSet, Points]]) -> SeriesBlock:
    return SeriesBlock.of([(labels, points) for labels, points in series if points])


def stores(series: dict[str, Points]) -> tuple[Engine, Engine]:
    """One over all samples; one over rollups, then samples of the long memory, then the head."""
    whole, head = MemoryStorage(), MemoryStorage()
    columns = {LabelSet.of({"__name__": "x", "job": job}): points for job, points in series.items()}
    for ts in sorted({ts for points in columns.values() for ts, _ in points}):
        here = [(one, value) for one, points in columns.items() for at, value in points if at == ts]
        batch = SampleBatch(ts, tuple(one for one, _ in here), np.array([value for _, value in here]))
        whole.append_batch(batch)
        if ts >= KEPT:
            head.append_batch(batch)
    kept = block([(one, [p for p in points if GONE <= p[0] < KEPT]) for one, points in columns.items()])
    rollups = {
        kind: block([(one, rolled(points)[kind]) for one, points in columns.items()])
        for kind in Rollup
        if kind is not Rollup.COUNTER
    }
    rollups[Rollup.COUNTER] = counter_rollup(rollups[Rollup.LAST], rollups[Rollup.MAXIMUM])
    joined = JoinedSource(head, {NAME: Remembered(kept, rollups)})
    return Engine(whole), Engine(joined)


def samples(values: st.SearchStrategy[float]) -> st.SearchStrategy[Points]:
    """Some of the times of every 20 s, 7 s after a five minutes' beginning."""
    times = st.lists(st.integers(0, (END - START) // 20_000 - 1), unique=True, min_size=1, max_size=120)
    return times.flatmap(
        lambda places: st.lists(values, min_size=len(places), max_size=len(places)).map(
            lambda found: [
                (START + 7_000 + 20_000 * place, value)
                for place, value in zip(sorted(places), found, strict=True)
            ]
        )
    )


WHOLE = st.one_of(st.integers(-1000, 1000).map(float), st.just(math.nan), st.just(STALE_NAN))
EXACT = [
    "min_over_time", "max_over_time", "sum_over_time", "count_over_time", "avg_over_time",
    "last_over_time", "present_over_time",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from("abc"), samples(WHOLE), min_size=1), st.sampled_from([1, 2, 5, 30]))
def test_whole_five_minutes_give_what_the_samples_would(series: dict[str, Points], five: int) -> None:
    """Over windows of whole five minutes, in rollups, samples or both, the sums of integers are equal too."""
    whole, joined = stores(series)
    for function in EXACT:
        text = f"{function}(x[{5 * five}m])"
        want = whole.query_range(text, START + FIVE - 1, END - 1, FIVE)
        got = joined.query_range(text, START + FIVE - 1, END - 1, FIVE)
        assert got.to_json() == want.to_json(), text
        assert not got.warnings


@given(samples(st.integers(0, 50).map(float)), st.integers(0, FIVE - 1))
def test_other_windows_are_off_by_their_edges(points: Points, shift: int) -> None:
    """A window that cuts five minutes takes those that end in it: no count or sum is off by more than two."""
    whole, joined = stores({"a": points})
    for at in range(START + shift, END, FIVE):
        for function, most in (("count_over_time", 15), ("sum_over_time", 15 * 50)):
            want, got = (
                float(result["result"][0]["value"][1]) if result["result"] else 0.0
                for result in (
                    engine.query(f"{function}(x[20m])", at).to_json() for engine in (whole, joined)
                )
            )
            assert abs(got - want) <= 2 * most


@given(st.lists(st.integers(0, 9), min_size=60, max_size=60), st.sets(st.integers(1, 11)), st.data())
def test_a_counter_grows_as_it_did_with_one_reset_in_five_minutes(
    steps: list[int], resets: set[int], data: st.DataObject
) -> None:
    """From one end of five minutes to another, unless it makes up for its fall in the same ones."""
    at = {5 * five + data.draw(st.integers(1, 4)) for five in resets}
    value, points = 100.0, list[tuple[int, float]]()
    for place, step in enumerate(steps):
        value = float(step) if place in at else value + step + (0 if place % 5 else 100)
        points.append((START + 30_000 + 60_000 * place, value))
    whole, joined = stores({"a": points})
    for text in ("increase(x[55m] anchored)", "increase(x[20m] anchored)", "resets(x[55m])"):
        want, got = (engine.query(text, GONE - 1).to_json()["result"] for engine in (whole, joined))
        assert got == want, text


def test_a_steady_counter_has_the_rate_of_its_samples() -> None:
    """Where rollups and samples meet, a window may lack what grew in five minutes."""
    whole, joined = stores({"a": [(START + 7_000 + 20_000 * at, 1000.0 + 3 * at) for at in range(300)]})
    for text, share in (("rate(x[10m])", 0.5), ("increase(x[40m])", 0.125), ("delta(x[30m])", 0.17)):
        for at, off in ((GONE - 1, 0.01), (GONE - 130_000, 0.01), (GONE + FIVE, share), (END, 0.01)):
            want, got = (
                float(engine.query(text, at).to_json()["result"][0]["value"][1]) for engine in (whole, joined)
            )
            assert got == pytest.approx(want, rel=off), (text, at)


def test_an_instant_is_the_last_value_of_the_five_minutes_before() -> None:
    """At every time from their end on until the next ones end."""
    _, joined = stores({"a": [(START + 20_000 * at, float(at)) for at in range(300)]})
    for at in (START + FIVE - 1, START + FIVE, START + 2 * FIVE - 2):
        assert joined.query("x", at).to_json()["result"][0]["value"][1] == "14"
    assert joined.query("x", START + 2 * FIVE - 1).to_json()["result"][0]["value"][1] == "29"


@pytest.mark.parametrize(
    ("text", "minutes"), [("rate(x[5m])", 10), ("increase(x[9m])", 10), ("max_over_time(x[4m])", 5)]
)
def test_a_window_too_narrow_for_five_minutes_is_told(text: str, minutes: int) -> None:
    """It holds none, or not two: the answer may have gaps, and says what range would have none."""
    _, joined = stores({"a": [(START + 20_000 * at, float(at)) for at in range(300)]})
    told = joined.query_range(text, START + FIVE, END, FIVE).warnings
    assert len(told) == 1
    assert f"needs a range of {minutes}m or more there" in told[0]
    wide = text.partition("[")[0] + f"[{minutes}m])"
    assert joined.query_range(wide, START + FIVE, END, FIVE).warnings == ()
    assert joined.query(text, END).warnings == ()  # samples only


def test_every_function_over_a_range_reads_what_was_fetched_for_it() -> None:
    """What a plan says it will read is what the evaluation asks for, whatever the function."""
    points = [(START + 20_000 * at, float(at % 7)) for at in range(300)]
    whole, _ = stores({"a": points})
    one = LabelSet.of({"__name__": "x", "job": "a"})
    texts = [
        f"{name}(x[30m])"
        for name in (
            "changes", "deriv", "delta", "idelta", "irate", "rate", "increase", "resets", "mad_over_time",
            "first_over_time", "stddev_over_time", "stdvar_over_time", "absent_over_time", *EXACT,
            "ts_of_min_over_time", "ts_of_max_over_time", "ts_of_last_over_time", "ts_of_first_over_time",
        )
    ]  # fmt: skip
    texts += ["quantile_over_time(0.5, x[30m])", "predict_linear(x[30m], 60)", "rate(x[30m] smoothed)"]
    texts += ["increase(x[30m] anchored)", "max_over_time(x[30m:5m])", "x[30m]", "timestamp(x)"]
    for text in texts:
        (read,) = whole.reads(text, GONE - 1, GONE - 1)
        wanted = rolled(points)
        held = {
            kind: counter_rollup(block([(one, wanted[Rollup.LAST])]), block([(one, wanted[Rollup.MAXIMUM])]))
            if kind is Rollup.COUNTER
            else block([(one, wanted[kind])])
            for kind in read.rollups
        }
        source = JoinedSource(MemoryStorage(), {NAME: Remembered(SeriesBlock.empty(), held)})
        result = Engine(source).query(text, GONE - 1).to_json()["result"]
        assert bool(result) is not text.startswith("absent"), text
    assert rollups_for("rate") == (Rollup.COUNTER,)
