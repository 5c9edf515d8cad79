"""Streams of samples out of large files give what the plain parser gives, whatever the order of lines."""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import ExpositionError
from exporter.ingest.digits import read_block, read_columns
from exporter.ingest.openmetrics import parse_openmetrics, samples_of
from exporter.ingest.stream import OpenMetricsStream

NUMBERS = st.one_of(
    st.integers(-(10**18), 10**18).map(str),
    st.floats().map(repr),
    st.decimals(-(10**6), 10**6, places=4).map(str),
    st.sampled_from(["NaN", "+Inf", "-Inf", "-0", "0.5", "+3", "1e5", ".5", "5."]),
)


def bits(value: float) -> bytes:
    return b"nan" if value != value else struct.pack("<d", value)


@given(st.lists(NUMBERS.filter(lambda text: len(text) <= 26), min_size=1, max_size=30))
@settings(max_examples=200)
def test_columns_read_as_float_does(texts: list[str]) -> None:
    """Numbers read by columns have the bits that `float` gives."""
    data = np.frombuffer("".join(f"x{text}" for text in texts).encode(), np.uint8)
    ends = np.cumsum([len(text) + 1 for text in texts])
    starts = ends - [len(text) for text in texts]
    got = read_columns(data, starts, ends)
    assert [bits(value) for value in got.tolist()] == [bits(float(text)) for text in texts]


@given(st.integers(1, 20), st.data())
@settings(max_examples=200)
def test_blocks_read_as_float_does(width: int, data: st.DataObject) -> None:
    """Numbers of one width, read together, have the bits that `float` gives."""
    texts = data.draw(st.lists(NUMBERS.map(lambda text: text[:width].ljust(width, "0")), min_size=1))
    cells = np.frombuffer("".join(texts).encode(), np.uint8).reshape(len(texts), width)
    try:
        want = [bits(float(text)) for text in texts]
    except ValueError:
        with pytest.raises(ValueError, match="is not a number"):
            read_block(cells)
    else:
        assert [bits(value) for value in read_block(cells).tolist()] == want


@pytest.mark.parametrize("text", ["", "-", ".", "1.2.3", "--1", "0x10", "1_0", "a", "1-", "e5"])
def test_columns_refuse_what_is_no_number(text: str) -> None:
    """A text that is no number is refused, as line by line."""
    data = np.frombuffer(f"1 {text} ".encode(), np.uint8)
    with pytest.raises(ValueError):
        read_columns(data, np.array([0, 2]), np.array([1, 2 + len(text)]))


@st.composite
def files(draw: st.DrawFn) -> str:
    """Series by series, of many lengths; times in seconds or with a point."""
    lines = []
    typed = draw(st.booleans())
    for number in range(draw(st.integers(1, 6))):
        name = f"m{number % 3}_{number}"
        if typed:
            lines.append(f"# TYPE {name} {draw(st.sampled_from(['gauge', 'counter', 'unknown']))}")
            if lines[-1].endswith("counter"):
                name += "_total"
        labels = draw(st.sampled_from(["", '{a="b c"}', '{a="\\"é"}']))
        shape = draw(st.sampled_from(["%d", "%d.000", "%d.5"]))
        for step in range(draw(st.integers(0, 40))):
            value = draw(st.integers(0, 10**6)) / draw(st.sampled_from([1, 1, 8, 1000, 3]))
            lines.append(f"{name}{labels} {value!r} {shape % (1000 + 15 * step)}")
            if draw(st.integers(0, 40)) == 0 and name.endswith("_total"):
                lines[-1] += ' # {id="x"} 1'
    return "\n".join([*lines, "# EOF\n"])


@given(files())
@settings(max_examples=100)
def test_a_stream_gives_what_the_parser_gives(text: str) -> None:
    """Runs hold the samples of the parser, series by series, in order."""
    want: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for sample in samples_of(parse_openmetrics(text)):
        assert sample.ts_s is not None
        want[str(sample.series)].append((round(sample.ts_s * 1000), sample.value))
    got: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for run in OpenMetricsStream(text.encode()):
        got[str(run.labels)].extend(zip(run.ts_ms.tolist(), run.values.tolist(), strict=True))
    assert got == want
    chosen = {name for name in want if name.startswith("m1")}
    stream = OpenMetricsStream(text.encode(), wanted=lambda labels: labels.name.startswith("m1"))
    assert {str(run.labels) for run in stream} == chosen


def test_points_of_histograms_interleave() -> None:
    """Lines of a histogram that follow each other by time are read one by one, none is lost."""
    lines = ["# TYPE h histogram"]
    for ts in range(50):
        lines += [f'h_bucket{{le="1"}} {ts} {ts}', f'h_bucket{{le="+Inf"}} {ts} {ts}']
    runs = list(OpenMetricsStream("\n".join([*lines, "# EOF"]).encode()))
    assert sum(len(run.values) for run in runs) == 100
    created = ["# TYPE c counter"]
    created += [f"c_total {ts} {ts}" if ts % 17 else f"c_created 0 {ts}" for ts in range(1, 60)]
    runs = list(OpenMetricsStream("\n".join([*created, "# EOF"]).encode()))
    assert sum(len(run.values) for run in runs if run.labels.name == "c_created") == 3


def long_file(steps: int, odd: dict[int, str]) -> list[str]:
    """A file of two series that are read in many pieces; the lines at `odd` end in something of their own."""
    lines = ["# TYPE long gauge"]
    for name, shape in (("a", "%d"), ("b", "%.3f")):
        head = f'long{{name="{name}",filler="{"x" * 100}"}}'
        lines += [f"{head} {shape % (step * step / 8)} {10**9 + 15 * step}" for step in range(steps)]
    for at, end in odd.items():
        lines[at] = lines[at].rpartition(" ")[0] + end
    return lines


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {6000: " 1000091000.5"},
        {5999: " 1000089970.0", 9999: " 1.1e9"},
        {16000: " 1000089986"},
        {16000: " 1000089985.5"},
    ],
)
def test_a_long_series_is_read_in_pieces(odd: dict[int, str]) -> None:
    """What is read by columns and what line by line is put together in the order of the file."""
    lines = long_file(10_000, odd)
    runs = {run.labels.get("name"): run for run in OpenMetricsStream("\n".join([*lines, "# EOF"]).encode())}
    for name, texts in (("a", lines[1:10_001]), ("b", lines[10_001:])):
        parts = [text.split(" ") for text in texts]
        assert runs[name].values.tolist() == [float(value) for _, value, _ in parts]
        assert runs[name].ts_ms.tolist() == [round(float(stamp) * 1000) for *_, stamp in parts]
    if not odd:
        assert runs["a"].ts_ms is runs["b"].ts_ms


@pytest.mark.parametrize(
    "counts", [(9000, 9000, 9000), (9000, 500, 9000), (500, 9000, 9000), (9000, 8999, 9001)]
)
def test_series_of_equal_and_other_lengths(counts: tuple[int, ...]) -> None:
    """Stamps that the series before had are taken over; shorter and longer series get their own."""
    lines = [
        f'm{{n="{n}",filler="{"x" * 90}"}} {at % 7 * n} {10**9 + 15 * at}'
        for n, count in enumerate(counts)
        for at in range(count)
    ]
    runs = list(OpenMetricsStream("\n".join([*lines, "# EOF"]).encode()))
    for n, (run, count) in enumerate(zip(runs, counts, strict=True)):
        assert run.ts_ms.tolist() == [1000 * (10**9 + 15 * at) for at in range(count)]
        assert run.values.tolist() == [float(at % 7 * n) for at in range(count)]
    if len(set(counts)) == 1:
        assert runs[0].ts_ms is runs[2].ts_ms


def test_stamps_change_their_form_between_pieces() -> None:
    """Stamps of one width whose point stands elsewhere are read by their own point; a line has any length."""
    pieces = [" 1 1000000.25\n", " 1 10000000.5\n", " 1 100000000\n"]
    head = "a" * 300_000
    text = "".join(f"{head}{piece}" for piece in pieces)
    (run,) = OpenMetricsStream(f"{text}# EOF".encode())
    assert run.ts_ms.tolist() == [1_000_000_250, 10_000_000_500, 100_000_000_000]


def test_a_fault_in_a_long_series_has_its_line() -> None:
    """A line deep inside a series that is no sample is named by its number."""
    for end in (" x", " 1000 1", "", " 10:5"):
        text = "\n".join([*long_file(10_000, {7000: end}), "# EOF"])
        with pytest.raises(ExpositionError, match=r"f\.txt:7001:1"):
            list(OpenMetricsStream(text.encode(), "f.txt"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 1 1\n", "# EOF"),
        ("a 1\n# EOF", ":1:1"),
        ("a 1 1\na 1 2\na x 3\n# EOF", ":3:1"),
        ("a 1 1\n\n# EOF", ":2:1"),
        ("a 1 1\nb{ 1 2\n# EOF", ":2:1"),
    ],
)
def test_a_fault_has_its_place(text: str, words: str) -> None:
    """What cannot be imported is refused with file and line."""
    with pytest.raises(ExpositionError, match=r"f\.txt") as caught:
        list(OpenMetricsStream(text.encode(), "f.txt"))
    assert words in str(caught.value)
