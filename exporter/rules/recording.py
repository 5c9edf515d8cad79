"""Recorded samples: what a rule writes of its vector, and the markers for what vanished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.errors import QueryError
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.samples import Float64s, SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.rules.model import RecordingRule


@dataclass(frozen=True, slots=True)
class Written:
    """The series of a rule's last evaluation; `source` are the label sets of the vector they came from."""

    labels: tuple[LabelSet, ...] = ()
    source: tuple[LabelSet, ...] = ()


def recorded_labels(rule: RecordingRule, source: Sequence[LabelSet], last: Written, limit: int) -> Written:
    """The label sets that a recording rule writes for a vector with these label sets, in the same order.

    While the vector's label sets stay the same, so does the tuple object, as consumers expect.

    Raises: QueryError where two are the same once the rule's labels are applied, or `limit` is exceeded.
    """
    given = tuple(source)
    if 0 < limit < len(given):
        raise QueryError(f"exceeded limit of {limit} with {len(given)} series")
    if given == last.source and last.labels:
        return last
    named = {METRIC_NAME: rule.record, **rule.labels}
    labels = tuple(one.merged(named) for one in given)
    if len(set(labels)) != len(labels):
        raise QueryError("vector contains metrics with the same labelset after applying rule labels")
    return Written(labels, given)


def with_markers(ts_ms: int, written: Written, values: Float64s, last: Written) -> SampleBatch:
    """One batch of what was written and a staleness marker for each series of `last` that was not."""
    if written.labels is last.labels:
        return SampleBatch(ts_ms, written.labels, values)
    present = set(written.labels)
    gone = tuple(labels for labels in last.labels if labels not in present)
    if not gone:
        return SampleBatch(ts_ms, written.labels, values)
    return SampleBatch(ts_ms, written.labels + gone, np.concatenate([values, np.full(len(gone), STALE_NAN)]))
