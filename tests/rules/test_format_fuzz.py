"""Malformed rule files are refused with a place: wrong types, deep and huge files, damaged ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import RuleFormatError
from exporter.rules.format import ALERT_ONLY_KEYS, GROUP_KEYS, RULE_KEYS, read_rule_file
from exporter.rules.model import RuleGroup
from tests.rules.test_format import WHOLE

LARGE = 10_000_000
PLACED = re.compile(r"a\.yml:[1-9]\d*:[1-9]\d*: ")

MAPPINGS = ("labels", "annotations")
LISTS = ("cooldown_by", "rules")
WRONG = {"mapping": "{a: {b: c}}", "list": "[[1], {a: b}]", "word": "'no such thing!'", "float": "1.5.2"}


def outcome(text: str) -> tuple[RuleGroup, ...] | str:
    """The groups, or the first problem; every problem has a place."""
    try:
        return read_rule_file(text, "a.yml")
    except RuleFormatError as error:
        problems = [str(problem) for problem in error.problems]
    assert problems
    assert all(PLACED.match(problem) for problem in problems)
    return problems[0]


def wrong_kinds(key: str) -> list[str]:
    if key in ("name", "alert", "record", "expr"):
        return ["mapping", "list"]
    if key in MAPPINGS:
        return ["list", "word", "float"]
    if key in LISTS:
        return ["mapping", "word", "float"]
    return ["mapping", "list"] if key == "keep_firing_expr" else ["mapping", "list", "word", "float"]


@pytest.mark.parametrize(("key", "kind"), [(key, kind) for key in GROUP_KEYS for kind in wrong_kinds(key)])
def test_a_wrong_type_at_a_key_of_a_group(key: str, kind: str) -> None:
    """Refused at its place."""
    others = "" if key == "name" else "  name: g\n"
    assert isinstance(outcome(f"groups:\n- {key}: {WRONG[kind]}\n{others}"), str)


@pytest.mark.parametrize(("key", "kind"), [(key, kind) for key in RULE_KEYS for kind in wrong_kinds(key)])
def test_a_wrong_type_at_a_key_of_a_rule(key: str, kind: str) -> None:
    """Refused at its place."""
    others = {"alert": "A", "expr": "x"}
    others.pop("alert" if key == "record" else key, None)
    rest = "".join(f"    {name}: {value}\n" for name, value in others.items())
    assert isinstance(outcome(f"groups:\n- name: g\n  rules:\n  - {key}: {WRONG[kind]}\n{rest}"), str)


@pytest.mark.parametrize("key", [*GROUP_KEYS, *RULE_KEYS])
def test_a_key_given_twice(key: str) -> None:
    """Refused where the second stands, whatever the key."""
    assert outcome(f"groups:\n- {key}: a\n  {key}: a\n").startswith("a.yml:3:3: ")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        " " * LARGE,
        "groups: " + "a" * LARGE,
        "groups:\n" + "- a\n" * (LARGE // 4),
        "groups:\n- name: g\n  rules:\n" + "  - {alert: A, expr: x}\n" * (LARGE // 26),
    ],
    ids=["blank", "scalar", "list", "rules"],
)
def test_a_file_of_ten_megabytes_is_refused_unread(text: str) -> None:
    """With the place where it becomes too large."""
    found = outcome(text)
    assert isinstance(found, str)
    assert "too large: over 4 MiB" in found


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("  - {alert: A, expr: 'sum('}\n", "over 100 problems"),
        ("  - {alert: A, expr: x, annotations: {a: '{{ .x '}}\n", "over 100 problems"),
        ("  - {alert: A, expr: x, fro: 5m}\n", "over 100 problems"),
        ("  - 1\n", "over 100 problems"),
        ("- {name: g}\n", "over 100 problems"),
    ],
)
@pytest.mark.parametrize("count", [2000, 100_000])
def test_a_file_with_a_fault_in_each_line(line: str, what: str, count: int) -> None:
    """A hundred of them are told, then how far the file was read; a larger one is refused as too large."""
    head = "groups:\n" if line.startswith("- ") else "groups:\n- name: g\n  rules:\n"
    with pytest.raises(RuleFormatError) as caught:
        read_rule_file(head + line * min(count, (4 << 20) // len(line) - 3), "a.yml")
    problems = [str(problem) for problem in caught.value.problems]
    assert all(PLACED.match(problem) for problem in problems)
    assert len(problems) in (1, 101)
    assert what in problems[-1] or (len(problems) == 1 and "over 150,000 values" in problems[0])


@pytest.mark.parametrize(
    "text",
    [
        "groups: " + "[" * 100_000,
        "groups: " + "[" * 6000 + "]" * 6000,
        "groups: " + "{a: " * 100_000,
        "groups:\n  " + "- " * 100_000 + "x",
        "groups:\n  " + "? " * 100_000 + "x",
        "groups: &a [*a]",
        "groups: &a {<<: *a}",
        "groups: [{name: g, rules: [{alert: A, expr: '" + "(" * 20_000 + "'}]}]",
        "groups: [{name: g, rules: [{alert: A, expr: '" + "x+" * 20_000 + "x'}]}]",
        "groups: [{name: g, rules: [{alert: A, expr: x, labels: {s: '{{ " + "(" * 20_000 + " }}'}}]}]",
    ],
    ids=lambda text: text[:12] + text[-8:],
)
def test_deep_nesting_is_refused(text: str) -> None:
    """And does not take the program with it."""
    assert isinstance(outcome(text), str)


def test_an_alias_bomb_of_merge_keys_is_refused() -> None:
    """`<<` expands as other aliases do."""
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: *a{n - 1}}}" for n in range(1, 40)]
    assert isinstance(outcome("\n".join(lines)), str)


@settings(max_examples=200)
@given(
    position=st.integers(0, len(WHOLE) - 1),
    length=st.integers(0, 8),
    text=st.sampled_from(
        ["\t", "\0", "\x85", "\ufeff", "- ", ": ", "{", "[", "&a ", "*a", "!!int ", "'", '"', "|"]
    )
    | st.text(max_size=4),
)
def test_a_damaged_file_loads_or_is_refused_with_a_place(position: int, length: int, text: str) -> None:
    """Some characters of a good file replaced: never another fault than placed problems."""
    outcome(WHOLE[:position] + text + WHOLE[position + length :])


@settings(max_examples=100)
@given(text=st.text(max_size=60))
def test_any_text_loads_or_is_refused_with_a_place(text: str) -> None:
    """Whatever it is."""
    outcome(text)


def test_keys_without_meaning_in_a_recording_rule() -> None:
    """Each of the keys of alerts is refused there."""
    for key in ALERT_ONLY_KEYS:
        found = outcome(f"groups:\n- name: g\n  rules:\n  - record: a\n    expr: x\n    {key}: 5m\n")
        assert f'"{key}" has no meaning in a recording rule' in str(found)
