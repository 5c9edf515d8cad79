"""Relabelling does what Prometheus' does."""

from __future__ import annotations

import pytest

from exporter.ingest.relabel import RelabelAction as Action
from exporter.ingest.relabel import RelabelRule as Rule
from exporter.ingest.relabel import fault_of, relabel

LABELS = {"a": "foo", "b": "bar", "c": "baz"}


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        (
            [Rule(source_labels=("a",), regex="f(.*)", target_label="d", replacement="ch${1}-$1")],
            {"d": "choo-oo"},
        ),
        ([Rule(source_labels=("a", "b"), regex="foo;(.*)", target_label="d")], {"d": "bar"}),
        ([Rule(source_labels=("a",), regex="no", target_label="b", replacement="x")], {}),
        ([Rule(source_labels=("a",), regex="f", target_label="b", replacement="x")], {}),
        ([Rule(target_label="d", replacement="x")], {"d": "x"}),
        ([Rule(target_label="a", replacement="")], {"a": ""}),
        ([Rule(source_labels=("a",), target_label="d", replacement="$1x")], {}),
        ([Rule(source_labels=("a",), target_label="d", replacement="$$1")], {"d": "$1"}),
        ([Rule(source_labels=("a",), regex="(?P<n>.*)", target_label="d", replacement="$n")], {"d": "foo"}),
        ([Rule(source_labels=("a",), regex="(.*)", target_label="${1}_x", replacement="y")], {"foo_x": "y"}),
        ([Rule(source_labels=("a",), regex="(.*)", target_label="$1-x", replacement="y")], {}),
        ([Rule(Action.DROP, ("a",), regex="f.*")], None),
        ([Rule(Action.DROP, ("a",), regex="f")], {}),
        ([Rule(Action.KEEP, ("a",), regex="foo|x")], {}),
        ([Rule(Action.KEEP, ("a",), regex="o")], None),
        ([Rule(Action.KEEP, ("missing",), regex="")], {}),
        ([Rule(Action.KEEPEQUAL, ("a",), target_label="b")], None),
        ([Rule(Action.DROPEQUAL, ("a",), target_label="b")], {}),
        ([Rule(Action.DROPEQUAL, ("a",), target_label="a")], None),
        ([Rule(Action.HASHMOD, ("c",), target_label="d", modulus=1000)], {"d": "976"}),
        ([Rule(Action.HASHMOD, ("a",), target_label="d", modulus=1)], {"d": "0"}),
        ([Rule(Action.LABELMAP, regex="(b|c)", replacement="x_$1")], {"x_b": "bar", "x_c": "baz"}),
        ([Rule(Action.LABELDROP, regex="b|c")], {"b": "", "c": ""}),
        ([Rule(Action.LABELKEEP, regex="b")], {"a": "", "c": ""}),
        ([Rule(Action.UPPERCASE, ("a",), target_label="d")], {"d": "FOO"}),
        ([Rule(Action.LOWERCASE, ("a",), target_label="d")], {"d": "foo"}),
        ([Rule(Action.DROP, ("a",), regex="foo"), Rule(target_label="d", replacement="x")], None),
        ([Rule(target_label="d", replacement="x"), Rule(Action.KEEP, ("d",), regex="x")], {"d": "x"}),
    ],
)
def test_actions(rules: list[Rule], changes: dict[str, str] | None) -> None:
    """Each action; an empty value removes the label, None stands for dropped."""
    wanted = None if changes is None else {key: val for key, val in {**LABELS, **changes}.items() if val}
    assert all(fault_of(rule) == "" for rule in rules if rule.target_label != "$1-x")
    assert relabel(LABELS, rules) == wanted
