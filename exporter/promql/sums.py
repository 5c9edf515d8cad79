"""Sums along an axis that lose nothing, as Prometheus' compensated sums.

The plain sum and what each addition lost are kept apart; whole numbers need no such care.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.model.samples import Float64s
from exporter.promql.seriesset import Bools, Ints

_WIDE = 64  # windows side by side from which on rows are added one by one
_ROWS_CELLS = 1 << 14  # cells looked at at a time: 128 KiB
_EXACT = 2.0**53
_CANCELLED = 2.0**-20  # of the sum of absolute terms: so small a sum stands in digits not looked at


def sum_first_axis(values: Float64s) -> Float64s:
    """Sum over axis 0 of (N, ...)."""
    total, carry = _parts(values)
    found: Float64s = total + carry
    return found


def mean_first_axis(values: Float64s, counts: Float64s | int) -> Float64s:
    """Sum over axis 0 divided by `counts`; incremental where the sum leaves the range of a float."""
    total, carry = _parts(values)
    with np.errstate(invalid="ignore"):
        mean: Float64s = total / counts + carry / counts
    large = ~np.isfinite(total)
    if bool(large.any()):
        limits = np.broadcast_to(counts, total.shape)[large]
        mean[large] = _incremental_mean(values[:, large], limits)
    return mean


def _parts(values: Float64s) -> tuple[Float64s, Float64s]:
    """The plain sum over axis 0 and what it lost; a sum that is not finite is whole in the first."""
    with np.errstate(invalid="ignore", over="ignore"):
        if len(values) < 2 or _is_whole(values):
            total: Float64s = values.sum(axis=0)
            return total, np.zeros_like(total)
        total, carry = _by_row(values) if values[0].size >= _WIDE else _by_column(values)
    doubtful = ~np.isfinite(total)
    if bool(doubtful.any()):
        total[doubtful] = compensated(values[:, doubtful])
        carry[doubtful] = 0.0
    return total, carry


def _is_whole(values: Float64s) -> bool:
    """Whether all are whole numbers whose sums lose nothing: most counters and many gauges.

    Some rows at a time, in a buffer that stays in the cache: taking fresh memory costs more than the work.
    """
    most = _EXACT / len(values)
    rows = max(1, _ROWS_CELLS // max(values[0].size, 1))
    buffer = np.empty_like(values[:rows])
    for first in range(0, len(values), rows):
        part = values[first : first + rows]
        whole = np.rint(part, out=buffer[: len(part)])
        if not bool((part == whole).all()) or not (-most < float(part.min()) and float(part.max()) < most):
            return False
    return True


def _by_row(values: Float64s) -> tuple[Float64s, Float64s]:
    """Knuth's exact addition row by row, in buffers that stay in the cache."""
    total = values[0].copy()
    carry, grown, part, rest = (np.zeros_like(total) for _ in range(4))
    for row in values[1:]:
        np.add(total, row, out=grown)
        np.subtract(grown, total, out=part)
        np.subtract(grown, part, out=rest)
        np.subtract(total, rest, out=rest)
        np.subtract(row, part, out=part)
        rest += part
        carry += rest
        total, grown = grown, total
    return total, carry


def _by_column(values: Float64s) -> tuple[Float64s, Float64s]:
    """The same for few windows: running sums at once."""
    totals = np.cumsum(values, axis=0)
    before, grown, terms = totals[:-1], totals[1:], values[1:]
    part = grown - before
    lost = (before - (grown - part)) + (terms - part)
    return totals[-1].copy(), lost.sum(axis=0)


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
    """Sum of values (S,) for each group (G,)."""
    total, carry = _group_parts(values, ids, groups)
    found: Float64s = total + carry
    return found


def mean_groups(values: Float64s, ids: Ints, counts: Ints) -> Float64s:
    """Mean of values (S,) for each group (G,); 0 / 0 for a group without any."""
    total, carry = _group_parts(values, ids, len(counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Float64s = total / counts + carry / counts
    for group, terms in _members(values, ids, ~np.isfinite(total)):
        mean[group] = _incremental_mean(terms[:, None], np.array([float(len(terms))]))[0]
    return mean


def _group_parts(values: Float64s, ids: Ints, groups: int) -> tuple[Float64s, Float64s]:
    """The sum of each group and what it lost: the upper digits of all terms add up exactly, then the rest."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        size = np.bincount(ids, np.abs(values), groups).astype(np.float64, copy=False)
        # Adding and taking away 1.5 * 2^(e + 26) rounds to multiples of 2^(e - 26); 2^e is above the sum.
        shift = np.ldexp(1.5, np.frexp(size)[1] + 26)[ids]
        upper = (values + shift) - shift
        high = np.bincount(ids, upper, groups).astype(np.float64, copy=False)
        low = np.bincount(ids, values - upper, groups).astype(np.float64, copy=False)
        total: Float64s = high + low
        carry: Float64s = low - (total - high)
    doubtful = ~np.isfinite(total) | (np.abs(total) < size * _CANCELLED)
    if bool(doubtful.any()):
        for group, terms in _members(values, ids, doubtful):
            total[group] = compensated(terms)
        carry[doubtful] = 0.0
    return total, carry


def _members(values: Float64s, ids: Ints, chosen: Bools) -> Iterator[tuple[int, Float64s]]:
    """The values of each of the chosen groups that has any, in their order."""
    members = np.flatnonzero(chosen[ids])
    if not len(members):
        return
    members = members[np.argsort(ids[members], kind="stable")]
    owners = ids[members]
    starts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    yield from zip(owners[starts].tolist(), np.split(values[members], starts[1:]), strict=True)
