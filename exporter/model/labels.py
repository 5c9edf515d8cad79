"""Label sets and matchers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cached_property
from sys import intern
from typing import Final

from exporter.model.regex import anchored_test

METRIC_NAME: Final = "__name__"
BUCKET_LABEL: Final = "le"


class LabelSet:
    """Sorted (name, value) pairs without empty values; immutable, hashed once, equal by content.

    Build with `LabelSet.of(mapping)` or `LabelSet.of(pairs)`. Names and values are interned strings, so
    that equal label sets of many series share their text.
    """

    __slots__ = ("_hash", "pairs")

    pairs: tuple[tuple[str, str], ...]
    _hash: int

    def __init__(self, sorted_pairs: tuple[tuple[str, str], ...]) -> None:
        """Trusts its argument: sorted by name, unique, no empty value. Others use `of`."""
        self.pairs = sorted_pairs
        self._hash = hash(sorted_pairs)

    @classmethod
    def of(cls, labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> LabelSet:
        """A label set from a mapping or pairs; empty values vanish, a repeated name keeps the last value."""
        mapping = dict(labels)
        return cls(tuple((intern(name), intern(mapping[name])) for name in sorted(mapping) if mapping[name]))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, LabelSet) and self._hash == other._hash and self.pairs == other.pairs

    def __lt__(self, other: LabelSet) -> bool:
        return self.pairs < other.pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def __contains__(self, name: str) -> bool:
        return any(own == name for own, _ in self.pairs)

    def __reduce__(self) -> tuple[type[LabelSet], tuple[tuple[tuple[str, str], ...]]]:
        return LabelSet, (self.pairs,)  # string hashes differ between processes

    def get(self, name: str, default: str = "") -> str:
        """The value of a label; the empty string where it is absent, as in matchers and templates."""
        for own, value in self.pairs:
            if own == name:
                return value
        return default

    @property
    def name(self) -> str:
        """The metric name, or the empty string."""
        return self.get(METRIC_NAME)

    def as_dict(self) -> dict[str, str]:
        """A new dict in label-name order."""
        return dict(self.pairs)

    def without(self, names: Iterable[str]) -> LabelSet:
        """This set less the named labels."""
        gone = frozenset(names)
        return LabelSet(tuple(pair for pair in self.pairs if pair[0] not in gone))

    def keep(self, names: Iterable[str]) -> LabelSet:
        """This set with the named labels only."""
        kept = frozenset(names)
        return LabelSet(tuple(pair for pair in self.pairs if pair[0] in kept))

    def merged(self, labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> LabelSet:
        """This set with the given labels set; an empty value removes the label."""
        mapping = dict(self.pairs)
        mapping.update(labels)
        return LabelSet.of(mapping)

    def fingerprint(self) -> int:
        """A 64-bit number that is the same in every process (FNV-1a over the pairs, as Prometheus' Hash)."""
        value = 0xCBF29CE484222325
        for name, text in self.pairs:
            # a lone surrogate, which no UTF-8 has, must not keep an alert from being stored
            for byte in name.encode() + b"\xff" + text.encode("utf-8", "surrogatepass") + b"\xff":
                value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        return value

    def __str__(self) -> str:
        """`name{label="value"}`, as Prometheus prints a series."""
        name = self.name
        rest = ", ".join(f"{label}={quote(value)}" for label, value in self.pairs if label != METRIC_NAME)
        return f"{name}{{{rest}}}" if rest or not name else name

    def __repr__(self) -> str:
        return f"LabelSet({self})"


EMPTY_LABELS: Final = LabelSet(())


_ESCAPES: Final = {
    "\\": "\\\\",
    '"': '\\"',
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quote(text: str) -> str:
    """A double-quoted string with the escapes of Go's `strconv.Quote`."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if char.isprintable() or 0xD800 <= code < 0xE000:
        return char
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class MatchOp(Enum):
    """The four ways in which a matcher compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


class Matcher:
    """One condition on one label; an absent label counts as the empty string.

    Raises: ValueError where the regular expression is outside RE2's syntax.
    """

    def __init__(self, name: str, op: MatchOp, value: str) -> None:
        self.name = name
        self.op = op
        self.value = value
        self._key = (name, op, value)
        self._hash = hash(self._key)  # selections are looked up by their matchers at every read
        if op in (MatchOp.REGEX, MatchOp.NOT_REGEX):
            self._test = anchored_test(value)

    def matches(self, text: str) -> bool:
        """Whether a label value satisfies the condition."""
        if self.op is MatchOp.EQUAL:
            return text == self.value
        if self.op is MatchOp.NOT_EQUAL:
            return text != self.value
        return self._test(text) is (self.op is MatchOp.REGEX)

    @cached_property
    def matches_empty(self) -> bool:
        """Whether a series without the label satisfies the condition."""
        return self.matches("")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Matcher) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return f"{self.name}{self.op.value}{quote(self.value)}"

    def __repr__(self) -> str:
        return f"Matcher({self})"
