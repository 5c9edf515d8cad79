"""The OpenMetrics parser against the specification's vectors and against what this program writes."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.errors import ExpositionError
from exporter.ingest.openmetrics import parse_openmetrics, samples_of
from exporter.ingest.text import parse_text
from tests.helpers.peers import shared


def test_vectors() -> None:
    """Every vector of the specification is accepted or refused as it says."""
    folders = sorted(shared("data/openmetrics/parsers").iterdir())
    assert len(folders) == 142
    wrong = []
    for folder in folders:
        wanted = json.loads((folder / "test.json").read_text())["shouldParse"]
        text = (folder / "metrics").read_bytes().decode()
        try:
            parse_openmetrics(text)
            got = True
        except ExpositionError:
            got = False
        if got != wanted:
            wrong.append(folder.name)
    assert not wrong


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("calls", 'with "quotes"\nand \\ lines', ["path"], registry=found).labels('a\\b"c\nd').inc(3)
    Gauge("level", "x", registry=found).set(float("nan"))
    Histogram("took_seconds", "x", ["to"], registry=found, unit="seconds").labels("é").observe(0.3)
    Summary("size", "x", registry=found).observe(4)
    Info("build", "x", registry=found).info({"version": "1"})
    return found


def test_what_the_client_library_writes() -> None:
    """An exposition of the client library reads as its own parser reads it."""
    text = generate_latest(registry()).decode()
    own = {(str(one.series), repr(one.value)) for one in samples_of(parse_openmetrics(text))}
    theirs = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {**sample.labels, "__name__": sample.name}
            from exporter.model.labels import LabelSet

            theirs.add((str(LabelSet.of(labels)), repr(sample.value)))
    assert own == theirs


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a 1\n", ":1:1", "# EOF"),
        ("# TYPE a gauge\n# TYPE a gauge\n# EOF\n", ":2:1", "repeated"),
        ("a 1\na x\n# EOF\n", ":2:1", "not a number"),
        ('a{b="1" 1\n# EOF\n', ":1:1", "commas"),
    ],
)
def test_a_fault_has_its_place(text: str, place: str, words: str) -> None:
    """A refusal names file, line, and what is wrong."""
    with pytest.raises(ExpositionError) as caught:
        parse_openmetrics(text, "f.txt")
    assert f"f.txt{place}" in str(caught.value)
    assert words in str(caught.value)


def test_text_format_is_lenient() -> None:
    """Blanks, tabs, comments, a last comma and millisecond timestamps are read as Prometheus reads them."""
    text = '# any comment\n\n  a { b = "x, }" , } \t 1.5 1000 \nb\t+Inf\nc{d="\\n\\\\\\""} NaN\n'
    first, second, third = parse_text(text)
    assert (str(first.series), first.value, first.ts_s) == ('a{b="x, }"}', 1.5, 1.0)
    assert (second.name, second.value, second.ts_s) == ("b", float("inf"), None)
    assert third.labels == (("d", '\n\\"'),)
    for bad in ("a", "a 1 2 3", "a{b=1} 2", "a{ 1", "1a 2", "a 0x10", "a 1 1.5"):
        with pytest.raises(ExpositionError):
            parse_text(bad)
