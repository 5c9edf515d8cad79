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
from exporter.ingest.digits import Bytes, read_block, read_columns
from exporter.ingest.line import read_line, read_series
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.samples import Float64s, Int64s

_PIECE = 1 << 18  # read at a time: what is made of it stays in the processor's cache
_RUN = 32 << 20  # at most in one run
_WORTH_CUTTING = 64  # lines of one length
_MAX_STAMP = 15  # digits that a float64 holds
_BREAK, _BLANK, _POINT, _ZERO = np.frombuffer(b"\n .0", np.uint8)
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
        self._advise("MADV_RANDOM", 0, len(data))  # a look for the end of a series reads no megabytes
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
            stop = self._cut(place, end, _PIECE)
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
            stop = self._cut(at, end, _RUN)
            self._advise("MADV_NORMAL", at, stop)
            yield Run(labels, *self._samples(at, stop, len(prefix)))
            self._advise("MADV_RANDOM", at, stop)
            at = stop
            self._progress(at)

    def _advise(self, how: str, at: int, end: int) -> None:
        """Tell the system how a part of the file is read: pages here and there, or one after the other."""
        if isinstance(self._data, mmap.mmap) and hasattr(mmap, how):
            start = at - at % mmap.PAGESIZE
            self._data.madvise(getattr(mmap, how), start, end - start)

    def _cut(self, at: int, end: int, most: int) -> int:
        """The end of the last whole line of at most so many bytes, or of the first line."""
        if end - at <= most:
            return end
        return self._data.rfind(b"\n", at, at + most) + 1 or self._line_end(at) + 1

    def _samples(self, at: int, end: int, head: int) -> tuple[Int64s, Float64s]:
        """Times and values of lines of one series, whose values begin `head` bytes behind the start."""
        times: list[Int64s] = []
        values: list[Float64s] = []
        cells: list[Bytes] = []  # stamps of one form, not yet read
        known, matched = self._times, 0  # how many lines from the start have the stamps of the run before
        while at < end:
            stop = self._cut(at, end, _PIECE)
            piece = self._data[at:stop]
            if not piece.endswith(b"\n"):
                piece += b"\n"
            at, start = stop, at
            stamps: Bytes | None = None
            try:
                stamps, column = _columns(piece, head, known[0][matched:] if known else None)
            except ValueError:
                ts_ms, column = self._lines(piece, start)
                stamps = None
            else:
                if known and stamps is None:
                    matched += len(column)
                    values.append(column)
                    continue
            if known and matched:
                cells, matched = [known[0][:matched]], 0
            known = None
            if cells and (stamps is None or not _of_one_form(cells[0], stamps)):
                times.append(self._milliseconds(cells))
                cells = []
            if stamps is None:
                times.append(ts_ms)
            else:
                cells.append(stamps)
            values.append(column)
        if known and matched:
            times.append(known[1] if matched == len(known[1]) else known[1][:matched])
        elif cells:
            times.append(self._milliseconds(cells))
        if len(times) > 1:
            return np.concatenate(times), np.concatenate(values)
        return times[0], values[0] if len(values) == 1 else np.concatenate(values)

    def _milliseconds(self, stamps: list[Bytes]) -> Int64s:
        """The times of stamps as written, each (lines, width); the same array for the same stamps."""
        cells = stamps[0] if len(stamps) == 1 else np.concatenate(stamps)
        if self._times is not None and np.array_equal(self._times[0], cells):
            return self._times[1]
        point = int(np.argmax(cells[0] == _POINT)) if _POINT in cells[0] else -1
        behind = cells.shape[1] - 1 - point if point >= 0 else 0
        digits = cells if point < 0 else np.delete(cells, point, axis=1)
        number = (digits - _ZERO).astype(np.float64) @ (10.0 ** np.arange(digits.shape[1] - 1, -1, -1))
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
        for start in range(0, at, _RUN):
            line += self._data[start : min(at, start + _RUN)].count(b"\n")
        return ExpositionError(Problem(message, self._file, line, 1))


def _columns(piece: bytes, head: int, known: Bytes | None) -> tuple[Bytes | None, Float64s]:
    """The stamps (lines, width) and the values of whole lines that all have a stamp of one form.

    The stamps are None where they are the first of the `known` ones. Lines of one length that follow each
    other are cut out of the piece as one array.
    Raises: ValueError where the lines are not alike enough.
    """
    data = np.frombuffer(piece, np.uint8)
    width = len(piece[head : piece.index(b"\n")].partition(b" ")[2])
    if not width or width > _MAX_STAMP + 1:
        raise ValueError("no timestamp")
    stamps, values = [], []
    at, done = 0, 0
    while at < len(data):
        size = piece.index(b"\n", at) + 1 - at
        value_end = size - width - 2
        count = _alike(data, at, size)
        if count < _WORTH_CUTTING or value_end <= head:
            stamp, column = _of_any_length(data[at:], head, width)
            at = len(data)
        else:
            lines = data[at : at + count * size].reshape(count, size)
            if not bool((lines[:, value_end] == _BLANK).all()):
                raise ValueError("no blank before the timestamp")
            stamp, column = lines[:, value_end + 1 : size - 1], read_block(lines[:, head:value_end])
            at += count * size
        if known is not None and not np.array_equal(known[done : done + len(column)], stamp):
            known = None
        done += len(column)
        stamps.append(stamp)
        values.append(column)
    together = values[0] if len(values) == 1 else np.concatenate(values)
    if known is not None:
        return None, together
    cells = np.concatenate(stamps)
    _check_stamps(cells)
    return cells, together


def _alike(data: Bytes, at: int, size: int) -> int:
    """How many lines of one length begin at `at`, as far as line breaks stand where they would."""
    breaks = data[at + size - 1 :: size] == _BREAK
    return len(breaks) if bool(breaks.all()) else int(breaks.argmin())


def _of_any_length(data: Bytes, head: int, width: int) -> tuple[Bytes, Float64s]:
    ends = np.flatnonzero(data == _BREAK)
    starts = np.empty_like(ends)
    starts[0] = head
    starts[1:] = ends[:-1] + 1 + head
    value_ends = ends - width - 1
    if int((value_ends - starts).min()) < 1 or not bool((data[value_ends] == _BLANK).all()):
        raise ValueError("lines of another form")
    return data[ends[:, None] - np.arange(width, 0, -1)], read_columns(data, starts, value_ends)


def _of_one_form(stamps: Bytes, others: Bytes) -> bool:
    """Whether stamps have one width, and their point at one place."""
    return np.array_equal(stamps[0] == _POINT, others[0] == _POINT)


def _check_stamps(cells: Bytes) -> None:
    """Raises: ValueError unless all are digits, with a point at one place or none."""
    points = cells == _POINT
    digits = (cells - _ZERO <= 9) | points  # below "0" the difference wraps round
    places = int(points[0].sum())
    alike = (places == 0 and not bool(points.any())) or (places == 1 and bool((points == points[0]).all()))
    if not alike or not bool(digits.all()) or cells.shape[1] - places > _MAX_STAMP:
        raise ValueError("stamps of another form")


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
