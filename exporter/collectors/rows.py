"""Rows of a query become metric families; what cannot become a sample is refused and told. No IO."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from prometheus_client.metrics_core import Metric

from exporter.collectors.sqlconfig import SqlMetric


@dataclass(slots=True)
class _Faults:
    """Counts of refused values, and one sentence for each kind."""

    counts: dict[str, int]

    def add(self, sentence: str) -> None:
        self.counts[sentence] = self.counts.get(sentence, 0) + 1


class MissingColumnError(ValueError):
    """A declared column is not in the result."""


def to_families(
    metrics: Sequence[SqlMetric], columns: Sequence[str], rows: Sequence[Mapping[str, object]]
) -> tuple[list[Metric], int, list[str]]:
    """Families of the rows: one sample per row and metric.

    Returns: the families; how many values were refused; a sentence for each kind of refusal.
    Refused are text, bytes and NULL as values, negative counters, and a label set that came before (the
    first stays). Numbers, booleans, times (Unix seconds) and intervals (seconds) are values. A NULL
    label is left out.
    Raises: MissingColumnError for a declared column that the query does not return.
    """
    faults = _Faults({})
    families = []
    for metric in metrics:
        for column in (metric.value, *metric.labels):
            if column not in columns:
                raise MissingColumnError(
                    f'{metric.name}: the query returns no column "{column}" (it returns {", ".join(columns)})'
                )
        families.append(_family(metric, rows, faults))
    total = sum(faults.counts.values())
    return families, total, [f"{count} x {sentence}" for sentence, count in faults.counts.items()]


def _family(metric: SqlMetric, rows: Sequence[Mapping[str, object]], faults: _Faults) -> Metric:
    base = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
    family = Metric(base, metric.help, metric.type)
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        value = _number(row[metric.value])
        if value is None:
            what = "NULL" if row[metric.value] is None else type(row[metric.value]).__name__
            faults.add(f'{metric.name}: column "{metric.value}" holds {what}, not a number')
            continue
        if metric.type == "counter" and value < 0:
            faults.add(f'{metric.name}: column "{metric.value}" is negative in a counter')
            continue
        texts = tuple("" if row[label] is None else _label(row[label]) for label in metric.labels)
        if texts in seen:
            faults.add(f"{metric.name}: a label set is repeated")
            continue
        seen.add(texts)
        labels = dict(metric.static_labels)
        labels.update((name, text) for name, text in zip(metric.labels, texts, strict=True) if text)
        family.add_sample(metric.name, labels, value)
    return family


def _number(value: object) -> float | None:
    if isinstance(value, (bool, int, float, Decimal)):
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, datetime.datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
        return aware.timestamp()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return None


def _label(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
