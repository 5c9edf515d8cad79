"""Random query texts, well typed by construction, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from exporter.promql.ast import ValueType
from exporter.promql.functions.registry import SIGNATURES

LABELS = ("job", "instance", "by", "sum", '"l.n"')
VALUES = ('"a"', "'b'", "`c`", '"é\\n"', '""')
METRICS = ("up", "http_requests_total", "job:rate:5m", "sum", "offset")
DURATIONS = ("5m", "1h30m", "90", "0.5", "1w", "250ms")

number: SearchStrategy[str] = st.one_of(
    st.sampled_from(["0", "1", "2.5", "1e3", "0x1f", "NaN", "5m", ".5", "1e-7", "1e21"]),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(repr),
)


def _matcher() -> SearchStrategy[str]:
    return st.builds(
        "{}{}{}".format,
        st.sampled_from(LABELS),
        st.sampled_from(["=", "!=", "=~", "!~"]),
        st.sampled_from(VALUES),
    )


def _duration(depth: int) -> SearchStrategy[str]:
    leaf = st.sampled_from([*DURATIONS, "step()", "range()"])
    if depth == 0:
        return leaf
    inner = _duration(depth - 1)
    return st.one_of(
        leaf,
        st.builds("{} {} {}".format, inner, st.sampled_from(list("+-*^")), inner),
        st.builds("({})".format, inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min_of", "max_of"]), inner, inner),
    )


_literal_range = st.sampled_from(DURATIONS)
_range = st.one_of(_literal_range, st.builds("({} + step())".format, _duration(1)))
_offset = st.one_of(
    st.just(""),
    st.sampled_from(DURATIONS).map(" offset {}".format),
    st.sampled_from(DURATIONS).map(" offset -{}".format),
    st.builds(" offset -({} + 1m)".format, _duration(1)),
)
_at = st.sampled_from(["", "", " @ 1.5", " @ -3", " @ start()", " @ end()"])
_selector = st.builds(
    lambda name, matchers: f"{name}{{{','.join(matchers)}}}" if matchers else name,
    st.sampled_from(METRICS),
    st.lists(_matcher(), max_size=3),
)
_grouping = st.builds(
    "{} ({})".format,
    st.sampled_from(["by", "without"]),
    st.lists(st.sampled_from(LABELS), max_size=2).map(", ".join),
)
_matching = st.builds(
    "{}({}) {}".format,
    st.sampled_from(["on", "ignoring"]),
    st.lists(st.sampled_from(LABELS[:2]), max_size=2).map(", ".join),
    st.sampled_from(["", "group_left()", "group_right(by)", "fill(0)", "fill_left(-Inf) fill_right(2)"]),
)


def scalar(depth: int) -> SearchStrategy[str]:
    """A query of type scalar."""
    if depth == 0:
        return number
    inner = scalar(depth - 1)
    return st.one_of(
        number,
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "-", "*", "/", "%", "^", "> bool"]), inner),
        st.builds("-{}".format, inner),
        st.builds("({})".format, inner),
        st.builds("scalar({})".format, vector(depth - 1)),
        st.sampled_from(["time()", "pi()", "step()", "end()"]),
    )


def matrix(depth: int) -> SearchStrategy[str]:
    """A query of type range vector."""
    plain = st.builds(
        "{}[{}]{}{}{}".format,
        _selector,
        _range,
        st.sampled_from(["", "", " anchored", " smoothed"]),
        _at,
        _offset,
    )
    if depth == 0:
        return plain
    subquery = st.builds(
        "({})[{}:{}]{}{}".format,
        vector(depth - 1),
        _range,
        st.one_of(st.just(""), _literal_range, _duration(1)),
        _at,
        _offset,
    )
    return st.one_of(plain, subquery)


def vector(depth: int) -> SearchStrategy[str]:
    """A query of type instant vector."""
    plain = st.builds("{}{}{}".format, _selector, _at, _offset)
    if depth == 0:
        return plain
    inner = vector(depth - 1)
    number_in = scalar(depth - 1)
    return st.one_of(
        plain,
        st.builds("({})".format, inner),
        st.builds("-{}".format, plain),
        st.builds("{} {} ({})".format, st.sampled_from(["sum", "AVG", "group"]), _grouping, inner),
        st.builds("{}({}, {})".format, st.sampled_from(["topk", "quantile", "limitk"]), number_in, inner),
        st.builds('count_values("v", {}) {}'.format, inner, _grouping),
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "/", "> bool", "==", "^"]), inner),
        st.builds("({}) {} {} ({})".format, inner, st.sampled_from(["-", "/", "!="]), _matching, inner),
        st.builds("{} {} on(job) {}".format, inner, st.sampled_from(["and", "or", "unless"]), inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(["*", "-", "<="]), number_in),
        _calls(depth),
    )


def _calls(depth: int) -> SearchStrategy[str]:
    arguments = {
        ValueType.SCALAR: scalar(0),
        ValueType.VECTOR: vector(depth - 1),
        ValueType.MATRIX: matrix(depth - 1),
        ValueType.STRING: st.sampled_from(VALUES),
    }
    names = sorted(
        name
        for name, signature in SIGNATURES.items()
        if signature.returns is ValueType.VECTOR and signature.args and name != "info"
    )

    def call(name: str) -> SearchStrategy[str]:
        parts = [arguments[kind] for kind in SIGNATURES[name].args]
        return st.tuples(*parts).map(lambda texts: f"{name}({', '.join(texts)})")

    return st.sampled_from(names).flatmap(call)


query: SearchStrategy[str] = st.one_of(scalar(2), vector(2), matrix(2))
