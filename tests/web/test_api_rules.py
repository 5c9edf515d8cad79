"""/api/v1/rules and /api/v1/alerts against Debian's prometheus over the same rule file, times apart."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.promql.engine import Engine
from exporter.rules.engine_query import EngineQueries
from exporter.rules.evaluation import GroupView
from exporter.rules.format import read_rule_file
from exporter.rules.group import GroupState, evaluate_group
from exporter.storage import MemoryStorage
from tests.helpers.peers import peer
from tests.promql.prometheus import Prometheus
from tests.web.test_api_differential import OurServer, ask, q

RULES = """
groups:
- name: alerts
  interval: 1s
  limit: 5
  rules:
  - alert: Firing
    expr: vector(-0.00025) / 1000 < 1
    labels: {severity: critical, b: "<x>"}
    annotations: {summary: 'value {{ $value }} & more', description: "{{ $labels.severity }}"}
  - alert: Pending
    expr: sum(vector(1)  ) by(job)>  0
    for: 1h30m
    keep_firing_for: 5m
  - alert: Inactive
    expr: vector(1) > 2
- name: records
  interval: 1s
  rules:
  - record: a:b
    expr: vector(1) + 1
    labels: {z: "1", a: "2"}
  - record: c:d
    expr: absent(nothing)
"""
_TIME = re.compile(rb'"(lastEvaluation|activeAt|evaluationTime)":("[^"]+"|[0-9.e+-]+)')
_EMPTY = re.compile(rb'{"name":"[^"]+","file":"[^"]+","rules":\[\],[^}]+},?')


def timeless(body: bytes) -> bytes:
    """The body with its times and durations made equal, without groups that version 3 leaves out."""
    return _EMPTY.sub(b"", _TIME.sub(rb'"\1":0', body)).replace(b",]", b"]")


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    home: Path = tmp_path_factory.mktemp("rules")
    file = home / "rules.yml"
    file.write_text(RULES)
    theirs = Prometheus(peer("prometheus"), peer("promtool"), home)
    (home / "prometheus.yml").write_text(f"rule_files: [{file}]\n")
    groups = read_rule_file(RULES, str(file))
    storage = MemoryStorage()
    query = EngineQueries(Engine(storage))
    views = []
    for group in groups:
        state = GroupState()
        for at in (1_772_409_600_000, 1_772_409_601_000):
            evaluation = evaluate_group(group, state, at, query(), storage.append_batch)
        views.append(GroupView(group, group.interval_ms or 1000, evaluation))
    with theirs as prometheus, OurServer(MemoryStorage(), views) as ours:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if ask(prometheus.port, q("rules"))[2].count(b'"health":"ok"') == 5:
                break
            time.sleep(0.1)
        yield ours.port, prometheus.port


@pytest.mark.parametrize(
    "case",
    [q("rules"), q("rules", ("type", "alert")), q("rules", ("type", "record")), q("alerts")],
    ids=lambda case: f"{case[1]} {case[2]}",
)
def test_rules_and_alerts_are_shown_as_prometheus_shows_them(ports: tuple[int, int], case: object) -> None:
    """Key order, numbers, escapes, states; only the times differ."""
    ours, theirs = (ask(port, case) for port in ports)  # type: ignore[arg-type]
    assert ours[:2] == theirs[:2]
    assert timeless(ours[2]) == timeless(theirs[2])


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ((("rule_name[]", "a:b"),), ["a:b"]),
        ((("rule_group[]", "records"),), ["a:b", "c:d"]),
        ((("file[]", "nowhere"),), []),
        ((("match[]", '{severity="critical"}'),), ["Firing"]),
        ((("group_limit", "1"),), ["Firing", "Pending", "Inactive"]),
    ],
)
def test_filters_of_version_3(
    ports: tuple[int, int], params: tuple[tuple[str, str], ...], found: list[str]
) -> None:
    """Names, groups, files, matchers and pages."""
    body = ask(ports[0], q("rules", *params))[2].decode()
    names: Callable[[str], list[str]] = re.compile(r'"name":"([^"]+)","query"').findall
    assert names(body) == found
