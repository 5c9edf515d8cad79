"""Sums along an axis that lose nothing where terms cancel, as Prometheus' compensated sums.

The plain sum is exact to a few units of the last place where all terms have one sign, and numpy makes it
fast. Only windows or groups with terms of both signs, or whose sum is not finite, take the slow way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.model.samples import Float64s
from exporter.promql.seriesset import Bools, Ints


def sum_first_axis(values: Float64s) -> Float64s:
    """Sum over axis 0 of (N, ...); compensated where terms cancel."""
    with np.errstate(invalid="ignore", over="ignore"):
        total: Float64s = values.sum(axis=0)
        if values.shape[0] < 3:
            return total
        doubtful = ((values.min(axis=0) < 0) & (values.max(axis=0) > 0)) | ~np.isfinite(total)
    if bool(doubtful.any()):
        total = np.array(total)
        total[doubtful] = compensated(values[:, doubtful])
    return total


def mean_first_axis(values: Float64s, counts: Float64s | int) -> Float64s:
    """Sum over axis 0 divided by `counts`; incremental where the sum leaves the range of a float."""
    total = sum_first_axis(values)
    with np.errstate(invalid="ignore"):
        mean: Float64s = total / counts
    large = ~np.isfinite(total)
    if bool(large.any()):
        limits = np.broadcast_to(counts, total.shape)[large]
        mean = np.array(mean)
        mean[large] = _incremental_mean(values[:, large], limits)
    return mean


def compensated(values: Float64s) -> Float64s:
    """Neumaier's sum over axis 0; an infinite sum stays infinite."""
    total = np.zeros(values.shape[1:])
    carry = np.zeros(values.shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):
        for term in values:
            total, carry = _add(term, total, carry)
        return np.where(np.isinf(total), total, total + carry)


def _add(term: Float64s, total: Float64s, carry: Float64s) -> tuple[Float64s, Float64s]:
    grown = total + term
    lost = np.where(np.abs(total) >= np.abs(term), (total - grown) + term, (term - grown) + total)
    return grown, np.where(np.isinf(grown), 0.0, carry + lost)


def _incremental_mean(values: Float64s, counts: Float64s) -> Float64s:
    """Mean over the first `counts` of axis 0: a sum while it stays finite, then a running mean."""
    total = values[0].copy()
    carry = np.zeros_like(total)
    mean = np.zeros_like(total)
    incremental = np.zeros(total.shape, np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        for position in range(1, len(values)):
            term, count = values[position], position + 1.0
            live = position < counts
            grown, lost = _add(term, total, carry)
            overflow = live & ~incremental & np.isinf(grown)
            mean = np.where(overflow, total / (count - 1), mean)
            carry = np.where(overflow, carry / (count - 1), carry)
            incremental |= overflow
            summing = live & ~incremental
            total = np.where(summing, grown, total)
            share = (count - 1) / count
            moved, moved_lost = _add(term / count, share * mean, share * carry)
            running = live & incremental
            carry = np.where(summing, lost, np.where(running, moved_lost, carry))
            mean = np.where(running, moved, mean)
        result: Float64s = np.where(incremental, mean + carry, total / counts + carry / counts)
        return result


def sum_groups(values: Float64s, ids: Ints, groups: int) -> Float64s:
    """Sum of values (S,) for each group (G,); compensated where terms of a group cancel."""
    with np.errstate(invalid="ignore", over="ignore"):
        total: Float64s = np.bincount(ids, values, groups).astype(np.float64, copy=False)
        if bool((values >= 0).all()):
            doubtful = ~np.isfinite(total)
        else:
            doubtful = (np.abs(total) < np.bincount(ids, np.abs(values), groups)) | ~np.isfinite(total)
    if bool(doubtful.any()):
        for group, terms in _members(values, ids, doubtful):
            total[group] = compensated(terms)
    return total


def mean_groups(values: Float64s, ids: Ints, counts: Ints) -> Float64s:
    """Mean of values (S,) for each group (G,); 0 / 0 for a group without any."""
    total = sum_groups(values, ids, len(counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Float64s = total / counts
    for group, terms in _members(values, ids, ~np.isfinite(total)):
        mean[group] = _incremental_mean(terms[:, None], np.array([float(len(terms))]))[0]
    return mean


def _members(values: Float64s, ids: Ints, chosen: Bools) -> Iterator[tuple[int, Float64s]]:
    """The values of each of the chosen groups that has any, in their order."""
    members = np.flatnonzero(chosen[ids])
    if not len(members):
        return
    members = members[np.argsort(ids[members], kind="stable")]
    owners = ids[members]
    starts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    yield from zip(owners[starts].tolist(), np.split(values[members], starts[1:]), strict=True)
