"""YAML that remembers the line and column of every node, and a reader that turns shape faults into problems.

Used for the configuration, rule files, rule tests, SQL collectors and provider declarations: `parse_yaml`
gives a tree, `Reader` takes typed values out of it and collects every problem with its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from exporter.errors import InputError, Problem
from exporter.model.durations import ALLOWED as DURATION_ALLOWED
from exporter.model.durations import parse_duration

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_NODES = 2_000_000  # expanded through aliases: an alias bomb ends here
_MAX_DEPTH = 500
_MANY_OPENINGS = 5000  # fewer cannot nest deeply enough to do harm
_MAX_CHARACTERS = 4 << 20  # seconds of reading; a file of rules has some ten thousands
_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "merge")
)


@dataclass(frozen=True, slots=True)
class YamlNode:
    """One node: exactly one of `entries` (mapping), `items` (sequence) and `text` (scalar) is set.

    `keys` holds the node of each mapping key, for problems that concern the key itself.
    """

    line: int
    column: int
    tag: str
    text: str | None = None
    items: tuple[YamlNode, ...] | None = None
    entries: dict[str, YamlNode] | None = None
    keys: dict[str, YamlNode] | None = None

    @property
    def is_null(self) -> bool:
        """Whether the node is an explicit or implied null."""
        return self.tag == _NULL

    @property
    def kind(self) -> str:
        """What the node is, in words for a message."""
        if self.entries is not None:
            return "a mapping"
        if self.items is not None:
            return "a list"
        names = {_NULL: "nothing", _BOOL: "a boolean", _INT: "a whole number", _FLOAT: "a number"}
        return names.get(self.tag, "a string")


def parse_yaml(text: str, file: str = "") -> YamlNode:
    """The tree of one YAML document; an empty document is an empty mapping.

    Raises: InputError with file, line and column for what is not YAML, a repeated key, a key that is not
    a scalar, a text of over 4 MiB, or aliases that expand to over two million nodes.
    """
    if len(text) > _MAX_CHARACTERS:
        line = text.count("\n", 0, _MAX_CHARACTERS) + 1
        column = _MAX_CHARACTERS - text.rfind("\n", 0, _MAX_CHARACTERS)
        raise InputError(Problem("too large: over 4 MiB, split it", file, line, column))
    try:
        _bound_depth(text, file)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "not valid YAML"
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise InputError(Problem(f"not valid YAML: {what}", file, line, column)) from error
    except yaml.YAMLError as error:  # a reader error: a character that YAML forbids
        position = getattr(error, "position", 0)
        before = text[:position] if isinstance(position, int) else ""
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise InputError(
            Problem(f"not valid YAML: {str(error).splitlines()[0]}", file, line, column)
        ) from error
    except RecursionError as error:
        raise InputError(Problem("not valid YAML: nested too deeply", file, 1, 1)) from error
    if root is None:
        return YamlNode(1, 1, "tag:yaml.org,2002:map", entries={}, keys={})
    try:
        return _Converter(file).convert(root)
    except RecursionError as error:
        raise InputError(
            Problem("nested too deeply, or an alias that contains itself", file, 1, 1)
        ) from error


def _bound_depth(text: str, file: str) -> None:
    """Refuse what is nested so deeply that composing it would overflow the stack, before that happens."""
    if sum(text.count(opening) for opening in ("[", "{", "- ", "? ")) < _MANY_OPENINGS:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                mark = event.start_mark
                line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
                raise InputError(Problem("not valid YAML: nested too deeply", file, line, column))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Converter:
    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._done: dict[int, tuple[YamlNode, int]] = {}  # an alias is the very node of its anchor

    def convert(self, node: yaml.Node) -> YamlNode:
        before = self._count
        found, size = self._done.get(id(node), (None, 1))
        self._count += size
        if found is not None:
            self._bound(node)
            return found
        found = self._convert(node)
        self._done[id(node)] = found, self._count - before
        return found

    def _bound(self, node: yaml.Node) -> None:
        if self._count > _MAX_NODES:
            line, column = node.start_mark.line + 1, node.start_mark.column + 1
            raise InputError(Problem("too large: aliases expand without end", self._file, line, column))

    def _convert(self, node: yaml.Node) -> YamlNode:
        self._bound(node)
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if isinstance(node, yaml.ScalarNode):
            return YamlNode(line, column, node.tag, text=node.value)
        if isinstance(node, yaml.SequenceNode):
            return YamlNode(line, column, node.tag, items=tuple(self.convert(item) for item in node.value))
        entries: dict[str, YamlNode] = {}
        keys: dict[str, YamlNode] = {}
        merged: list[YamlNode] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(Problem("a key must be a plain string", self._file, line, column))
            key = self.convert(key_node)
            if key.tag == _MERGE:
                source = self.convert(value_node)
                merged.extend(source.items if source.items is not None else (source,))
                continue
            name = key.text or ""
            if name in entries:
                raise InputError(
                    Problem(
                        f'key "{name}" is given twice, first in line {keys[name].line}',
                        self._file,
                        key.line,
                        key.column,
                    )
                )
            entries[name] = self.convert(value_node)
            keys[name] = key
        for source in merged:  # `<<: *anchor`: what the mapping says itself wins, then the first source
            if source.entries is None or source.keys is None:
                raise InputError(
                    Problem(
                        f"<< must name a mapping, not {source.kind}", self._file, source.line, source.column
                    )
                )
            for name, value in source.entries.items():
                if name not in entries:
                    entries[name], keys[name] = value, source.keys[name]
        return YamlNode(line, column, node.tag, entries=entries, keys=keys)


def resolve_scalar(node: YamlNode, text: str) -> YamlNode:
    """A scalar with another text, its type read anew as YAML reads a plain scalar."""
    loader: Any = yaml.SafeLoader("")
    return replace(node, text=text, tag=str(loader.resolve(yaml.ScalarNode, text, (True, False))))


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that a reader most likely meant, or the empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else ""


class Reader:
    """Takes typed values out of a YAML tree; every fault becomes a Problem and reading goes on.

    Each method returns None (or an empty collection) where it recorded a problem; null counts as absent.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def problem(self, node: YamlNode, message: str, allowed: str = "") -> None:
        """Record a fault at a node."""
        self.problems.append(Problem(message, self.file, node.line, node.column, allowed))

    def mapping(self, node: YamlNode, what: str, known: Collection[str] | None = None) -> dict[str, YamlNode]:
        """The entries of a mapping; keys outside `known` (where given) are problems with the nearest name."""
        if node.is_null:
            return {}
        if node.entries is None or node.keys is None:
            self.problem(node, f"{what} must be a mapping, not {node.kind}")
            return {}
        if known is not None:
            for name, key in node.keys.items():
                if name not in known:
                    close = nearest(name, known)
                    hint = f', did you mean "{close}"?' if close else ""
                    self.problem(key, f'unknown key "{name}" in {what}{hint}', ", ".join(sorted(known)))
        return {name: value for name, value in node.entries.items() if (known is None or name in known)}

    def sequence(self, node: YamlNode, what: str) -> tuple[YamlNode, ...]:
        """The items of a list."""
        if node.is_null:
            return ()
        if node.items is None:
            self.problem(node, f"{what} must be a list, not {node.kind}")
            return ()
        return node.items

    def string(self, node: YamlNode, what: str) -> str | None:
        """The text of any scalar (numbers and booleans keep their spelling, as in Go's YAML); null is ''."""
        if node.text is None:
            self.problem(node, f"{what} must be a string, not {node.kind}")
            return None
        return "" if node.is_null else node.text

    def integer(self, node: YamlNode, what: str, *, minimum: int | None = None) -> int | None:
        """A whole number, at least `minimum` where given."""
        try:
            if node.text is None or node.tag != _INT:
                raise ValueError
            value = int(node.text.replace("_", ""), 0)
        except ValueError:
            self.problem(node, f"{what} must be a whole number, not {_shown(node)}")
            return None
        if minimum is not None and value < minimum:
            self.problem(node, f"{what} must be {minimum} or more, not {value}")
            return None
        return value

    def number(self, node: YamlNode, what: str) -> float | None:
        """A finite or infinite number."""
        try:
            if node.text is None or node.tag not in (_INT, _FLOAT):
                raise ValueError
            return float(node.text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self.problem(node, f"{what} must be a number, not {_shown(node)}")
            return None

    def boolean(self, node: YamlNode, what: str) -> bool | None:
        """true or false."""
        if node.tag != _BOOL or node.text is None:
            self.problem(node, f"{what} must be true or false, not {_shown(node)}")
            return None
        return node.text.lower() in ("true", "yes", "on", "y")

    def duration_ms(self, node: YamlNode, what: str, *, minimum_ms: int = 0) -> int | None:
        """A Prometheus duration in milliseconds."""
        text = node.text if node.text is not None else ""
        try:
            value = parse_duration(text)
        except ValueError as error:
            self.problem(node, f"{what}: {error}", DURATION_ALLOWED)
            return None
        if value < minimum_ms:
            self.problem(node, f"{what} must be at least {minimum_ms} ms, not {text}")
            return None
        return value

    def strings(self, node: YamlNode, what: str) -> tuple[str, ...]:
        """A list of strings."""
        found = (self.string(item, f"each item of {what}") for item in self.sequence(node, what))
        return tuple(text for text in found if text is not None)

    def string_map(self, node: YamlNode, what: str) -> dict[str, str]:
        """A mapping of strings."""
        found = {
            name: self.string(value, f'"{name}" in {what}')
            for name, value in self.mapping(node, what).items()
        }
        return {name: text for name, text in found.items() if text is not None}

    def choice(self, node: YamlNode, what: str, allowed: Collection[str]) -> str | None:
        """One of a few words."""
        text = self.string(node, what)
        if text is None or text in allowed:
            return text
        self.problem(node, f'{what} must not be "{text}"', ", ".join(sorted(allowed)))
        return None


def scalars(node: YamlNode) -> Iterator[YamlNode]:
    """Every scalar below a node, in order."""
    if node.text is not None:
        yield node
    for child in node.items or (node.entries or {}).values():
        yield from scalars(child)


def _shown(node: YamlNode) -> str:
    return f'"{node.text}"' if node.text else node.kind
