"""Stored samples of one stretch of time as a source of the engine, read where they lie.

Series that share their times and have neither gap nor marker become grids over the block's own columns;
which series a selector takes is found once, and carried over to the next stretch of the same series.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.samples import Float64s, Int64s, SeriesBlock
from exporter.promql.seriesset import EMPTY_SET, SeriesSet
from exporter.promql.source import ArrayGrid, Columns, Grid, Index, Ragged

Ints = npt.NDArray[np.intp]
_NO_MATCH = Columns(EMPTY_SET, (), ())


class StretchSource:
    """The samples of a block, series in label order. Not safe for threads.

    `before` is the source of the stretch before it, whose selections serve on if the series are the same.
    """

    def __init__(self, block: SeriesBlock, before: StretchSource | None = None) -> None:
        self.block = block
        self._choices: _Choices
        if before is not None and before.block.labels == block.labels:
            self._choices = before._choices
        else:
            self._choices = _Choices(block.labels)
        self._companies, self._times = _companies(block)
        self._parts: dict[tuple[Matcher, ...], tuple[_Part, ...]] = {}

    def columns(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """Samples with start_ms <= ts <= end_ms of the series that satisfy every matcher."""
        key = tuple(matchers)
        places, series = self._choices.of(key)
        if not len(places):
            return _NO_MATCH
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = tuple(self._divided(places))
        grids: list[Grid] = []
        ragged: list[Ragged] = []
        for part in parts:
            if part.company < 0:
                ragged.append(self._ragged(places, part.index, start_ms, end_ms))
                continue
            times = self._times[part.company]
            low, high = np.searchsorted(times, [start_ms, end_ms + 1]).tolist()
            if low < high:
                grids.append(ArrayGrid(part.index, times[low:high], part.rows[:, low:high].T))
        return Columns(series, tuple(grids), tuple(ragged))

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        """As `columns`, flat; series without a sample in the range are left out."""
        places, series = self._choices.of(tuple(matchers))
        flat = self._ragged(places, np.arange(len(places)), start_ms, end_ms)
        kept = np.flatnonzero(np.diff(flat.offsets))
        offsets = np.append(flat.offsets[:-1][kept], flat.offsets[-1])
        return SeriesBlock(
            tuple([series.labels[at] for at in kept.tolist()]), offsets, flat.ts_ms, flat.values
        )

    def _divided(self, places: Ints) -> list[_Part]:
        """The series of a selection by the times that they share."""
        companies = self._companies[places]
        parts = []
        for company in np.unique(companies).tolist():
            index = np.flatnonzero(companies == company)
            where: Index = slice(0, len(places)) if len(index) == len(places) else index
            rows = np.zeros((0, 0)) if company < 0 else self._rows(places[index])
            parts.append(_Part(company, index if company < 0 else where, rows))
        return parts

    def _rows(self, places: Ints) -> Float64s:
        """The values of series that share their times, (C, N); a view where they stand together."""
        offsets, values = self.block.offsets, self.block.values
        first, last = int(places[0]), int(places[-1])
        if last - first + 1 == len(places):
            return values[offsets[first] : offsets[last + 1]].reshape(len(places), -1)
        return np.stack([values[offsets[at] : offsets[at + 1]] for at in places.tolist()])

    def _ragged(self, places: Ints, index: Index, start_ms: int, end_ms: int) -> Ragged:
        ts_ms, values = self.block.ts_ms, self.block.values
        times, columns, counts = [], [], [0]
        chosen = np.arange(len(places))[index]
        for at in places[chosen].tolist():
            begin, end = self.block.offsets[at : at + 2].tolist()
            low, high = (np.searchsorted(ts_ms[begin:end], [start_ms, end_ms + 1]) + begin).tolist()
            times.append(ts_ms[low:high])
            columns.append(values[low:high])
            counts.append(high - low)
        if not times:
            return Ragged(chosen, np.zeros(1, np.int64), ts_ms[:0], values[:0])
        offsets = np.cumsum(counts, dtype=np.int64)
        return Ragged(chosen, offsets, np.concatenate(times), np.concatenate(columns))


class _Part:
    """Series of a selection: `index` their positions in it, `rows` (C, N) unless `company` is -1."""

    __slots__ = ("company", "index", "rows")

    def __init__(self, company: int, index: Index, rows: Float64s) -> None:
        self.company = company
        self.index = index
        self.rows = rows


class _Choices:
    """Which of some series, in label order, a set of matchers selects."""

    def __init__(self, labels: Sequence[LabelSet]) -> None:
        self._labels = labels
        self._by_name: dict[str, list[int]] = {}
        for place, series in enumerate(labels):
            self._by_name.setdefault(series.name, []).append(place)
        self._known: dict[tuple[Matcher, ...], tuple[Ints, SeriesSet]] = {}

    def of(self, matchers: tuple[Matcher, ...]) -> tuple[Ints, SeriesSet]:
        """Their places, and their labels."""
        found = self._known.get(matchers)
        if found is None:
            labels = self._labels
            name = next((m.value for m in matchers if m.name == METRIC_NAME and m.op is MatchOp.EQUAL), None)
            among = range(len(labels)) if name is None else self._by_name.get(name, ())
            places = [at for at in among if all(one.matches(labels[at].get(one.name)) for one in matchers)]
            found = (np.array(places, np.intp), SeriesSet(tuple([labels[at] for at in places])))
            self._known[matchers] = found
        return found


def _companies(block: SeriesBlock) -> tuple[Ints, list[Int64s]]:
    """For each series the number of the times that it shares, -1 where it has NaN or a marker; the times."""
    count = len(block.labels)
    bounds = block.offsets.tolist()
    company = np.full(count, -1, np.intp)
    nan = block.values != block.values
    odd = np.zeros(count, np.bool_)
    if bool(nan.any()):
        odd = np.diff(np.append(0, np.cumsum(nan))[block.offsets]) > 0
    known: dict[bytes, int] = {}
    times: list[Int64s] = []
    newest = -1
    for place in range(count):
        stamps = block.ts_ms[bounds[place] : bounds[place + 1]]
        if odd[place] or not len(stamps):
            continue
        if newest < 0 or not np.array_equal(times[newest], stamps):
            newest = known.setdefault(stamps.tobytes(), len(times))
            if newest == len(times):
                times.append(stamps)
        company[place] = newest
    return company, times


def joined(older: SeriesBlock, newer: SeriesBlock, from_ms: int) -> SeriesBlock:
    """The samples of both from a time on, series in label order.

    Of a series in both, `newer` goes on where `older` ends: what it has up to there is left out.
    """
    places = [{labels: place for place, labels in enumerate(block.labels)} for block in (older, newer)]
    labels = older.labels if older.labels == newer.labels else sorted({**places[0], **places[1]})
    kept: list[LabelSet] = []
    times, values, counts = [], [], [0]
    for series in labels:
        count, after_ms = 0, from_ms
        for block, among in zip((older, newer), places, strict=True):
            place = among.get(series)
            if place is None:
                continue
            low, high = block.offsets[place : place + 2].tolist()
            low += int(np.searchsorted(block.ts_ms[low:high], after_ms))
            if low < high:
                after_ms = int(block.ts_ms[high - 1]) + 1
                times.append(block.ts_ms[low:high])
                values.append(block.values[low:high])
                count += high - low
        if count:
            kept.append(series)
            counts.append(count)
    if not kept:
        return SeriesBlock.empty()
    owners = tuple(labels) if len(kept) == len(labels) else tuple(kept)
    return SeriesBlock(
        owners, np.cumsum(counts, dtype=np.int64), np.concatenate(times), np.concatenate(values)
    )
