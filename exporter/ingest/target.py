"""A scrape target: its labels and address, the series that its lines become, and what ends when they vanish.

Source: Prometheus' configuration page (scrape_config, relabel_config) and its page on jobs and instances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from sys import intern
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np

from exporter.ingest.relabel import RelabelRule, relabel
from exporter.ingest.scrape_parser import Scraped, ScrapeLimitError
from exporter.model.durations import parse_duration
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.samples import Float64s, SampleBatch
from exporter.model.staleness import STALE_NAN

REPORT_NAMES: Final = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)
FUTURE_MS: Final = 600_000
PAST_MS: Final = 3_600_000
_MAX_PAIRS = 100_000
_MAX_ORDERS = 1000
_SLICE = 2000  # series handed over at once: the head is locked that long
_ADDRESS, _SCHEME, _PATH = "__address__", "__scheme__", "__metrics_path__"
_INTERVAL, _TIMEOUT, _PARAM = "__scrape_interval__", "__scrape_timeout__", "__param_"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to scrape and under which labels. Two with the same labels and URL are one."""

    labels: LabelSet
    url: str
    interval_ms: int
    timeout_ms: int
    discovered: LabelSet = field(compare=False)


def make_target(
    discovered: Mapping[str, str], rules: Sequence[RelabelRule], params: Sequence[tuple[str, tuple[str, ...]]]
) -> Target | None:
    """The target that discovered labels stand for; None where relabelling drops it.

    `discovered` holds `__address__`, `__scheme__`, `__metrics_path__`, `__scrape_interval__`,
    `__scrape_timeout__` and `job` beside its own labels; `params` are the job's URL parameters.
    Raises: ValueError where relabelling leaves no usable target.
    """
    first = {f"{_PARAM}{name}": values[0] for name, values in params if values}
    every = {**first, **discovered}
    labels = relabel(every, rules)
    if labels is None:
        return None
    address = labels.get(_ADDRESS, "")
    if not address or any(char in address for char in "/?#@ \n"):
        raise ValueError(f'"{address}" is not an address HOST:PORT')
    scheme = labels.get(_SCHEME, "")
    if scheme not in ("http", "https"):
        raise ValueError(f'"{scheme}" is not a scheme (allowed: http, https)')
    interval_ms, timeout_ms = (
        parse_duration(labels.get(_INTERVAL, "")),
        parse_duration(labels.get(_TIMEOUT, "")),
    )
    if interval_ms <= 0 or not 0 < timeout_ms <= interval_ms:
        raise ValueError("the scrape timeout must be above 0 and no longer than the interval")
    path = labels.get(_PATH, "")
    query = _query(labels, params)
    url = f"{scheme}://{address}{path if path.startswith('/') else '/' + path}{'?' + query if query else ''}"
    public = {name: value for name, value in labels.items() if not name.startswith("__")}
    public.setdefault("instance", address)
    return Target(LabelSet.of(public), url, interval_ms, timeout_ms, LabelSet.of(every))


def _query(labels: Mapping[str, str], params: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """The URL parameters: those of the job, the first value of each as the labels say."""
    found = {name: list(values) for name, values in params}
    for name, value in labels.items():
        if name.startswith(_PARAM):
            found[name.removeprefix(_PARAM)] = [value, *found.get(name.removeprefix(_PARAM), [])[1:]]
    return urlencode(sorted(found.items()), doseq=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a target may send; 0 is none."""

    samples: int = 0
    labels: int = 0
    name_length: int = 0
    value_length: int = 0


class _Pairs(dict[tuple[str, str], tuple[str, str]]):
    """Each pair of name and value once, with interned texts: many series have it."""

    def __missing__(self, pair: tuple[str, str]) -> tuple[str, str]:
        if len(self) >= _MAX_PAIRS:
            self.clear()
        own = self[pair] = (intern(pair[0]), intern(pair[1]))
        return own


class SeriesMaker:
    """Turns a sample line into the series under which it is stored."""

    def __init__(
        self, target: LabelSet, rules: Sequence[RelabelRule], limits: Limits, *, honor_labels: bool
    ) -> None:
        self._target = target
        self._rules = rules
        self._limits = limits
        self._limited = bool(limits.labels or limits.name_length or limits.value_length)
        self._honor_labels = honor_labels
        self._orders: dict[tuple[str, ...], Callable[[tuple[tuple[str, str], ...]], Any] | None] = {}
        self._pairs = _Pairs()

    def __call__(self, name: str, pairs: Sequence[tuple[str, str]]) -> LabelSet | None:
        """The series of a metric name and its exposed labels, None where a rule drops it.

        Raises: ScrapeLimitError for labels beyond the limits; ValueError for a series without name.
        """
        series = self._usual(name, pairs)
        if series is None:
            labels = {**dict(pairs), METRIC_NAME: name}
            if self._honor_labels:
                for own, value in self._target:
                    labels.setdefault(own, value)
            else:
                self._move_conflicts(labels)
            if self._rules:
                kept = relabel(labels, self._rules)
                if not kept:
                    return None
                labels = kept
            series = LabelSet.of(labels)
            if not series.name:
                shown = LabelSet.of((*pairs, (METRIC_NAME, name)))
                raise ValueError(f"relabelling leaves no metric name on {shown}")
        if self._limited:
            self._check(series)
        return series

    def _usual(self, name: str, pairs: Sequence[tuple[str, str]]) -> LabelSet | None:
        """The series where nothing is to be rewritten: the same label names always sort in the same way."""
        names = tuple([own for own, _ in pairs])
        if names not in self._orders:
            if len(self._orders) >= _MAX_ORDERS:
                self._orders.clear()
            self._orders[names] = self._order(names)
        order = self._orders[names]
        if order is None or "" in [value for _, value in pairs]:  # a label without value is none
            return None
        pair = self._pairs
        return LabelSet(order((pair[METRIC_NAME, name], *self._target.pairs, *map(pair.__getitem__, pairs))))

    def _order(self, names: tuple[str, ...]) -> Callable[[tuple[tuple[str, str], ...]], Any] | None:
        every = (METRIC_NAME, *(name for name, _ in self._target), *names)
        if self._rules or len(set(every)) < len(every) or len(every) == 1:
            return None
        return itemgetter(*sorted(range(len(every)), key=every.__getitem__))

    def _move_conflicts(self, labels: dict[str, str]) -> None:
        """The target's labels win; the exposed ones go on under exported_NAME."""
        moved: list[tuple[str, str]] = []
        for name, value in self._target:
            exposed = labels.get(name, "")
            if exposed:
                moved.append((name, exposed))
            labels[name] = value
        for name, exposed in moved:
            other = f"exported_{name}"
            while other in labels:
                other = f"exported_{other}"
            labels[other] = exposed

    def _check(self, series: LabelSet) -> None:
        limits = self._limits
        shown = series.name[:50]
        if limits.labels and len(series) > limits.labels:
            raise ScrapeLimitError(
                f"label_limit exceeded (metric: {shown}, labels: {len(series)}, limit: {limits.labels})"
            )
        if not (limits.name_length or limits.value_length):
            return
        for name, value in series:
            if limits.name_length and len(name.encode()) > limits.name_length:
                raise ScrapeLimitError(
                    f"label_name_length_limit exceeded (metric: {shown}, label: {name[:50]}, "
                    f"length: {len(name.encode())}, limit: {limits.name_length})"
                )
            if limits.value_length and len(value.encode()) > limits.value_length:
                raise ScrapeLimitError(
                    f"label_value_length_limit exceeded (metric: {shown}, label: {name}, "
                    f"value: {value[:50]}, length: {len(value.encode())}, limit: {limits.value_length})"
                )


class TargetSeries:
    """What a target had at its last scrape, and the batches that follow from the next.

    The batches of one scrape share its time, apart from samples with timestamps of their own; these are not
    ended by markers, as in Prometheus.
    """

    def __init__(self, target: LabelSet) -> None:
        self._report = tuple(target.merged({METRIC_NAME: name}) for name in REPORT_NAMES)
        self._series: list[LabelSet] | None = None
        self._unique: frozenset[LabelSet] = frozenset()
        self._slices: tuple[tuple[LabelSet, ...], ...] = ()
        self._alive = False
        self._stamped: dict[LabelSet, int] = {}

    def accept(self, scraped: Scraped, ts_ms: int, duration_s: float) -> list[SampleBatch]:
        """The batches of a good scrape, its markers and reports among them.

        Raises: ValueError where the samples contradict each other or their times are far off; nothing has
            changed then.
        """
        series, values = scraped.series, scraped.values
        stamped: list[SampleBatch] = []
        latest: dict[LabelSet, int] = {}
        if scraped.times:
            series, values, stamped, latest = self._split(scraped, ts_ms)
        gone: list[LabelSet] = []
        added = 0
        if series != self._series:
            unique, kept, kept_values = _without_repeats(series, values, frozenset(self._report))
            if self._alive:
                gone = [labels for labels in self._unique - unique if labels not in latest]
            added = len(unique - self._unique)
            self._slices = _sliced((*kept, *self._report))
            self._unique = unique
            # With repeats the values must be looked at each time.
            self._series = series if len(kept) == len(series) else None
            values = kept_values
        self._alive = True
        added += len(latest.keys() - self._stamped.keys())
        self._stamped = {name: last for name, last in self._stamped.items() if name in latest} | latest
        report = (1.0, duration_s, scraped.total, len(scraped.series), added)
        batches = self._emit(ts_ms, np.concatenate([values, np.array(report, np.float64)]))
        if gone:
            batches.append(SampleBatch(ts_ms, tuple(gone), np.full(len(gone), STALE_NAN)))
        return [*stamped, *batches]

    def fail(self, ts_ms: int, duration_s: float, total: int = 0) -> list[SampleBatch]:
        """The batches of a failed scrape: `up` 0, and the end of everything that was there."""
        report = np.array((0.0, duration_s, total, 0.0, 0.0), np.float64)
        if not self._alive:
            return [SampleBatch(ts_ms, self._report, report)]
        self._alive = False
        size = sum(map(len, self._slices)) - len(report)
        return self._emit(ts_ms, np.concatenate([np.full(size, STALE_NAN), report]))

    def end(self, ts_ms: int) -> list[SampleBatch]:
        """The batches when the target is removed: everything ends, its reports too."""
        if self._alive:
            return self._emit(ts_ms, np.full(sum(map(len, self._slices)), STALE_NAN))
        return [SampleBatch(ts_ms, self._report, np.full(len(self._report), STALE_NAN))]

    def _emit(self, ts_ms: int, values: Float64s) -> list[SampleBatch]:
        found, start = [], 0
        for labels in self._slices:
            found.append(SampleBatch(ts_ms, labels, values[start : start + len(labels)]))
            start += len(labels)
        return found

    def _split(
        self, scraped: Scraped, now_ms: int
    ) -> tuple[list[LabelSet], Float64s, list[SampleBatch], dict[LabelSet, int]]:
        """Samples without a time of their own; then batches of those that have one, and the latest times."""
        by_time: dict[int, dict[LabelSet, float]] = {}
        latest: dict[LabelSet, int] = {}
        for place, ts_ms in scraped.times.items():
            labels, value = scraped.series[place], float(scraped.values[place])
            if not now_ms - PAST_MS <= ts_ms <= now_ms + FUTURE_MS:
                side = "ahead of" if ts_ms > now_ms else "behind"
                raise ValueError(f"the timestamp of {labels} is {abs(ts_ms - now_ms) / 1000:g} s {side} now")
            row = by_time.setdefault(ts_ms, {})
            if row.setdefault(labels, value) != value and value == value:
                raise ValueError(f"{labels} is there twice with different values")
            latest[labels] = max(ts_ms, latest.get(labels, ts_ms))
        batches = []
        for ts_ms in sorted(by_time):
            row = {key: value for key, value in by_time[ts_ms].items() if self._stamped.get(key, -1) < ts_ms}
            if row:
                batches.append(
                    SampleBatch(ts_ms, tuple(row), np.fromiter(row.values(), np.float64, len(row)))
                )
        rest = [place for place in range(len(scraped.series)) if place not in scraped.times]
        return [scraped.series[place] for place in rest], scraped.values[rest], batches, latest


def _without_repeats(
    series: list[LabelSet], values: Float64s, reserved: frozenset[LabelSet]
) -> tuple[frozenset[LabelSet], list[LabelSet], Float64s]:
    """Each series once; a repeat with the same value is let pass, and what we report ourselves left out."""
    unique = frozenset(series)
    if len(unique) == len(series) and not unique & reserved:
        return unique, series, values
    first: dict[LabelSet, int] = {}
    for place, labels in enumerate(series):
        if labels in reserved:
            continue
        known = first.setdefault(labels, place)
        if known != place and values[known : known + 1].tobytes() != values[place : place + 1].tobytes():
            raise ValueError(f"{labels} is there twice with different values")
    places = list(first.values())
    return frozenset(first), list(first), values[places]


def _sliced(labels: tuple[LabelSet, ...]) -> tuple[tuple[LabelSet, ...], ...]:
    return tuple(labels[start : start + _SLICE] for start in range(0, len(labels), _SLICE))
