"""Label sets and matchers."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model.labels import EMPTY_LABELS, LabelSet, Matcher, MatchOp, quote

PAIRS = st.dictionaries(st.text(min_size=1), st.text())


@given(PAIRS)
def test_a_label_set_is_sorted_and_has_no_empty_value(pairs: dict[str, str]) -> None:
    """Empty values vanish; order of the input does not matter; equal content is equal and hashes equally."""
    labels = LabelSet.of(pairs)
    assert list(labels) == sorted((name, value) for name, value in pairs.items() if value)
    again = LabelSet.of(dict(reversed(list(pairs.items()))))
    assert (labels, hash(labels), labels.fingerprint()) == (again, hash(again), again.fingerprint())
    assert pickle.loads(pickle.dumps(labels)) == labels


@given(PAIRS, PAIRS)
def test_merging_sets_and_removes(pairs: dict[str, str], other: dict[str, str]) -> None:
    """The given labels win; an empty value removes the label."""
    merged = LabelSet.of(pairs).merged(other)
    for name in pairs.keys() | other.keys():
        assert merged.get(name) == other.get(name, pairs.get(name, ""))


def test_keep_and_without_are_complements() -> None:
    """Each label is in one of the two."""
    labels = LabelSet.of({"a": "1", "b": "2", "__name__": "up"})
    assert labels.keep(["a"]) == LabelSet.of({"a": "1"})
    assert labels.without(["a"]) == LabelSet.of({"b": "2", "__name__": "up"})
    assert (labels.name, str(labels)) == ("up", 'up{a="1", b="2"}')
    assert (str(EMPTY_LABELS), len(EMPTY_LABELS), bool(EMPTY_LABELS)) == ("{}", 0, False)


def test_fingerprints_are_those_of_fnv_1a() -> None:
    """The same number in every process; a lone surrogate has one too."""
    assert EMPTY_LABELS.fingerprint() == 0xCBF29CE484222325
    assert LabelSet.of({"a": "b"}).fingerprint() == 0xD2B371819297F98A
    assert LabelSet.of({"a": "\ud800"}).fingerprint() > 0


@pytest.mark.parametrize(
    ("op", "value", "text", "found"),
    [
        (MatchOp.EQUAL, "a", "a", True),
        (MatchOp.NOT_EQUAL, "a", "a", False),
        (MatchOp.NOT_EQUAL, "a", "", True),
        (MatchOp.REGEX, "a.*|b", "abc", True),
        (MatchOp.REGEX, "a.*|b", "xb", False),
        (MatchOp.REGEX, "a.b", "a\nb", True),
        (MatchOp.NOT_REGEX, "a.+", "", True),
    ],
)
def test_matchers_are_anchored_and_see_absence_as_empty(
    op: MatchOp, value: str, text: str, found: bool
) -> None:
    """Regular expressions match the whole value, a dot a newline too."""
    assert Matcher("l", op, value).matches(text) is found


def test_a_bad_expression_is_refused_when_it_is_made() -> None:
    """Not at the first match."""
    with pytest.raises(ValueError, match="error parsing regexp"):
        Matcher("l", MatchOp.REGEX, "(")


def test_quoting_escapes_what_a_line_cannot_hold() -> None:
    """Backslash, quote, newline and control characters."""
    assert quote('a"b\\c\nd\te\x00') == '"a\\"b\\\\c\\nd\\te\\x00"'
