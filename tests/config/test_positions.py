"""YAML trees with places are those of PyYAML; what is too large, too deep or too wrong ends early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.positions import Reader, YamlNode, parse_yaml
from exporter.errors import InputError

RULES = Path(__file__).parents[2] / "rules"
TEXTS = st.text(max_size=6) | st.sampled_from(
    ["1", "1.5", "true", "null", "~", "0x1f", "1_000", ".inf", "<<", "5m"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def composed(node: yaml.Node) -> Any:
    """PyYAML's own tree: places, tags and texts."""
    place = (node.start_mark.line + 1, node.start_mark.column + 1, node.tag)
    if isinstance(node, yaml.MappingNode):
        return (*place, [(composed(key), composed(value)) for key, value in node.value])
    if isinstance(node, yaml.SequenceNode):
        return (*place, [composed(item) for item in node.value])
    return (*place, node.value)


def ours(node: YamlNode) -> Any:
    place = (node.line, node.column, node.tag)
    if node.entries is not None and node.keys is not None:
        return (*place, [(ours(node.keys[name]), ours(value)) for name, value in node.entries.items()])
    return (*place, [ours(item) for item in node.items] if node.items is not None else node.text)


@given(VALUES, st.sampled_from([None, True, False]))
@settings(max_examples=200, deadline=None)
def test_trees_are_those_of_pyyaml(value: object, flow: bool | None) -> None:
    """Places, types and texts, in block and in flow style."""
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    want = yaml.compose(text, Loader=yaml.SafeLoader)
    if "tag:yaml.org,2002:merge" not in repr(want):
        assert ours(parse_yaml(text)) == composed(want)


@pytest.mark.parametrize("file", sorted(RULES.rglob("*.yml")), ids=lambda file: file.name)
def test_rule_files_are_read_as_pyyaml_reads_them(file: Path) -> None:
    """The files that are shipped."""
    text = file.read_text()
    assert ours(parse_yaml(text)) == composed(yaml.compose(text, Loader=yaml.SafeLoader))


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\n---\nb: 2\n", "f:2:1", "single document"),
        ("a: *b\n", "f:1:4", 'no anchor "b"'),
        ("a: &b 1\nc: &b 2\n", "f:2:4", 'the anchor "b" is given twice'),
        ("a: &b [*b]\n", "f:1:8", "contains itself"),
        ("[a, {b: 1}]: 2\n", "f:1:1", "a key must be a plain string"),
        ("a: 1\na: 2\n", "f:2:1", 'key "a" is given twice, first in line 1'),
        ("a: {<<: 1}\n", "f:1:9", "<< must name a mapping"),
        ("- 1\n" * 160_000, "f:150000:3", "over 150,000 values"),
        ("a: &a [" + "x," * 1000 + "]\nb: [" + "*a," * 200 + "]", "f:2:", "aliases expand"),
        ("[" * 300 + "]" * 300, "f:1:201", "nested too deeply"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_refused(text: str, place: str, words: str) -> None:
    """With the place where it goes wrong."""
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).startswith(place)
    assert words in str(caught.value)


def test_an_anchor_and_a_merge() -> None:
    """An alias is the node of its anchor; `<<` adds what the mapping does not say itself."""
    root = parse_yaml("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: *x\n")
    assert root.entries is not None
    assert root.entries["c"] is root.entries["a"]
    merged = root.entries["b"].entries
    assert merged is not None
    assert {name: node.text for name, node in merged.items()} == {"k": "3", "l": "2"}


@pytest.mark.parametrize(("count", "noted"), [(0, 0), (99, 99), (100, 100), (101, 101), (500, 101)])
def test_problems_are_bounded(count: int, noted: int) -> None:
    """The hundred and first problem says that the rest was not looked at, where that begins."""
    node = parse_yaml("".join(f"k{number}: 1\n" for number in range(count)))
    reader = Reader("f")
    reader.mapping(node, "a thing", ("other",))
    assert len(reader.problems) == noted
    assert reader.is_full is (noted > 100)
    if noted > 100:
        assert (
            str(reader.problems[-1])
            == "f:101:1: over 100 problems: what stands from here on was not looked at"
        )
