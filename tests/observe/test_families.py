"""The quick readers yield what the library's own collect() yields."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.observe.families import FamilyValues, RegistryReader


def by_library(registry: CollectorRegistry) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    return [
        (sample.name, tuple(sorted(sample.labels.items())), float(sample.value))
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    ]


def by_reader(families: list[FamilyValues]) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    return [
        (*key, value)
        for family in families
        for key, value in zip(family.layout.keys, family.values.tolist(), strict=True)
    ]


def everything() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("plain", "h", registry=registry).set(-1.5)
    gauge = Gauge("labelled", "h", ["b", "a"], registry=registry)
    gauge.labels("1", "").set(float("inf"))
    gauge.labels("2", "x").set_function(lambda: 42)
    counter = Counter("events_total", "h", ["kind"], registry=registry)
    counter.labels("x").inc(3)
    histogram = Histogram("seconds", "h", ["m"], buckets=(0.1, 1, 1e7), registry=registry)
    for value in (0.05, 0.5, 5, 1e9):
        histogram.labels("get").observe(value)
    Histogram("below", "h", buckets=(-1, 0, 1), registry=registry).observe(-3)
    Summary("sizes", "h", ["m"], registry=registry).labels("put").observe(7)
    Info("build", "h", registry=registry).info({"version": "1"})
    Enum("state", "h", states=["a", "b"], registry=registry).state("b")
    return registry


def test_readers_equal_the_library() -> None:
    """Names, labels, order and values are those of collect(), the created samples left out."""
    registry = everything()
    assert by_reader(RegistryReader(registry).read()) == by_library(registry)


def test_set_function_after_the_first_reading_is_seen() -> None:
    """Gauge.set_function takes effect on a gauge that was read before."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", registry=registry)
    reader = RegistryReader(registry)
    reader.read()
    gauge.set_function(lambda: 7)
    assert reader.read()[0].values.tolist() == [7.0]


def test_layout_is_kept_until_the_children_change() -> None:
    """The layout is the same object until a label set comes, goes or is made anew."""
    registry = CollectorRegistry()
    counter = Counter("c", "h", ["l"], registry=registry)
    counter.labels("a").inc()
    reader = RegistryReader(registry)
    first = reader.read()[0].layout
    counter.labels("a").inc()
    assert reader.read()[0].layout is first
    counter.labels("b")
    second = reader.read()[0].layout
    assert second is not first
    assert second.keys[0] is first.keys[0]
    counter.remove("a")
    assert [key[1] for key in reader.read()[0].layout.keys] == [(("l", "b"),)]
    counter.clear()
    assert reader.read()[0].layout.keys == ()


def test_removed_and_remade_child_is_read_anew() -> None:
    """A label set removed and made again between two readings gives the new child's value."""
    registry = CollectorRegistry()
    counter = Counter("c", "h", ["l"], registry=registry)
    counter.labels("a").inc(5)
    reader = RegistryReader(registry)
    reader.read()
    counter.remove("a")
    counter.labels("a").inc(1)
    assert reader.read()[0].values.tolist() == [1.0]


class Custom:
    def __init__(self) -> None:
        self.fails = False

    def collect(self) -> Iterator[Metric]:
        if self.fails:
            raise RuntimeError("broken")
        gauge = GaugeMetricFamily("custom", "h", labels=["l"])
        gauge.add_metric(["x"], 1)
        yield gauge
        yield CounterMetricFamily("outside", "h", value=1_000_000)


def test_a_failing_collector_is_left_out_and_reported() -> None:
    """One collector that raises costs its own families only."""
    registry = CollectorRegistry()
    custom = Custom()
    registry.register(custom)
    Gauge("own", "h", registry=registry).set(1)
    errors: list[Exception] = []
    reader = RegistryReader(registry, lambda _, error: errors.append(error))
    assert [family.layout.name for family in reader.read()] == ["custom", "outside", "own"]
    custom.fails = True
    assert [family.layout.name for family in reader.read()] == ["own"]
    assert str(errors[0]) == "broken"


def test_custom_counters_do_not_start_at_zero() -> None:
    """Only instruments of this process count from 0; a counter from elsewhere may begin at any height."""
    registry = CollectorRegistry()
    registry.register(Custom())
    Counter("own", "h", registry=registry)
    starts = {family.layout.name: family.layout.starts_at_zero for family in RegistryReader(registry).read()}
    assert starts == {"custom": False, "outside": False, "own": True}


def test_target_info_is_read() -> None:
    """A registry with target labels yields target_info as the library does."""
    registry = CollectorRegistry(target_info={"job": "x"})
    Gauge("g", "h", registry=registry)
    assert by_reader(RegistryReader(registry).read()) == by_library(registry)


def test_unregistered_collectors_vanish() -> None:
    """A collector that was unregistered is not read any more, one registered later is."""
    registry = CollectorRegistry()
    gauge = Gauge("one", "h", registry=registry)
    reader = RegistryReader(registry)
    reader.read()
    registry.unregister(gauge)
    Gauge("two", "h", registry=registry)
    assert [family.layout.name for family in reader.read()] == ["two"]


def test_many_new_children_are_not_quick() -> None:
    """A source with many children that have no layout yet says that its next reading takes time."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", ["l"], registry=registry)
    reader = RegistryReader(registry)
    assert all(source.quick for source in reader.sources())
    for number in range(1000):
        gauge.labels(number)
    assert not any(source.quick for source in reader.sources())
    reader.read()
    assert all(source.quick for source in reader.sources())


def test_exemplars_are_read_where_asked_for() -> None:
    """Exemplars stand at the rows of their bucket or counter, and cost nothing when not asked for."""
    registry = CollectorRegistry()
    histogram = Histogram("h", "h", ["l"], buckets=(1, 2), registry=registry)
    histogram.labels("a").observe(0.5)
    histogram.labels("b").observe(1.5, {"trace": "t"})
    reader = RegistryReader(registry)
    assert reader.read()[0].exemplars == {}
    family = reader.read(exemplars=True)[0]
    assert [family.layout.keys[row] for row in family.exemplars] == [
        ("h_bucket", (("l", "b"), ("le", "2.0")))
    ]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["gauge", "counter", "histogram", "summary", "remove", "clear"]),
            st.sampled_from("abc"),
            st.floats(0, 20),
        ),
        max_size=25,
    )
)
def test_any_history_reads_as_the_library(history: list[tuple[str, str, float]]) -> None:
    """After any sequence of updates, removals and readings the reader agrees with collect()."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", ["l"], registry=registry)
    counter = Counter("c", "h", ["l"], registry=registry)
    histogram = Histogram("h", "h", ["l"], buckets=(1, 5), registry=registry)
    summary = Summary("s", "h", ["l"], registry=registry)
    reader = RegistryReader(registry)
    for action, label, value in history:
        if action == "gauge":
            gauge.labels(label).set(value)
        elif action == "counter":
            counter.labels(label).inc(value)
        elif action == "histogram":
            histogram.labels(label).observe(value)
        elif action == "summary":
            summary.labels(label).observe(value)
        elif action == "remove":
            counter.remove(label)
            histogram.remove(label)
        else:
            gauge.clear()
        assert by_reader(reader.read()) == by_library(registry)


@pytest.mark.parametrize("series", [0, 1])
def test_empty_families_have_empty_columns(series: int) -> None:
    """An instrument without children yields a family of no series."""
    registry = CollectorRegistry()
    histogram = Histogram("h", "h", ["l"], registry=registry)
    if series:
        histogram.labels("a")
    family = RegistryReader(registry).read()[0]
    assert len(family.values) == len(family.layout.keys) == series * 17
