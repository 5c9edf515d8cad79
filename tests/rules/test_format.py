from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import Problem, RuleFormatError
from exporter.rules.format import read_rule_file, read_rule_files
from exporter.rules.model import AlertingRule, MissingData, RecordingRule
from tests.helpers.peers import shared
from tests.rules.build import alerting, groups

WHOLE = """
groups:
- name: first
  interval: 30s
  limit: 10
  query_offset: 1m
  labels: {team: ops, severity: info}
  cooldown: 1h
  cooldown_by: [provider]
  missing_data: keep
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {source: a}
  - alert: Down
    expr: up == 0
    for: 5m
    keep_firing_for: 10m
    cooldown: 0s
    cooldown_by: []
    missing_data: fire
    keep_firing_expr: up < 1
    labels: {severity: 1}
    annotations:
      summary: "{{ $labels.job }} is down"
"""


def refused(text: str) -> list[str]:
    with pytest.raises(RuleFormatError) as caught:
        read_rule_file(text, "a.yml")
    return [str(problem) for problem in caught.value.problems]


def rule(*lines: str) -> str:
    return "groups:\n- name: g\n  rules:\n  - " + "\n    ".join(lines) + "\n"


def test_every_key_is_read() -> None:
    """Group keys, rule keys and ours arrive in the model; a rule's own value goes before its group's."""
    (group,) = groups(WHOLE)
    assert (group.interval_ms, group.limit, group.query_offset_ms) == (30_000, 10, 60_000)
    record, alert = group.rules
    assert isinstance(record, RecordingRule)
    assert record.labels == {"team": "ops", "severity": "info", "source": "a"}
    assert isinstance(alert, AlertingRule)
    assert alert.labels == {"team": "ops", "severity": "1"}
    assert (alert.for_ms, alert.keep_firing_for_ms, alert.cooldown_ms) == (300_000, 600_000, 0)
    assert alert.cooldown_by == ()
    assert alert.missing_data is MissingData.FIRE
    assert alert.keep_firing_text == "up < 1"


def test_group_defaults_reach_alerting_rules() -> None:
    """cooldown, cooldown_by and missing_data of a group hold for rules that say nothing."""
    (group,) = groups(
        "groups:\n- name: g\n  cooldown: 30m\n  cooldown_by: [a]\n  missing_data: keep\n  rules:\n"
        "  - {alert: A, expr: x}\n"
    )
    (one,) = group.rules
    assert isinstance(one, AlertingRule)
    assert (one.cooldown_ms, one.cooldown_by, one.missing_data) == (1_800_000, ("a",), MissingData.KEEP)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "group: []",
            'a.yml:1:1: unknown key "group" in a rule file, did you mean "groups"? (allowed: groups)',
        ),
        ("groups: 3", "a.yml:1:9: groups must be a list, not a whole number"),
        ("groups: [3]", "a.yml:1:10: a rule group must be a mapping, not a whole number"),
        ("groups:\n- rules: []", "a.yml:2:3: a rule group needs a name"),
        (
            "groups:\n- name: g\n- name: g",
            'a.yml:3:9: group "g" is repeated in the same file, first in line 2',
        ),
        ("groups:\n- name: g\n  interval: 5x", "a.yml:3:13: interval of group: "),
        ("groups:\n- name: g\n  limit: many", "limit of group must be a whole number"),
        (rule("expr: x"), "a.yml:4:5: one of record or alert must be set"),
        (rule("alert: A", "record: a", "expr: x"), "one of record or alert must be set, not both"),
        (rule("alert: A"), 'a.yml:4:5: expr of alert "A" must be set'),
        (rule("alert: A", "expr: ''"), 'a.yml:5:11: expr of alert "A" must be set'),
        (rule("alert: A", "expr: sum(x"), "a.yml:5:16: could not parse expression: 1:6: parse error"),
        (rule("alert: A", "expr: |", "  x > 1 +", "  foo bar(y)"), "a.yml:7:11: could not parse"),
        (rule("alert: A", "expr: 'sum(x'"), "a.yml:5:17: could not parse expression"),
        (
            rule("alert: A", "expr: x", "exprs: y"),
            'unknown key "exprs" in a rule, did you mean "expr"?',
        ),
        (rule("alert: A", "expr: x", "for: 5 minutes"), 'a.yml:6:10: for of alert "A": '),
        (rule("alert: A", "expr: x", "for: -5m"), "not a valid duration string"),
        (rule("record: a-b", "expr: x"), 'a.yml:4:13: invalid recording rule name "a-b"'),
        (rule("record: a", "expr: x", "for: 5m"), '"for" has no meaning in a recording rule (record "a")'),
        (rule("record: a", "expr: x", "annotations: {a: b}"), '"annotations" has no meaning'),
        (rule("record: a", "expr: x", "cooldown: 5m"), '"cooldown" has no meaning'),
        (rule("alert: A", "expr: x", "labels: {a-b: c}"), 'a.yml:6:14: invalid label name "a-b"'),
        (rule("alert: A", "expr: x", "labels: {__name__: c}"), 'invalid label name "__name__"'),
        (rule("alert: A", "expr: x", "labels: {a: [1]}"), '"a" in labels of alert "A" must be a string'),
        (rule("alert: A", "expr: x", "annotations: {a b: c}"), 'invalid annotation name "a b"'),
        (
            rule("alert: A", "expr: x", "annotations: {s: '{{ $foo }}'}"),
            'template of annotation "s" of alert "A": template: __alert_A:1: undefined variable "$foo"',
        ),
        (rule("alert: A", "expr: x", "labels: {s: '{{ nosuch 1 }}'}"), 'function "nosuch" not defined'),
        (rule("alert: A", "expr: x", "missing_data: ignore"), "(allowed: fire, keep, resolve)"),
        (rule("alert: A", "expr: x", "cooldown_by: [a-b]"), 'invalid label name "a-b" in cooldown_by'),
        (rule("alert: A", "expr: x", "cooldown_by: provider"), "must be a list, not a string"),
        (rule("alert: A", "expr: x", "keep_firing_expr: 'y >'"), 'keep_firing_expr of alert "A"'),
        ("groups: [", "not valid YAML"),
        ("groups:\n\t- name: g", "a.yml:2:1: not valid YAML"),
        ("groups: []\ngroups: []", 'a.yml:2:1: key "groups" is given twice, first in line 1'),
        ("groups: \0", "not valid YAML"),
    ],
)
def test_a_fault_is_placed_and_explained(text: str, expected: str) -> None:
    """Each fault names its place, what is wrong and what is allowed."""
    assert any(expected in problem for problem in refused(text)), refused(text)


def test_all_problems_come_at_once_in_order() -> None:
    """Faults of several rules and files are told together, in file order."""
    bad = rule("alert: A", "expr: sum(", "for: x", "labels: {a-b: c}")
    with pytest.raises(RuleFormatError) as caught:
        read_rule_files([("one.yml", bad), ("two.yml", "groups: 1")])
    places = [(problem.file, problem.line) for problem in caught.value.problems]
    assert places == [("one.yml", 5), ("one.yml", 6), ("one.yml", 7), ("two.yml", 1)]


def test_anchors_and_merge_keys_are_followed() -> None:
    """`<<` takes another mapping's entries; its own entries win."""
    text = rule("alert: A", "expr: x", "labels: &l {severity: page, team: a}") + (
        "  - {alert: B, expr: x, labels: {<<: *l, team: b}}\n"
    )
    (group,) = groups(text)
    assert group.rules[1].labels == {"severity": "page", "team": "b"}


def test_an_empty_file_has_no_groups() -> None:
    """Empty files, null groups and null keys are what Prometheus makes of them: nothing."""
    assert groups("") == ()
    assert groups("groups:") == ()
    (group,) = groups("groups:\n- name: g\n  interval:\n  rules:\n")
    assert (group.interval_ms, group.rules) == (None, ())


def test_a_key_survives_what_does_not_change_the_rule() -> None:
    """The key holds file base, group, name and labels; not the folder, `for`, annotations or threshold."""
    one = alerting("x > 1", for_="5m", labels="{a: b}")
    assert one.key == alerting("x > 2", for_="1h", labels="{a: b}", annotations="{s: t}").key
    assert one.key != alerting("x > 1", labels="{a: c}").key
    assert groups(WHOLE, "/etc/a.yml")[0].key == groups(WHOLE, "a.yml")[0].key
    assert alerting("x > 1").expr_digest != alerting("x > 2").expr_digest


def test_keys_are_unique() -> None:
    """Equal rules of a group and equal groups of files with one base name get different keys."""
    text = rule("alert: A", "expr: x") + "  - {alert: A, expr: y}\n"
    loaded = read_rule_files([("one/a.yml", text), ("two/a.yml", text)])
    assert len({group.key for group in loaded}) == 2
    assert len({one.key for group in loaded for one in group.rules}) == 4


def test_an_alias_bomb_ends_at_once() -> None:
    """A file that expands without end is refused before it is expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "too large" in refused("\n".join(lines))[0]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["5m", "x"])
)
keys = st.sampled_from(
    [
        "groups",
        "name",
        "rules",
        "alert",
        "record",
        "expr",
        "for",
        "labels",
        "annotations",
        "limit",
        "cooldown",
        "cooldown_by",
        "missing_data",
        "interval",
        "keep_firing_expr",
        "query_offset",
        "zz",
    ]
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=150)
@given(tree=st.dictionaries(keys, trees, max_size=3) | trees)
def test_any_tree_loads_or_is_refused_with_a_place(tree: object) -> None:
    """No YAML tree makes the reader fail in another way than with placed problems."""
    text = yaml.safe_dump({"groups": tree} if not isinstance(tree, dict) else tree, allow_unicode=True)
    problems: tuple[Problem, ...] = ()
    try:
        read_rule_file(text, "a.yml")
    except RuleFormatError as error:
        problems = error.problems
    assert all(problem.line > 0 for problem in problems)


def test_community_rule_files_load() -> None:
    """Every one of 100 public rule files loads unchanged."""
    files = sorted(shared("data/rules-community").rglob("*.y*ml"))
    alerts = records = 0
    for path in files:
        for group in read_rule_file(path.read_text(), str(path)):
            kinds = [isinstance(one, AlertingRule) for one in group.rules]
            alerts += kinds.count(True)
            records += kinds.count(False)
    assert (len(files), alerts, records) == (100, 911, 132)
