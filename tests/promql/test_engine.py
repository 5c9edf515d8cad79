"""The engine's own contract: results and their JSON, limits, sharing, sources, explain."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from exporter.model.labels import LabelSet, Matcher
from exporter.model.samples import SampleBatch, SeriesBlock
from exporter.model.staleness import STALE_NAN
from exporter.promql import (
    Engine,
    EvaluationMemo,
    InstantVector,
    QueryError,
    QueryErrorKind,
    RangeMatrix,
    Result,
    ScalarValue,
    StringValue,
)
from exporter.promql.explain import explain, explain_range, render
from exporter.storage import MemoryStorage

STEP = 15_000
END = 59 * STEP


def walk_values(number: int) -> list[float]:
    rng = random.Random(number)
    value, out = 0.0, []
    for _ in range(60):
        value = 0.0 if rng.random() < 0.03 else value + rng.random() * 10
        out.append(value)
    return out


def catalogue() -> dict[LabelSet, list[float]]:
    """Twenty counters and twenty gauges."""
    out = {}
    for number in range(20):
        own = {"job": f"j{number % 3}", "i": str(number)}
        out[LabelSet.of({"__name__": "hits_total", **own})] = walk_values(number)
        gauge = [value - 50 for value in walk_values(100 + number)]
        out[LabelSet.of({"__name__": "level", **own})] = gauge
    for bound in ("0.1", "1", "10", "+Inf"):
        for job in ("j0", "j1"):
            own = LabelSet.of({"__name__": "lat_bucket", "le": bound, "job": job})
            scale = {"0.1": 0.5, "1": 0.8, "10": 0.95, "+Inf": 1.0}[bound]
            out[own] = [row * scale * 10 for row in range(60)]
    return out


def by_rows(data: dict[LabelSet, list[float]]) -> MemoryStorage:
    storage = MemoryStorage()
    own = tuple(data)
    for row in range(60):
        values = np.array([values[row] for values in data.values()])
        storage.append_batch(SampleBatch(row * STEP, own, values))
    return storage


def by_series(data: dict[LabelSet, list[float]]) -> MemoryStorage:
    storage = MemoryStorage()
    for own, values in data.items():
        for row, value in enumerate(values):
            storage.append(own, row * STEP, value)
    return storage


class Blocks:
    """A source with `select` only; every series at times of its own unless told otherwise."""

    def __init__(self, data: dict[LabelSet, list[float]], shift: int = 0) -> None:
        self._data = data
        self._shift = shift

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        found = []
        for own, values in self._data.items():
            if all(matcher.matches(own.get(matcher.name)) for matcher in matchers):
                points = [
                    (row * STEP, value)
                    for row, value in enumerate(values)
                    if start_ms <= row * STEP <= end_ms
                ]
                if points:
                    found.append((own, points))
        return SeriesBlock.of(found)


QUERIES = [
    "level",
    "hits_total offset 1m",
    "level @ 600",
    "rate(hits_total[5m])",
    "increase(hits_total[5m])",
    "delta(level[5m])",
    "irate(hits_total[5m])",
    "idelta(level[5m])",
    "sum by (job) (rate(hits_total[2m]))",
    "avg without (i) (level)",
    "stddev by (job) (level)",
    "quantile by (job) (0.3, level)",
    "topk by (job) (2, level)",
    "bottomk(3, level)",
    'count_values("v", round(level, 100))',
    "limitk(3, level)",
    "limit_ratio(0.5, level)",
    "sum_over_time(level[3m])",
    "avg_over_time(level[3m])",
    "min_over_time(level[3m])",
    "max_over_time(level[3m])",
    "stddev_over_time(level[3m])",
    "stdvar_over_time(level[3m])",
    "quantile_over_time(0.7, level[3m])",
    "mad_over_time(level[3m])",
    "ts_of_max_over_time(level[3m])",
    "ts_of_last_over_time(level[3m])",
    "first_over_time(level[3m])",
    "changes(level[3m])",
    "resets(hits_total[10m])",
    "deriv(level[5m])",
    "predict_linear(level[5m], 600)",
    "double_exponential_smoothing(level[5m], 0.3, 0.6)",
    "level * on (i, job) hits_total",
    "level > bool on (i) hits_total",
    "sum by (job) (level) / on (job) group_right sum by (job, i) (hits_total)",
    "level and on (i) (hits_total > 100)",
    "level or hits_total",
    "level unless on (i) (hits_total > 100)",
    "histogram_quantile(0.9, rate(lat_bucket[5m]))",
    "histogram_fraction(0.1, 1, rate(lat_bucket[5m]))",
    "max_over_time(sum by (job) (rate(hits_total[1m]))[5m:20s])",
    "rate(hits_total[3m] anchored)",
    "rate(hits_total[3m] smoothed)",
    "level smoothed",
    "timestamp(level)",
    "absent(level{job='none'})",
    "scalar(sum(level)) + vector(1)",
    "label_replace(level, 'x', '$1', 'job', 'j(.)')",
    "sort_desc(level)",
]


def answer(result: Result) -> list[tuple[str, list[tuple[float, float]]]]:
    """Series and points, in an order of their own."""
    value = result.value
    if isinstance(value, InstantVector):
        pairs = zip(value.labels, value.values.tolist(), strict=True)
        rows = [(str(own), [(value.ts_ms, point)]) for own, point in pairs]
    elif isinstance(value, RangeMatrix):
        rows = []
        for place, own in enumerate(value.labels):
            ts_ms, values = value.series(place)
            rows.append((str(own), list(zip(ts_ms.tolist(), values.tolist(), strict=True))))
    else:
        raise AssertionError(value)
    return sorted(rows)


def assert_same(left: Result, right: Result, text: str) -> None:
    one, other = answer(left), answer(right)
    assert [own for own, _ in one] == [own for own, _ in other], text
    for (own, points), (_, others) in zip(one, other, strict=True):
        assert [at for at, _ in points] == [at for at, _ in others], (text, own)
        assert np.allclose(
            [value for _, value in points], [value for _, value in others], rtol=1e-9, equal_nan=True
        ), (text, own)


class TestSources:
    """The answer is the same however the samples are stored."""

    @pytest.mark.parametrize("text", QUERIES)
    def test_stores_agree(self, text: str) -> None:
        """Rows, single appends, plain blocks and series born in another order give one answer."""
        data = catalogue()
        shuffled = dict(random.Random(5).sample(list(data.items()), len(data)))
        reference = Engine(by_rows(data))
        for source in (by_series(data), Blocks(data), by_rows(shuffled)):
            other = Engine(source)
            assert_same(reference.query(text, END - 4000), other.query(text, END - 4000), text)
            spans = (END - 20 * STEP, END + 30 * STEP, 20_000)
            assert_same(reference.query_range(text, *spans), other.query_range(text, *spans), text)

    @pytest.mark.parametrize("text", [text for text in QUERIES if "sort" not in text])
    def test_range_is_many_instants(self, text: str) -> None:
        """Each step of a range query equals the instant query at that time (`limit_ratio` too)."""
        engine = Engine(by_rows(catalogue()))
        start, step = END - 10 * STEP, 17_000
        ranged = dict(answer(engine.query_range(text, start, END, step)))
        for at in range(start, END + 1, step):
            instant = {own: points[0][1] for own, points in answer(engine.query(text, at))}
            slice_ = {own: value for own, points in ranged.items() for when, value in points if when == at}
            assert instant.keys() == slice_.keys(), (text, at)
            for own, value in instant.items():
                assert np.isclose(value, slice_[own], rtol=1e-9, equal_nan=True), (text, own, at)

    def test_gaps_and_markers(self) -> None:
        """Series with missing samples and markers are as right as those on the grid."""
        rng = random.Random(3)
        data = catalogue()
        rows, loose = MemoryStorage(), MemoryStorage()
        own = tuple(data)
        holes = {(place, row) for place in range(len(own)) for row in range(60) if rng.random() < 0.05}
        stale = {(place, row) for place in range(0, len(own), 4) for row in range(60) if rng.random() < 0.05}
        for row in range(60):
            there = [place for place in range(len(own)) if (place, row) not in holes]
            values = [STALE_NAN if (place, row) in stale else data[own[place]][row] for place in there]
            batch = SampleBatch(row * STEP, tuple(own[place] for place in there), np.array(values))
            rows.append_batch(batch)
        for place, labels in enumerate(own):
            for row in range(60):
                if (place, row) not in holes:
                    value = STALE_NAN if (place, row) in stale else data[labels][row]
                    loose.append(labels, row * STEP, value)
        for text in QUERIES:
            left, right = Engine(rows), Engine(loose)
            assert_same(left.query(text, END), right.query(text, END), text)
            spans = (END - 20 * STEP, END, 21_000)
            assert_same(left.query_range(text, *spans), right.query_range(text, *spans), text)


class TestResults:
    """Types of results and their JSON."""

    def engine(self) -> Engine:
        storage = MemoryStorage()
        storage.append({"__name__": "up", "job": 'a"ü'}, 1000, 1)
        storage.append({"__name__": "up", "job": 'a"ü'}, 2500, 1e21)
        return Engine(storage)

    def test_vector(self) -> None:
        """An instant vector prints as Prometheus' API does, text and objects alike."""
        result = self.engine().query("up", 2500)
        assert result.to_json_bytes().decode() == (
            '{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a\\"ü"},'
            '"value":[2.500,"1e+21"]}]}'
        )
        assert json.loads(result.to_json_bytes()) == result.to_json()

    def test_matrix(self) -> None:
        """A range query and a range vector print times in seconds with up to three decimals."""
        engine = self.engine()
        ranged = engine.query_range("up * 0.5", 1000, 3000, 500)
        assert ranged.to_json()["result"][0]["values"] == [
            [1, "0.5"],
            [1.5, "0.5"],
            [2, "0.5"],
            [2.5, "500000000000000000000"],
            [3, "500000000000000000000"],
        ]
        assert json.loads(ranged.to_json_bytes()) == ranged.to_json()
        window = engine.query("up[5s]", 4000)
        assert window.to_json()["result"][0]["values"] == [[1, "1"], [2.5, "1e+21"]]
        assert json.loads(window.to_json_bytes()) == window.to_json()

    def test_scalar_and_string(self) -> None:
        """Scalars and strings are pairs."""
        engine = self.engine()
        assert isinstance(engine.query("1/0", 0).value, ScalarValue)
        assert engine.query("1/0", 1500).to_json() == {"resultType": "scalar", "result": [1.5, "+Inf"]}
        assert isinstance(engine.query("'x'", 0).value, StringValue)
        assert engine.query("'x\"'", 0).to_json_bytes() == b'{"resultType":"string","result":[0,"x\\""]}'
        assert engine.query_range("time()", 0, 2000, 1000).to_json()["result"][0]["values"] == [
            [0, "0"],
            [1, "1"],
            [2, "2"],
        ]

    def test_empty(self) -> None:
        """Nothing found is an empty list."""
        engine = self.engine()
        assert engine.query("none", 0).to_json_bytes() == b'{"resultType":"vector","result":[]}'
        assert engine.query_range("none", 0, 10, 1).to_json_bytes() == b'{"resultType":"matrix","result":[]}'
        assert engine.query("none[5m]", 0).to_json() == {"resultType": "matrix", "result": []}

    def test_notes_tell_their_place(self) -> None:
        """Warnings and infos end with line and column of the part they are about."""
        engine = self.engine()
        result = engine.query("quantile(2,\n up)", 2500)
        assert result.warnings == ("PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)",)
        result = engine.query("1 +\n rate(up[5s])", 2500)
        (note,) = result.infos
        assert note.startswith("PromQL info: metric might not be a counter, name does not end in ")
        assert note.endswith('_total/_sum/_count/_bucket: "up" (2:7)')

    def test_levelled_buckets_are_told(self) -> None:
        """Falling bucket counts are named with bounds, greatest fall, number and times."""
        storage = MemoryStorage()
        for at, counts in ((1000, (1, 5, 3, 6)), (2500, (1, 4, 4, 3))):
            for bound, count in zip(("0.1", "1", "10", "+Inf"), counts, strict=True):
                storage.append({"__name__": "lat_bucket", "le": bound}, at, count)
        (note,) = Engine(storage).query_range("histogram_quantile(0.5, lat_bucket)", 1000, 2500, 1500).infos
        assert note.startswith("PromQL info: input to histogram_quantile needed to be fixed for monotonicity")
        assert note.endswith(
            'for metric name "lat_bucket", from buckets 10 to +Inf, with a max diff of 2, '
            "over 2 samples from 1970-01-01T00:00:01Z to 1970-01-01T00:00:02.5Z (1:25)"
        )


class TestLimits:
    """Every limit ends a query with an error of its kind."""

    def test_samples(self) -> None:
        """Too many samples are refused at one more than the limit, before memory is taken."""
        engine = Engine(by_rows(catalogue()), max_samples=20)
        assert len(engine.query("level", END).value) == 20  # type: ignore[arg-type]
        for text in ("level or hits_total", "level + on (i) hits_total", "vector(1)[10000d:1ms]"):
            with pytest.raises(QueryError, match="query processing would load too many samples") as caught:
                engine.query(f"sum(sum_over_time({text}))" if text.endswith("]") else text, END)
            assert caught.value.kind is QueryErrorKind.LIMIT
        with pytest.raises(QueryError) as caught:
            engine.query_range("1", 0, 10**15, 1)
        assert caught.value.kind is QueryErrorKind.LIMIT

    def test_timeout(self) -> None:
        """Time that is up ends the query at the next node."""
        ticks = itertools.count()
        engine = Engine(by_rows(catalogue()), timeout_s=5, monotonic=lambda: float(next(ticks)))
        assert len(engine.query("level", END).value) == 20  # type: ignore[arg-type]
        with pytest.raises(QueryError, match="query timed out in expression evaluation") as caught:
            engine.query(" + ".join(["level"] * 20), END)
        assert caught.value.kind is QueryErrorKind.TIMEOUT

    def test_cancellation(self) -> None:
        """A set event ends the query."""
        cancel = threading.Event()
        engine = Engine(by_rows(catalogue()))
        engine.query("level", END, cancel=cancel)
        cancel.set()
        with pytest.raises(QueryError, match="query was canceled") as caught:
            engine.query("level", END, cancel=cancel)
        assert caught.value.kind is QueryErrorKind.CANCELED

    def test_cross_join(self) -> None:
        """A join of everything with everything ends in an error, not in memory."""
        storage = MemoryStorage()
        own = tuple(LabelSet.of({"__name__": "wide", "i": str(number)}) for number in range(20_000))
        storage.append_batch(SampleBatch(0, own, np.ones(20_000)))
        with pytest.raises(QueryError, match="many-to-many matching not allowed"):
            Engine(storage).query("wide * on () wide", 0)

    def test_native_histograms(self) -> None:
        """Functions of native histograms are refused by a kind of their own."""
        with pytest.raises(QueryError) as caught:
            Engine(MemoryStorage()).query("histogram_count(x)", 0)
        assert caught.value.kind is QueryErrorKind.UNSUPPORTED

    def test_range_types(self) -> None:
        """A range query wants scalars or instant vectors, and a step above 0."""
        engine = Engine(MemoryStorage())
        with pytest.raises(QueryError, match='invalid expression type "range vector" for range query'):
            engine.query_range("x[5m]", 0, 10, 1)
        with pytest.raises(QueryError, match="zero or negative query resolution step"):
            engine.query_range("x", 0, 10, 0)


class TestErrors:
    """Faults of matching and labels, in Prometheus' words."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("level * on (job) level", "found duplicate series for the match group"),
            ("level * on (job) sum by (job) (level)", "multiple matches for labels: many-to-one matching"),
            (
                "sum by (job) (level) * on (job) group_right (i) level",
                "multiple matches for labels: grouping labels must ensure unique matches",
            ),
            ('label_replace(level, "i", "", "i", ".*")', "same labelset"),
            ('label_replace(level, "i", "", "i", "(")', "invalid regular expression in label_replace"),
            ('label_join(level, "", "-", "i")', "invalid destination label name in label_join"),
            ("topk(NaN, level)", "Parameter value is NaN"),
            ("topk(1e30, level)", "Scalar value 1e[+]30 overflows int64"),
            ("limit_ratio(NaN, level)", "Ratio value is NaN"),
            ("double_exponential_smoothing(level[5m], 1, 0.5)", "invalid smoothing factor"),
            ("double_exponential_smoothing(level[5m], 0.1, 7)", "invalid trend factor"),
            ("deriv(level[5m] smoothed)", "smoothed modifier can only be used with"),
            ("abs({__name__=~'level|hits_total'})", "vector cannot contain metrics with the same labelset"),
            ("rate(level[step()])", "duration must be greater than 0"),
        ],
    )
    def test_messages(self, text: str, message: str) -> None:
        """The fault is named."""
        with pytest.raises(QueryError, match=message):
            Engine(by_rows(catalogue())).query(text, END)


class TestSharing:
    """Prepared queries and values shared among rules."""

    def test_equal_parts_are_evaluated_once(self) -> None:
        """Rules over the same rates read them once; the answers do not change."""

        class Counting:
            def __init__(self) -> None:
                self.storage = by_rows(catalogue())
                self.reads = 0

            def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
                self.reads += 1
                return self.storage.select(matchers, start_ms, end_ms)

        source = Counting()
        engine, memo = Engine(source), EvaluationMemo()
        texts = [f"sum by (job) (rate(hits_total[5m])) > {limit}" for limit in range(10)]
        shared = [engine.query(text, END, memo=memo) for text in texts]
        assert source.reads == 1
        assert memo.hits == 9
        for text, result in zip(texts, shared, strict=True):
            assert_same(result, engine.query(text, END), text)

    def test_other_times_are_other_values(self) -> None:
        """A memo never mixes times."""
        engine, memo = Engine(by_rows(catalogue())), EvaluationMemo()
        first = engine.query("sum(level)", END - 60_000, memo=memo)
        assert answer(engine.query("sum(level)", END, memo=memo)) != answer(first)

    def test_notes_follow_the_text(self) -> None:
        """Notes of a shared part tell the place in each query."""
        engine, memo = Engine(by_rows(catalogue())), EvaluationMemo()
        first = engine.query("rate(level[5m]) > 1e9", END, memo=memo)
        second = engine.query("1 + rate(level[5m])", END, memo=memo)
        assert [note.rsplit(" ", 1)[1] for note in (*first.infos, *second.infos)] == ["(1:6)", "(1:10)"]

    def test_prepared(self) -> None:
        """A prepared query answers as its text does, at any time, durations of the step included."""
        engine = Engine(by_rows(catalogue()))
        prepared = engine.prepare("sum_over_time(level[step() * 2])")
        for step in (15_000, 30_000):
            assert_same(
                engine.query_range(prepared, 0, END, step),
                engine.query_range(f"sum_over_time(level[{step * 2}ms])", 0, END, step),
                str(step),
            )

    def test_reads(self) -> None:
        """A plan tells what it will ask the source for."""
        engine = Engine(MemoryStorage())
        reads = engine.reads("a + rate(b[5m] offset 1m) + max_over_time(c[10m:1m]) + d @ 7", 600_000, 900_000)
        assert [(str(read.matchers[0]), read.start_ms, read.end_ms) for read in reads] == [
            ('__name__="a"', 300_000, 900_000),
            ('__name__="b"', 240_000, 840_000),
            ('__name__="c"', -300_000, 900_000),
            ('__name__="d"', -293_000, 7000),
        ]

    def test_estimate(self) -> None:
        """The size of a query is told once its selection is known."""
        engine = Engine(by_rows(catalogue()))
        assert engine.estimate("sum(rate(level[5m]))", END, END) is None
        engine.query("level", END)
        assert 20 * 20 <= (engine.estimate("sum(rate(level[5m]))", END, END) or 0) <= 20 * 25
        assert Engine(Blocks(catalogue())).estimate("level", END, END) is None

    def test_estimate_counts_the_steps_of_subqueries(self) -> None:
        """Few samples read at many steps are much work, also where none are read."""
        engine = Engine(by_rows(catalogue()))
        engine.query("level", END)
        for query, least in (
            ("count_over_time(level[1h:1s])", 3600),
            ("max_over_time(vector(1)[4h:1ms])", 14_400_000),
            ("max_over_time(max_over_time(vector(1)[1h:1m])[4h:10ms])", 1_440_000),
            ("max_over_time(vector(1)[1h:1s] @ 0)", 3600),
        ):
            assert (engine.estimate(query, END, END) or 0) >= least, query
            assert (engine.estimate(query, END, END + 60_000, 1000) or 0) >= least, query
        assert engine.estimate("vector(1)", END, END) == 1

    def test_threads(self) -> None:
        """Many threads may ask one engine while samples arrive."""
        storage = MemoryStorage()
        own = tuple(LabelSet.of({"__name__": "c_total", "i": str(i), "g": str(i % 3)}) for i in range(30))
        engine = Engine(storage)
        faults: list[BaseException] = []

        def ask(stop: threading.Event) -> None:
            while not stop.is_set():
                try:
                    result = engine.query("sum by (g) (c_total)", 10**9, lookback_delta_ms=10**9).value
                    assert isinstance(result, InstantVector)
                    assert len(set(result.values.tolist())) <= 1
                except BaseException as error:
                    faults.append(error)
                    return

        stop = threading.Event()
        threads = [threading.Thread(target=ask, args=(stop,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for row in range(300):
            storage.append_batch(SampleBatch(row * 1000, own, np.full(30, float(row))))
        stop.set()
        for thread in threads:
            thread.join()
        assert not faults


class TestExplain:
    """The tree of sub-expressions."""

    def clock(self) -> Iterator[float]:
        return itertools.count(0, 0.001)  # type: ignore[return-value]

    def test_tree(self) -> None:
        """Each sub-expression has text, kind, series, samples, value and time; the answer is the same."""
        engine, ticks = Engine(by_rows(catalogue())), self.clock()
        text = "sum(rate(hits_total[5m])) / 2"
        result, root = explain(engine, text, END, lambda: next(ticks))
        assert answer(result) == answer(engine.query(text, END))
        assert [(depth, step.text, step.kind, step.series) for depth, step in root.walk()] == [
            (0, "sum(rate(hits_total[5m])) / 2", "instant vector", 1),
            (1, "sum(rate(hits_total[5m]))", "instant vector", 1),
            (2, "rate(hits_total[5m])", "instant vector", 20),
            (3, "hits_total[5m]", "range vector", 20),
            (1, "2", "scalar", 0),
        ]
        assert root.seconds >= root.own_seconds > 0
        assert "hits_total[5m]  [20 series, 400 samples" in render(root)

    def test_range(self) -> None:
        """A range query is explained as well."""
        engine, ticks = Engine(by_rows(catalogue())), self.clock()
        _, root = explain_range(engine, "level > 0", 0, END, STEP, lambda: next(ticks))
        assert root.parts[0].samples == 20 * 60
