"""Functions that work on labels, not on samples: label_replace, label_join, and order by label.

Source: Prometheus' functions page; templates of `label_replace` expand as Go's regexp.Expand.
"""

from __future__ import annotations

import re
from functools import cmp_to_key

import numpy as np

from exporter.errors import QueryError
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.regex import compile_anchored
from exporter.promql.matrix import SAME_LABELSET, StepMatrix, merge_equal
from exporter.promql.seriesset import Ints, SeriesSet

_REFERENCE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))", re.ASCII)
_PARTS = re.compile(r"(\d+|\D+)", re.ASCII)


def is_label_name(text: str) -> bool:
    """Whether a text can name a label: not empty, valid UTF-8."""
    try:
        return len(text.encode()) > 0
    except UnicodeEncodeError:
        return False


def label_replace(matrix: StepMatrix, target: str, template: str, source: str, pattern: str) -> StepMatrix:
    """Sets `target` to the expanded template in series whose `source` label matches the whole pattern."""
    try:
        regex = compile_anchored(pattern)
    except ValueError:
        raise QueryError(f"invalid regular expression in label_replace(): {pattern}") from None
    if not is_label_name(target):
        raise QueryError(f"invalid destination label name in label_replace(): {target}")

    def make() -> SeriesSet:
        drop = matrix.series.drop_name.copy()
        out: list[LabelSet] = []
        for position, labels in enumerate(matrix.series.labels):
            match = regex.fullmatch(labels.get(source))
            if match is None:
                out.append(labels)
                continue
            out.append(labels.merged({target: _expand(template, match)}))
            if target == METRIC_NAME:
                drop[position] = False
        return SeriesSet(tuple(out), drop)

    series = matrix.series.memo(("label_replace", target, template, source, pattern), make)
    return _relabelled(matrix, series)


def label_join(matrix: StepMatrix, target: str, separator: str, sources: tuple[str, ...]) -> StepMatrix:
    """Sets `target` to the values of the source labels, joined."""
    for source in sources:
        if not is_label_name(source):
            raise QueryError(f"invalid source label name in label_join(): {source}")
    if not is_label_name(target):
        raise QueryError(f"invalid destination label name in label_join(): {target}")

    def make() -> SeriesSet:
        drop = matrix.series.drop_name.copy()
        if target == METRIC_NAME:
            drop[:] = False
        joined = (
            labels.merged({target: separator.join(labels.get(source) for source in sources)})
            for labels in matrix.series.labels
        )
        return SeriesSet(tuple(joined), drop)

    return _relabelled(matrix, matrix.series.memo(("label_join", target, separator, sources), make))


def _relabelled(matrix: StepMatrix, series: SeriesSet) -> StepMatrix:
    changed = StepMatrix(series, matrix.values, matrix.present, matrix.ordered)
    if series.has_duplicates:
        there = np.flatnonzero(matrix.mask().any(axis=1))
        ids = series.unique.ids[there]
        if len(np.unique(ids)) < len(ids):
            raise QueryError(SAME_LABELSET)
        return merge_equal(changed, SAME_LABELSET)
    return changed


def _expand(template: str, match: re.Match[str]) -> str:
    groups = match.re.groupindex

    def value(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        if name is None:
            return "$"
        if name.isdigit():
            number = int(name)
            found = match.group(number) if number <= match.re.groups else None
        else:
            found = match.group(name) if name in groups else None
        return found or ""

    return _REFERENCE.sub(value, template)


def order_by_labels(series: SeriesSet, names: tuple[str, ...], *, descending: bool) -> Ints:
    """Positions in natural order of the labels named, then of the whole label set."""

    def compare(one: int, other: int) -> int:
        first, second = series.labels[one], series.labels[other]
        for name in names:
            left, right = first.get(name), second.get(name)
            if left != right:
                return -1 if natural_less(left, right) else 1
        return -1 if first.pairs < second.pairs else int(first.pairs > second.pairs)

    def make() -> Ints:
        order = sorted(range(len(series)), key=cmp_to_key(compare), reverse=descending)
        return np.array(order, np.intp)

    return series.memo(("order", names, descending), make)


def natural_less(left: str, right: str) -> bool:
    """Whether one text comes before another where runs of digits compare as numbers."""
    ours, theirs = _PARTS.findall(left), _PARTS.findall(right)
    for own, other in zip(ours, theirs, strict=False):
        if own == other:
            continue
        if own[0].isdigit() and other[0].isdigit():
            if int(own) != int(other):
                return int(own) < int(other)
            return len(own) < len(other)
        return bool(own < other)
    return len(ours) < len(theirs)
