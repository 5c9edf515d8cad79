"""info(): labels of info metrics added to series with the same job and instance.

Source: Prometheus' functions page, info().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.errors import QueryError
from exporter.model.labels import METRIC_NAME, LabelSet, Matcher
from exporter.promql.matrix import SAME_LABELSET, Operand, StepMatrix, merge_equal
from exporter.promql.plan import Function, Select, info_select
from exporter.promql.read import select_points
from exporter.promql.seriesset import Bools, Ints, SeriesSet

if TYPE_CHECKING:
    from exporter.promql.evaluate import Evaluation

_IDENTIFYING = ("instance", "job")
_Identity = tuple[str, ...]


def info(evaluation: Evaluation, node: Function) -> Operand:
    """The first argument's series with the data labels of their info series."""
    base = evaluation.value(node.args[0])
    assert isinstance(base, StepMatrix)
    select = info_select(node)
    names = tuple(matcher for matcher in select.matchers if matcher.name == METRIC_NAME)
    data = tuple(matcher for matcher in select.matchers if matcher.name != METRIC_NAME)
    # Info series themselves pass unchanged.
    ignored = np.array(
        [all(matcher.matches(labels.name) for matcher in names) for labels in base.series.labels], np.bool_
    )
    found = _read(evaluation, select)
    chosen, groups = _newest(base.series, ignored, *found)
    return _enriched(base, ignored, chosen, groups, found[0].series, data)


def _read(evaluation: Evaluation, select: Select) -> tuple[StepMatrix, np.ndarray]:
    """The info series at every step."""
    times = evaluation.times(select.at, select.offset_ms)
    matrix, stamps = select_points(evaluation.reader, select, times, evaluation.budget, stamps=True)
    assert stamps is not None
    return matrix, stamps


def _identity(labels: LabelSet) -> _Identity:
    return tuple(labels.get(name) for name in _IDENTIFYING)


def _newest(
    base: SeriesSet, ignored: Bools, matrix: StepMatrix, stamps: np.ndarray
) -> tuple[Ints, dict[_Identity, list[int]]]:
    """For each (info name, identity) at each step the info series that counts, -1 for none.

    Raises: QueryError where two info series of one identity have samples of the same time.
    """
    wanted = {
        _identity(labels)
        for labels, skip in zip(base.labels, ignored.tolist(), strict=True)
        if not skip and any(_identity(labels))
    }
    members: dict[tuple[str, _Identity], list[int]] = {}
    for position, labels in enumerate(matrix.series.labels):
        identity = _identity(labels)
        if identity in wanted:
            members.setdefault((labels.name, identity), []).append(position)
    chosen = np.full((len(members), matrix.values.shape[1]), -1, np.intp)
    groups: dict[_Identity, list[int]] = {}
    mask = matrix.mask()
    for number, ((name, identity), positions) in enumerate(members.items()):
        groups.setdefault(identity, []).append(number)
        times = np.where(mask[positions], stamps[positions], -np.inf)
        newest = times.max(axis=0)
        rivals = ((times == newest) & mask[positions]).sum(axis=0)
        if bool((rivals > 1).any()):
            raise QueryError(f"found duplicate series for info metric {name}")
        which = np.array(positions)[np.argmax(times, axis=0)]
        chosen[number] = np.where(rivals == 1, which, -1)
    return chosen, groups


def _enriched(
    base: StepMatrix,
    ignored: Bools,
    chosen: Ints,
    groups: dict[_Identity, list[int]],
    infos: SeriesSet,
    data: tuple[Matcher, ...],
) -> StepMatrix:
    names = {matcher.name for matcher in data}
    must = any(not matcher.matches_empty for matcher in data)
    out: list[LabelSet] = []
    rows: list[int] = []
    masks: list[Bools] = []
    mask = base.mask()
    for position, labels in enumerate(base.series.labels):
        numbers = [] if ignored[position] else groups.get(_identity(labels), [])
        patterns, which = np.unique(chosen[numbers], axis=1, return_inverse=True)
        for pattern in range(patterns.shape[1]):
            picked = [int(place) for place in patterns[:, pattern] if place >= 0]
            added = {} if ignored[position] else _data(labels, picked, infos, names)
            if not ignored[position] and not picked and must:
                continue
            out.append(labels.merged(added) if added else labels)
            rows.append(position)
            masks.append(mask[position] & (which.reshape(-1) == pattern))
    if not rows:
        return StepMatrix(SeriesSet(()), np.zeros((0, mask.shape[1])))
    at = np.array(rows)
    series = SeriesSet(tuple(out), base.series.drop_name[at])
    return merge_equal(StepMatrix(series, base.values[at], np.array(masks)), SAME_LABELSET)


def _data(labels: LabelSet, picked: list[int], infos: SeriesSet, names: set[str]) -> dict[str, str]:
    added: dict[str, str] = {}
    for place in picked:
        for name, value in infos.labels[place]:
            if name == METRIC_NAME or (names and name not in names):
                continue
            if added.get(name, value) != value:
                raise QueryError(f"conflicting label: {name}")
            if name not in labels:
                added[name] = value
    return added
