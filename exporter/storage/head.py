"""The head: samples in memory, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock

import numpy as np

from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.ordering import order_of
from exporter.model.samples import Float64s, Int64s, SampleBatch, SeriesBlock
from exporter.promql.seriesset import EMPTY_SET, SeriesSet
from exporter.promql.source import Columns
from exporter.storage.block import Block
from exporter.storage.chunk import Ints, Layout
from exporter.storage.index import SeriesIndex
from exporter.storage.loose import LooseStore
from exporter.storage.select import Selection, newest_row, read_columns, read_ragged

_NEVER = -(2**62)
_ROW_WIDTH = 8  # a smaller batch of series without a block goes to loose columns
_SETTLE_SERIES = 64  # as many loose series at the same times are worth a block
_SETTLE_SAMPLES = 10_000  # loose samples that make it worth looking
_SELECTIONS = 1024
_LARGE = 5000  # series of a selection that are not sorted under the lock
_ROUTES = 1024  # a scrape of many series brings a route for each 2000 of them
_BIRTHS = 200  # births tried against a kept selection


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of a batch: samples appended, refused as older than their series, refused as repeats."""

    appended: int
    out_of_order: int
    duplicate: int


@dataclass(frozen=True, slots=True)
class HeadStats:
    """Size of the head. Times are Unix milliseconds, None where it is empty."""

    series: int
    samples: int
    bytes: int
    min_time_ms: int | None
    max_time_ms: int | None
    label_pairs: int
    chunks: int


class _Route:
    """Where the series of one `labels` tuple stand, worked out at the first batch that carries it."""

    __slots__ = ("block", "cols", "labels", "layout", "refs", "version")

    def __init__(self, labels: object, refs: Int64s) -> None:
        self.labels = labels  # kept alive, so that its id stays its own
        self.refs = refs
        self.block: Block | None = None
        self.layout: Layout | None = None
        self.version = -1
        self.cols: Ints | None = None


class MemoryStorage:
    """Samples in memory, for the engine and the API. Safe for many readers and one writer at a time.

    Reads see what was appended before they began: columns only grow, and a read keeps their length. One
    lock guards the structure (births, rows, selections); evaluation runs without it.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._index = SeriesIndex()
        self._blocks: list[Block] = []
        self._loose = LooseStore()
        self._first_ms: Int64s = np.zeros(0, np.int64)
        self._last_ms: Int64s = np.zeros(0, np.int64)
        self._home: np.ndarray[tuple[int], np.dtype[np.int32]] = np.zeros(0, np.int32)
        self._routes: dict[int, _Route] = {}
        self._selections: dict[tuple[Matcher, ...], Selection] = {}
        self._floor_ms = _NEVER  # truncated before this
        self._oldest_ms: int | None = None  # of all samples that were ever appended
        self._newest_ms: int | None = None
        self._samples = 0
        self._dead: list[int] = []
        self._born: dict[str, list[LabelSet]] = {}  # by metric name, since the last read
        self._changes = 0  # births and removals of series
        self._row = _PendingRow()

    # -- writing ------------------------------------------------------------------------------------

    def append(self, labels: Mapping[str, str] | LabelSet, ts_ms: int, value: float) -> bool:
        """Append one sample; False where it is not newer than the last of its series.

        Samples of many series at one time, appended one after the other, end up in one row.
        """
        key = labels if isinstance(labels, LabelSet) else LabelSet.of(labels)
        with self._lock:
            row = self._row
            if row.ts_ms != ts_ms:
                self._flush()
                row.ts_ms = ts_ms
            ref = self._ref(key)
            if ts_ms <= self._last_ms[ref] or ref in row.samples:
                return False
            row.samples[ref] = value
            return True

    def append_batch(self, batch: SampleBatch) -> AppendResult:
        """Append the samples of many series at one time. Samples that come too late are counted, not raised.

        The same `labels` tuple object again finds its columns without any look-up.
        """
        with self._lock:
            self._flush()
            if not len(batch.labels):
                return AppendResult(0, 0, 0)
            route = self._routes.get(id(batch.labels))
            if route is None or route.labels is not batch.labels or self._stale(route):
                refs = np.array([self._ref(labels) for labels in batch.labels], np.int64)
                route = _Route(batch.labels, refs)
                if len(self._routes) >= _ROUTES:
                    self._routes.pop(next(iter(self._routes)))
                self._routes[id(batch.labels)] = route
            return self._append_row(batch.ts_ms, route, np.asarray(batch.values, np.float64))

    def truncate(self, before_ms: int) -> int:
        """Forget samples older than a time, and series that have none left. Returns how many samples went.

        Whole chunks go; what a chunk keeps before the time is not read any more.
        """
        with self._lock:
            self._flush()
            self._floor_ms = max(self._floor_ms, before_ms)
            gone = sum(block.truncate(before_ms) for block in self._blocks)
            gone += self._loose.truncate(before_ms)
            self._samples -= gone
            refs = self._index.all_refs()
            dead = refs[self._last_ms[refs] < before_ms]
            if len(dead):
                self._changes += 1
                self._index.remove(dead)
                self._dead.extend(dead.tolist())
                self._home[dead] = -1
                self._routes.clear()
                self._selections.clear()
            self._drop_blocks(before_ms)
            self._recycle()
            return gone

    # -- reading ------------------------------------------------------------------------------------

    @property
    def floor_ms(self) -> int | None:
        """The time from which on every appended sample is still held; None while there is none."""
        with self._lock:
            self._flush()
            return None if self._oldest_ms is None else max(self._oldest_ms, self._floor_ms)

    def columns(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """Samples with start_ms <= ts <= end_ms, as the columns in which they lie."""
        self._prepare(tuple(matchers))
        with self._lock:
            self._flush()
            self._settle()
            start_ms = max(start_ms, self._floor_ms)
            selection = self._select(tuple(matchers))
            if not len(selection.refs):
                return Columns(EMPTY_SET, (), ())
            return read_columns(selection, self._blocks, self._loose, start_ms, end_ms, self._index.size)

    def newest(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """As `columns`; of each series only the newest sample in the range must be there."""
        self._prepare(tuple(matchers))
        with self._lock:
            self._flush()
            self._settle()
            start_ms = max(start_ms, self._floor_ms)
            selection = self._select(tuple(matchers))
            if not len(selection.refs):
                return Columns(EMPTY_SET, (), ())
            size = self._index.size
            row = newest_row(selection, self._blocks, self._loose, start_ms, end_ms, size)
            return row or read_columns(selection, self._blocks, self._loose, start_ms, end_ms, size)

    def estimate(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> int | None:
        """About how many samples a read would give; None before the selection was read once."""
        with self._lock:
            known = None if self._born else self._selections.get(tuple(matchers))
            if known is None:
                return None
            rows = 1
            for block in self._blocks:
                found = 0
                for chunk in block.chunks:
                    if chunk.count and chunk.last_ms >= start_ms and chunk.first_ms <= end_ms:
                        span = max(1, chunk.last_ms - chunk.first_ms)
                        share = (min(end_ms, chunk.last_ms) - max(start_ms, chunk.first_ms)) / span
                        found += 1 + int(chunk.count * share)
                rows = max(rows, found)
            return rows * len(known.refs)

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        """Samples with start_ms <= ts <= end_ms of the series that satisfy every matcher, in label order.

        Series without a sample in the range are left out. The arrays are copies.
        """
        self._prepare(tuple(matchers))
        with self._lock:
            self._flush()
            selection = self._select(tuple(matchers))
            if not len(selection.refs):
                return SeriesBlock.empty()
            start_ms = max(start_ms, self._floor_ms)
            flat = read_ragged(selection, self._blocks, self._loose, start_ms, end_ms, self._index.size)
        counts = np.diff(flat.offsets)
        kept = np.flatnonzero(counts)
        offsets = np.zeros(len(kept) + 1, np.int64)
        np.cumsum(counts[kept], out=offsets[1:])
        labels = tuple(selection.series.labels[i] for i in kept.tolist())
        return SeriesBlock(labels, offsets, flat.ts_ms, flat.values)

    def series(self, matcher_sets: Iterable[Sequence[Matcher]], start_ms: int, end_ms: int) -> list[LabelSet]:
        """Label sets of the series that satisfy any of the matcher sets and have samples in the range."""
        with self._lock:
            self._flush()
            found: dict[int, LabelSet] = {}
            for matchers in matcher_sets:
                refs = self._within(self._index.select(matchers), start_ms, end_ms)
                found.update((ref, self._index.labels(ref)) for ref in refs.tolist())
            return sorted(found.values(), key=lambda labels: labels.pairs)

    def label_names(
        self, matcher_sets: Iterable[Sequence[Matcher]] = (), start_ms: int = _NEVER, end_ms: int = 2**62
    ) -> list[str]:
        """Label names in use, sorted; of the series that satisfy any of the matcher sets if there are any."""
        sets = tuple(matcher_sets)
        with self._lock:
            self._flush()
            if not sets and start_ms == _NEVER:
                return self._index.names()
            chosen = self.series(sets or ((),), start_ms, end_ms)
        return sorted({name for labels in chosen for name, _ in labels.pairs})

    def label_values(
        self,
        name: str,
        matcher_sets: Iterable[Sequence[Matcher]] = (),
        start_ms: int = _NEVER,
        end_ms: int = 2**62,
    ) -> list[str]:
        """Values of a label, sorted; of the series that satisfy any of the matcher sets if there are any."""
        sets = tuple(matcher_sets)
        with self._lock:
            self._flush()
            if not sets and start_ms == _NEVER:
                return self._index.values(name)
            chosen = self.series(sets or ((),), start_ms, end_ms)
        return sorted({value for labels in chosen if (value := labels.get(name))})

    def stats(self) -> HeadStats:
        """Size of the head now."""
        with self._lock:
            self._flush()
            chunks = [chunk for block in self._blocks for chunk in block.chunks if chunk.count]
            loose = list(self._loose.series.values())
            starts = [chunk.first_ms for chunk in chunks] + [series.first_ms for series in loose]
            size = sum(chunk.nbytes for chunk in chunks)
            size += sum(8 * len(series.values) for series in loose)
            size += sum(8 * len(line.ts_ms) for line in {series.timeline for series in loose})
            return HeadStats(
                series=len(self._index),
                samples=self._samples,
                bytes=size,
                min_time_ms=max(min(starts), self._floor_ms) if starts else None,
                max_time_ms=self._newest_ms,
                label_pairs=sum(len(values) for values in self._index.pair_counts().values()),
                chunks=len(chunks) + len(loose),
            )

    def pair_counts(self) -> dict[str, dict[str, int]]:
        """Number of series of each label pair, for the API's status page."""
        with self._lock:
            self._flush()
            return self._index.pair_counts()

    # -- inside -------------------------------------------------------------------------------------

    def _ref(self, labels: LabelSet) -> int:
        ref = self._index.ref(labels)
        if ref is None:
            ref = self._index.add(labels)
            if ref >= len(self._last_ms):
                room = max(64, len(self._last_ms) // 4)
                self._first_ms = np.concatenate([self._first_ms, np.full(room, 2**62, np.int64)])
                self._last_ms = np.concatenate([self._last_ms, np.full(room, _NEVER, np.int64)])
                self._home = np.concatenate([self._home, np.full(room, -1, np.int32)])
            self._first_ms[ref], self._last_ms[ref], self._home[ref] = 2**62, _NEVER, -1
            self._born.setdefault(labels.name, []).append(labels)
            self._changes += 1
        return ref

    def _forget_selections(self) -> None:
        """Drop the selections that series born since the last read belong to; the others stay."""
        born, self._born = self._born, {}
        everyone = [labels for group in born.values() for labels in group]
        for matchers in list(self._selections):
            name = next((m.value for m in matchers if m.name == METRIC_NAME and m.op is MatchOp.EQUAL), None)
            candidates = everyone if name is None else born.get(name, ())
            # Trying many births costs more than selecting again.
            if len(candidates) > _BIRTHS or any(_matches(matchers, labels) for labels in candidates):
                del self._selections[matchers]

    def _stale(self, route: _Route) -> bool:
        """Whether series of the route were dropped since; routes are cleared with them."""
        return route.block is not None and route.block not in self._blocks

    def _flush(self) -> None:
        """Write the samples that `append` has collected for one time."""
        row = self._row
        if not row.samples or row.ts_ms is None:
            return
        if len(row.samples) == 1:
            self._flush_single(row)
            return
        refs = np.fromiter(row.samples, np.int64, len(row.samples))
        values = np.fromiter(row.samples.values(), np.float64, len(row.samples))
        row.samples = {}
        ts_ms, row.ts_ms = row.ts_ms, None
        route = row.route
        if route is None or not np.array_equal(route.refs, refs) or self._stale(route):
            route = row.route = _Route(None, refs)
        self._append_row(ts_ms, route, values)

    def _flush_single(self, row: _PendingRow) -> None:
        """One sample alone: no row is worth it."""
        assert row.ts_ms is not None
        ((ref, value),) = row.samples.items()
        ts_ms, row.ts_ms, row.samples = row.ts_ms, None, {}
        if ts_ms < self._floor_ms:
            return
        if self._first_ms[ref] > ts_ms:
            self._first_ms[ref] = ts_ms
        self._last_ms[ref] = ts_ms
        self._samples += 1
        if self._newest_ms is None or ts_ms > self._newest_ms:
            self._newest_ms = ts_ms
        if self._oldest_ms is None or ts_ms < self._oldest_ms:
            self._oldest_ms = ts_ms
        self._loose.append(ref, ts_ms, value)

    def _settle(self) -> None:
        """Move loose series that keep the same times into a block, where they are read without a copy."""
        if self._loose.fresh < _SETTLE_SAMPLES:
            return
        for refs in self._loose.companions(_SETTLE_SERIES):
            homeless = [ref for ref in refs if self._home[ref] < 0]
            if len(homeless) < _SETTLE_SERIES:
                continue
            ts_ms, values = self._loose.take(homeless)
            block = Block(np.array(homeless, np.int64))
            for at, cells in zip(ts_ms.tolist(), values, strict=True):
                block.roll_if_full(self._last_ms)
                block.append(at, None, cells)
            self._home[homeless] = len(self._blocks)
            self._blocks.append(block)

    def _append_row(self, ts_ms: int, route: _Route, values: Float64s) -> AppendResult:
        refs = route.refs
        last = self._last_ms[refs]
        late = last >= ts_ms
        if ts_ms < self._floor_ms:
            return AppendResult(0, len(refs), 0)
        if bool(late.any()):
            duplicate = int((last == ts_ms).sum())
            out_of_order = int(late.sum()) - duplicate
            kept = np.flatnonzero(~late)
            if len(kept):
                self._place(ts_ms, _Route(None, refs[kept]), values[kept])
            return AppendResult(len(kept), out_of_order, duplicate)
        self._place(ts_ms, route, values)
        return AppendResult(len(refs), 0, 0)

    def _place(self, ts_ms: int, route: _Route, values: Float64s) -> None:
        """Store samples whose order has been checked: in a row of a block, or in loose columns."""
        refs = route.refs
        born = self._last_ms[refs] == _NEVER
        if route.block is None:
            route.block = self._choose_block(refs, ts_ms, born)
        block = route.block
        self._last_ms[refs] = ts_ms
        newborn = refs[born]
        self._first_ms[newborn] = ts_ms
        self._samples += len(refs)
        if self._newest_ms is None or ts_ms > self._newest_ms:
            self._newest_ms = ts_ms
        if self._oldest_ms is None or ts_ms < self._oldest_ms:
            self._oldest_ms = ts_ms
        if block is None:
            self._place_loose(ts_ms, refs, values)
            return
        newest = block.last_ms
        if newest is not None and ts_ms <= newest:
            route.block = None
            if len(newborn) == len(refs) and not block.newest.is_full:
                cols = block.cover(refs, self._index.size, self._last_ms)
                if block.join(ts_ms, cols, values):
                    self._home[refs] = self._blocks.index(block)
                    return
            self._place_loose(ts_ms, refs, values)
            return
        block.roll_if_full(self._last_ms)
        if route.layout is not block.layout or route.version != block.layout.version:
            cols = block.cover(refs, self._index.size, self._last_ms)
            route.layout, route.version = block.layout, block.layout.version
            in_order = len(cols) == block.layout.count and bool((cols == np.arange(len(cols))).all())
            route.cols = None if in_order else cols
            self._home[refs] = self._blocks.index(block)
        block.append(ts_ms, route.cols, values)

    def _choose_block(self, refs: Int64s, ts_ms: int, born: np.ndarray) -> Block | None:
        """The block most of these series live in; a new one for many homeless; None: loose columns."""
        homes = self._home[refs]
        settled = homes[homes >= 0]
        if len(settled):
            home = int(np.bincount(settled).argmax())
            block = self._blocks[home]
            # A row is worth its width only where it fills a fair part of it.
            if 4 * len(refs) >= block.layout.count:
                return block
            return None
        newest_ms = max((block.last_ms or _NEVER for block in self._blocks), default=_NEVER)
        if bool(born.all()) and ts_ms <= newest_ms:
            # Counters born since the last row: their zeros join the row that stands at this time.
            for block in self._blocks:
                if block.last_ms == ts_ms and len(refs) <= max(64, block.layout.count):
                    return block
        if len(refs) < _ROW_WIDTH:
            return None
        block = Block(refs)
        self._blocks.append(block)
        return block

    def _place_loose(self, ts_ms: int, refs: Int64s, values: Float64s) -> None:
        for ref, value in zip(refs.tolist(), values.tolist(), strict=True):
            self._loose.append(ref, ts_ms, value)

    def _prepare(self, matchers: tuple[Matcher, ...]) -> None:
        """Sort a large new selection before the lock is taken to read it: writers do not wait for that."""
        if matchers in self._selections:
            return
        with self._lock:
            self._flush()
            if self._known(matchers) is not None:
                return
            refs = self._index.select(matchers)
            if len(refs) < _LARGE:
                return
            labels = [self._index.labels(ref) for ref in refs.tolist()]
            changes = self._changes
        selection = _sorted_selection(refs, labels)
        with self._lock:
            if changes == self._changes:
                self._keep(matchers, selection)

    def _select(self, matchers: tuple[Matcher, ...]) -> Selection:
        known = self._known(matchers)
        if known is not None:
            return known
        refs = self._index.select(matchers)
        selection = _sorted_selection(refs, [self._index.labels(ref) for ref in refs.tolist()])
        self._keep(matchers, selection)
        return selection

    def _known(self, matchers: tuple[Matcher, ...]) -> Selection | None:
        if self._born:
            self._forget_selections()
        return self._selections.get(matchers)

    def _keep(self, matchers: tuple[Matcher, ...], selection: Selection) -> None:
        if len(self._selections) >= _SELECTIONS:
            self._selections.pop(next(iter(self._selections)))
        self._selections[matchers] = selection

    def _within(self, refs: Int64s, start_ms: int, end_ms: int) -> Int64s:
        start_ms = max(start_ms, self._floor_ms)
        return refs[(self._last_ms[refs] >= start_ms) & (self._first_ms[refs] <= end_ms)]

    def _drop_blocks(self, before_ms: int) -> None:
        kept = [block for block in self._blocks if (block.last_ms or _NEVER) >= before_ms]
        if len(kept) == len(self._blocks):
            return
        moved = {self._blocks.index(block): place for place, block in enumerate(kept)}
        table = np.array([moved.get(i, -1) for i in range(len(self._blocks))] + [-1], np.int32)
        gone = sum(chunk.samples for block in self._blocks if block not in kept for chunk in block.chunks)
        self._samples -= gone
        self._home = table[self._home]
        self._blocks = kept
        self._routes.clear()

    def _recycle(self) -> None:
        """Give back the refs of dead series that no layout names any more."""
        if not self._dead:
            return
        layouts = {id(chunk.layout): chunk.layout for block in self._blocks for chunk in block.chunks}
        named = [layout.refs[: layout.count] for layout in layouts.values()]
        dead = np.array(self._dead, np.int64)
        free = dead[~np.isin(dead, np.concatenate(named))] if named else dead
        self._index.free(free.tolist())
        self._dead = dead[np.isin(dead, free, invert=True)].tolist()


def _sorted_selection(refs: Int64s, labels: Sequence[LabelSet]) -> Selection:
    order = order_of(labels)
    series = SeriesSet(tuple([labels[place] for place in order]))
    return Selection(refs[np.array(order, np.intp)], series)


def _matches(matchers: Sequence[Matcher], labels: LabelSet) -> bool:
    return all(matcher.matches(labels.get(matcher.name)) for matcher in matchers)


class _PendingRow:
    """Samples of one time that came one by one."""

    __slots__ = ("route", "samples", "ts_ms")

    def __init__(self) -> None:
        self.ts_ms: int | None = None
        self.samples: dict[int, float] = {}
        self.route: _Route | None = None
