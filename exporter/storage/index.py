"""The index of the head: label sets, their postings, and the series that matchers select.

Postings are sorted int64 arrays of series refs, one for each (name, value) pair. A regular expression is
tried once on each distinct value of its label, not once on each series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.model.samples import Int64s

_NONE: Int64s = np.zeros(0, np.int64)
_TESTED = 256  # matchers whose verdicts are kept


class _Postings:
    """Ascending refs of one label pair: a sealed array and the refs born since."""

    __slots__ = ("_born", "_sealed")

    def __init__(self) -> None:
        self._sealed = _NONE
        self._born: list[int] = []

    def add(self, ref: int) -> None:
        self._born.append(ref)

    def array(self) -> Int64s:
        if self._born:
            merged = np.concatenate([self._sealed, np.array(self._born, np.int64)])
            merged.sort()  # refs that were given back are lower than those in use
            self._sealed, self._born = merged, []
        return self._sealed

    def remove(self, gone: Int64s) -> bool:
        """Forget refs; whether any is left."""
        refs = self.array()
        self._sealed = refs[~np.isin(refs, gone)]
        return len(self._sealed) > 0


class _Tested:
    """The first `count` values of a label, in order of birth, told apart by one matcher."""

    __slots__ = ("count", "hits", "losses", "misses")

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.count = 0
        self.hits: list[str] = []
        self.misses: list[str] = []


class SeriesIndex:
    """Label sets by ref and refs by label pair. Not locked: the head guards it."""

    def __init__(self) -> None:
        self.generation = 0  # moves with every birth and death
        self._labels: list[LabelSet | None] = []
        self._refs: dict[LabelSet, int] = {}
        self._free: list[int] = []
        self._postings: dict[str, dict[str, _Postings]] = {}
        self._tested: dict[Matcher, _Tested] = {}
        self._losses = 0  # how often label values went

    def __len__(self) -> int:
        return len(self._refs)

    @property
    def size(self) -> int:
        """One more than the greatest ref ever given out."""
        return len(self._labels)

    def ref(self, labels: LabelSet) -> int | None:
        """The ref of a series, or None."""
        return self._refs.get(labels)

    def labels(self, ref: int) -> LabelSet:
        """The label set of a living series."""
        found = self._labels[ref]
        if found is None:
            raise KeyError(ref)
        return found

    def add(self, labels: LabelSet) -> int:
        """The ref of a new series."""
        if self._free:
            ref = self._free.pop()
            self._labels[ref] = labels
        else:
            ref = len(self._labels)
            self._labels.append(labels)
        self._refs[labels] = ref
        for name, value in labels.pairs:
            values = self._postings.setdefault(name, {})
            postings = values.get(value)
            if postings is None:
                postings = values[value] = _Postings()
            postings.add(ref)
        self.generation += 1
        return ref

    def remove(self, refs: Int64s) -> None:
        """Forget series. Their refs come back with `free` once no chunk names them any more."""
        pairs: dict[tuple[str, str], None] = {}
        for ref in refs.tolist():
            labels = self._labels[ref]
            if labels is None:
                continue
            self._labels[ref] = None
            del self._refs[labels]
            pairs.update(dict.fromkeys(labels.pairs))
        for name, value in pairs:
            values = self._postings[name]
            if not values[value].remove(refs):
                del values[value]
                self._losses += 1
                if not values:
                    del self._postings[name]
        self.generation += 1

    def free(self, refs: Iterable[int]) -> None:
        """Let refs of removed series be used again."""
        self._free.extend(refs)

    def all_refs(self) -> Int64s:
        """Every living ref, ascending."""
        refs = np.fromiter(self._refs.values(), np.int64, len(self._refs))
        refs.sort()
        return refs

    def select(self, matchers: Sequence[Matcher]) -> Int64s:
        """Refs of the series that satisfy every matcher, ascending."""
        found: Int64s | None = None
        # Positive matchers first: what they leave is small, and subtraction from it is cheap.
        for matcher in sorted(matchers, key=_rank):
            if matcher.matches_empty:
                if found is None:
                    found = self.all_refs()
                bad = self._union(matcher, wanted=False)
                if len(bad):
                    found = found[~_member(found, bad)]
            else:
                good = self._union(matcher, wanted=True)
                found = good if found is None else found[_member(found, good)]
            if not len(found):
                return _NONE
        return self.all_refs() if found is None else found

    def _union(self, matcher: Matcher, *, wanted: bool) -> Int64s:
        values = self._postings.get(matcher.name)
        if values is None:
            return _NONE
        if matcher.op is MatchOp.EQUAL and wanted:
            postings = values.get(matcher.value)
            return _NONE if postings is None else postings.array()
        arrays = [values[value].array() for value in self._values_where(matcher, values, wanted=wanted)]
        if not arrays:
            return _NONE
        if len(arrays) == 1:
            return arrays[0]
        union = np.concatenate(arrays)  # one series has one value of a label: no repeats
        union.sort()
        return union

    def _values_where(self, matcher: Matcher, values: dict[str, _Postings], *, wanted: bool) -> list[str]:
        """The values that satisfy a matcher, or do not; each value is tried once while it lives."""
        tested = self._tested.get(matcher)
        if tested is None or tested.losses != self._losses:
            if len(self._tested) >= _TESTED:
                self._tested.clear()
            tested = self._tested[matcher] = _Tested(self._losses)
        if tested.count < len(values):
            matches = matcher.matches
            for value in islice(values, tested.count, None):
                (tested.hits if matches(value) else tested.misses).append(value)
            tested.count = len(values)
        return tested.hits if wanted else tested.misses

    def names(self) -> list[str]:
        """Every label name in use, sorted."""
        return sorted(self._postings)

    def values(self, name: str) -> list[str]:
        """Every value of a label, sorted."""
        return sorted(self._postings.get(name, ()))

    def pair_counts(self) -> dict[str, dict[str, int]]:
        """Number of series of each label pair; for statistics."""
        return {
            name: {value: len(postings.array()) for value, postings in values.items()}
            for name, values in self._postings.items()
        }


def _rank(matcher: Matcher) -> int:
    if matcher.matches_empty:
        return 2
    return 0 if matcher.op is MatchOp.EQUAL else 1


def _member(refs: Int64s, among: Int64s) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the sorted refs occur among the other sorted refs."""
    places = np.searchsorted(among, refs)
    places[places == len(among)] = 0
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        among[places] == refs if len(among) else np.zeros(len(refs), np.bool_)
    )
    return mask
