"""A set of series that operators work on: the label sets, and what was once worked out about them.

Operators announce all their output series once; afterwards only row numbers travel. What depends on
labels alone (grouping, matching, dropping the name) is computed once for a set and kept on the set, so
that the next evaluation of the same rule over the same series does no label work at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.ordering import order_of

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]
T = TypeVar("T")

_MEMO_LIMIT = 64  # distinct derivations of one set; a rule base needs a handful


class SeriesSet:
    """S label sets in a fixed order, and for each whether its metric name is to be dropped at the end.

    Names are dropped late, as Prometheus does, so that `label_replace` and `by (__name__)` still see
    them. Immutable but for its memo; `memo` may be filled by two threads at once, which costs work and
    never gives a wrong answer.
    """

    def __init__(self, labels: tuple[LabelSet, ...], drop_name: bool | Bools = False) -> None:
        self.labels = labels
        self.drop_name: Bools = np.full(len(labels), drop_name) if isinstance(drop_name, bool) else drop_name
        self._memo: dict[Hashable, object] = {}

    @classmethod
    def of(cls, labels: Sequence[LabelSet]) -> SeriesSet:
        """A set that keeps its names."""
        return cls(tuple(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"SeriesSet({len(self.labels)} series)"

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept under `key`, made at the first call."""
        try:
            return self._memo[key]  # type: ignore[return-value]
        except KeyError:
            pass
        value = make()
        if len(self._memo) >= _MEMO_LIMIT:
            self._memo.clear()
        self._memo[key] = value
        return value

    def dropping(self) -> SeriesSet:
        """The same series, their names to be dropped."""

        def make() -> SeriesSet:
            if bool(self.drop_name.all()):
                return self
            return SeriesSet(self.labels, True)

        return self.memo("dropping", make)

    def take(self, which: Ints) -> SeriesSet:
        """The series at the given positions, in that order."""
        labels = self.labels
        return SeriesSet(tuple([labels[i] for i in which.tolist()]), self.drop_name[which])

    @cached_property
    def final(self) -> tuple[LabelSet, ...]:
        """The label sets as the user sees them: names dropped where they are to be."""
        if not bool(self.drop_name.any()):
            return self.labels
        dropped = self.drop_name.tolist()
        return tuple(
            labels.without((METRIC_NAME,)) if drop else labels
            for labels, drop in zip(self.labels, dropped, strict=True)
        )

    @cached_property
    def final_set(self) -> SeriesSet:
        """The set with names already dropped."""
        return self if self.final is self.labels else SeriesSet(self.final)

    @cached_property
    def sorted_order(self) -> Ints:
        """Positions in ascending label order."""
        return np.array(order_of(self.labels), np.intp)

    @cached_property
    def _json(self) -> list[str | None]:
        return [None] * len(self.labels)

    def json(self, position: int) -> str:
        """The JSON object of one label set, in label-name order; made once."""
        known = self._json[position]
        if known is None:
            known = self._json[position] = labels_json(self.labels[position])
        return known

    @cached_property
    def unique(self) -> Unique:
        """Which series carry equal label sets."""
        first: dict[LabelSet, int] = {}
        ids = np.empty(len(self.labels), np.intp)
        for position, labels in enumerate(self.labels):
            ids[position] = first.setdefault(labels, len(first))
        return Unique(tuple(first), ids)

    @property
    def has_duplicates(self) -> bool:
        """Whether two series carry the same label set."""
        return len(self.labels) > 1 and len(self.unique.labels) != len(self.labels)

    def codes(self, name: str) -> tuple[Ints, tuple[str, ...]]:
        """The values of one label: a code for each series, and the value of each code."""

        def make() -> tuple[Ints, tuple[str, ...]]:
            seen: dict[str, int] = {}
            codes = np.fromiter(
                (seen.setdefault(labels.get(name), len(seen)) for labels in self.labels),
                np.intp,
                len(self.labels),
            )
            return codes, tuple(seen)

        return self.memo(("codes", name), make)


def labels_json(labels: LabelSet) -> str:
    """The JSON object of a label set, in label-name order."""
    return json.dumps(labels.as_dict(), ensure_ascii=False, separators=(",", ":"))


class Unique:
    """Equal label sets told apart: `labels` distinct in order of first appearance, `ids` (S,) into it."""

    __slots__ = ("ids", "labels")

    def __init__(self, labels: tuple[LabelSet, ...], ids: Ints) -> None:
        self.labels = labels
        self.ids = ids


EMPTY_SET = SeriesSet(())
