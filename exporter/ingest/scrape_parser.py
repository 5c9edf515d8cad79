"""The parser of scrapes: the same lines come again and again, so what was read of them is kept.

A line's bytes up to its value are looked up; only a line that was never seen is read in full, by the parsers
of `line` and `text`. A repeated scrape costs one look-up and one float for each line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import numpy as np

from exporter.errors import ExpositionError, Problem
from exporter.ingest.line import SampleLine, read_line
from exporter.ingest.text import parse_text
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.model.samples import Float64s

_PIECE: Final = 1 << 20  # split at once: a longer one would hold the interpreter too long
_ODD: Final = re.compile(rb"[_\v\f]|[+-][nN]")  # float() lets them pass, the formats do not
_SLACK: Final = 1000
_MAX_TS_MS: Final = 2**62
_STAMP_WIDTH: Final = 15
# A line without escapes, blanks to spare, timestamp or exemplar, which most are; others are read by `line`.
_LABEL: Final = r'[a-zA-Z_][a-zA-Z0-9_]*="[^"\\\n]*"'
_PLAIN: Final = re.compile(
    rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? ([^ \t\r]+)", re.ASCII
)
_PAIR: Final = re.compile(r'([^=,]+)="([^"]*)"')
_METADATA: Final = (b"TYPE", b"HELP", b"UNIT")
_MAX_COMMENT: Final = 2000  # bytes of a line that is kept
_MAX_COMMENTS: Final = 60_000
_FIELDS: Final = {"TYPE": "kind", "HELP": "help", "UNIT": "unit"}
_HELP_ESCAPE: Final = re.compile(r'\\([n\\"])')


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a target says about a metric."""

    kind: str = "unknown"
    help: str = ""
    unit: str = ""


Resolve = Callable[[str, Sequence[tuple[str, str]]], LabelSet | None]
"""What a metric name and label pairs become."""


class Format(Enum):
    """The two formats, by their names in the Content-Type header."""

    TEXT = "text/plain"
    OPENMETRICS = "application/openmetrics-text"


class ScrapeLimitError(Exception):
    """A scrape is refused because of a limit."""


@dataclass(slots=True)
class Scraped:
    """The samples of one scrape, in order of lines: `series` and `values` have the same length N.

    `times` maps positions to Unix milliseconds for those that have a timestamp. `total` counts all sample
    lines, those included that were dropped, and `born` the lines that were not known.
    """

    series: list[LabelSet] = field(default_factory=list)
    values: Float64s = field(default_factory=lambda: np.zeros(0, np.float64))
    times: dict[int, int] = field(default_factory=dict)
    total: int = 0
    born: int = 0


class ScrapeParser:
    """Reads the scrapes of one target.

    `resolve` turns a line that was never seen into the series it becomes, None where it is dropped; what it
    raises ends the scrape. `max_series` (0: no bound) ends a scrape with ScrapeLimitError before memory does.
    """

    def __init__(self, resolve: Resolve, *, max_series: int = 0) -> None:
        self._resolve = resolve
        self._max_series = max_series
        self._format = Format.TEXT
        # Dropped lines map to EMPTY_LABELS. Two generations, so that series which are gone are forgotten.
        self._known: dict[bytes, LabelSet] = {}
        self._older: dict[bytes, LabelSet] = {}
        self.metadata: Mapping[str, Metadata] = {}  # of the last scrape that was taken, by metric name
        self._comments: dict[
            bytes, tuple[str, str, str] | None
        ] = {}  # lines that were read: name, field, text
        self._size = 0  # sample lines of the last scrape that was taken
        self.total = 0  # sample lines of the scrape that is being read, also where it is refused

    def parse(self, body: bytes, format_: Format = Format.TEXT) -> Scraped:
        """The samples of a body.

        Raises: ExpositionError with the line and what is wrong; ScrapeLimitError; what `resolve` raises.
        """
        if format_ is not self._format:
            self._format = format_
            self._known, self._older = {}, {}
        reading = _Reading()
        self.total = 0
        try:
            self._read(_without_eof(body) if format_ is Format.OPENMETRICS else body, reading)
        except Exception:
            if len(self._known) > 2 * self._size + _SLACK:  # a target may send other series each time
                self._known, self._older = {}, {}
            raise
        self._size = reading.total
        self._describe(reading.comments)
        if len(self._known) > 2 * reading.total + _SLACK:
            self._known, self._older = {}, self._known
        return reading.scraped()

    def _read(self, body: bytes, reading: _Reading) -> None:
        start, number = 0, 0
        while start < len(body):
            end = body.find(b"\n", start + _PIECE)
            piece = body[start:] if end < 0 else body[start:end]
            start = len(body) if end < 0 else end + 1
            blanks = b"\t" in piece or b"\r" in piece
            lines = piece.split(b"\n")
            if start >= len(body) and lines[-1] == b"":
                lines.pop()
            self._lines(lines, number, reading, blanks=blanks)
            number += len(lines)

    def _lines(self, lines: list[bytes], before: int, reading: _Reading, *, blanks: bool) -> None:
        """One piece: known lines by look-up, others one by one."""
        first = len(reading.texts)
        series, texts = reading.series, reading.texts
        look_up = self._known.get
        number = before
        # Other blanks than one space are rare: a piece that has some takes the long way for those lines.
        for line in lines:
            number += 1
            head, _, text = line.rpartition(b" ")
            found = look_up(head)
            if found is None or (blanks and (b"\t" in line or b"\r" in line)):
                self._unknown(line, number, reading, head, text)
            else:
                series.append(found)
                texts.append(text)
        if _ODD.search(b" ".join(texts[first:])) is not None:
            for place in range(first, len(texts)):
                _check_value(texts[place])
        try:
            reading.values.append(np.array(list(map(float, texts[first:])), np.float64))
        except ValueError:
            text = next(text for text in texts[first:] if not _is_float(text))
            raise ExpositionError(Problem(f'"{_shown(text)}" is not a number')) from None
        reading.total = self.total = len(series)

    def _unknown(self, line: bytes, number: int, reading: _Reading, head: bytes, value: bytes) -> None:
        """A comment, a line with a timestamp or an exemplar, or a series that is new."""
        openmetrics = self._format is Format.OPENMETRICS
        if line.startswith(b"#") or (not openmetrics and line.strip(b" \t\r")[:1] in (b"", b"#")):
            if openmetrics:
                _check_metadata(line, number)
            if line[2:6] in _METADATA and len(line) <= _MAX_COMMENT and len(reading.comments) < _MAX_COMMENTS:
                reading.comments.append(line)
            return
        if self._timed(line, reading):
            return
        try:
            text = line.decode()
            plain = _PLAIN.fullmatch(text)
            if plain is not None:  # its value is left for later
                name, block = plain[1], plain[2]
                pairs: Sequence[tuple[str, str]] = _PAIR.findall(block) if block else ()
                if len(dict(pairs)) < len(pairs):
                    plain = None  # refused in the words of `line`
            if plain is None:
                sample = read_line(text) if openmetrics else parse_text(text)[0]
                name, pairs = sample.name, sample.labels
                head = _head(line, sample, openmetrics=openmetrics)
                value = repr(sample.value).encode()
                if sample.ts_s is not None:
                    reading.times[len(reading.series)] = _milliseconds(sample.ts_s)
        except UnicodeDecodeError:
            raise ExpositionError(Problem("the text is not UTF-8", line=number, column=1)) from None
        except ExpositionError as error:
            problem = error.problems[0]
            raise ExpositionError(Problem(problem.message, line=number, column=1)) from None
        except ValueError as error:
            raise ExpositionError(Problem(str(error), line=number, column=1)) from None
        found = self._known.get(head)
        if found is None:
            found = self._older.pop(head, None)
            if found is None:
                found = self._resolve(name, pairs) or EMPTY_LABELS
                reading.born += 1
            self._known[head] = found
        if found is not EMPTY_LABELS:
            reading.kept += 1
            if self._max_series and reading.kept > self._max_series:
                raise ScrapeLimitError(f"more than {self._max_series} new series in one scrape")
        reading.series.append(found)
        reading.texts.append(value)

    def _describe(self, comments: list[bytes]) -> None:
        """Keep what the comments of a scrape say; those of the last one are known."""
        known = self._comments
        read = {line: known[line] if line in known else _comment(line) for line in comments}
        if read.keys() == known.keys():
            return
        self._comments = read
        found: dict[str, Metadata] = {}
        for entry in read.values():
            if entry is not None:
                name, what, text = entry
                found[name] = replace(found.get(name, Metadata()), **{what: text})
        self.metadata = found

    def _timed(self, line: bytes, reading: _Reading) -> bool:
        """A known series with a value and a timestamp behind it."""
        rest, _, stamp = line.rpartition(b" ")
        head, _, text = rest.rpartition(b" ")
        found = self._known.get(head)
        if found is None or len(stamp) > _STAMP_WIDTH or not stamp.isdigit():
            return False
        scale = 1000 if self._format is Format.OPENMETRICS else 1
        reading.times[len(reading.series)] = int(stamp) * scale
        reading.series.append(found)
        reading.texts.append(text)
        return True


@dataclass(slots=True)
class _Reading:
    """What has been read of a body so far."""

    series: list[LabelSet] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    values: list[Float64s] = field(default_factory=list)
    times: dict[int, int] = field(default_factory=dict)
    comments: list[bytes] = field(default_factory=list)
    total: int = 0
    born: int = 0
    kept: int = 0

    def scraped(self) -> Scraped:
        values = np.concatenate(self.values) if self.values else np.zeros(0, np.float64)
        kept = [place for place, labels in enumerate(self.series) if labels is not EMPTY_LABELS]
        if len(kept) == len(self.series):
            return Scraped(self.series, values, self.times, self.total, self.born)
        places = {old: new for new, old in enumerate(kept)} if self.times else {}
        times = {places[old]: ts_ms for old, ts_ms in self.times.items() if old in places}
        return Scraped([self.series[place] for place in kept], values[kept], times, self.total, self.born)


def _milliseconds(ts_s: float) -> int:
    """Raises: ValueError."""
    ts_ms = ts_s * 1000
    if not math.isfinite(ts_ms) or abs(ts_ms) > _MAX_TS_MS:
        raise ValueError("the timestamp is out of range")
    return round(ts_ms)


def _head(line: bytes, sample: SampleLine, *, openmetrics: bool) -> bytes:
    """The bytes up to the value, with which the next scrape finds the series.

    Behind the series stand at most a value, a timestamp and an exemplar: as many words are cut off.
    """
    if openmetrics and sample.exemplar is not None:
        line = line[: line.rindex(b" # ")] if line.count(b" # ") == 1 else _before_exemplar(line)
    elif not openmetrics:
        line = line.rstrip(b" \t\r")
    head, _, _ = line.rpartition(b" ") if b"\t" not in line else _last_word(line)
    if sample.ts_s is not None:
        head = head if openmetrics else head.rstrip(b" \t")
        head, _, _ = head.rpartition(b" ") if b"\t" not in head else _last_word(head)
    return head


def _last_word(line: bytes) -> tuple[bytes, bytes, bytes]:
    cut = max(line.rfind(b" "), line.rfind(b"\t"))
    return line[:cut], line[cut : cut + 1], line[cut + 1 :]


def _before_exemplar(line: bytes) -> bytes:
    """A line whose labels contain the sign of an exemplar too: cut at the first one outside quotes."""
    quoted, at = False, 0
    while at < len(line):
        char = line[at : at + 1]
        if quoted and char == b"\\":
            at += 1
        elif char == b'"':
            quoted = not quoted
        elif not quoted and line.startswith(b" # ", at):
            return line[:at]
        at += 1
    return line


def _without_eof(body: bytes) -> bytes:
    """An OpenMetrics body less its last line. Raises: ExpositionError where it is cut off."""
    text = body.removesuffix(b"\n")
    if text == b"# EOF":
        return b""
    if not text.endswith(b"\n# EOF"):
        raise ExpositionError("the text does not end with # EOF: it is cut off")
    return text[: -len(b"# EOF")]


def _comment(line: bytes) -> tuple[str, str, str] | None:
    """Name, field of Metadata and text of a TYPE, HELP or UNIT line; None for any other."""
    parts = line.decode("utf-8", "replace").split(None, 3)
    if len(parts) < 3 or parts[0] != "#" or parts[1] not in _FIELDS:
        return None
    name, text = parts[2], parts[3].rstrip("\r") if len(parts) == 4 else ""
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1]
    if parts[1] == "HELP":
        text = _HELP_ESCAPE.sub(lambda found: {"n": "\n"}.get(found[1], found[1]), text)
    elif parts[1] == "TYPE":
        text = "unknown" if text == "untyped" else text
    return name, _FIELDS[parts[1]], text


def _check_metadata(line: bytes, number: int) -> None:
    parts = line.split(b" ", 3)
    if len(parts) < 4 or parts[0] != b"#" or parts[1] not in _METADATA:
        message = "expected # TYPE, # HELP or # UNIT, a name and a text"
        if line.startswith(b"# EOF"):
            message = "nothing may stand after # EOF"
        raise ExpositionError(Problem(message, line=number, column=1))


def _check_value(text: bytes) -> None:
    """Refuse what float() takes and the formats do not."""
    if _ODD.search(text) is not None:
        raise ExpositionError(Problem(f'"{_shown(text)}" is not a number'))


def _is_float(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(text: bytes) -> str:
    return text[:50].decode("utf-8", "replace")
