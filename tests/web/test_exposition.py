"""/metrics: negotiation, the same samples as the library writes, one rendering for many, no long blocks."""

from __future__ import annotations

import asyncio
import gzip
import math
import struct
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.errors import InputError
from exporter.ingest.scrape_parser import Format as Scraped
from exporter.ingest.scrape_parser import ScrapeParser
from exporter.model.labels import LabelSet
from exporter.observe.families import RegistryReader
from exporter.web.exposition import ExpositionPage, Renderer
from exporter.web.exposition_text import escape_name, value_texts
from exporter.web.metrics import ExpositionMetrics
from exporter.web.negotiate import Encoding, Escaping, Format, Offer, Wanted, choose_encoding, choose_offer
from tests.helpers.clock import FakeClock
from tests.helpers.peers import peer

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"  # noqa: E501
PROMETHEUS_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"  # noqa: E501


class Custom:
    """A custom collector with explicit times, an untyped family, and a gauge histogram."""

    def collect(self) -> Iterator[Metric]:
        stamped = GaugeMetricFamily("stamped", "With time.", labels=["l"])
        stamped.add_metric(["a"], 1.5, timestamp=1_700_000_000.25)
        stamped.add_metric(["b"], 2.5)
        yield stamped
        untyped = Metric("untyped", "Who knows.", "unknown")
        untyped.add_sample("untyped", {}, 3)
        yield untyped
        histogram = GaugeHistogramMetricFamily("queue_age_seconds", "Ages.", labels=["q"])
        histogram.add_metric(["x"], [("1.0", 2.0), ("+Inf", 3.0)], gsum_value=4.0)
        yield histogram


def everything() -> CollectorRegistry:
    registry = CollectorRegistry()
    gauge = Gauge("some_bytes", 'Help with \\ and "quotes"\nand lines.', ["b", "a"], registry=registry)
    for at, value in enumerate((0.0, -0.0, 1e300, 5e-324, math.inf, -math.inf, math.nan, 1 / 3, 123456789.0)):
        gauge.labels(f'x"\\\n{at}ü', "").set(value)
    Counter("events_total", "Events.", registry=registry).inc(7)
    histogram = Histogram("wait_seconds", "Waits.", ["m"], unit="seconds", registry=registry)
    histogram.labels("get").observe(0.3)
    Summary("size_bytes", "Sizes.", registry=registry).observe(9)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    Enum("mode", "Mode.", states=["on", "off"], registry=registry)
    registry.register(Custom())
    return registry


def parsed(families: object) -> list[tuple[object, ...]]:
    return [
        (family.name, family.type, family.documentation, [repr(sample) for sample in family.samples])
        for family in families  # type: ignore[attr-defined]
    ]


def without_created(families: object) -> list[tuple[object, ...]]:
    return [
        (family.name, family.type, family.documentation, [repr(sample) for sample in family.samples])
        for family in families  # type: ignore[attr-defined]
        if not family.name.endswith("_created")
    ]


def dropped_created(text: bytes) -> str:
    return "".join(line for line in text.decode().splitlines(keepends=True) if "_created" not in line)


async def page_text(registry: CollectorRegistry, accept: str = "", **wanted: Any) -> str:
    body, _ = await ExpositionPage(registry).render(accept, "", Wanted(**wanted))
    return body.decode()


async def test_text_equals_the_library_after_parsing() -> None:
    """Families, types, help, labels, values and times are those of generate_latest."""
    registry = everything()
    ours = without_created(parse_text(await page_text(registry)))
    assert ours == without_created(parse_text(dropped_created(generate_latest(registry))))


async def test_openmetrics_equals_the_library_after_parsing() -> None:
    """The same in OpenMetrics, units and exemplars included."""
    registry = everything()
    histogram = Histogram("traced_seconds", "h", registry=registry)
    histogram.observe(0.3, {"trace_id": "a b"})
    Counter("traced", "h", registry=registry).inc(2, {"trace_id": "c"})
    text = await page_text(registry, OPENMETRICS)
    assert text.endswith("# EOF\n")
    assert " # {" in text
    ours = without_created(parse_openmetrics(text))
    assert ours == without_created(parse_openmetrics(dropped_created(generate_openmetrics(registry))))


async def test_every_bit_of_a_value_survives() -> None:
    """A value reads back to the same 64 bits, signed zero and subnormals included."""
    registry = everything()
    values = [
        sample.value for family in parse_text(await page_text(registry)) for sample in family.samples
        if sample.name == "some_bytes"
    ]  # fmt: skip
    assert [math.copysign(1, value) for value in values[:2]] == [1.0, -1.0]
    assert values[2:6] == [1e300, 5e-324, math.inf, -math.inf]
    assert math.isnan(values[6])
    assert values[7] == 1 / 3


def test_promtool_finds_nothing() -> None:
    """promtool reads the text and has nothing to remark on well-named metrics."""
    registry = CollectorRegistry()
    Gauge("quantum_memory_bytes", "Memory.", ["kind"], registry=registry).labels('a"b\\c').set(1)
    Counter("quantum_events_total", "Events.", registry=registry).inc()
    Histogram("quantum_wait_seconds", "Waits.", ["m"], registry=registry).labels("x").observe(1)
    text = asyncio.run(page_text(registry))
    done = subprocess.run(
        [peer("promtool"), "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_a_second_rendering_shows_what_changed() -> None:
    """Prepared lines follow every change: values, new, removed and remade label sets."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", ["l"], registry=registry)
    page = ExpositionPage(registry)

    async def lines() -> list[str]:
        body, _ = await page.render("", "")
        assert body == generate_latest(registry)
        return [line for line in body.decode().splitlines() if not line.startswith("#")]

    gauge.labels("a").set(1)
    gauge.labels("b").set(2)
    assert await lines() == ['g{l="a"} 1.0', 'g{l="b"} 2.0']
    gauge.labels("b").set(math.nan)
    assert await lines() == ['g{l="a"} 1.0', 'g{l="b"} NaN']
    assert await lines() == ['g{l="a"} 1.0', 'g{l="b"} NaN']
    gauge.labels("c").set(3)
    gauge.remove("a")
    gauge.labels("a").set(9)
    assert await lines() == ['g{l="b"} NaN', 'g{l="c"} 3.0', 'g{l="a"} 9.0']
    gauge.clear()
    assert await lines() == []


@settings(max_examples=12)
@given(st.lists(st.dictionaries(st.integers(0, 4200), st.floats(), max_size=30), min_size=1, max_size=3))
def test_blocks_follow_any_updates(updates: list[dict[int, float]]) -> None:
    """Over several blocks of lines, any set of changed rows renders as a rendering from scratch."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", ["l"], registry=registry)
    rows = [gauge.labels(row) for row in range(4201)]
    reader, kept = RegistryReader(registry), Renderer(Offer(Format.TEXT_0))
    kept.render(reader.read())
    for update in updates:
        for row, value in update.items():
            rows[row].set(value)
        assert kept.render(reader.read()) == Renderer(Offer(Format.TEXT_0)).render(reader.read())


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/json", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8"),
        (PROMETHEUS_2, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.9",
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        ("application/openmetrics-text;q=0,*/*;q=0.1", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=2.0.0", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/vnd.google.protobuf;q=1,text/plain;version=1.0.0;escaping=dots;q=0.5",
            "text/plain; version=1.0.0; charset=utf-8; escaping=dots",
        ),
        ('text/plain;version="0.0.4";q=bad', "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_format_is_the_best_accepted(accept: str, content_type: str) -> None:
    """The quality values decide, then the order; nobody is refused."""
    assert choose_offer(accept).content_type == content_type


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", Encoding.IDENTITY),
        ("gzip", Encoding.GZIP),
        ("deflate, gzip;q=0.5", Encoding.GZIP),
        ("gzip;q=0", Encoding.IDENTITY),
        ("GZIP", Encoding.GZIP),
        ("x-gzip", Encoding.GZIP),
        ("*", Encoding.GZIP),
        ("*;q=0", Encoding.IDENTITY),
        ("gzip;q=0, *", Encoding.IDENTITY),
        ("identity", Encoding.IDENTITY),
        ("identity, gzip;q=0.5", Encoding.IDENTITY),
        ("identity;q=0.5, gzip", Encoding.GZIP),
        ("zstd", Encoding.ZSTD),
        ("gzip, deflate, br, zstd", Encoding.ZSTD),
        ("zstd;q=0.5, gzip", Encoding.GZIP),
        ("zstd;q=0, gzip;q=0.1", Encoding.GZIP),
        ("zstd;q=0", Encoding.IDENTITY),
        ("zstd, *", Encoding.ZSTD),
    ],
)
def test_the_encoding_is_the_best_accepted(header: str, encoding: Encoding) -> None:
    """Accept-Encoding with quality values decides about compression; zstd wins where all are equal."""
    assert choose_encoding(header) is encoding


@pytest.mark.parametrize(
    ("name", "escaping", "escaped"),
    [
        ("plain_name", Escaping.UNDERSCORES, "plain_name"),
        ("http.status:sum", Escaping.UNDERSCORES, "http_status:sum"),
        ("1st", Escaping.UNDERSCORES, "_st"),
        ("http.status_sum", Escaping.DOTS, "http_dot_status__sum"),
        ("plain_name", Escaping.VALUES, "plain_name"),
        ("http.status_sum", Escaping.VALUES, "U__http_2e_status__sum"),
        ("花火", Escaping.VALUES, "U___82b1__706b_"),
        ("http.status", Escaping.ALLOW_UTF8, "http.status"),
    ],
)
def test_escaping_schemes(name: str, escaping: Escaping, escaped: str) -> None:
    """Names outside the classic set are written by the scheme that the client asked for."""
    assert escape_name(name, escaping) == escaped


async def test_utf8_names_are_quoted_where_allowed() -> None:
    """A UTF-8 name stands quoted inside the braces, and the parsers read it back."""
    registry = CollectorRegistry()
    Gauge("my.metric", "h", ["a.b"], registry=registry).labels("x").set(1)
    text = await page_text(registry, OPENMETRICS + ";escaping=allow-utf-8")
    assert '{"my.metric","a.b"="x"} 1.0\n' in text
    (family,) = parse_openmetrics(text)
    assert (family.samples[0].name, family.samples[0].labels) == ("my.metric", {"a.b": "x"})
    assert 'my_metric{a_b="x"} 1.0\n' in await page_text(registry)


async def test_compressed_bodies() -> None:
    """A compressed answer says so and unpacks to the plain one."""
    registry = everything()
    page = ExpositionPage(registry)
    plain, headers = await page.render("", "")
    assert "Content-Encoding" not in headers
    packed, headers = await page.render("", "gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in headers["Vary"]
    assert gzip.decompress(packed) == plain
    packed, headers = await page.render("", "gzip, zstd")
    assert headers["Content-Encoding"] == "zstd"
    assert zstandard.ZstdDecompressor().decompress(packed) == plain


async def test_names_filter_samples_and_families() -> None:
    """name[] keeps the samples so named, or a whole family; unknown names keep nothing."""
    registry = everything()
    assert "wait_seconds_sum" in await page_text(registry, names=("wait_seconds",))
    text = await page_text(registry, names=("wait_seconds_count", "events_total"))
    samples = {sample.name for family in parse_text(text) for sample in family.samples}
    assert samples == {"wait_seconds_count", "events_total"}
    assert await page_text(registry, names=("nothing",)) == ""
    assert await page_text(registry, OPENMETRICS, names=("nothing",)) == "# EOF\n"


async def test_collectors_are_chosen_and_left_out() -> None:
    """collect[] keeps the families of a subsystem, exclude[] the others; unknown ones or both are refused."""
    registry = everything()
    Gauge("quantum_api_up", "h", registry=registry)
    assert "quantum_api_up 0.0" in await page_text(registry, collect=("api",))
    assert "some_bytes" not in await page_text(registry, collect=("api",))
    text = await page_text(registry, exclude=("api", "some"))
    assert "quantum_api_up" not in text
    assert "some_bytes" not in text
    assert "events_total 7.0" in text
    assert "wait_seconds_sum" in await page_text(registry, collect=("wait", "api"), names=("wait_seconds",))
    with pytest.raises(InputError, match=r'missing collector: "x" \(allowed: api, build, events'):
        await page_text(registry, collect=("x",))
    with pytest.raises(InputError, match="cannot be given together"):
        await page_text(registry, collect=("api",), exclude=("some",))


@pytest.mark.parametrize("labelled", [True, False])
async def test_created_samples_where_asked_for(labelled: bool) -> None:
    """created=true adds them as the library writes them; values and exemplars stay in place."""
    registry = everything()
    for number in range(3 if labelled else 0):
        Histogram(f"more_{number}_seconds", "h", ["l"], registry=registry)
    for at, metric in enumerate([one for one in registry._collector_to_names if isinstance(one, Histogram)]):
        for label in ("a", "b") if metric._labelnames else ():
            metric.labels(label).observe(at, {"trace_id": label})
    text, open_text = (
        await page_text(registry, created=True),
        await page_text(registry, OPENMETRICS, created=True),
    )
    assert parsed(parse_text(text)) == parsed(parse_text(generate_latest(registry).decode()))
    assert parsed(parse_openmetrics(open_text)) == parsed(
        parse_openmetrics(generate_openmetrics(registry).decode())
    )
    assert "_created" in text
    assert "_created" not in await page_text(registry)
    page = ExpositionPage(registry)
    for created in (True, False, True):
        body, _ = await page.render(OPENMETRICS, "", Wanted(created=created))
        assert body.decode() == await page_text(registry, OPENMETRICS, created=created)


async def test_a_broken_collector_costs_its_own_families_only() -> None:
    """A collector that raises is missing from the page and reported."""

    class Broken:
        def collect(self) -> Iterator[Metric]:
            raise RuntimeError("broken")

    registry = CollectorRegistry()
    registry.register(Broken())
    Gauge("fine", "h", registry=registry).set(1)
    errors: list[Exception] = []
    body, _ = await ExpositionPage(registry, lambda _, error: errors.append(error)).render("", "")
    assert b"fine 1.0" in body
    assert len(errors) == 1


class Slow:
    """Counts how often it is asked, and in which thread."""

    def __init__(self) -> None:
        self.calls = 0
        self.threads: set[int] = set()
        self.gate = threading.Event()

    def collect(self) -> Iterator[Metric]:
        self.calls += 1
        self.threads.add(threading.get_ident())
        self.gate.wait(5)
        yield GaugeMetricFamily("slow", "h", value=1)


async def test_concurrent_scrapes_share_one_rendering() -> None:
    """A hundred scrapes at once ask the collectors once, off the event loop, and get equal bytes."""
    registry, slow = CollectorRegistry(), Slow()
    registry.register(slow)
    page = ExpositionPage(registry)
    scrapes = [asyncio.create_task(page.render("", "gzip")) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    slow.gate.set()
    bodies = {body for body, _ in await asyncio.gather(*scrapes)}
    assert len(bodies) == 1
    assert slow.calls == 1
    assert threading.get_ident() not in slow.threads


async def test_a_client_that_hangs_up_does_not_harm_the_others() -> None:
    """Cancelling one of two equal scrapes leaves the other its answer."""
    registry, slow = CollectorRegistry(), Slow()
    registry.register(slow)
    page = ExpositionPage(registry)
    first, second = (asyncio.create_task(page.render("", "")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    slow.gate.set()
    body, _ = await second
    assert b"slow 1.0" in body
    with pytest.raises(asyncio.CancelledError):
        await first


def large(series: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    gauge = Gauge("quantum_large", "h", ["a", "b"], registry=registry)
    for number in range(series):
        gauge.labels(number % 100, number).set(number / 7)
    return registry


async def test_large_renderings_leave_the_loop_free() -> None:
    """While 20,000 series are rendered for the first time the event loop goes on turning.

    How long its longest block is says benchmarks/exposition.py."""
    page = ExpositionPage(large(20_000))
    turns = 0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal turns
        while not done.is_set():
            await asyncio.sleep(0.001)
            turns += 1

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    body, _ = await page.render("", "gzip")
    done.set()
    await watcher
    assert gzip.decompress(body).count(b"\n") == 20_002
    assert turns > 5


@settings(max_examples=100)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_value_texts_read_back(values: list[float]) -> None:
    """Any float's text reads back to the same float."""
    import numpy as np

    for value, text in zip(values, value_texts(np.array(values)), strict=True):
        back = float(text)
        assert math.isnan(back) if math.isnan(value) else back == value


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(), min_size=1, max_size=8),
    st.lists(
        st.text(st.characters(exclude_categories=("Cs",)), max_size=12), min_size=8, max_size=8, unique=True
    ),
    st.booleans(),
)
def test_what_is_exposed_is_scraped_bit_for_bit(
    values: list[float], texts: list[str], openmetrics: bool
) -> None:
    """Any values and label texts come back out of the scrape parser, in both formats, twice."""
    registry = CollectorRegistry()
    gauge = Gauge("any_value", "h", ["text"], registry=registry)
    for text, value in zip(texts, values, strict=False):
        gauge.labels(text).set(value)
    offer = Offer(Format.OPENMETRICS if openmetrics else Format.TEXT_0)
    body = Renderer(offer).render(RegistryReader(registry).read())
    parser = ScrapeParser(lambda name, pairs: LabelSet.of((*pairs, ("__name__", name))))
    wanted = {text: struct.pack("<d", value) for text, value in zip(texts, values, strict=False)}
    for _ in range(2):
        scraped = parser.parse(body, Scraped.OPENMETRICS if openmetrics else Scraped.TEXT)
        found = {
            labels.get("text"): struct.pack("<d", value)
            for labels, value in zip(scraped.series, scraped.values.tolist(), strict=True)
        }
        assert found.keys() == wanted.keys()
        for text, value in zip(texts, values, strict=False):
            assert found[text] == wanted[text] or math.isnan(value)


async def test_the_page_counts_and_times_itself() -> None:
    """Requests are counted, a shared rendering is timed once, samples are those of the whole page."""
    registry = CollectorRegistry()
    gauge = Gauge("g", "h", ["l"], registry=registry)
    for number in range(5):
        gauge.labels(number)
    own = CollectorRegistry()
    page = ExpositionPage(registry, metrics=ExpositionMetrics(own), clock=FakeClock())
    await asyncio.gather(*(page.render("", "") for _ in range(4)))
    await page.render("", "", Wanted(names=("g",)))
    names = ("requests_total", "duration_seconds_count", "samples")
    assert [own.get_sample_value(f"quantum_exposition_{name}") for name in names] == [5, 2, 5]
