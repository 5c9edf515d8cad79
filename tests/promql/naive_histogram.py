"""Quantiles of classic histograms in plain loops.

Source: Prometheus' functions page, histogram_quantile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from exporter.model.labels import BUCKET_LABEL, METRIC_NAME, LabelSet

Buckets = list[tuple[float, float]]  # upper bound, cumulative count


def histogram_quantile(q: float, vector: Mapping[LabelSet, float]) -> list[tuple[LabelSet, float]]:
    """The quantile of every histogram, names dropped; series whose `le` is no number are passed over."""
    found: dict[LabelSet, dict[float, float]] = {}
    for labels, count in vector.items():
        try:
            bound = float(labels.get(BUCKET_LABEL))
        except ValueError:
            continue
        buckets = found.setdefault(labels.without((BUCKET_LABEL,)), {})
        buckets[bound] = buckets.get(bound, 0.0) + count
    return [
        (labels.without((METRIC_NAME,)), _quantile(q, sorted(buckets.items())))
        for labels, buckets in found.items()
    ]


def _quantile(q: float, buckets: Buckets) -> float:
    if math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    if len(buckets) < 2 or buckets[-1][0] != math.inf:
        return math.nan
    buckets = _never_falling(buckets)
    total = buckets[-1][1]
    if total == 0:
        return math.nan
    rank = q * total
    for place, (bound, count) in enumerate(buckets[:-1]):
        if count >= rank:
            if place == 0 and bound <= 0:
                return bound
            lower, before = buckets[place - 1] if place else (0.0, 0.0)
            inside = count - before
            share = (rank - before) / inside if inside else math.nan
            return lower + (bound - lower) * share
    return buckets[-2][0]


def _never_falling(buckets: Buckets) -> Buckets:
    """Counts that fell, or differ by rounding alone, are taken as the count before."""
    previous = buckets[0][1]
    out = [buckets[0]]
    for bound, count in buckets[1:]:
        if count < previous or abs(count - previous) < 1e-12 * (abs(count) + abs(previous)):
            count = previous
        previous = count
        out.append((bound, count))
    return out
