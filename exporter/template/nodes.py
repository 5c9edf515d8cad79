"""The syntax tree of a template. `str(node)` is the source form that Go shows in error messages."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.template.quoting import quote


@dataclass(frozen=True, slots=True)
class Node:
    """Anything with a place: `pos` is the character offset in the template text."""

    pos: int


@dataclass(frozen=True, slots=True)
class Text(Node):
    """Plain text."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Dot(Node):
    """The cursor."""

    def __str__(self) -> str:
        return "."


@dataclass(frozen=True, slots=True)
class Nil(Node):
    """The constant nil."""

    def __str__(self) -> str:
        return "nil"


@dataclass(frozen=True, slots=True)
class Bool(Node):
    """true or false."""

    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number; which of its readings fits depends on where it is used. None: it has no such reading."""

    text: str
    integer: int | None
    unsigned: int | None
    real: float | None
    imaginary: complex | None
    is_float_text: bool  # without context it is a float64

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class String(Node):
    """A string constant; `quoted` is its source form."""

    quoted: str
    text: str

    def __str__(self) -> str:
        return self.quoted


@dataclass(frozen=True, slots=True)
class Identifier(Node):
    """A function's name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Field(Node):
    """`.A.B`."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join("." + name for name in self.names)


@dataclass(frozen=True, slots=True)
class Variable(Node):
    """`$x` or `$x.A.B`; the first name keeps its dollar sign."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(frozen=True, slots=True)
class Chain(Node):
    """A term followed by fields: `(pipeline).A.B`."""

    node: Node
    names: tuple[str, ...]

    def __str__(self) -> str:
        inner = f"({self.node})" if isinstance(self.node, Pipe) else str(self.node)
        return inner + "".join("." + name for name in self.names)


@dataclass(frozen=True, slots=True)
class Command(Node):
    """A term and its arguments."""

    args: tuple[Node, ...]

    def __str__(self) -> str:
        return " ".join(f"({arg})" if isinstance(arg, Pipe) else str(arg) for arg in self.args)


@dataclass(frozen=True, slots=True)
class Pipe(Node):
    """Commands, and the variables that take the value of the last one."""

    declared: tuple[Variable, ...]
    assigns: bool
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        head = ", ".join(str(variable) for variable in self.declared)
        head += (" = " if self.assigns else " := ") if self.declared else ""
        return head + " | ".join(str(command) for command in self.commands)


@dataclass(frozen=True, slots=True)
class Body(Node):
    """A list of nodes."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return "".join(str(node) for node in self.nodes)

    def is_empty(self) -> bool:
        """Whether there is nothing but white space."""
        return all(isinstance(node, Text) and not node.text.strip() for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Action(Node):
    """A pipeline whose value is printed, unless it declares variables."""

    pipe: Pipe

    def __str__(self) -> str:
        return "{{" + str(self.pipe) + "}}"


@dataclass(frozen=True, slots=True)
class Branch(Node):
    """if, with or range, by `word`."""

    word: str
    pipe: Pipe
    body: Body
    otherwise: Body | None

    def __str__(self) -> str:
        tail = "" if self.otherwise is None else "{{else}}" + str(self.otherwise)
        return "{{" + f"{self.word} {self.pipe}" + "}}" + str(self.body) + tail + "{{end}}"


@dataclass(frozen=True, slots=True)
class Jump(Node):
    """break or continue, by `word`."""

    word: str

    def __str__(self) -> str:
        return "{{" + self.word + "}}"


@dataclass(frozen=True, slots=True)
class Invoke(Node):
    """`{{template "name" pipeline}}`."""

    name: str
    pipe: Pipe | None

    def __str__(self) -> str:
        tail = "" if self.pipe is None else f" {self.pipe}"
        return "{{template " + quote(self.name) + tail + "}}"


@dataclass(frozen=True, slots=True)
class End(Node):
    """`{{end}}`; only inside the parser."""

    def __str__(self) -> str:
        return "{{end}}"


@dataclass(frozen=True, slots=True)
class Else(Node):
    """`{{else}}`; only inside the parser."""

    def __str__(self) -> str:
        return "{{else}}"
