from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.model.staleness import STALE_NAN
from exporter.promql.engine import Engine
from exporter.promql.parse import parse_expr
from exporter.rules.ahead_query import AheadQueries, Grid, can_run_ahead
from exporter.rules.engine_query import EngineQueries
from exporter.rules.group import GroupState, evaluate_group
from exporter.storage import MemoryStorage
from tests.rules.build import MINUTE, groups

RULES = """
groups:
- name: g
  rules:
  - {record: total, expr: sum(x)}
  - {alert: High, expr: x > 2, for: 2m, keep_firing_for: 2m}
  - {alert: Total, expr: total > 4, missing_data: keep}
  - {alert: Gone, expr: 'absent(x{i="a"})'}
  - {alert: Rising, expr: 'increase(x[3m]) > 2', missing_data: fire}
  - {alert: Often, expr: 'count_over_time(ALERTS[5m]) > 3'}
"""
STEPS = 15
values = st.sampled_from([None, 0.0, 1.0, 3.0, 5.0, STALE_NAN])


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("x > 1", True),
        ("rate(x[5m] offset 1m)", True),
        ("max_over_time(sum(x)[1h:1m])", True),
        ("total", False),
        ("count(ALERTS)", False),
        ('{job="a"}', False),
        ("x offset -5m", False),
        ("x @ 60", False),
        ("x @ end()", False),
        ("x[5m] @ start()", False),
        ("max_over_time(x[5m:1m] offset -1m)", False),
    ],
)
def test_what_can_be_answered_ahead(expr: str, expected: bool) -> None:
    """Only what reads no written name and looks at no other time than its own and before."""
    assert can_run_ahead(parse_expr(expr), {"total", "ALERTS"}) is expected


@settings(max_examples=25)
@given(
    columns=st.lists(
        st.lists(values, min_size=STEPS, max_size=STEPS), min_size=1, max_size=2
    )
)  # fmt: skip
def test_ahead_and_live_give_the_same(columns: list[list[float | None]]) -> None:
    """Transitions and errors of a group are the same whether its expressions are answered ahead or live."""
    names = [LabelSet.of({"__name__": "x", "i": name}) for name in "ab"]
    batches = []
    for step in range(STEPS):
        here = [
            (label, one[step]) for label, one in zip(names, columns, strict=False) if one[step] is not None
        ]
        labels = tuple(label for label, _ in here)
        batches.append(SampleBatch(step * MINUTE, labels, np.array([value for _, value in here], np.float64)))
    logs = [walk(batches, ahead) for ahead in (False, True)]
    assert logs[0] == logs[1]


def walk(batches: list[SampleBatch], ahead: bool) -> list[tuple[object, ...]]:
    (group,) = groups(RULES)
    storage, whole = MemoryStorage(), MemoryStorage()
    for batch in batches:
        if len(batch):
            whole.append_batch(batch)
    live = EngineQueries(Engine(storage))
    queries = AheadQueries(live, Engine(whole), group.rules, Grid(0, MINUTE, STEPS)) if ahead else live
    state = GroupState()
    log: list[tuple[object, ...]] = []
    for batch in batches:
        if len(batch):
            storage.append_batch(batch)
        done = evaluate_group(group, state, batch.ts_ms, queries(), storage.append_batch)
        log += [(batch.ts_ms, one.rule.name, one.error, repr(one.transitions)) for one in done.rules]
    return log
