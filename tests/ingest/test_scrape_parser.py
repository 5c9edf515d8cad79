"""The cached parser of scrapes reads what the plain parsers read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import ExpositionError
from exporter.ingest.line import SampleLine, read_line
from exporter.ingest.scrape_parser import Format, Metadata, Scraped, ScrapeLimitError, ScrapeParser
from exporter.ingest.text import parse_text
from exporter.model.labels import LabelSet


def series_of(name: str, pairs: Sequence[tuple[str, str]]) -> LabelSet:
    return LabelSet.of((*pairs, ("__name__", name)))


def parser() -> ScrapeParser:
    return ScrapeParser(series_of)


def flat(scraped: Scraped) -> list[tuple[LabelSet, float, int | None]]:
    return [
        (labels, value, scraped.times.get(place))
        for place, (labels, value) in enumerate(zip(scraped.series, scraped.values.tolist(), strict=True))
    ]


def expected(lines: list[SampleLine]) -> list[tuple[LabelSet, float, int | None]]:
    return [
        (line.series, line.value, None if line.ts_s is None else round(line.ts_s * 1000)) for line in lines
    ]


def same(left: list[tuple[LabelSet, float, int | None]], right: object) -> bool:
    return repr(left) == repr(right)  # NaN equals NaN


LINES = [
    "a 1",
    "a{} 2",
    'a{b="c"} 1.5e3',
    'a{b="c d",e="f"} +Inf',
    'a{b="c\\"d\\\\e\\nf"} NaN',
    'a{b="# {"} -Inf',
    'a{b="x # {y"} 3',
    "a 1 1700000000000",
    'a{b="c"} 7 1700000000001',
    "a\t1",
    "a  \t 1",
    "a 1\t1700000000002",
    "a 1 ",
    "a\t1\r",
    '{"a.b",c="d"} 4',
    'a { b = "c" , } 5',
    "# HELP a b",
    "#",
    "",
    "   # c",
    "é 1",
    "a 1_000",
    "a 0x1p3",
    "a +nan",
    "a infinity",
    "a",
    "a ",
    "a{",
    'a{b="c"',
    'a{b="c",b="d"} 1',
    'a{b="c"} 1 2 3',
    "a 1 1.5",
    "a 1 x",
    "a \v1",
    "<html>",
    "a 1 # {} 1",
]


@pytest.mark.parametrize("line", LINES)
def test_single_lines(line: str) -> None:
    """Each line gives what the plain parser of the text format gives, known or not."""
    try:
        wanted: object = expected(parse_text(line))
    except ExpositionError:
        wanted = ExpositionError
    for before in ("", 'a 0\na{} 0\na{b="c"} 0\na{b="c d",e="f"} 0'):
        reader = parser()
        reader.parse(before.encode())
        for _ in range(2):
            if wanted is ExpositionError:
                with pytest.raises(ExpositionError):
                    reader.parse(line.encode())
            else:
                assert same(flat(reader.parse(line.encode())), wanted), line


@settings(max_examples=300)
@given(st.lists(st.lists(st.sampled_from(LINES), max_size=8), max_size=4))
def test_scrapes_of_the_text_format(bodies: list[list[str]]) -> None:
    """Whatever came before, a scrape gives what the plain parser gives, or both refuse it."""
    reader = parser()
    for lines in bodies:
        text = "\n".join(lines)
        try:
            wanted = expected(parse_text(text))
        except ExpositionError:
            with pytest.raises(ExpositionError):
                reader.parse(text.encode())
        else:
            assert same(flat(reader.parse(text.encode())), wanted)


@settings(max_examples=300)
@given(st.lists(st.text(alphabet='ab{}="\\, #_1.+-eEnN\t\r', max_size=14), max_size=4))
def test_any_text(lines: list[str]) -> None:
    """Text made of the characters of the format: the same verdict as the plain parser, twice."""
    text = "\n".join(lines)
    reader = parser()
    try:
        wanted = expected(parse_text(text))
    except ExpositionError:
        for _ in range(2):
            with pytest.raises(ExpositionError):
                reader.parse(text.encode())
    else:
        for _ in range(2):
            assert same(flat(reader.parse(text.encode())), wanted)


OPENMETRICS = [
    "a 1",
    'a{b="c"} 1.5',
    'a{b="c # {"} 1.5 # {t="u"} 2 3',
    'a_bucket{le="+Inf"} 5 # {trace_id="x y"} 0.5 1700000000.5',
    'a_bucket{le="1"} 4 1700000000 # {} 1',
    "a 1 1700000000.123",
    "a 1 1700000000",
    "a 1 -1.5e3",
    '{"a.b"} 1',
]


@settings(max_examples=200)
@given(st.lists(st.lists(st.sampled_from(OPENMETRICS), max_size=6), max_size=3))
def test_scrapes_of_openmetrics(bodies: list[list[str]]) -> None:
    """Sample lines give what the plain reader of lines gives, exemplars aside, timestamps in seconds."""
    reader = parser()
    for lines in bodies:
        body = "\n".join(["# TYPE a unknown", *lines, "# EOF"]) + "\n"
        got = flat(reader.parse(body.encode(), Format.OPENMETRICS))
        assert same(got, expected([read_line(line) for line in lines]))


@pytest.mark.parametrize(
    "body",
    [
        b"a 1\n",
        b"",
        b"a 1\n# EOF\nb 2\n",
        b"a 1\n# EOF\n# EOF\n",
        b"\n# EOF\n",
        b"# NOTHING a b\n# EOF\n",
        b"a  1\n# EOF\n",
        b"a\t1\n# EOF\n",
        b"a 1\r\n# EOF\n",
        b"a 1 \n# EOF\n",
        b'a{b="c",} 1\n# EOF\n',
        b"a 1 2 # 3\n# EOF\n",
    ],
)
def test_openmetrics_is_strict(body: bytes) -> None:
    """No end mark, something behind it, blanks and unknown comments are refused, known series or not."""
    reader = parser()
    for _ in range(2):
        with pytest.raises(ExpositionError):
            reader.parse(body, Format.OPENMETRICS)
        reader.parse(b'a 1\na{b="c"} 1\n# EOF\n', Format.OPENMETRICS)


def test_a_known_line_is_not_read_again() -> None:
    """The second scrape resolves nothing, gives the same label sets, and drops what was dropped before."""
    asked: list[str] = []

    def resolve(name: str, pairs: Sequence[tuple[str, str]]) -> LabelSet | None:
        asked.append(name)
        return None if name == "b" else series_of(name, pairs)

    reader = ScrapeParser(resolve)
    first = reader.parse(b"a 1\nb 2\nc 3 1700000000000\n")
    second = reader.parse(b"a 4\nb 5\nc 6 1700000000001\n")
    assert asked == ["a", "b", "c"]
    assert [one is two for one, two in zip(first.series, second.series, strict=True)] == [True, True]
    assert (second.values.tolist(), second.times) == ([4, 6], {1: 1700000000001})
    assert (first.total, first.born, second.total, second.born) == (3, 3, 3, 0)


def test_series_that_are_gone_are_forgotten() -> None:
    """A target whose series change with each scrape does not fill the memory."""
    reader = parser()
    for turn in range(20):
        reader.parse("\n".join(f'a{{b="{turn}-{n}"}} 1' for n in range(1000)).encode())
        assert len(reader._known) + len(reader._older) < 8000


def test_refused_scrapes_fill_no_memory() -> None:
    """A target that sends too many other series each time is forgotten each time; a good one is kept."""
    reader = ScrapeParser(series_of, max_series=2000)
    reader.parse(b"a 1\n")
    for turn in range(10):
        with pytest.raises(ScrapeLimitError):
            reader.parse("\n".join(f'a{{b="{turn}-{n}"}} 1' for n in range(3000)).encode())
        assert len(reader._known) + len(reader._older) < 3000
    reader.parse("\n".join(f'a{{b="{n}"}} 1' for n in range(1500)).encode())
    with pytest.raises(ExpositionError):
        reader.parse(b"half{")
    assert len(reader._known) >= 1500


def test_long_bodies_are_read_in_pieces() -> None:
    """A body of several pieces gives every line once, and the place of a fault counts from its start."""
    lines = [f'a{{b="{n:06}",c="{"x" * 60}"}} {n}' for n in range(30_000)]
    scraped = parser().parse("\n".join(lines).encode())
    assert scraped.values.tolist() == list(range(30_000))
    lines[25_000] = "half{"
    with pytest.raises(ExpositionError) as caught:
        parser().parse("\n".join(lines).encode())
    assert caught.value.problems[0].line == 25_001


def test_too_many_series_end_the_scrape() -> None:
    """The bound holds before everything has been read."""
    reader = ScrapeParser(series_of, max_series=10)
    with pytest.raises(ScrapeLimitError):
        reader.parse("\n".join(f'a{{b="{n}"}} 1' for n in range(11)).encode())


def test_bits_of_values() -> None:
    """Values keep their bits: shortest decimals, denormals, negative zero."""
    numbers = [0.1, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3]
    scraped = parser().parse("\n".join(f'a{{b="{n}"}} {n!r}' for n in numbers).encode())
    assert [math.copysign(1, value) for value in scraped.values] == [1, 1, 1, -1, 1]
    assert scraped.values.tolist() == numbers


def test_bytes_that_are_no_text() -> None:
    """Garbage is refused with its line."""
    with pytest.raises(ExpositionError, match="UTF-8"):
        parser().parse(b"a 1\n\xff\xfe 2\n")


def test_what_a_target_says_about_its_metrics() -> None:
    """TYPE, HELP and UNIT of the last scrape that was taken, unescaped; untyped is unknown."""
    reader = parser()
    body = b"# TYPE a counter\n# HELP a with \\n and \\\\ x\n# a comment\na 1\n"
    body += b"# TYPE b untyped\nb 1\n# HELP c\nc 1\n"
    reader.parse(body)
    told = {"a": Metadata("counter", "with \n and \\ x"), "b": Metadata("unknown"), "c": Metadata()}
    assert reader.metadata == told
    first = reader.metadata
    reader.parse(body.replace(b"a 1", b"a 2"))
    assert reader.metadata is first
    with pytest.raises(ExpositionError):
        reader.parse(b"# TYPE a gauge\nhalf{")
    assert reader.metadata == told
    openmetrics = b'# TYPE "x.y" gauge\n# UNIT "x.y" seconds\n# HELP "x.y" say \\"hi\\"\n{"x.y"} 1\n# EOF\n'
    reader.parse(openmetrics, Format.OPENMETRICS)
    assert reader.metadata == {"x.y": Metadata("gauge", 'say "hi"', "seconds")}


def test_metadata_is_bounded() -> None:
    """Very long and very many lines are not kept."""
    reader = parser()
    reader.parse(b"# HELP a " + b"x" * 5000 + b"\na 1\n" + b"#\n" * 100_000)
    assert reader.metadata == {}
    reader.parse("".join(f"# TYPE a{n} gauge\n" for n in range(70_000)).encode())
    assert len(reader.metadata) == 60_000
