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
# What is larger takes seconds to read. A file of a thousand rules has ten thousand values in 300 kB.
_MAX_CHARACTERS = 4 << 20
_MAX_NODES = 150_000  # expanded through aliases: an alias bomb ends here
_MAX_DEPTH = 200
_MAX_PROBLEMS = 100
_SHORT = 40  # texts that come again and again
_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE, _MAP, _SEQ = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "merge", "map", "seq")
)
_RESOLVER: Any = yaml.resolver.Resolver()


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
    a scalar, a text of over 4 MiB or over 150,000 nodes, those counted that aliases stand for.
    """
    if len(text) > _MAX_CHARACTERS:
        line = text.count("\n", 0, _MAX_CHARACTERS) + 1
        column = _MAX_CHARACTERS - text.rfind("\n", 0, _MAX_CHARACTERS)
        raise InputError(Problem("too large: over 4 MiB, split it", file, line, column))
    try:
        return _Builder(file).document(yaml.parse(text, Loader=_LOADER))
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


class _Builder:
    """Nodes out of the parser's events, as they come: what is too large or too deep ends there."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._depth = 0
        self._anchors: dict[str, tuple[YamlNode, int] | None] = {}  # with its size; None while it is open
        self._tags: dict[str, str] = {}
        self._events: Iterator[yaml.Event] = iter(())

    def document(self, events: Iterator[yaml.Event]) -> YamlNode:
        """The one document of a stream."""
        self._events = events
        root = YamlNode(1, 1, _MAP, entries={}, keys={})
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refused(event, "not valid YAML: expected a single document in the stream")
                root = self._node(next(events))
        return root

    def _refused(self, event: yaml.Event, message: str) -> InputError:
        return InputError(Problem(message, self._file, *_place(event)))

    def _node(self, event: Any) -> YamlNode:
        self._count += 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if self._count > _MAX_NODES:
            raise self._refused(event, f"too large: over {_MAX_NODES:,} values, split it")
        anchor, before = event.anchor, self._count
        if anchor is not None:
            if anchor in self._anchors:
                raise self._refused(event, f'not valid YAML: the anchor "{anchor}" is given twice')
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = YamlNode(*_place(event), self._tag(event), text=event.value)
        else:
            node = self._collection(event)
        if anchor is not None:
            self._anchors[anchor] = node, self._count - before + 1
        return node

    def _alias(self, event: yaml.AliasEvent) -> YamlNode:
        if event.anchor not in self._anchors:
            raise self._refused(event, f'not valid YAML: no anchor "{event.anchor}" stands before its alias')
        known = self._anchors[event.anchor]
        if known is None:
            raise self._refused(event, "nested too deeply, or an alias that contains itself")
        self._count += known[1] - 1
        if self._count > _MAX_NODES:
            raise self._refused(event, "too large: aliases expand without end")
        return known[0]

    def _tag(self, event: yaml.ScalarEvent) -> str:
        if event.tag is not None and event.tag != "!":
            return str(event.tag)
        if not event.implicit[0]:
            return _STR
        tag = self._tags.get(event.value)
        if tag is None:
            tag = str(_RESOLVER.resolve(yaml.ScalarNode, event.value, (True, False)))
            if len(event.value) < _SHORT:
                self._tags[event.value] = tag
        return tag

    def _collection(self, event: yaml.CollectionStartEvent) -> YamlNode:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._refused(event, "not valid YAML: nested too deeply")
        try:
            if isinstance(event, yaml.SequenceStartEvent):
                items = []
                while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                    items.append(self._node(item))
                return YamlNode(*_place(event), _own_tag(event, _SEQ), items=tuple(items))
            return self._mapping(event)
        finally:
            self._depth -= 1

    def _mapping(self, event: yaml.CollectionStartEvent) -> YamlNode:
        entries: dict[str, YamlNode] = {}
        keys: dict[str, YamlNode] = {}
        merged: list[YamlNode] = []
        while not isinstance(found := next(self._events), yaml.MappingEndEvent):
            key = self._node(found)
            if key.text is None:
                raise self._refused(event, "a key must be a plain string")
            value = self._node(next(self._events))
            if key.tag == _MERGE:
                merged.extend(value.items if value.items is not None else (value,))
                continue
            name = key.text
            if name in entries:
                message = f'key "{name}" is given twice, first in line {keys[name].line}'
                raise InputError(Problem(message, self._file, key.line, key.column))
            entries[name] = value
            keys[name] = key
        for source in merged:  # `<<: *anchor`: what the mapping says itself wins, then the first source
            if source.entries is None or source.keys is None:
                message = f"<< must name a mapping, not {source.kind}"
                raise InputError(Problem(message, self._file, source.line, source.column))
            for name, value in source.entries.items():
                if name not in entries:
                    entries[name], keys[name] = value, source.keys[name]
        return YamlNode(*_place(event), _own_tag(event, _MAP), entries=entries, keys=keys)


def _place(event: Any) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _own_tag(event: Any, usual: str) -> str:
    return usual if event.tag is None or event.tag == "!" else str(event.tag)


def resolve_scalar(node: YamlNode, text: str) -> YamlNode:
    """A scalar with another text, its type read anew as YAML reads a plain scalar."""
    return replace(node, text=text, tag=str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False))))


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that a reader most likely meant, or the empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else ""


class Reader:
    """Takes typed values out of a YAML tree; every fault becomes a Problem and reading goes on.

    After a hundred of them one more says so, and no more are noted. Each method returns None (or an empty
    collection) where it recorded a problem; null counts as absent.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def problem(self, node: YamlNode, message: str, allowed: str = "") -> None:
        """Record a fault at a node."""
        self.add(Problem(message, self.file, node.line, node.column, allowed))

    def add(self, problem: Problem) -> None:
        """Record a fault."""
        if len(self.problems) == _MAX_PROBLEMS:
            message = f"over {_MAX_PROBLEMS} problems: what stands from here on was not looked at"
            problem = replace(problem, message=message, allowed="")
        if not self.is_full:
            self.problems.append(problem)

    @property
    def is_full(self) -> bool:
        """Whether so many problems were found that it is of no use to go on."""
        return len(self.problems) > _MAX_PROBLEMS

    def mapping(self, node: YamlNode, what: str, known: Collection[str] | None = None) -> dict[str, YamlNode]:
        """The entries of a mapping; keys outside `known` (where given) are problems with the nearest name."""
        if node.is_null:
            return {}
        if node.entries is None or node.keys is None:
            self.problem(node, f"{what} must be a mapping, not {node.kind}")
            return {}
        if known is not None:
            for name, key in node.keys.items():
                if name not in known and not self.is_full:
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
