"""What a template refers to: labels and the value of its alert. For the linter."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from exporter.errors import TemplateError
from exporter.template import nodes
from exporter.template.template import ALERT_HEADER, Template


class _Dot(Enum):
    """What the cursor stands for at a place."""

    ALERT = "alert data"
    LABELS = "labels of the alert"
    OTHER = "something else"


@dataclass(slots=True)
class _Found:
    labels: set[str] = field(default_factory=set)
    prints_value: bool = False
    asks_value: bool = False
    visited: set[tuple[str, _Dot]] = field(default_factory=set)


def referenced_labels(template: Template | str) -> set[str]:
    """Names of the alert's labels that a template reads: `$labels.x`, `.Labels.x`, `index $labels "x"`.

    Labels of query results do not count. A template that cannot be parsed refers to nothing.
    """
    return _analyse(template).labels


def prints_value(template: Template | str) -> bool:
    """Whether the alert's value, `$value` or `.Value`, can show in the text of a template."""
    return _analyse(template).prints_value


def asks_value(template: Template | str) -> bool:
    """Whether an `if` of a template asks for the alert's value."""
    return _analyse(template).asks_value


def _analyse(template: Template | str) -> _Found:
    found = _Found()
    try:
        parsed = Template.parse(template) if isinstance(template, str) else template
    except TemplateError:
        return found
    if parsed.trees:
        _Walk(parsed, found).template(parsed.name, _Dot.ALERT)
    return found


class _Walk:
    def __init__(self, template: Template, found: _Found) -> None:
        self._template = template
        self._found = found
        self._asking = False

    def template(self, name: str, dot: _Dot) -> None:
        body = self._template.trees.get(name)
        if body is None or (name, dot) in self._found.visited:
            return
        self._found.visited.add((name, dot))
        main = name == self._template.name
        for node in body.nodes:
            if not main or node.pos >= len(ALERT_HEADER):
                self._node(node, dot, dot, main)

    def _node(self, node: nodes.Node, dot: _Dot, root: _Dot, main: bool) -> None:
        match node:
            case nodes.Body():
                for inner in node.nodes:
                    self._node(inner, dot, root, main)
            case nodes.Action():
                self._pipe(node.pipe, dot, root, main)
            case nodes.Branch():
                self._asking = node.word == "if"
                self._pipe(node.pipe, dot, root, main)
                self._asking = False
                inside = dot
                if node.word == "with":
                    inside = self._stands_for(node.pipe, dot, root, main)
                elif node.word == "range":
                    inside = _Dot.OTHER
                self._node(node.body, inside, root, main)
                if node.otherwise is not None:
                    self._node(node.otherwise, dot, root, main)
            case nodes.Invoke() if node.pipe is not None:
                self._pipe(node.pipe, dot, root, main)
                self.template(node.name, self._stands_for(node.pipe, dot, root, main))

    def _stands_for(self, node: nodes.Node, dot: _Dot, root: _Dot, main: bool) -> _Dot:
        """What a pipeline or term yields, as far as it is the alert's data or labels."""
        if isinstance(node, nodes.Pipe):
            if len(node.commands) != 1 or len(node.commands[0].args) != 1:
                return _Dot.OTHER
            return self._stands_for(node.commands[0].args[0], dot, root, main)
        start, names = self._path(node, dot, root, main)
        if not names:
            return start
        return _Dot.LABELS if start is _Dot.ALERT and names == ("Labels",) else _Dot.OTHER

    def _path(self, node: nodes.Node, dot: _Dot, root: _Dot, main: bool) -> tuple[_Dot, tuple[str, ...]]:
        match node:
            case nodes.Dot():
                return dot, ()
            case nodes.Field():
                return dot, node.names
            case nodes.Variable():
                if node.names[0] == "$":
                    return root, node.names[1:]
                if main and node.names[0] == "$labels":
                    return _Dot.LABELS, node.names[1:]
                if main and node.names[0] == "$value":
                    return _Dot.ALERT, ("Value",)
            case nodes.Chain():
                return self._stands_for(node.node, dot, root, main), node.names
        return _Dot.OTHER, ()

    def _pipe(self, pipe: nodes.Pipe, dot: _Dot, root: _Dot, main: bool) -> None:
        for command in pipe.commands:
            for arg in command.args:
                self._term(arg, dot, root, main)
            self._index(command, dot, root, main)

    def _term(self, node: nodes.Node, dot: _Dot, root: _Dot, main: bool) -> None:
        if isinstance(node, nodes.Pipe):
            self._pipe(node, dot, root, main)
            return
        if isinstance(node, nodes.Chain):
            self._term(node.node, dot, root, main)
        start, names = self._path(node, dot, root, main)
        if start is _Dot.ALERT and names[:1] == ("Labels",):
            start, names = _Dot.LABELS, names[1:]
        if start is _Dot.LABELS and names:
            self._found.labels.add(names[0])
        elif start is _Dot.ALERT and names[:1] == ("Value",):
            if self._asking:
                self._found.asks_value = True
            else:
                self._found.prints_value = True

    def _index(self, command: nodes.Command, dot: _Dot, root: _Dot, main: bool) -> None:
        """`index $labels "x"`."""
        match command.args:
            case (nodes.Identifier(name="index"), labels, nodes.String(text=text), *_):
                if self._stands_for(labels, dot, root, main) is _Dot.LABELS:
                    self._found.labels.add(text)
