"""A stretch of stored samples gives the engine what the head gives it."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.model.samples import SampleBatch, SeriesBlock
from exporter.model.staleness import STALE_NAN
from exporter.promql.engine import Engine
from exporter.storage import MemoryStorage
from exporter.storage.stretch import StretchSource, joined

QUERIES = ["x", "x > 1", "rate(x[1m])", "sum by (a) (x)", 'x{a="1"}', '{a=~"1|2"}', "nothing", "x offset 30s"]
Points = list[tuple[int, float]]


@st.composite
def stretches(draw: st.DrawFn) -> list[tuple[LabelSet, Points]]:
    """Series on common times and on their own, some with gaps, NaN and markers."""
    found = []
    for number in range(draw(st.integers(1, 6))):
        labels = LabelSet.of(
            {"__name__": draw(st.sampled_from(["x", "y"])), "a": str(number % 3), "n": str(number)}
        )
        skipped = draw(st.sets(st.integers(0, 30)))
        shift = draw(st.sampled_from([0, 0, 0, 4]))
        values = st.one_of(st.integers(0, 3).map(float), st.sampled_from([math.nan, STALE_NAN]))
        plain = draw(st.booleans())
        points = [
            (1_000_000 + 15_000 * step + shift, float(step % 7) if plain else draw(values))
            for step in range(31)
            if plain or step not in skipped
        ]
        found.append((labels, points))
    return sorted(found)


@given(stretches(), st.integers(0, 30))
@settings(max_examples=100)
def test_queries_over_two_stretches_answer_as_over_the_head(
    series: list[tuple[LabelSet, Points]], border: int
) -> None:
    """Samples that came in two stretches are read as if they had been appended one by one."""
    head = MemoryStorage()
    for at_ms, labels, value in sorted(
        (at, labels, value) for labels, points in series for at, value in points
    ):
        head.append_batch(SampleBatch(at_ms, (labels,), np.array([value])))
    at_ms = 1_000_000 + 15_000 * border
    parts = [
        SeriesBlock.of(
            [(labels, kept) for labels, points in series if (kept := [p for p in points if keep(p[0])])]
        )
        for keep in (lambda ts: ts < at_ms, lambda ts: ts >= at_ms)
    ]
    first = StretchSource(parts[0])
    Engine(first).query("x", at_ms)
    both = StretchSource(joined(parts[0], parts[1], 0), first)
    for text in QUERIES:
        want = Engine(head).query_range(text, 1_000_000, 1_500_000, 15_000).to_json()
        assert Engine(both).query_range(text, 1_000_000, 1_500_000, 15_000).to_json() == want
        want = Engine(head).query(text, at_ms).to_json()
        assert Engine(both).query(text, at_ms).to_json() == want
    matchers = (Matcher("__name__", MatchOp.EQUAL, "x"),)
    mine, its = (source.select(matchers, 1_100_000, 1_300_000) for source in (both, head))
    assert mine.labels == its.labels
    assert mine.offsets.tolist() == its.offsets.tolist()
    assert mine.ts_ms.tolist() == its.ts_ms.tolist()
    assert mine.values.tobytes() == its.values.tobytes()


def test_a_series_in_both_goes_on_where_the_older_one_ends() -> None:
    """Samples that come again, or late, are left out; what lies before the time asked for goes."""
    one, two = LabelSet.of({"a": "1"}), LabelSet.of({"a": "2"})
    older = SeriesBlock.of([(one, [(10, 1.0), (20, 2.0)])])
    newer = SeriesBlock.of([(one, [(15, 9.0), (20, 9.0), (30, 3.0)]), (two, [(5, 9.0)])])
    block = joined(older, newer, 11)
    assert block.labels == (one,)
    assert block.ts_ms.tolist() == [20, 30]
    assert block.values.tolist() == [2.0, 3.0]
    assert not joined(older, newer, 40).labels
