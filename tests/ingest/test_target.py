"""Targets out of discovered labels, and the series that their samples become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.ingest.relabel import RelabelAction, RelabelRule
from exporter.ingest.scrape_parser import ScrapeLimitError
from exporter.ingest.target import Limits, SeriesMaker, make_target
from exporter.model.labels import LabelSet

FOUND = {
    "__address__": "h:1",
    "__scheme__": "http",
    "__metrics_path__": "/metrics",
    "__scrape_interval__": "15s",
    "__scrape_timeout__": "10s",
    "job": "j",
}


def test_labels_and_url() -> None:
    """instance is the address; what begins with __ goes; parameters stand in the URL."""
    target = make_target({**FOUND, "__meta_x": "y", "zone": "z"}, (), (("module", ("a", "b")),))
    assert target is not None
    assert target.labels == LabelSet.of({"job": "j", "instance": "h:1", "zone": "z"})
    assert target.url == "http://h:1/metrics?module=a&module=b"
    assert (target.interval_ms, target.timeout_ms) == (15_000, 10_000)
    assert target.discovered.get("__param_module") == "a"


def test_relabelling_decides_address_path_and_parameters() -> None:
    """The pattern of a probing exporter: the address becomes a parameter, another one is scraped."""
    rules = (
        RelabelRule(source_labels=("__address__",), target_label="__param_target"),
        RelabelRule(source_labels=("__param_target",), target_label="instance"),
        RelabelRule(target_label="__address__", replacement="probe:9115"),
        RelabelRule(target_label="__metrics_path__", replacement="/probe"),
        RelabelRule(target_label="__scrape_interval__", replacement="1m"),
    )
    target = make_target(FOUND, rules, ())
    assert target is not None
    assert target.url == "http://probe:9115/probe?target=h%3A1"
    assert (target.labels.get("instance"), target.interval_ms) == ("h:1", 60_000)


def test_what_cannot_be_scraped() -> None:
    """Dropped targets are none; an address, scheme or interval that makes no sense is an error."""
    assert make_target(FOUND, (RelabelRule(RelabelAction.DROP, ("job",), regex="j"),), ()) is None
    for name, value in (
        ("__address__", "h/x"),
        ("__address__", ""),
        ("__scheme__", "ftp"),
        ("__scrape_interval__", "5s"),
        ("__scrape_timeout__", "x"),
    ):
        with pytest.raises(ValueError, match=r"."):
            make_target({**FOUND, name: value}, (), ())


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        (Limits(labels=4), False),
        (Limits(labels=3), True),
        (Limits(name_length=8), False),
        (Limits(name_length=7), True),
        (Limits(value_length=4), False),
        (Limits(value_length=3), True),
    ],
)
def test_label_limits(limits: Limits, refused: bool) -> None:
    """The limits count every label, those of the target and the name included."""
    maker = SeriesMaker(LabelSet.of({"job": "j", "instance": "h:1"}), (), limits, honor_labels=False)
    if refused:
        with pytest.raises(ScrapeLimitError, match="limit exceeded"):
            maker("a", [("b", "long")])
    else:
        assert maker("a", [("b", "long")]) == LabelSet.of(
            {"__name__": "a", "b": "long", "job": "j", "instance": "h:1"}
        )


def test_a_conflict_with_an_exported_label() -> None:
    """exported_ is put before a name until it is free, as in Prometheus."""
    maker = SeriesMaker(LabelSet.of({"job": "j"}), (), Limits(), honor_labels=False)
    made = maker("a", [("exported_job", "x"), ("job", "y")])
    assert made == LabelSet.of(
        {"__name__": "a", "job": "j", "exported_job": "x", "exported_exported_job": "y"}
    )


def test_a_series_needs_a_name() -> None:
    """Relabelling that takes the name away refuses the scrape."""
    rule = RelabelRule(RelabelAction.LABELDROP, regex="__name__")
    maker = SeriesMaker(LabelSet.of({"job": "j"}), (rule,), Limits(), honor_labels=False)
    with pytest.raises(ValueError, match="no metric name"):
        maker("a", ())


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "job", "zone", "__name__"]), st.sampled_from(["", "x", "é"]))
    )
    .map(dict)
    .map(lambda labels: list(labels.items())),
    st.booleans(),
)
def test_the_short_way_gives_what_the_long_way_gives(pairs: list[tuple[str, str]], honor: bool) -> None:
    """Whatever the labels, with a rule that changes nothing every line goes the long way: the same series."""
    target = LabelSet.of({"job": "j", "zone": "z"})
    rule = RelabelRule(RelabelAction.LABELDROP, regex="nothing")
    short = SeriesMaker(target, (), Limits(), honor_labels=honor)
    long = SeriesMaker(target, (rule,), Limits(), honor_labels=honor)
    for _ in range(2):
        assert short("m", pairs) == long("m", pairs)
