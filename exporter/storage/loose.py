"""Series that arrive one by one: a column of values each, and timelines that they share where they agree."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

import numpy as np

from exporter.model.samples import Float64s, Int64s


class Timeline:
    """Ascending timestamps, shared by all series that have taken samples at just these times."""

    __slots__ = ("ts_ms", "users")

    def __init__(self, ts_ms: array[int]) -> None:
        self.ts_ms = ts_ms
        self.users = 0


class LooseSeries:
    """Samples `[0, len(values))` at `timeline.ts_ms[offset:]`."""

    __slots__ = ("offset", "timeline", "values")

    def __init__(self, timeline: Timeline, offset: int) -> None:
        self.timeline = timeline
        self.offset = offset
        self.values: array[float] = array("d")
        timeline.users += 1

    def append(self, ts_ms: int, value: float) -> None:
        """Add a sample that is newer than all before."""
        line = self.timeline.ts_ms
        end = self.offset + len(self.values)
        if end == len(line):
            line.append(ts_ms)
        elif line[end] != ts_ms:  # the ways part here: a timeline of its own from now on
            self.timeline.users -= 1
            own = Timeline(line[self.offset : end])
            own.ts_ms.append(ts_ms)
            own.users = 1
            self.timeline, self.offset = own, 0
        self.values.append(value)

    def span(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Positions [lo, hi) of the samples with start_ms <= ts <= end_ms."""
        line, offset, count = self.timeline.ts_ms, self.offset, len(self.values)
        lo = bisect_left(line, start_ms, offset, offset + count) - offset
        hi = bisect_right(line, end_ms, offset, offset + count) - offset
        return lo, hi

    @property
    def first_ms(self) -> int:
        """Time of the oldest sample."""
        return self.timeline.ts_ms[self.offset]

    @property
    def last_ms(self) -> int:
        """Time of the newest sample."""
        return self.timeline.ts_ms[self.offset + len(self.values) - 1]

    def read(self, lo: int, hi: int) -> tuple[Int64s, Float64s]:
        """Copies of the columns at positions [lo, hi)."""
        ts_ms = np.frombuffer(self.timeline.ts_ms[self.offset + lo : self.offset + hi], np.int64)
        values = np.frombuffer(self.values[lo:hi], np.float64)
        return ts_ms, values

    def drop(self, before_ms: int) -> int:
        """Forget samples older than a time; returns how many."""
        lo, _ = self.span(before_ms, before_ms)
        if lo:
            del self.values[:lo]
            self.offset += lo
        return lo


class LooseStore:
    """Loose series by ref. Not locked: the head guards it."""

    def __init__(self) -> None:
        self.series: dict[int, LooseSeries] = {}
        self.fresh = 0  # samples that came since the last look for companions
        self._shared = Timeline(array("q"))

    def append(self, ref: int, ts_ms: int, value: float) -> None:
        """Add one sample; the caller has checked that it is newer than the last of its series."""
        series = self.series.get(ref)
        if series is None:
            series = self.series[ref] = LooseSeries(*self._follow(ts_ms))
        series.append(ts_ms, value)
        self.fresh += 1

    def companions(self, least: int) -> list[list[int]]:
        """Groups of at least that many series whose samples stand at just the same times."""
        groups: dict[tuple[int, int, int], list[int]] = {}
        for ref, series in self.series.items():
            key = (id(series.timeline), series.offset, len(series.values))
            groups.setdefault(key, []).append(ref)
        self.fresh = 0
        return [refs for refs in groups.values() if len(refs) >= least]

    def take(self, refs: list[int]) -> tuple[Int64s, Float64s]:
        """The timestamps (N,) and values (N, len(refs)) of companions, which leave the store."""
        leaving = [self.series.pop(ref) for ref in refs]
        first = leaving[0]
        ts_ms, _ = first.read(0, len(first.values))
        values = np.empty((len(ts_ms), len(refs)))
        for place, series in enumerate(leaving):
            values[:, place] = series.values
            series.timeline.users -= 1
        return ts_ms, values

    def _follow(self, ts_ms: int) -> tuple[Timeline, int]:
        """The timeline that a new series joins: the shared one where it has this time."""
        line = self._shared.ts_ms
        place = bisect_left(line, ts_ms)
        if place < len(line) and line[place] == ts_ms:
            return self._shared, place
        self._shared = Timeline(array("q"))
        return self._shared, 0

    def truncate(self, before_ms: int) -> int:
        """Forget samples older than a time and series without samples; returns how many samples went."""
        gone = 0
        for ref in list(self.series):
            series = self.series[ref]
            if series.first_ms < before_ms:
                gone += series.drop(before_ms)
                if not series.values:
                    series.timeline.users -= 1
                    del self.series[ref]
        self._trim()
        return gone

    def _trim(self) -> None:
        """Cut timelines where none of their series still has samples."""
        starts: dict[Timeline, int] = {}
        for series in self.series.values():
            starts[series.timeline] = min(series.offset, starts.get(series.timeline, series.offset))
        if self._shared not in starts:
            self._shared = Timeline(array("q"))
        for series in self.series.values():
            series.offset -= starts[series.timeline]
        for timeline, start in starts.items():
            if start:
                del timeline.ts_ms[:start]
