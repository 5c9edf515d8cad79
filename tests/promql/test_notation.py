"""The series notation of rule tests and engine scripts."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import LabelSet
from exporter.model.staleness import is_stale
from exporter.promql.notation import parse_metric, parse_series, parse_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 2.5 -3", (1, 2.5, -3)),
        ("1+2x3", (1, 3, 5, 7)),
        ("1-2x3", (1, -1, -3, -5)),
        ("-1+2x2", (-1, 1, 3)),
        ("-4x2", (-4, -4, -4)),
        ("1x3", (1, 1, 1, 1)),
        ("0x0", (0,)),
        ("0x2", (0, 0, 0)),
        ("_ 1 _x2 2", (None, 1, None, None, 2)),
        ("_x0", ()),
        ("Inf -inf +Inf", (math.inf, -math.inf, math.inf)),
        ("1e3x1 1.5e-1", (1000, 1000, 0.15)),
        ("0.5+1e2x1", (0.5, 100.5)),
        ("+1", (1,)),
        ("  1\t2\n3  ", (1, 2, 3)),
        ("", ()),
    ],
)
def test_values(text: str, values: tuple[float | None, ...]) -> None:
    """v, _, vxN (N + 1 samples), v+wxN and _xN (N gaps), separated by white space."""
    assert parse_values(text) == values


def test_stale_and_nan() -> None:
    """`stale` is the marker, `NaN` an ordinary value."""
    marker, nan, repeated = parse_values("stale NaN stalex0")
    assert marker is not None
    assert nan is not None
    assert repeated is not None
    assert is_stale(marker)
    assert is_stale(repeated)
    assert math.isnan(nan)
    assert not is_stale(nan)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("up 1", {"__name__": "up"}),
        ('up{job="a", x=\'}\', y=`"`,} 1', {"__name__": "up", "job": "a", "x": "}", "y": '"'}),
        ('{job="a"} 1', {"job": "a"}),
        ('{"my.metric", "l.n"="x"} 1', {"__name__": "my.metric", "l.n": "x"}),
        ('up {a="b"} 1', {"__name__": "up", "a": "b"}),
        ("job:rate:sum5m 1", {"__name__": "job:rate:sum5m"}),
        ("{} 1", {}),
        ("sum 1", {"__name__": "sum"}),
    ],
)
def test_labels(text: str, labels: dict[str, str]) -> None:
    """Labels are written as in a selector, with = only; quoted names may hold any UTF-8."""
    assert parse_series(text) == (LabelSet.of(labels), (1.0,))


def test_metric_alone() -> None:
    """A series without values is a label set, nothing at all the empty one."""
    assert parse_series("") == (LabelSet.of({}), ())
    assert parse_metric('a{b="c"}') == LabelSet.of({"__name__": "a", "b": "c"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a foo", '1:3: parse error: unexpected "foo" in series values, expected number or "stale"'),
        ("a 1+2", "1:6: parse error: a step needs its repetition"),
        ("a 1y", 'unexpected "1y" in series values'),
        ("a{b=c} 1", '1:5: parse error: unexpected identifier "c" in label set, expected string'),
        ("a{b} 1", '1:4: parse error: unexpected "}" in label set, expected "="'),
        ("a{1} 1", "unexpected character inside braces: '1'"),
        ("5 1", 'unexpected number "5"'),
        ("a 1x99999999999", "a series may hold at most"),
        ("a 1 +", "in series values"),
    ],
)
def test_faults(text: str, message: str) -> None:
    """What cannot be read is refused with its place."""
    with pytest.raises(QueryError) as caught:
        parse_series(text)
    assert message in str(caught.value)
    assert caught.value.kind is QueryErrorKind.SYNTAX


def test_native_histograms_are_unsupported() -> None:
    """A native histogram has an error kind of its own."""
    with pytest.raises(QueryError) as caught:
        parse_series("a 1 {{schema:1 sum:3}}x5")
    assert caught.value.kind is QueryErrorKind.UNSUPPORTED


@given(st.lists(st.one_of(st.none(), st.integers(-1000, 1000), st.sampled_from(["1+1x3", "_x2"]))))
def test_items_concatenate(items: list[int | str | None]) -> None:
    """The values of a sequence are those of its items in order."""
    texts = ["_" if item is None else str(item) for item in items]
    whole: list[float | None] = []
    for text in texts:
        whole.extend(parse_values(text))
    assert parse_values(" ".join(texts)) == tuple(whole)


@given(st.text(alphabet="a1_x+-.eE{}\"'= \\staleNn", max_size=30))
def test_any_text_parses_or_fails(text: str) -> None:
    """Nothing but a QueryError comes out of bad notation."""
    with contextlib.suppress(QueryError):
        parse_series(text)
