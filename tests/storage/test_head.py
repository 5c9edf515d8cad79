"""The head: what is appended is read back, whichever way it came and however it is stored."""

from __future__ import annotations

import struct
import threading
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.model.samples import SampleBatch, SeriesBlock
from exporter.model.staleness import STALE_NAN, is_stale
from exporter.promql.read import flattened
from exporter.promql.source import Columns
from exporter.storage import AppendResult, MemoryStorage

ALL = (Matcher("__name__", MatchOp.REGEX, ".+"),)
FOREVER = (-(2**60), 2**60)
Content = dict[LabelSet, list[tuple[int, bytes]]]


def labels(number: int, name: str = "m") -> LabelSet:
    return LabelSet.of({"__name__": name, "i": str(number), "parity": "odd" if number % 2 else "even"})


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def content(block: SeriesBlock) -> Content:
    """Series -> samples, values by their bits."""
    return {
        own: [
            (int(block.ts_ms[place]), bits(float(block.values[place])))
            for place in range(int(block.offsets[row]), int(block.offsets[row + 1]))
        ]
        for row, own in enumerate(block.labels)
    }


def column_content(columns: Columns) -> Content:
    """The same out of the engine's view."""
    out: Content = {}
    for part in flattened(columns).ragged:
        for row, place in enumerate(part.index.tolist()):
            samples = [
                (int(part.ts_ms[at]), bits(float(part.values[at])))
                for at in range(int(part.offsets[row]), int(part.offsets[row + 1]))
            ]
            if samples:
                assert columns.series.labels[place] not in out
                out[columns.series.labels[place]] = samples
    return out


def batch(ts_ms: int, own: tuple[LabelSet, ...], values: list[float]) -> SampleBatch:
    return SampleBatch(ts_ms, own, np.array(values, np.float64))


class TestRows:
    """Batches that share their label tuple."""

    own = tuple(labels(number) for number in range(20))

    def test_rows_come_back_as_one_grid(self) -> None:
        """Series of one label tuple without gaps are read as one grid, without a ragged part."""
        storage = MemoryStorage()
        for row in range(600):
            storage.append_batch(batch(row * 1000, self.own, [row + number for number in range(20)]))
        columns = storage.columns(ALL, 100_000, 599_000)
        assert len(columns.grids) == 1
        assert not columns.ragged
        assert columns.grids[0].ts_ms.tolist() == list(range(100_000, 600_000, 1000))
        order = [int(own.get("i")) for own in columns.series.labels]
        assert columns.grids[0].span(140, 141).tolist() == [[240 + number for number in order]]
        assert column_content(columns) == content(storage.select(ALL, 100_000, 599_000))

    def test_range_is_closed(self) -> None:
        """A read gives start_ms <= ts <= end_ms."""
        storage = MemoryStorage()
        for row in range(5):
            storage.append_batch(batch(row * 10, self.own, [row] * 20))
        block = storage.select((Matcher("i", MatchOp.EQUAL, "3"),), 10, 30)
        assert block.ts_ms.tolist() == [10, 20, 30]

    def test_late_and_repeated_samples_are_counted(self) -> None:
        """Samples not newer than the last of their series are refused and counted; the others get in."""
        storage = MemoryStorage()
        assert storage.append_batch(batch(1000, self.own, [1.0] * 20)) == AppendResult(20, 0, 0)
        assert storage.append_batch(batch(1000, self.own, [2.0] * 20)) == AppendResult(0, 0, 20)
        assert storage.append_batch(batch(500, self.own, [2.0] * 20)) == AppendResult(0, 20, 0)
        mixed = (*self.own[:2], labels(77))
        assert storage.append_batch(batch(1000, mixed, [9.0] * 3)) == AppendResult(1, 0, 2)
        assert storage.stats().samples == 21

    def test_markers_keep_their_bits(self) -> None:
        """The staleness marker and any other NaN come back bit by bit."""
        storage = MemoryStorage()
        odd_nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000ABC))[0]
        storage.append_batch(batch(1, self.own, [1.0] * 20))
        storage.append_batch(batch(2, self.own, [STALE_NAN, odd_nan] + [1.0] * 18))
        storage.append(labels(500), 3, STALE_NAN)
        block = storage.select((Matcher("i", MatchOp.REGEX, "0|1|500"),), 2, 3)
        assert is_stale(float(block.values[0]))
        assert bits(float(block.values[1])) == bits(odd_nan)
        assert is_stale(float(block.values[2]))

    def test_birth_and_death_keep_the_others_in_place(self) -> None:
        """A changed label tuple adds and ends columns; series that stay are still one grid."""
        storage = MemoryStorage()
        for row in range(10):
            storage.append_batch(batch(row, self.own, [row] * 20))
        changed = (*self.own[2:], labels(50))
        for row in range(10, 20):
            storage.append_batch(batch(row, changed, [row] * 19))
        columns = storage.columns(ALL, 0, 100)
        assert columns.grids[0].width == 18
        assert column_content(columns) == content(storage.select(ALL, 0, 100))
        assert len(storage.select((Matcher("i", MatchOp.EQUAL, "50"),), 0, 100).ts_ms) == 10

    def test_first_sample_may_be_older_than_the_row(self) -> None:
        """Zeros of counters born since the last snapshot join the row that stands at that time."""
        storage = MemoryStorage()
        storage.append_batch(batch(15_000, self.own, [1.0] * 20))
        born = tuple(labels(number, "born_total") for number in range(3))
        assert storage.append_batch(batch(15_000, born, [0.0] * 3)) == AppendResult(3, 0, 0)
        storage.append_batch(batch(30_000, self.own + born, [2.0] * 23))
        columns = storage.columns(ALL, 0, 30_000)
        assert [grid.width for grid in columns.grids] == [23]
        assert storage.select(
            (Matcher("__name__", MatchOp.EQUAL, "born_total"),), 0, 40_000
        ).ts_ms.tolist() == ([15_000, 30_000] * 3)

    def test_falls_are_noted_at_ingest(self) -> None:
        """Falls of counters are told with row, column and the value before, over chunk borders too."""
        storage = MemoryStorage()
        for row in range(300):
            storage.append_batch(batch(row, self.own, [float(row % 250)] + [float(row)] * 19))
        (grid,) = storage.columns(ALL, 0, 1000).grids
        falls = grid.resets(0, 300)
        assert falls.rows.tolist() == [250]
        assert falls.amounts.tolist() == [249.0]
        assert grid.resets(250, 300).rows.tolist() == []

    def test_gauges_cost_nothing_and_still_tell_their_falls(self) -> None:
        """Columns that fall often are not tracked; their falls are found when asked for."""
        storage = MemoryStorage()
        for row in range(100):
            storage.append_batch(batch(row, self.own, [float(row % 2)] * 20))
        (grid,) = storage.columns(ALL, 0, 1000).grids
        assert len(grid.resets(0, 100).rows) == 20 * 49


class TestSingles:
    """Samples appended one by one."""

    def test_samples_of_one_time_become_rows(self) -> None:
        """Appending series after series at each time gives a grid."""
        storage = MemoryStorage()
        for row in range(50):
            for number in range(30):
                assert storage.append({"__name__": "m", "i": str(number)}, row * 15_000, row + number)
        columns = storage.columns(ALL, 0, 10**9)
        assert [grid.width for grid in columns.grids] == [30]
        assert not columns.ragged

    def test_series_after_series_shares_times(self) -> None:
        """Series appended one after the other keep one timeline together."""
        storage = MemoryStorage()
        for number in range(30):
            for row in range(50):
                storage.append(labels(number), row * 15_000 + row % 7, row)
        assert storage.stats().bytes == 30 * 50 * 8 + 50 * 8
        assert len(storage.select(ALL, *FOREVER).ts_ms) == 1500

    def test_many_series_at_the_same_times_settle_in_a_block(self) -> None:
        """Series appended one after the other become one grid once they are read, and read the same."""
        storage, plain = MemoryStorage(), {}
        for number in range(100):
            for row in range(300):
                value = float((row * 7 + number) % 50)
                storage.append(labels(number), row * 15_000 + row % 7, value)
                plain.setdefault(labels(number), []).append((row * 15_000 + row % 7, bits(value)))
        columns = storage.columns(ALL, *FOREVER)
        assert [grid.width for grid in columns.grids] == [100]
        assert column_content(columns) == plain == content(storage.select(ALL, *FOREVER))
        storage.append(labels(3), 10**9, 1.0)
        plain[labels(3)].append((10**9, bits(1.0)))
        assert column_content(storage.columns(ALL, *FOREVER)) == plain
        storage.truncate(3_000_000)
        assert storage.stats().samples == sum(
            len(part.values) for part in storage._loose.series.values()
        ) + sum(chunk.samples for block in storage._blocks for chunk in block.chunks)

    def test_late_single_is_refused(self) -> None:
        """A sample that is not newer than the last of its series is refused, a pending one included."""
        storage = MemoryStorage()
        assert storage.append(labels(1), 10, 1)
        assert not storage.append(labels(1), 10, 2)
        assert not storage.append(labels(1), 9, 2)
        assert storage.append(labels(1), 11, 2)


class TestQuestions:
    """Series, label names, label values."""

    def make(self) -> MemoryStorage:
        storage = MemoryStorage()
        for row in range(3):
            for number in range(10):
                storage.append(labels(number, "a" if number < 5 else "b"), 1000 * row, row)
        storage.append(LabelSet.of({"__name__": "late", "only": "x"}), 9000, 1)
        return storage

    def test_matchers(self) -> None:
        """All four operators, absent labels counting as empty, select as told."""
        storage = self.make()
        for matchers, count in (
            ((Matcher("__name__", MatchOp.EQUAL, "a"),), 5),
            ((Matcher("__name__", MatchOp.NOT_EQUAL, "a"),), 6),
            ((Matcher("i", MatchOp.REGEX, "[1-3]|7"),), 4),
            ((Matcher("i", MatchOp.NOT_REGEX, "[1-3]|7"),), 7),
            ((Matcher("only", MatchOp.EQUAL, ""),), 10),
            ((Matcher("only", MatchOp.NOT_EQUAL, ""),), 1),
            ((Matcher("only", MatchOp.REGEX, "x?"),), 11),
            ((Matcher("__name__", MatchOp.EQUAL, "a"), Matcher("parity", MatchOp.NOT_EQUAL, "odd")), 3),
            ((Matcher("__name__", MatchOp.EQUAL, "none"),), 0),
            ((), 11),
        ):
            assert len(storage.series((matchers,), *FOREVER)) == count, matchers
            assert len(storage.select(matchers, *FOREVER).labels) == count, matchers

    def test_range_of_series(self) -> None:
        """Only series with samples in the range are told."""
        storage = self.make()
        assert [str(own) for own in storage.series(((),), 5000, 10_000)] == ['late{only="x"}']
        assert storage.label_names(((Matcher("__name__", MatchOp.EQUAL, "late"),),)) == ["__name__", "only"]
        assert storage.label_names() == ["__name__", "i", "only", "parity"]
        assert storage.label_values("__name__") == ["a", "b", "late"]
        assert storage.label_values("__name__", (), 5000, 10_000) == ["late"]
        assert storage.label_values("parity", ((Matcher("i", MatchOp.EQUAL, "3"),),)) == ["odd"]

    def test_selection_follows_births(self) -> None:
        """A selection that is kept sees a series born later."""
        storage = self.make()
        matchers = (Matcher("__name__", MatchOp.EQUAL, "a"),)
        first = storage.columns(matchers, 0, 9000).series
        assert storage.columns(matchers, 0, 9000).series is first
        storage.append(labels(99, "b"), 9000, 1)
        assert storage.columns(matchers, 0, 9000).series is first
        storage.append(labels(98, "a"), 9000, 1)
        assert len(storage.columns(matchers, 0, 9000).series) == 6

    def test_the_newest_samples_of_rows_are_one_row(self) -> None:
        """Where all stand in it; with a gap, a marker or too old a row the rest is read."""
        storage = MemoryStorage()
        own = tuple(labels(number) for number in range(10))
        for at in range(1, 40):
            storage.append_batch(batch(1000 * at, own, [float(at)] * 10))
        at_30 = storage.newest(ALL, 1000, 30_500)
        assert [(grid.ts_ms.tolist(), grid.width) for grid in at_30.grids] == [([30_000], 10)]
        assert column_content(storage.newest(ALL, 30_001, 30_500)) == {}
        assert len(storage.newest(ALL, 35_000, 39_000).grids[0].ts_ms) == 1
        storage.append_batch(batch(40_000, own, [STALE_NAN] + [1.0] * 9))
        assert len(column_content(storage.newest(ALL, 38_000, 40_000))[labels(0)]) == 3
        storage.append_batch(batch(41_000, own[1:], [2.0] * 9))
        assert column_content(storage.newest(ALL, 39_000, 41_000)) == column_content(
            storage.columns(ALL, 39_000, 41_000)
        )


class TestTruncate:
    """Forgetting."""

    def test_old_samples_and_series_go(self) -> None:
        """After truncation nothing older is read, and series without samples are forgotten."""
        storage = MemoryStorage()
        own = tuple(labels(number) for number in range(10))
        for row in range(1000):
            storage.append_batch(batch(row * 1000, own, [row] * 10))
        storage.append(labels(70), 5000, 1)
        storage.append(labels(71), 950_000, 1)
        gone = storage.truncate(900_000)
        assert gone >= 10 * 700
        block = storage.select(ALL, *FOREVER)
        assert int(block.ts_ms.min()) == 900_000
        assert labels(70) not in block.labels
        assert storage.stats().series == 11
        assert storage.label_values("i") == sorted([str(number) for number in range(10)] + ["71"])
        assert storage.stats().min_time_ms == 900_000

    def test_memory_stays_bounded_under_churn(self) -> None:
        """Series that come and go leave nothing behind."""
        storage = MemoryStorage()
        for row in range(3000):
            own = tuple(labels(number + row // 50 * 5) for number in range(20))
            storage.append_batch(batch(row * 1000, own, [row] * 20))
            if row % 100 == 0:
                storage.truncate((row - 500) * 1000)
        stats = storage.stats()
        assert stats.series < 20 + 20 * 15
        assert stats.samples < 20 * 1200
        assert storage._index.size < 400

    def test_empty_after_everything_went(self) -> None:
        """A head that was emptied works like a new one."""
        storage = MemoryStorage()
        own = tuple(labels(number) for number in range(10))
        storage.append_batch(batch(1000, own, [1.0] * 10))
        storage.truncate(5000)
        assert storage.stats().series == 0
        assert storage.append_batch(batch(6000, own, [1.0] * 10)).appended == 10
        assert storage.append_batch(batch(4000, own, [1.0] * 10)).appended == 0
        assert len(storage.select(ALL, *FOREVER).ts_ms) == 10


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 12), st.integers(-3, 30), st.integers(0, 4)),
        st.tuples(st.just("batch"), st.integers(0, 5), st.integers(8, 13), st.integers(-3, 30)),
        st.tuples(st.just("truncate"), st.integers(0, 40), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(steps)
def test_any_history_reads_as_a_plain_list_would(history: list[tuple[str, int, int, int]]) -> None:
    """Whatever comes in whatever order, both reads equal a dict of lists with the same rules."""
    storage = MemoryStorage()
    model: Content = {}
    now, floor = 1000, -(2**60)
    for kind, first, second, third in history:
        if kind == "append":
            now += second
            value = [0.0, 1.5, STALE_NAN, float("nan"), -3.0][third]
            accepted = now >= floor and (labels(first) not in model or model[labels(first)][-1][0] < now)
            if accepted:
                model.setdefault(labels(first), []).append((now, bits(value)))
            storage.append(labels(first), now, value)
        elif kind == "batch":
            now += third
            own = tuple(labels(number) for number in range(first, second))
            storage.append_batch(batch(now, own, [float(now + number) for number in range(first, second)]))
            for number in range(first, second):
                known = model.get(labels(number))
                if now >= floor and (known is None or known[-1][0] < now):
                    model.setdefault(labels(number), []).append((now, bits(float(now + number))))
        else:
            floor = max(floor, now - first)
            storage.truncate(now - first)
            model = {
                own: kept
                for own, samples in model.items()
                if (kept := [sample for sample in samples if sample[0] >= floor])
            }
    assert content(storage.select(ALL, *FOREVER)) == model
    assert column_content(storage.columns(ALL, *FOREVER)) == model
    window = {
        own: kept
        for own, samples in model.items()
        if (kept := [sample for sample in samples if now - 20 <= sample[0] <= now - 3])
    }
    assert column_content(storage.columns(ALL, now - 20, now - 3)) == window
    newest = column_content(storage.newest(ALL, now - 20, now - 3))
    assert {own: samples[-1] for own, samples in newest.items()} == {
        own: samples[-1] for own, samples in window.items()
    }


def test_reads_during_writes_are_consistent() -> None:
    """A reader in another thread sees whole rows, in order, never a torn one."""
    storage = MemoryStorage()
    own = tuple(labels(number) for number in range(200))
    faults: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for part in storage.columns(ALL, *FOREVER).grids:
                cells = part.span(0, len(part.ts_ms))
                if len(cells) and not bool((cells == cells[:, :1]).all()):
                    faults.append("torn row")
                if len(cells) and cells[:, 0].tolist() != list(range(len(cells))):
                    faults.append("rows missing")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for row in range(700):
        storage.append_batch(SampleBatch(row, own, np.full(200, float(row))))
    done.set()
    for reader in readers:
        reader.join()
    assert not faults


def test_memory_for_each_sample_and_series() -> None:
    """At a million samples the head takes under 10 bytes a sample, and under 1 KB a series besides."""
    rows, count = 200, 5000
    values = np.random.default_rng(1).random((rows, count))
    tracemalloc.start()
    own = tuple(labels(number, "some_metric_total") for number in range(count))
    storage = MemoryStorage()
    storage.append_batch(SampleBatch(0, own, values[0]))
    storage.columns(ALL, 0, 1)
    small, _ = tracemalloc.get_traced_memory()
    for row in range(1, rows):
        storage.append_batch(SampleBatch(row * 1000, own, values[row]))
    large, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert storage.stats().samples == rows * count
    assert (large - small) / ((rows - 1) * count) < 10
    assert small / count < 1024
