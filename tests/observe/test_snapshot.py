"""A snapshot: one batch while nothing changes, zeros for what was born, markers for what vanished."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.model.samples import SampleBatch
from exporter.model.staleness import is_stale, stale_mask
from exporter.observe.snapshot import Snapshotter


def rows(batch: SampleBatch) -> dict[str, float]:
    return {str(labels): value for labels, value in zip(batch.labels, batch.values.tolist(), strict=True)}


def test_values_and_names_are_those_of_the_exposition() -> None:
    """A snapshot holds every sample under its plain name, without created samples and extra labels."""
    registry = CollectorRegistry()
    Gauge("g", "h", registry=registry).set(2.5)
    Counter("c", "h", ["l"], registry=registry).labels("x").inc()
    Histogram("h", "h", buckets=(1,), registry=registry).observe(3)
    (batch,) = Snapshotter(registry).take(1000)
    assert batch.ts_ms == 1000
    assert rows(batch) == {
        "g": 2.5,
        'c_total{l="x"}': 1.0,
        'h_bucket{le="1.0"}': 0.0,
        'h_bucket{le="+Inf"}': 1.0,
        "h_count": 1.0,
        "h_sum": 3.0,
    }


def test_labels_are_the_same_object_while_the_series_are() -> None:
    """Consumers may key on the identity of the label sets until a series comes or goes."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", ["l"], registry=registry)
    gauge.labels("a").set(1)
    snapshotter = Snapshotter(registry)
    (first,) = snapshotter.take(1000)
    gauge.labels("a").set(2)
    (second,) = snapshotter.take(2000)
    assert second.labels is first.labels
    assert second.values.tolist() == [2.0]
    gauge.labels("b").set(1)
    (third,) = snapshotter.take(3000)
    assert third.labels is not second.labels
    assert third.labels[0] is second.labels[0]


def test_born_counters_get_zero_at_the_previous_snapshot() -> None:
    """Counters and histograms that appear between two snapshots were 0 at the first; gauges are not known."""
    registry = CollectorRegistry()
    counter = Counter("c", "h", ["l"], registry=registry)
    histogram = Histogram("h", "h", ["l"], buckets=(1,), registry=registry)
    gauge = Gauge("g", "h", ["l"], registry=registry)
    counter.labels("old").inc()
    snapshotter = Snapshotter(registry)
    snapshotter.take(1000)
    counter.labels("new").inc(3)
    histogram.labels("new").observe(0.5)
    gauge.labels("new").set(9)
    zeros, now = snapshotter.take(2000)
    assert zeros.ts_ms == 1000
    assert rows(zeros) == {
        'c_total{l="new"}': 0.0,
        'h_bucket{l="new", le="1.0"}': 0.0,
        'h_bucket{l="new", le="+Inf"}': 0.0,
        'h_count{l="new"}': 0.0,
        'h_sum{l="new"}': 0.0,
    }
    assert rows(now)['c_total{l="new"}'] == 3.0


def test_first_snapshot_has_no_zeros() -> None:
    """Nothing is known of the time before the first snapshot."""
    registry = CollectorRegistry()
    Counter("c", "h", registry=registry).inc()
    assert len(Snapshotter(registry).take(1000)) == 1


class Elsewhere:
    """A custom collector whose rows come and go."""

    def __init__(self) -> None:
        self.names = ["a"]

    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily("row", "h", labels=["name"])
        counter = CounterMetricFamily("commits", "h", labels=["name"])
        for name in self.names:
            gauge.add_metric([name], 1)
            counter.add_metric([name], 5_000_000)
        yield gauge
        yield counter


def test_counters_from_elsewhere_get_no_zero() -> None:
    """A database's own counter that appears at a height did not rise from 0 since the last snapshot."""
    registry = CollectorRegistry()
    source = Elsewhere()
    registry.register(source)
    snapshotter = Snapshotter(registry)
    snapshotter.take(1000)
    source.names.append("b")
    assert [batch.ts_ms for batch in snapshotter.take(2000)] == [2000]


def test_vanished_series_end_with_one_marker() -> None:
    """A series that is gone gets the staleness marker once, in a batch of its own."""
    registry = CollectorRegistry()
    source = Elsewhere()
    source.names = ["a", "b"]
    registry.register(source)
    snapshotter = Snapshotter(registry)
    snapshotter.take(1000)
    source.names = ["b"]
    now, ended = snapshotter.take(2000)
    assert sorted(rows(now)) == ['commits_total{name="b"}', 'row{name="b"}']
    assert ended.ts_ms == 2000
    assert sorted(rows(ended)) == ['commits_total{name="a"}', 'row{name="a"}']
    assert stale_mask(ended.values).all()
    (after,) = snapshotter.take(3000)
    assert after.labels is now.labels


def test_series_born_right_after_its_end_gets_its_zero_after_the_marker() -> None:
    """A counter that ended at the last snapshot and is back has its zero 1 ms after the marker."""
    registry = CollectorRegistry()
    counter = Counter("c", "h", ["l"], registry=registry)
    counter.labels("a").inc()
    snapshotter = Snapshotter(registry)
    snapshotter.take(1000)
    counter.remove("a")
    snapshotter.take(2000)
    counter.labels("a").inc(2)
    zeros, now = snapshotter.take(3000)
    assert (zeros.ts_ms, zeros.values.tolist()) == (2001, [0.0])
    assert now.values.tolist() == [2.0]


def test_everything_gone_leaves_markers_only() -> None:
    """A registry that became empty yields the markers, then nothing."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", registry=registry)
    snapshotter = Snapshotter(registry)
    snapshotter.take(1000)
    registry.unregister(gauge)
    (ended,) = snapshotter.take(2000)
    assert is_stale(ended.values[0])
    assert snapshotter.take(3000) == []


def test_repeated_series_are_taken_once() -> None:
    """Two collectors that yield one series: the first value counts, the batch has no repeats."""
    registry = CollectorRegistry()
    registry.register(Elsewhere())
    Gauge("g", "h", registry=registry).set(3)
    registry.register(Elsewhere())
    (batch,) = Snapshotter(registry).take(1000)
    assert len(set(batch.labels)) == len(batch.labels) == len(batch.values) == 3
    assert rows(batch)["g"] == 3.0


def test_extra_labels_win() -> None:
    """Labels of the snapshotter stand on each series, whatever the series says itself."""
    registry = CollectorRegistry()
    Gauge("g", "h", ["job"], registry=registry).labels("own").set(1)
    (batch,) = Snapshotter(registry, {"job": "app", "instance": "x:1"}).take(1000)
    assert [str(labels) for labels in batch.labels] == ['g{instance="x:1", job="app"}']


def test_upper_case_and_empty_labels_are_in_order() -> None:
    """Label sets are sorted by name, and an empty value is no label."""
    registry = CollectorRegistry()
    Gauge("g", "h", ["Z", "a"], registry=registry).labels("1", "").set(1)
    (batch,) = Snapshotter(registry).take(1000)
    assert batch.labels[0].pairs == (("Z", "1"), ("__name__", "g"))


def test_metadata_uses_the_names_of_the_text_format() -> None:
    """Counters are listed with _total, types as the text format shows them."""
    registry = CollectorRegistry()
    Counter("c", "Counts.", registry=registry)
    Gauge("g_bytes", "Bytes.", unit="bytes", registry=registry)
    snapshotter = Snapshotter(registry)
    snapshotter.take(1000)
    assert snapshotter.metadata() == {
        "c_total": ("counter", "Counts.", ""),
        "g_bytes": ("gauge", "Bytes.", "bytes"),
    }


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from("abcde"), unique=True, max_size=5), min_size=1, max_size=8))
def test_markers_and_values_follow_the_set_of_series(steps: list[list[str]]) -> None:
    """At every snapshot each series has one sample: its value, or a marker if it just left."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", ["l"], registry=registry)
    snapshotter = Snapshotter(registry)
    before: set[str] = set()
    for at, names in enumerate(steps):
        gauge.clear()
        for name in names:
            gauge.labels(name).set(at)
        values: dict[str, float] = {}
        for batch in snapshotter.take(1000 * (at + 1)):
            assert batch.ts_ms == 1000 * (at + 1)
            assert values.keys().isdisjoint(rows(batch))
            values.update(rows(batch))
        ended = {f'g{{l="{name}"}}' for name in before - set(names)}
        assert {name for name, value in values.items() if is_stale(value)} == ended
        assert {name for name, value in values.items() if value == at} == {
            f'g{{l="{name}"}}' for name in names
        }
        before = set(names)


def test_values_are_copies() -> None:
    """A batch keeps its values when the registry moves on."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", registry=registry)
    gauge.set(1)
    snapshotter = Snapshotter(registry)
    (first,) = snapshotter.take(1000)
    gauge.set(2)
    snapshotter.take(2000)
    assert np.array_equal(first.values, [1.0])
