"""Runs Prometheus' engine test scripts (`load`, `clear`, `eval` with `expect` lines) against our engine.

A script becomes cases: one for each eval, with the loads that came before it. Each case gets a storage with
those loads and is independent of the others. Instant queries are also run as the middle step of a range
query, which must give the same. Cases that touch native histograms are told apart, not run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.durations import parse_duration
from exporter.model.labels import BUCKET_LABEL, METRIC_NAME, LabelSet, Matcher
from exporter.model.staleness import is_stale
from exporter.promql import ast
from exporter.promql.engine import Engine
from exporter.promql.gotext import unquote
from exporter.promql.notation import Values, parse_metric, parse_series
from exporter.promql.parse import parse_expr
from exporter.promql.values import InstantVector, RangeMatrix, Result, ScalarValue, StringValue
from exporter.storage import MemoryStorage

_EPSILON = 1e-6
_LOAD = re.compile(r"load(_with_nhcb)?\s+(\S+)")
_INSTANT = re.compile(r"eval(?:_(fail|warn|info|ordered))?\s+instant\s+(?:at\s+(\S+)\s+)?(.+)")
_RANGE = re.compile(r"eval(?:_(fail|warn|info))?\s+range\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+?)\s+(.+)")
_EXPECT = re.compile(r"expect\s+(\w+)(?:\s+(msg|regex)\s*:\s*(.*))?")
_RANGE_VECTOR = re.compile(r"expect\s+range\s+vector\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)")
_NUMBER = re.compile(r"[-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Expectation:
    """One `expect` line: `kind` is fail, warn, info, no_warn, no_info or ordered."""

    kind: str
    match: str = ""  # "", "msg" or "regex"
    text: str = ""

    def fits(self, message: str) -> bool:
        """Whether a message is the one expected."""
        if self.match == "msg":
            return message == self.text
        return re.search(self.text, message) is not None


@dataclass(frozen=True)
class Load:
    """Series to append, their values `step_ms` apart from time 0. `native` marks histogram series."""

    line: int
    step_ms: int
    series: tuple[tuple[LabelSet, Values], ...]
    native: tuple[LabelSet, ...]


@dataclass
class Case:
    """One eval. `end_ms` and `step_ms` are set for a range query."""

    file: str
    line: int
    query: str
    start_ms: int
    loads: tuple[Load, ...]
    end_ms: int | None = None
    step_ms: int = 0
    expectations: list[Expectation] = field(default_factory=list)
    series: list[tuple[LabelSet, Values]] = field(default_factory=list)
    scalar: float | None = None
    text: str | None = None
    vector_range: tuple[int, int, int] | None = None
    native: bool = False

    @property
    def name(self) -> str:
        """`file:line`, for reports."""
        return f"{self.file}:{self.line}"

    def wants(self, kind: str) -> list[Expectation]:
        """The expect lines of this kind."""
        return [expectation for expectation in self.expectations if expectation.kind == kind]


class ScriptError(Exception):
    """A script cannot be read."""


def read_script(path: Path) -> list[Case]:
    """All cases of a script, in order."""
    return list(_Reader(path).cases())


class _Reader:
    def __init__(self, path: Path) -> None:
        self._file = path.name
        stripped = (line.strip() for line in path.read_text().splitlines())
        self._lines = ["" if line.startswith("#") else line for line in stripped]

    def cases(self) -> Iterator[Case]:
        loads: tuple[Load, ...] = ()
        number = 0
        while number < len(self._lines):
            line = self._lines[number]
            body_end = number + 1
            if line.startswith(("load", "eval")):
                while body_end < len(self._lines) and self._lines[body_end]:
                    body_end += 1
            body = self._lines[number + 1 : body_end]
            if line == "clear":
                loads = ()
            elif line.startswith("load"):
                loads = (*loads, self._load(number + 1, line, body))
            elif line.startswith("eval"):
                yield self._eval(number + 1, line, body, loads)
            elif line:
                raise ScriptError(f"{self._file}:{number + 1}: unknown command {line!r}")
            number = body_end

    def _load(self, number: int, line: str, body: Sequence[str]) -> Load:
        found = _LOAD.fullmatch(line)
        if found is None:
            raise ScriptError(f"{self._file}:{number}: {line!r}")
        series: dict[LabelSet, Values] = {}  # of a series that stands twice the last line counts
        native = []
        for text in body:
            try:
                labels, values = parse_series(text)
            except QueryError as error:
                if error.kind is not QueryErrorKind.UNSUPPORTED:
                    raise
                native.append(parse_metric(_without_values(text)))
                continue
            series[labels] = values
            if found[1] and BUCKET_LABEL in labels:
                name = labels.name.removesuffix("_bucket")
                native.append(labels.without([BUCKET_LABEL]).merged({METRIC_NAME: name}))
        return Load(number, parse_duration(found[2]), tuple(series.items()), tuple(native))

    def _eval(self, number: int, line: str, body: Sequence[str], loads: tuple[Load, ...]) -> Case:
        if found := _RANGE.fullmatch(line):
            start, end, step = (_time(found[group]) for group in (2, 3, 4))
            case = Case(self._file, number, found[5], start, loads, end, step)
        elif found := _INSTANT.fullmatch(line):
            case = Case(self._file, number, found[3], _time(found[2] or "0"), loads)
        else:
            raise ScriptError(f"{self._file}:{number}: {line!r}")
        if found[1]:
            case.expectations.append(Expectation(found[1]))
        for text in body:
            self._body_line(case, text)
        case.native = case.native or (not case.wants("fail") and _touches_native(case))
        return case

    def _body_line(self, case: Case, text: str) -> None:
        if found := _RANGE_VECTOR.fullmatch(text):
            case.vector_range = (_time(found[1]), _time(found[2]), _time(found[3]))
        elif text.startswith("expect string"):
            case.text = unquote(text.removeprefix("expect string").strip())
        elif text.startswith("expected_fail_message"):
            case.expectations.append(Expectation("fail", "msg", text.split(None, 1)[1]))
        elif text.startswith("expected_fail_regexp"):
            case.expectations.append(Expectation("fail", "regex", text.split(None, 1)[1]))
        elif found := _EXPECT.fullmatch(text):
            message = (found[3] or "").strip()
            quoted = len(message) > 1 and message[0] == message[-1] == '"'
            message = message[1:-1] if quoted else message
            case.expectations.append(Expectation(found[1], found[2] or "", message))
        elif "{{" in text:
            case.native = True
        elif _NUMBER.fullmatch(text):
            case.scalar = float(text)
        else:
            case.series.append(parse_series(text))


def _time(text: str) -> int:
    if text.startswith("-"):
        return -_time(text[1:])
    if re.fullmatch(r"[0-9.]+", text):
        return round(float(text) * 1000)
    return parse_duration(text)


def _without_values(text: str) -> str:
    """The series of a line whose values cannot be read."""
    found = re.match(r"[^\s{]*\s*(?:\{(?!\{)[^}]*\})?", text)
    return found.group() if found else text


def _touches_native(case: Case) -> bool:
    """Whether a selector of the query matches a series with native histograms."""
    native = [labels for load in case.loads for labels in load.native]
    if not native:
        return False
    try:
        selectors = list(_selectors(parse_expr(case.query)))
    except QueryError:
        return False
    return any(
        all(matcher.matches(labels.get(matcher.name)) for matcher in matchers)
        for matchers in selectors
        for labels in native
    )


def _selectors(expr: object) -> Iterator[tuple[Matcher, ...]]:
    """The matchers of every selector in a tree."""
    match expr:
        case ast.VectorSelector():
            yield expr.matchers
        case ast.MatrixSelector():
            yield expr.selector.matchers
        case ast.Paren() | ast.Unary() | ast.Subquery():
            yield from _selectors(expr.expr)
        case ast.Binary():
            yield from _selectors(expr.lhs)
            yield from _selectors(expr.rhs)
        case ast.Aggregate():
            yield from _selectors(expr.expr)
            yield from _selectors(expr.param)
        case ast.Call():
            for argument in expr.args:
                yield from _selectors(argument)


def build_storage(loads: Sequence[Load]) -> MemoryStorage:
    """A storage with all samples of these loads."""
    storage = MemoryStorage()
    for load in loads:
        for labels, values in dict(load.series).items():  # the last one told counts
            for number, value in enumerate(values):
                if value is not None:
                    storage.append(labels, number * load.step_ms, value)
    return storage


def run_case(case: Case, storage: MemoryStorage) -> None:
    """Run one eval. Raises: AssertionError with what differs."""
    engine = Engine(storage)
    if case.end_ms is not None:
        _run(case, lambda: engine.query_range(case.query, case.start_ms, case.end_ms or 0, case.step_ms))
        return
    result = _run(case, lambda: engine.query(case.query, case.start_ms))
    if result is None or case.wants("ordered"):
        return
    if isinstance(result.value, InstantVector | ScalarValue):
        minute = 60_000
        start, end = case.start_ms - minute, case.start_ms + minute
        middle = engine.query_range(case.query, start, end, minute)
        assert isinstance(middle.value, RangeMatrix), f"range query gave {middle.value}"
        _compare(
            case, _at(middle.value, case.start_ms, isinstance(result.value, ScalarValue)), "as a range: "
        )


def _run(case: Case, query: Callable[[], Result]) -> Result | None:
    """Run the query and compare; None where it was meant to fail and did."""
    fails = case.wants("fail")
    result, error = _attempt(query)
    if result is None:
        assert fails, f"failed: {error}"
        for expectation in fails:
            assert not expectation.match or expectation.fits(error), f"failed otherwise: {error}"
        return None
    assert not fails, f"did not fail: {describe(result)}"
    _check_notes(case, "warn", result.warnings)
    _check_notes(case, "info", result.infos)
    _compare(case, result.value, "")
    return result


def _attempt(query: Callable[[], Result]) -> tuple[Result | None, str]:
    try:
        return query(), ""
    except QueryError as error:
        return None, str(error)


def _check_notes(case: Case, kind: str, notes: Sequence[str]) -> None:
    wanted = case.wants(kind)
    if case.wants(f"no_{kind}"):
        assert not notes, f"unexpected {kind}: {notes}"
    if not wanted:
        return
    assert notes, f"no {kind}"
    for expectation in wanted:
        if expectation.match:
            assert any(map(expectation.fits, notes)), f"{kind} {expectation.text!r} not in {notes}"
    if any(expectation.match for expectation in wanted):
        for note in notes:
            assert any(not e.match or e.fits(note) for e in wanted), f"unexpected {kind}: {note}"


def _at(matrix: RangeMatrix, ts_ms: int, scalar: bool) -> InstantVector | ScalarValue:
    """The values of a range query's result at one step."""
    labels: list[LabelSet] = []
    values: list[float] = []
    for position, series in enumerate(matrix.labels):
        times, column = matrix.series(position)
        for time, value in zip(times.tolist(), column.tolist(), strict=True):
            if time == ts_ms:
                labels.append(series)
                values.append(value)
    if scalar:
        assert len(values) == 1, f"as a range: {len(values)} scalars"
        return ScalarValue(ts_ms, values[0])
    return InstantVector(labels, np.array(values, np.float64), ts_ms)


def _compare(case: Case, value: object, prefix: str) -> None:
    if case.scalar is not None:
        assert isinstance(value, ScalarValue), f"{prefix}expected scalar {case.scalar}, got {value}"
        assert almost_equal(case.scalar, value.value), f"{prefix}expected {case.scalar}, got {value.value}"
    elif case.text is not None:
        assert isinstance(value, StringValue), f"{prefix}expected string, got {value}"
        assert value.value == case.text, f"{prefix}expected {case.text!r}, got {value.value!r}"
    elif isinstance(value, InstantVector):
        _compare_vector(case, value, prefix)
    else:
        assert isinstance(value, RangeMatrix), f"{prefix}expected series, got {value}"
        _compare_matrix(case, value, prefix)


def _compare_vector(case: Case, vector: InstantVector, prefix: str) -> None:
    got = dict(zip(vector.labels, vector.values.tolist(), strict=True))
    assert len(got) == len(vector.labels), f"{prefix}repeated labels in {list(map(str, vector.labels))}"
    expected = {labels: values[0] for labels, values in case.series}
    problems = [f"missing {labels} {value}" for labels, value in expected.items() if labels not in got]
    problems += [f"unexpected {labels} {value}" for labels, value in got.items() if labels not in expected]
    for labels, value in expected.items():
        if labels in got and (value is None or not almost_equal(value, got[labels])):
            problems.append(f"{labels}: expected {value}, got {got[labels]}")
    assert not problems, prefix + "; ".join(problems)
    if case.wants("ordered"):
        order = [labels for labels, _ in case.series]
        assert list(vector.labels) == order, f"{prefix}order is {list(map(str, vector.labels))}"


def _compare_matrix(case: Case, matrix: RangeMatrix, prefix: str) -> None:
    if case.vector_range is not None:
        start, _, step = case.vector_range
    else:
        start, step = case.start_ms, case.step_ms
    expected = {
        labels: {start + number * step: value for number, value in enumerate(values) if value is not None}
        for labels, values in case.series
    }
    expected = {labels: points for labels, points in expected.items() if points}
    got = {}
    for position, labels in enumerate(matrix.labels):
        times, values = matrix.series(position)
        got[labels] = dict(zip(times.tolist(), values.tolist(), strict=True))
    assert len(got) == len(matrix.labels), f"{prefix}repeated labels in {list(map(str, matrix.labels))}"
    problems = [f"missing {labels}" for labels in expected if labels not in got]
    problems += [f"unexpected {labels} {points}" for labels, points in got.items() if labels not in expected]
    for labels, points in expected.items():
        own = got.get(labels, points)
        same = own.keys() == points.keys() and all(almost_equal(points[at], own[at]) for at in points)
        if not same:
            problems.append(f"{labels}: expected {points}, got {own}")
    assert not problems, prefix + "; ".join(problems)


def almost_equal(expected: float, got: float) -> bool:
    """Equality up to a millionth; NaN equals NaN, but the staleness marker only itself."""
    if is_stale(expected) or is_stale(got):
        return is_stale(expected) and is_stale(got)
    if math.isnan(expected) or math.isnan(got):
        return math.isnan(expected) and math.isnan(got)
    if expected == got:
        return True
    difference = abs(expected - got)
    total = abs(expected) + abs(got)
    smallest = 2.2250738585072014e-308
    if expected == 0 or got == 0 or total < smallest:
        return difference < _EPSILON * smallest
    return difference / min(total, 1.7976931348623157e308) < _EPSILON


def describe(result: Result) -> str:
    """A result in one line, for failure reports."""
    text = str(result.to_json())
    return text if len(text) < 500 else text[:500] + "..."
