"""The engine against a second, plain evaluator, on random small data and random queries."""

from __future__ import annotations

import math
import random

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from exporter.errors import QueryError
from exporter.model.labels import LabelSet
from exporter.model.staleness import STALE_NAN
from exporter.promql.engine import Engine
from exporter.promql.values import InstantVector, RangeMatrix, Result, ScalarValue
from exporter.storage import MemoryStorage
from tests.promql.differential import START_MS, QueryMaker, close
from tests.promql.naive import Naive, NaiveError, Value

Points = list[tuple[int, float]]
Data = list[tuple[LabelSet, Points]]
Steps = dict[LabelSet, dict[int, float]]

NAMES = ("requests_total", "queue_length", "temperature", "build_info", "latency_bucket")
VALUES = (0.0, 1.0, 2.0, 3.5, -1.0, 10.0, 1e6, 0.1, math.nan, math.inf, -math.inf, STALE_NAN)
STEP_MS = 67_000
seeds = st.integers(0, 2**32)


def small_data(rng: random.Random) -> Data:
    """Up to a dozen short series with gaps, falls, markers and odd values."""
    series: dict[LabelSet, Points] = {}
    for _ in range(rng.randrange(13)):
        labels = {"__name__": rng.choice(NAMES), "job": rng.choice(("api", "db", "web"))}
        if rng.random() < 0.6:
            labels["instance"] = rng.choice("abc")
        if rng.random() < 0.3:
            labels["zone"] = rng.choice("xy")
        at = START_MS + 600_000 + rng.randrange(3_000_000)
        points = []
        plain = rng.random() < 0.6
        for _ in range(rng.randrange(1, 40)):
            points.append((at, rng.choice(VALUES[:8] if plain else VALUES)))
            at += rng.choice((1_000, 15_000, 15_000, 15_000, 60_000, 400_000))
        series[LabelSet.of(labels)] = points
    return list(series.items())


def stored(data: Data) -> MemoryStorage:
    """The data in our storage."""
    storage = MemoryStorage()
    for labels, points in data:
        for at, value in points:
            storage.append(labels, at, value)
    return storage


def steps_of(result: Result) -> Steps | None:
    """A result as labels -> time -> value; None for a string."""
    value = result.value
    if isinstance(value, ScalarValue):
        return {LabelSet(()): {value.ts_ms: value.value}}
    if isinstance(value, InstantVector):
        pairs = zip(value.labels, value.values.tolist(), strict=True)
        return {labels: {value.ts_ms: number} for labels, number in pairs}
    assert isinstance(value, RangeMatrix)
    out: Steps = {}
    for position, labels in enumerate(value.labels):
        times, values = value.series(position)
        out[labels] = dict(zip(times.tolist(), values.tolist(), strict=True))
    return out


def add(steps: Steps, value: Value, ts_ms: int) -> None:
    """Add one naive answer to the steps."""
    vector = {LabelSet(()): value} if isinstance(value, float) else value
    for labels, number in vector.items():
        steps.setdefault(labels, {})[ts_ms] = number


def same(ours: Steps, theirs: Steps) -> bool:
    """Whether two results have the same series, times and (nearly) the same values."""
    return ours.keys() == theirs.keys() and all(
        ours[labels].keys() == theirs[labels].keys()
        and all(close(value, theirs[labels][at]) for at, value in ours[labels].items())
        for labels in ours
    )


def naive_steps(data: Data, text: str, times: range) -> Steps | None:
    """The naive answer for each time; None where the query fails at one."""
    naive = Naive(data)
    steps: Steps = {}
    try:
        for ts_ms in times:
            add(steps, naive.query(text, ts_ms, start_ms=times[0], end_ms=times[-1]), ts_ms)
    except NaiveError:
        return None
    return steps


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(seeds)
def test_instant_queries(seed: int) -> None:
    """Both evaluators give the same vector, or both refuse."""
    rng = random.Random(seed)
    data = small_data(rng)
    text = QueryMaker(seed).vector(3)
    at = START_MS + 600_000 + rng.randrange(4_000_000)
    expected = naive_steps(data, text, range(at, at + 1))
    try:
        found = steps_of(Engine(stored(data)).query(text, at))
    except QueryError:
        found = None
    assert (found is None) == (expected is None), (text, at, data, found, expected)
    if found is not None and expected is not None:
        assert same(found, expected), (text, at, data, found, expected)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(seeds)
def test_range_queries(seed: int) -> None:
    """A range query is the instant query at each step.

    It may fail where the steps do not: two series that meet in one label set at different times. `or` is
    left out: names are dropped at the end, so that a series with and one without name may become one.
    """
    rng = random.Random(seed)
    data = small_data(rng)
    text = QueryMaker(seed).vector(2)
    assume(" or " not in text)
    start = START_MS + 600_000 + rng.randrange(3_000_000)
    times = range(start, start + STEP_MS * rng.randrange(1, 12), STEP_MS)
    expected = naive_steps(data, text, times)
    found, error = None, ""
    try:
        found = steps_of(Engine(stored(data)).query_range(text, times[0], times[-1], STEP_MS))
    except QueryError as caught:
        error = str(caught)
    if found is None:
        assert expected is None or "same labelset" in error, (text, times, data, error)
        return
    assert expected is not None, (text, times, data, found)
    assert same(found, expected), (text, times, data, found, expected)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(seeds)
def test_the_order_of_series_does_not_matter(seed: int) -> None:
    """The same data stored in another order gives the same answer."""
    rng = random.Random(seed)
    data = small_data(rng)
    text = QueryMaker(seed).vector(3)
    at = START_MS + 600_000 + rng.randrange(4_000_000)
    answers = []
    for order in (data, rng.sample(data, len(data))):
        try:
            answers.append(steps_of(Engine(stored(order)).query(text, at)))
        except QueryError:
            answers.append(None)
    first, second = answers
    assert (first is None) == (second is None), (text, at, data)
    if first is not None and second is not None:
        assert same(first, second), (text, at, data, first, second)
