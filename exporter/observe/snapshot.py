"""Snapshot: our registry copied into samples, with zeros for new counters and markers for what vanished.

Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from sys import intern
from typing import TypeAlias

import numpy as np
from prometheus_client import CollectorRegistry

from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.samples import Int64s, SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.observe.families import FamilyValues, Layout, RegistryReader, SeriesKey

_Layouts: TypeAlias = tuple[Layout, ...]


class Snapshotter:
    """Copies a registry into `SampleBatch`es, one call after the other in time.

    `labels` are set on each series (none by default: the rules read plain names); they win over a label of
    the series. `on_error` hears of a collector that raised; its series end with markers.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        labels: Mapping[str, str] | None = None,
        on_error: Callable[[object, Exception], None] | None = None,
    ) -> None:
        self._reader = RegistryReader(registry, on_error)
        self._extra = tuple((labels or {}).items())
        self._layouts: _Layouts = ()
        self._family_labels: dict[int, list[LabelSet]] = {}  # by position in _layouts
        self._labels: tuple[LabelSet, ...] = ()
        self._kept: Int64s | None = None  # rows left when some repeat
        self._ended: frozenset[LabelSet] = frozenset()  # got a marker at the last snapshot
        self._last_ms: int | None = None

    @property
    def quick(self) -> bool:
        """Whether no instrument has many new label sets, which `take` makes ready at some 6 us a series."""
        return all(source.quick for source in self._reader.sources() if not source.foreign)

    def take(self, ts_ms: int) -> list[SampleBatch]:
        """The registry now, as samples at `ts_ms` (Unix milliseconds, later than those of the last call).

        Returns: the batch at `ts_ms`, whose `labels` is the object of the last call while the series are the
        same. Before it, when counters or histograms appeared since the last snapshot, a batch that gives
        them 0 at the time of that snapshot, so that increase() sees their first events (1 ms later for a
        series that ended just then). After it, at `ts_ms`, a batch of markers for the series that vanished.
        """
        families = self._reader.read()
        layouts = tuple(family.layout for family in families)
        values = np.concatenate([family.values for family in families]) if families else np.zeros(0)
        before: list[SampleBatch] = []
        after: list[SampleBatch] = []
        if layouts != self._layouts or self._last_ms is None:
            old, old_layouts = self._labels, frozenset(map(id, self._layouts))
            self._renew(families)
            gone = frozenset(old).difference(self._labels)
            before = self._zeros(old_layouts, frozenset(old))
            if gone:
                ended = tuple(labels for labels in old if labels in gone)
                after = [SampleBatch(ts_ms, ended, np.full(len(ended), STALE_NAN))]
            self._ended = gone
        else:
            self._ended = frozenset()
        self._last_ms = ts_ms
        if self._kept is not None:
            values = values[self._kept]
        now = [SampleBatch(ts_ms, self._labels, values)] if self._labels else []
        return [*before, *now, *after]

    def metadata(self) -> dict[str, tuple[str, str, str]]:
        """Type, help and unit of the families of the last snapshot, by their names in the text format."""
        return {
            _text_name(layout): (_text_kind(layout.kind), layout.help, layout.unit)
            for layout in self._layouts
        }

    def __repr__(self) -> str:
        return f"Snapshotter({len(self._labels)} series in {len(self._layouts)} families)"

    def _renew(self, families: Sequence[FamilyValues]) -> None:
        known = {layout.name: (layout, self._family_labels[at]) for at, layout in enumerate(self._layouts)}
        fresh: dict[int, list[LabelSet]] = {}
        for at, family in enumerate(families):
            layout = family.layout
            old_layout, old_labels = known.get(layout.name, (None, []))
            fresh[at] = self._label_sets(layout, old_layout, old_labels)
        self._layouts = tuple(family.layout for family in families)
        self._family_labels = fresh
        everything = tuple(chain.from_iterable(fresh.values()))
        self._labels, self._kept = everything, None
        if len(frozenset(everything)) < len(everything):  # two collectors yield one series: the first wins
            first = {labels: row for row, labels in reversed(list(enumerate(everything)))}
            self._kept = np.array(sorted(first.values()), np.int64)
            self._labels = tuple(everything[row] for row in self._kept.tolist())

    def _label_sets(self, layout: Layout, old: Layout | None, old_labels: list[LabelSet]) -> list[LabelSet]:
        if old is layout:
            return old_labels
        if old is None:
            return [self._label_set(key) for key in layout.keys]
        size = len(old.keys)
        if layout.keys[:size] == old.keys:  # the usual change: series were added at the end
            return old_labels + [self._label_set(key) for key in layout.keys[size:]]
        known = dict(zip(old.keys, old_labels, strict=True))
        return [known.get(key) or self._label_set(key) for key in layout.keys]

    def _label_set(self, key: SeriesKey) -> LabelSet:
        name, pairs = key
        if not self._extra and (not pairs or pairs[0][0] > METRIC_NAME) and all(text for _, text in pairs):
            return LabelSet(
                ((METRIC_NAME, intern(name)), *((intern(own), intern(text)) for own, text in pairs))
            )
        return LabelSet.of([*pairs, (METRIC_NAME, name), *self._extra])

    def _zeros(self, old_layouts: frozenset[int], old: frozenset[LabelSet]) -> list[SampleBatch]:
        if self._last_ms is None:
            return []
        born = [
            labels
            for at, layout in enumerate(self._layouts)
            if layout.starts_at_zero and id(layout) not in old_layouts
            for labels in self._family_labels[at]
            if labels not in old
        ]
        again = tuple(labels for labels in born if labels in self._ended)
        new = tuple(labels for labels in born if labels not in self._ended)
        batches = []
        if new:
            batches.append(SampleBatch(self._last_ms, new, np.zeros(len(new))))
        if again:  # their marker stands at that time already
            batches.append(SampleBatch(self._last_ms + 1, again, np.zeros(len(again))))
        return batches


def _text_name(layout: Layout) -> str:
    return layout.name + {"counter": "_total", "info": "_info"}.get(layout.kind, "")


def _text_kind(kind: str) -> str:
    return {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram"}.get(kind, kind)
