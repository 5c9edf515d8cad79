"""Samples with timestamps out of a large OpenMetrics file, a series at a time.

The format wants the samples of a series together, in order of time, so that the end of a series can be
looked for in leaps: a file of which the caller wants a part is read in part. Lines that all have the same
series are read by columns; everything else line by line. Metadata are taken as promtool's backfill takes
them: types are not enforced, every sample needs a timestamp.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from exporter.errors import ExpositionError, Problem
from exporter.ingest.digits import Bytes, read_columns
from exporter.ingest.line import read_line, read_series
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.samples import Float64s, Int64s

_PIECE = 4 << 20
_KNOWN = 100_000
_NEEDS_TIME = "a sample needs a timestamp to be imported"
_EOF = b"# EOF"
_ONE_NAME = (b"gauge", b"unknown")

Wanted = Callable[[LabelSet], bool]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Samples of one series that stand together. `ts_ms` is the same object where the times are the same."""

    labels: LabelSet
    ts_ms: Int64s
    values: Float64s


class OpenMetricsStream:
    """The runs of a file, in order.

    Args: `data` the whole file, usually a memory map; `wanted` chooses series, `progress` is called with the
    number of bytes that are done.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        file: str = "",
        *,
        wanted: Wanted = lambda labels: True,  # noqa: ARG005
        progress: Progress = lambda done: None,  # noqa: ARG005
    ) -> None:
        self._data = data
        self._file = file
        self._wanted = wanted
        self._progress = progress
        self._end = _end_of(data, file)
        self._times: tuple[Bytes, Int64s] | None = None
        self._known: dict[bytes, LabelSet | None] = {}
        self._one_name = True
        self._last_lines = 0.0

    def __iter__(self) -> Iterator[Run]:
        for at, end, prefix, labels in self._stretches():
            yield from self._read(at, end, prefix, labels)

    def sizes(self) -> dict[LabelSet, int]:
        """The bytes that each series takes, found without reading its samples."""
        found: dict[LabelSet, int] = {}
        for at, end, _, labels in self._stretches():
            found[labels] = found.get(labels, 0) + end - at
        return found

    def _stretches(self) -> Iterator[tuple[int, int, bytes, LabelSet]]:
        at = 0
        while at < self._end:
            line_end = self._line_end(at)
            if self._data[at : at + 1] == b"#":
                self._metadata(self._data[at:line_end])
                at = line_end + 1
                continue
            prefix, labels = self._series(at, line_end)
            end = self._run_end(at, line_end, prefix)
            if labels is not None:
                yield at, end, prefix, labels
            at = end
            self._progress(at)

    def _line_end(self, at: int) -> int:
        found = self._data.find(b"\n", at, self._end)
        return self._end if found < 0 else found

    def _metadata(self, line: bytes) -> None:
        parts = line.split(b" ")
        if len(parts) >= 2 and parts[1] == b"TYPE":
            self._one_name = len(parts) == 4 and parts[3] in _ONE_NAME

    def _series(self, at: int, line_end: int) -> tuple[bytes, LabelSet | None]:
        """The bytes up to the value, and the labels, None if the series is not wanted."""
        line = self._data[at:line_end]
        try:
            text = line.decode()
            name, labels, rest = read_series(text)
            prefix = line[: len(line) - len(rest.encode()) + 1]
            if prefix not in self._known:
                series = LabelSet.of((*labels, (METRIC_NAME, name)))
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[prefix] = series if self._wanted(series) else None
            return prefix, self._known[prefix]
        except ValueError as error:
            raise self._fault(at, str(error)) from None

    def _run_end(self, at: int, line_end: int, prefix: bytes) -> int:
        """Where the lines end that begin with `prefix`: looked for in growing leaps, then by halving."""
        good, leap, bad = at, line_end + 1 - at, self._end
        guess = int(self._last_lines * leap)  # series of one file tend to be of one length
        start = self._data.rfind(b"\n", at, at + guess) + 1 if at + guess < self._end else 0
        if start > at and self._same(start, prefix):
            good, leap = start, max(leap, guess // 64)
        while good + leap < self._end:
            start = self._data.rfind(b"\n", good, good + leap) + 1 or good
            if not self._same(start, prefix):
                bad = start
                break
            good, leap = start, 2 * leap
        while True:  # a line of the series begins at `good`; at `bad` stands another one, or the end
            middle = self._data.rfind(b"\n", good, (good + bad) // 2) + 1
            if middle <= good:
                middle = self._line_end(good) + 1
                if middle >= bad:
                    break
            if self._same(middle, prefix):
                good = middle
            else:
                bad = middle
        end = bad if self._one_name else self._checked(at, bad, prefix)
        self._last_lines = 0.97 * (end - at) / (line_end + 1 - at)
        return end

    def _same(self, at: int, prefix: bytes) -> bool:
        return self._data[at : at + len(prefix)] == prefix

    def _checked(self, at: int, end: int, prefix: bytes) -> int:
        """The end, or an earlier one where a family of several sample names has others in between."""
        place = at
        while place < end:
            stop = end
            if end - place > _PIECE:
                stop = self._data.rfind(b"\n", place, place + _PIECE) + 1
            piece = b"\n" + self._data[place:stop]
            lines = piece.count(b"\n") - piece.endswith(b"\n")
            if piece.count(b"\n" + prefix) != lines:
                while self._same(place, prefix):
                    place = self._line_end(place) + 1
                return place
            place = stop
        return end

    def _read(self, at: int, end: int, prefix: bytes, labels: LabelSet) -> Iterator[Run]:
        while at < end:
            stop = end
            if end - at > _PIECE:
                stop = self._data.rfind(b"\n", at, at + _PIECE) + 1
            piece = self._data[at:stop]
            if not piece.endswith(b"\n"):
                piece += b"\n"
            run = self._columns(piece, len(prefix))
            yield Run(labels, *(run or self._lines(piece, at)))
            at = stop
            self._progress(at)

    def _columns(self, piece: bytes, head: int) -> tuple[Int64s, Float64s] | None:
        """Times and values, by columns; None where the lines are not alike enough."""
        data = np.frombuffer(piece, np.uint8)
        ends = np.flatnonzero(data == 10)
        stamp = piece[head : int(ends[0])].partition(b" ")[2]
        if not stamp or not stamp.replace(b".", b"", 1).isdigit():
            return None
        width = len(stamp)
        starts = np.empty_like(ends)
        starts[0] = head
        starts[1:] = ends[:-1] + 1 + head
        value_ends = ends - width - 1
        if int((value_ends - starts).min()) < 1 or not bool((data[value_ends] == 32).all()):
            return None
        try:
            times = self._stamps(data[ends[None, :] - np.arange(width, 0, -1)[:, None]], stamp)
            if times is None:
                return None
            return times, read_columns(data, starts, value_ends)
        except ValueError:
            return None  # line by line, which tells where

    def _stamps(self, cells: Bytes, stamp: bytes) -> Int64s | None:
        """Milliseconds of timestamps of one width, point at the same place; `cells` (width, lines)."""
        if self._times is not None and np.array_equal(self._times[0], cells):
            return self._times[1]
        point = stamp.find(b".")
        if point >= 0 and not bool((cells[point] == 46).all()):
            return None
        rows = [row for row in range(len(stamp)) if row != point]
        digits = cells[rows] - np.uint8(48)
        behind = len(stamp) - 1 - point if point >= 0 else 0
        if bool((digits > 9).any()) or len(rows) > 15:
            return None
        number = (10.0 ** np.arange(len(rows) - 1, -1, -1)) @ digits.astype(np.float64)
        ts_ms: Int64s = np.rint(number / 10.0**behind * 1000).astype(np.int64)
        self._times = (cells, ts_ms)
        return ts_ms

    def _lines(self, piece: bytes, at: int) -> tuple[Int64s, Float64s]:
        times: list[int] = []
        values: list[float] = []
        for line in piece.split(b"\n")[:-1]:
            try:
                sample = read_line(line.decode())
                if sample.ts_s is None:
                    raise ValueError(_NEEDS_TIME)
            except ValueError as error:
                raise self._fault(at, str(error)) from None
            times.append(round(sample.ts_s * 1000))
            values.append(sample.value)
            at += len(line) + 1
        return np.array(times, np.int64), np.array(values, np.float64)

    def _fault(self, at: int, message: str) -> ExpositionError:
        line = 1
        for start in range(0, at, _PIECE):
            line += self._data[start : min(at, start + _PIECE)].count(b"\n")
        return ExpositionError(Problem(message, self._file, line, 1))


def _end_of(data: bytes | mmap.mmap, file: str) -> int:
    """Where the samples end: before # EOF. Raises: ExpositionError where it is missing."""
    size = len(data)
    tail = data[max(0, size - len(_EOF) - 1) :]
    if tail.endswith(_EOF + b"\n"):
        return size - len(_EOF) - 1
    if tail.endswith(_EOF):
        return size - len(_EOF)
    raise ExpositionError(
        Problem("the last line must be # EOF: the file is not OpenMetrics, or cut off", file)
    )
