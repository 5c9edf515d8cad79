"""Reads a prometheus_client registry into columns: who the series are, and their values now.

`collect()` builds a dict and a tuple for each sample, some 5 us; for the four usual instruments the layout
hardly ever changes, so it is kept, and only the numbers are read: some 60 ns a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol, TypeAlias

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString
from prometheus_client.values import MutexValue

from exporter.model.samples import Float64s

Pairs: TypeAlias = tuple[tuple[str, str], ...]
SeriesKey: TypeAlias = tuple[str, Pairs]
"""Sample name and label pairs sorted by name. Empty label values are kept: an exposition shows them."""

_FEW_CHILDREN = 300


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What a family is and which series it holds; the same object as long as neither changes.

    `name` and `kind` are prometheus_client's (a counter's name lacks `_total`). `keys` has length N, in
    exposition order. `starts_at_zero`: these series count events of this process, so that a series which
    appears began at 0; false for values that come from elsewhere (a database's own counters).
    """

    name: str
    kind: str
    help: str
    unit: str
    keys: tuple[SeriesKey, ...]
    starts_at_zero: bool


@dataclass(frozen=True, slots=True, eq=False)
class FamilyValues:
    """One reading of a family: `values` float64 (N,), in the order of `layout.keys`.

    `timestamps` holds the explicit time of each sample (seconds or a prometheus_client Timestamp) where a
    custom collector gave one; `exemplars` maps positions to exemplars.
    """

    layout: Layout
    values: Float64s
    timestamps: tuple[Any, ...] | None = None
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)


class Source(Protocol):
    """Reads one collector of a registry."""

    @property
    def collector(self) -> object:
        """What is read."""

    @property
    def quick(self) -> bool:
        """Whether the next reading takes well under a microsecond a sample and calls no foreign code."""

    @property
    def foreign(self) -> bool:
        """Whether reading calls code of others."""

    def read(self, *, exemplars: bool = False, created: bool = False) -> Sequence[FamilyValues]:
        """The families of the collector now; exemplars and `_created` samples only where asked for."""


class RegistryReader:
    """Reads the same registry again and again. Not safe for two threads at once; make one for each user.

    A collector that raises is left out of that reading and reported to `on_error`.
    """

    def __init__(
        self, registry: CollectorRegistry, on_error: Callable[[object, Exception], None] | None = None
    ) -> None:
        self._registry = registry
        self._on_error = on_error
        self._sources: dict[int, tuple[object, Source]] = {}
        self._seen: list[object] = []

    def sources(self) -> list[Source]:
        """One source for each registered collector, in the order of registration."""
        registered = _collectors(self._registry)
        if registered != self._seen:
            kept = self._sources
            self._sources = {}
            for collector in registered:
                known = kept.get(id(collector))
                same = known is not None and known[0] is collector
                self._sources[id(collector)] = (
                    known if same and known else (collector, _source_for(collector))
                )
            self._seen = registered
        return [source for _, source in self._sources.values()]

    def read(self, *, exemplars: bool = False) -> list[FamilyValues]:
        """Every family of the registry now; exemplars only where asked for."""
        families: list[FamilyValues] = []
        for source in self.sources():
            families.extend(self.read_source(source, exemplars=exemplars))
        return families

    def read_source(
        self, source: Source, *, exemplars: bool = False, created: bool = False
    ) -> Sequence[FamilyValues]:
        """The families of one source; none, and a call of `on_error`, where its collector raises."""
        try:
            return source.read(exemplars=exemplars, created=created)
        except Exception as error:  # foreign code: one broken collector must not hide the others
            if self._on_error is not None:
                self._on_error(source.collector, error)
            return ()


def _collectors(registry: CollectorRegistry) -> list[object]:
    table = getattr(registry, "_collector_to_names", None)
    lock = getattr(registry, "_lock", None)
    own_way = type(registry).collect is not CollectorRegistry.collect
    if own_way or table is None or lock is None or registry.get_target_info():
        return [registry]  # then the registry is one source, read by its own collect()
    with lock:
        return list(table)


def _source_for(collector: object) -> Source:
    kind = type(collector)
    if kind is Gauge and _readable(collector):
        return _ScalarSource(collector, "")
    if kind is Counter and _readable(collector):
        return _ScalarSource(collector, "_total")
    if kind is Histogram and _readable(collector):
        return _HistogramSource(collector)
    if kind is Summary and _readable(collector):
        return _SummarySource(collector)
    return _CollectSource(collector)


def _readable(instrument: Any) -> bool:
    """Whether the private fields are those that the quick sources read (not in multi-process mode)."""
    for name in ("_labelnames", "_labelvalues", "_documentation", "_unit", "_name"):
        if not hasattr(instrument, name):
            return False
    if instrument._labelnames and not (hasattr(instrument, "_metrics") and hasattr(instrument, "_lock")):
        return False
    probe = type(instrument)(
        "probe", "probe", registry=None
    )  # a child has the fields of a metric without labels
    values = [getattr(probe, name) for name in ("_value", "_sum", "_count") if hasattr(probe, name)]
    values += getattr(probe, "_buckets", [])
    return bool(values) and all(
        type(value) is MutexValue and hasattr(value, "_value") and hasattr(value, "_exemplar")
        for value in values
    )


class _Instrument(ABC):
    """The children of one instrument and the layout made of them, renewed when the children change."""

    foreign = False

    def __init__(self, instrument: Any) -> None:
        self._instrument = instrument
        self._children: list[Any] | None = None
        self._rows: dict[tuple[str, ...], tuple[SeriesKey, ...]] = {}
        self._layout: Layout | None = None
        self._created: tuple[Layout, Layout] | None = None  # a layout, and the one with created samples
        # label names sorted once, with the place of each one's value
        self._order = sorted((name, at) for at, name in enumerate(instrument._labelnames))

    @property
    def collector(self) -> object:
        """The instrument."""
        return self._instrument

    @property
    def quick(self) -> bool:
        """False while many new children wait for their layout, some 3 us a sample."""
        children = len(self._instrument._metrics) if self._instrument._labelnames else 1
        return children - len(self._rows) <= _FEW_CHILDREN

    def _refresh(self) -> tuple[Layout, list[Any]]:
        instrument = self._instrument
        if instrument._labelnames:
            with instrument._lock:
                children = list(instrument._metrics.values())
        else:
            children = [instrument]
        # lists compare by identity first: a few ns a child
        if self._layout is None or children != self._children:
            self._children = children
            self._layout = self._renew(children)
            self._prepare(children)
        return self._layout, children

    def _renew(self, children: list[Any]) -> Layout:
        instrument = self._instrument
        rows: dict[tuple[str, ...], tuple[SeriesKey, ...]] = {}
        for child in children:
            values = child._labelvalues
            known = self._rows.get(values)
            rows[values] = known if known is not None else self._keys(self._pairs(values))
        self._rows = rows
        return Layout(
            instrument._name,
            instrument._type,
            instrument._documentation,
            instrument._unit,
            tuple(chain.from_iterable(rows.values())),
            starts_at_zero=not isinstance(instrument, Gauge),
        )

    def _pairs(self, values: tuple[str, ...]) -> Pairs:
        return tuple((name, values[at]) for name, at in self._order)

    def read(self, *, exemplars: bool = False, created: bool = False) -> Sequence[FamilyValues]:
        """The family now."""
        layout, children = self._refresh()
        family = self._values_now(layout, children, exemplars=exemplars)
        if not created or not children or not hasattr(children[0], "_created"):
            return (family,)
        return (self._with_created(family, children),)

    def _with_created(self, family: FamilyValues, children: list[Any]) -> FamilyValues:
        """The family with a sample for each child behind its others: the Unix time at which it was made."""
        layout, count = family.layout, len(children)
        width = len(layout.keys) // count
        if self._created is None or self._created[0] is not layout:
            name = f"{layout.name}_created"
            keys: list[SeriesKey] = []
            for at, child in enumerate(children):
                keys += layout.keys[at * width : (at + 1) * width]
                keys.append((name, self._pairs(child._labelvalues)))
            self._created = (layout, replace(layout, keys=tuple(keys)))
        times = np.fromiter([child._created for child in children], np.float64, count)
        values = np.column_stack([family.values.reshape(count, width), times]).ravel()
        exemplars = {row + row // width: exemplar for row, exemplar in family.exemplars.items()}
        return FamilyValues(self._created[1], values, exemplars=exemplars)

    @abstractmethod
    def _values_now(self, layout: Layout, children: list[Any], *, exemplars: bool) -> FamilyValues:
        """The numbers of all children."""

    @abstractmethod
    def _keys(self, pairs: Pairs) -> tuple[SeriesKey, ...]:
        """The series of one child."""

    @abstractmethod
    def _prepare(self, children: list[Any]) -> None:
        """Bind what reads the children's numbers."""


class _ScalarSource(_Instrument):
    """A gauge or a counter: one sample a child."""

    def __init__(self, instrument: Any, suffix: str) -> None:
        super().__init__(instrument)
        self._name: str = instrument._name + suffix
        self._values: list[Any] = []
        self._dicts: list[dict[str, Any]] = []
        self._is_gauge = isinstance(instrument, Gauge)

    def _keys(self, pairs: Pairs) -> tuple[SeriesKey, ...]:
        return ((self._name, pairs),)

    def _prepare(self, children: list[Any]) -> None:
        self._values = [child._value for child in children]
        self._dicts = [vars(child) for child in children] if self._is_gauge else []

    def _values_now(self, layout: Layout, children: list[Any], *, exemplars: bool) -> FamilyValues:
        values = _read(self._values)
        if self._is_gauge:
            # Gauge.set_function() replaces a method of that one child, at any time
            for row, own in enumerate(self._dicts):
                if "_child_samples" in own:
                    values[row] = float(children[row]._child_samples()[0].value)
            return FamilyValues(layout, values)
        found = _exemplars(self._values, range(len(self._values))) if exemplars else {}
        return FamilyValues(layout, values, exemplars=found)


class _SummarySource(_Instrument):
    def _keys(self, pairs: Pairs) -> tuple[SeriesKey, ...]:
        name = self._instrument._name
        return (name + "_count", pairs), (name + "_sum", pairs)

    def __init__(self, instrument: Any) -> None:
        super().__init__(instrument)
        self._values: list[Any] = []

    def _prepare(self, children: list[Any]) -> None:
        self._values = [value for child in children for value in (child._count, child._sum)]

    def _values_now(
        self,
        layout: Layout,
        children: list[Any],  # noqa: ARG002 - bound in _prepare
        *,
        exemplars: bool,  # noqa: ARG002 - summaries have none
    ) -> FamilyValues:
        return FamilyValues(layout, _read(self._values))


class _HistogramSource(_Instrument):
    def __init__(self, instrument: Any) -> None:
        super().__init__(instrument)
        self._bounds: list[str] = [floatToGoString(bound) for bound in instrument._upper_bounds]  # type: ignore[no-untyped-call]
        # a sum over values that may be negative is no counter: the library leaves it out, and so do we
        self._has_sum: bool = instrument._upper_bounds[0] >= 0
        self._bound_pairs = [("le", bound) for bound in self._bounds]
        self._le_at = sum(name < "le" for name, _ in self._order)
        name = instrument._name
        self._bucket, self._count, self._sum = f"{name}_bucket", f"{name}_count", f"{name}_sum"
        self._buckets: list[Any] = []
        self._sums: list[Any] = []

    def _keys(self, pairs: Pairs) -> tuple[SeriesKey, ...]:
        before, after = pairs[: self._le_at], pairs[self._le_at :]
        keys = [(self._bucket, (*before, bound, *after)) for bound in self._bound_pairs]
        keys.append((self._count, pairs))
        if self._has_sum:
            keys.append((self._sum, pairs))
        return tuple(keys)

    def _prepare(self, children: list[Any]) -> None:
        self._buckets = list(chain.from_iterable(child._buckets for child in children))
        self._sums = [child._sum for child in children]

    def _values_now(self, layout: Layout, children: list[Any], *, exemplars: bool) -> FamilyValues:
        bounds, count = len(self._bounds), len(children)
        counts = _read(self._buckets).reshape(count, bounds)
        values = np.empty((count, bounds + 1 + self._has_sum))
        total = np.zeros(count)
        for bound in range(
            bounds
        ):  # one bucket of all children at a time: np.cumsum per row takes ten times that
            total += counts[:, bound]
            values[:, bound] = total
        values[:, bounds] = total
        if self._has_sum:
            values[:, bounds + 1] = _read(self._sums)
        found = {}
        if exemplars:
            width = values.shape[1]
            rows = (child * width + bucket for child in range(count) for bucket in range(bounds))
            found = _exemplars(self._buckets, rows)
        return FamilyValues(layout, values.ravel(), exemplars=found)


def _exemplars(values: Iterable[Any], rows: Iterable[int]) -> dict[int, Exemplar]:
    held = [value._exemplar for value in values]
    return {row: exemplar for row, exemplar in zip(rows, held, strict=True) if exemplar is not None}


def _read(values: list[Any]) -> Float64s:
    """The numbers of many MutexValues: reading a float field is atomic, their locks are not needed."""
    return np.fromiter([value._value for value in values], np.float64, len(values))


class _CollectSource:
    """Any other collector, read by its own `collect()`."""

    quick = False
    foreign = True

    def __init__(self, collector: Any) -> None:
        self.collector = collector
        self._layouts: list[Layout] = []

    def read(self, *, exemplars: bool = False, created: bool = False) -> Sequence[FamilyValues]:
        found: list[FamilyValues] = []
        for position, metric in enumerate(self.collector.collect()):
            known = self._layouts[position] if position < len(self._layouts) else None
            found.append(_family(metric, known, exemplars, created))
        self._layouts = [family.layout for family in found]
        return found


def _family(metric: Metric, known: Layout | None, exemplars: bool, created: bool) -> FamilyValues:
    samples = [
        sample
        for sample in metric.samples
        if sample.value is not None and (created or sample.name != metric.name + "_created")
    ]
    keys = tuple((sample.name, tuple(sorted(sample.labels.items()))) for sample in samples)
    about = (metric.name, metric.type, metric.documentation, metric.unit)
    if known is not None and (known.name, known.kind, known.help, known.unit) == about and known.keys == keys:
        layout = known
    else:
        layout = Layout(*about, keys, starts_at_zero=False)
    values = np.array([float(sample.value) for sample in samples], np.float64)
    timestamps = tuple(sample.timestamp for sample in samples)
    return FamilyValues(
        layout,
        values,
        timestamps if any(stamp is not None for stamp in timestamps) else None,
        {row: sample.exemplar for row, sample in enumerate(samples) if sample.exemplar} if exemplars else {},
    )
