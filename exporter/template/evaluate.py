"""Walks a template's trees over data and yields text.

Source: text/template's documentation with the option missingkey=zero, which Prometheus sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from exporter.template import nodes
from exporter.template.functions import FUNCTIONS
from exporter.template.goformat import sprint
from exporter.template.methods import find_method
from exporter.template.quoting import quote
from exporter.template.signature import ANY, NILABLE, CallError, Function, Surroundings
from exporter.template.values import NilPointer, StringMap, fields_of, is_true, type_name

MAX_STEPS: Final = 1_000_000
MAX_DEPTH: Final = 40
_MISSING: Final = object()  # no value came down the pipeline
_NIL_INTERFACE: Final = NilPointer(ANY)  # an empty element of a map[string]interface{}


class ExecutionError(Exception):
    """An error while a template runs: Go's message, and the node it happened at."""

    def __init__(self, message: str, node: nodes.Node, template: str) -> None:
        super().__init__(message)
        self.node = node
        self.template = template


class _Jump(Exception):  # noqa: N818 - control flow, not an error
    """break or continue on its way to the range it belongs to."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def execute(trees: Mapping[str, nodes.Body], name: str, data: object, around: Surroundings) -> str:
    """The text of the template `name` over `data`.

    Raises: ExecutionError.
    """
    run = _Run(trees, around)
    try:
        run.template(name, trees[name], data, 0)
    except RecursionError:
        raise ExecutionError("template nests too deeply", nodes.Text(0, ""), name) from None
    return "".join(run.out)


class _Run:
    """What all templates of one execution share: output, step count, functions' surroundings."""

    def __init__(self, trees: Mapping[str, nodes.Body], around: Surroundings) -> None:
        self.trees = trees
        self.around = around
        self.out: list[str] = []
        self.steps = 0

    def template(self, name: str, body: nodes.Body, dot: object, depth: int) -> None:
        _Frame(self, name, dot, depth).walk(dot, body)


class _Frame:
    """One template invocation: its variables, and the node at hand for error messages."""

    def __init__(self, run: _Run, name: str, dot: object, depth: int) -> None:
        self._run = run
        self._name = name
        self._depth = depth
        self._variables: list[tuple[str, object]] = [("$", dot)]
        self._node: nodes.Node = nodes.Text(0, "")

    def _fault(self, message: str) -> ExecutionError:
        return ExecutionError(message, self._node, self._name)

    # statements

    def walk(self, dot: object, node: nodes.Node) -> None:
        """Runs one node, its text going to the output."""
        self._run.steps += 1
        self._node = node
        if self._run.steps > MAX_STEPS:
            raise self._fault(f"template runs for more than {MAX_STEPS} steps")
        match node:
            case nodes.Text():
                self._run.out.append(node.text)
            case nodes.Body():
                for inner in node.nodes:
                    self.walk(dot, inner)
            case nodes.Action():
                value = self._pipe(dot, node.pipe)
                if not node.pipe.declared:
                    self._node = node
                    self._print(value)
            case nodes.Branch():
                mark = len(self._variables)
                if node.word == "range":
                    self._range(dot, node)
                else:
                    self._choose(dot, node)
                del self._variables[mark:]
            case nodes.Invoke():
                self._invoke(dot, node)
            case nodes.Jump():
                raise _Jump(node.word)

    def _print(self, value: object) -> None:
        if type(value) is str:
            self._run.out.append(value)
        else:
            self._run.out.append("<no value>" if value is None else sprint([value], indirect=True))

    def _choose(self, dot: object, node: nodes.Branch) -> None:
        value = self._pipe(dot, node.pipe)
        if is_true(value):
            self.walk(value if node.word == "with" else dot, node.body)
        elif node.otherwise is not None:
            self.walk(dot, node.otherwise)

    def _range(self, dot: object, node: nodes.Branch) -> None:
        value = self._pipe(dot, node.pipe)
        items: list[tuple[object, object]]
        if isinstance(value, list):
            items = list(enumerate(value))
        elif isinstance(value, dict):
            items = [(key, value[key]) for key in sorted(value, key=lambda key: str(key).encode())]
        elif value is None or (isinstance(value, NilPointer) and not value.type_name.startswith("*")):
            items = []
        else:
            raise self._fault(f"range can't iterate over {sprint([value], indirect=True)}")
        names = [variable.names[0] for variable in node.pipe.declared]
        for key, item in items:
            mark = len(self._variables)
            if names:
                self._set(names[-1], item, node.pipe.assigns)
            if len(names) > 1:
                self._set(names[0], key, node.pipe.assigns)
            try:
                self.walk(item, node.body)
            except _Jump as jump:
                if jump.word == "break":
                    break
            finally:
                del self._variables[mark:]
        if not items and node.otherwise is not None:
            self.walk(dot, node.otherwise)

    def _invoke(self, dot: object, node: nodes.Invoke) -> None:
        body = self._run.trees.get(node.name)
        if body is None:
            raise self._fault(f"template {quote(node.name)} not defined")
        if self._depth >= MAX_DEPTH:
            raise self._fault(f"exceeded maximum template depth ({MAX_DEPTH})")
        data = None if node.pipe is None else self._pipe(dot, node.pipe)
        self._run.template(node.name, body, data, self._depth + 1)

    # variables

    def _set(self, name: str, value: object, assigns: bool) -> None:
        if not assigns:
            self._variables.append((name, value))
            return
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return
        raise self._fault(f"undefined variable: {name}")

    def _get(self, name: str) -> object:
        for own, value in reversed(self._variables):
            if own == name:
                return value
        raise self._fault(f"undefined variable: {name}")

    # pipelines

    def _pipe(self, dot: object, pipe: nodes.Pipe) -> object:
        self._node = pipe
        value: object = _MISSING
        for command in pipe.commands:
            value = self._command(dot, command, value)
            if value is _NIL_INTERFACE:
                value = None
        for variable in pipe.declared:
            self._set(variable.names[0], value, pipe.assigns)
        return value

    def _command(self, dot: object, command: nodes.Command, final: object) -> object:
        first = command.args[0]
        match first:
            case nodes.Field():
                self._node = first
                return self._fields(dot, dot, first, first.names, command.args, final)
            case nodes.Chain():
                return self._chain(dot, first, command.args, final)
            case nodes.Identifier():
                return self._function(dot, first, command, command.args, final)
            case nodes.Pipe():
                self._only_value(command.args, final)
                return self._pipe(dot, first)
            case nodes.Variable():
                return self._variable(dot, first, command.args, final)
        self._node = first
        self._only_value(command.args, final)
        if isinstance(first, nodes.Nil):
            raise self._fault("nil is not a command")
        return self._literal(dot, first)

    def _only_value(self, args: Sequence[nodes.Node], final: object) -> None:
        if len(args) > 1 or final is not _MISSING:
            raise self._fault(f"can't give argument to non-function {args[0]}")

    def _literal(self, dot: object, node: nodes.Node) -> object:
        match node:
            case nodes.Bool():
                return node.value
            case nodes.Dot():
                return dot
            case nodes.String():
                return node.text
            case nodes.Number():
                return self._constant(node)
        raise self._fault(f"can't evaluate command {quote(str(node))}")

    def _constant(self, node: nodes.Number) -> object:
        self._node = node
        if node.imaginary is not None:
            return node.imaginary
        if node.is_float_text:
            return node.real
        if node.integer is None:
            raise self._fault(f"{node.text} overflows int")
        return node.integer

    def _variable(
        self, dot: object, node: nodes.Variable, args: Sequence[nodes.Node], final: object
    ) -> object:
        self._node = node
        value = self._get(node.names[0])
        if len(node.names) == 1:
            self._only_value(args or (node,), final)
            return value
        return self._fields(dot, value, node, node.names[1:], args, final)

    def _chain(self, dot: object, node: nodes.Chain, args: Sequence[nodes.Node], final: object) -> object:
        self._node = node
        if isinstance(node.node, nodes.Nil):
            raise self._fault(f"indirection through explicit nil in {node}")
        value = self._argument(dot, ANY, node.node)
        return self._fields(dot, value, node, node.names, args, final)

    def _fields(
        self,
        dot: object,
        value: object,
        node: nodes.Node,
        names: Sequence[str],
        args: Sequence[nodes.Node],
        final: object,
    ) -> object:
        for name in names[:-1]:
            value = self._field(dot, name, node, (), _MISSING, value)
        return self._field(dot, names[-1], node, args, final, value)

    def _field(
        self,
        dot: object,
        name: str,
        node: nodes.Node,
        args: Sequence[nodes.Node],
        final: object,
        value: object,
    ) -> object:
        if value is None:
            return None
        method = find_method(value, name)
        if method is not None:
            return self._call(dot, method, node, name, args, final)
        has_args = len(args) > 1 or final is not _MISSING
        fields = fields_of(value)
        if fields is not None and name in fields:
            if has_args:
                raise self._fault(f"{name} has arguments but cannot be invoked as function")
            return fields[name]
        if isinstance(value, dict):
            if has_args:
                raise self._fault(f"{name} is not a method but has arguments")
            if isinstance(value, StringMap):
                return value.get(name, "")
            found = value.get(name)
            return _NIL_INTERFACE if found is None else found
        if value is _NIL_INTERFACE or (isinstance(value, NilPointer) and name in ("Labels", "Value")):
            assert isinstance(value, NilPointer)
            raise self._fault(f"nil pointer evaluating {value.type_name}.{name}")
        raise self._fault(f"can't evaluate field {name} in type {type_name(value)}")

    # calls

    def _function(
        self,
        dot: object,
        node: nodes.Identifier,
        command: nodes.Node,
        args: Sequence[nodes.Node],
        final: object,
    ) -> object:
        self._node = node
        return self._call(dot, FUNCTIONS[node.name], command, node.name, args, final)

    def _call(
        self,
        dot: object,
        function: Function,
        node: nodes.Node,
        name: str,
        args: Sequence[nodes.Node],
        final: object,
    ) -> object:
        args = args[1:]  # the function itself comes first
        count = len(args) + (final is not _MISSING)
        if function.variadic is None and count != len(function.params):
            raise self._fault(f"wrong number of args for {name}: want {len(function.params)} got {count}")
        if count < len(function.params):
            want = len(function.params)
            raise self._fault(f"wrong number of args for {name}: want at least {want} got {len(args)}")
        if function.results != 1:
            raise self._fault(f"can't call method/function {quote(name)} with {function.results} results")
        if name in ("and", "or") and function is FUNCTIONS[name]:
            return self._first_deciding(dot, name == "or", args, final)
        values = [self._argument(dot, function.param(at), arg) for at, arg in enumerate(args)]
        if final is not _MISSING:
            values.append(self._checked(final, function.param(len(args))))
        try:
            return function.call(self._run.around, values)
        except CallError as fault:
            self._node = node
            raise self._fault(f"error calling {name}: {fault}") from fault

    def _first_deciding(self, dot: object, wanted: bool, args: Sequence[nodes.Node], final: object) -> object:
        value: object = None
        for arg in args:
            value = self._argument(dot, ANY, arg)
            if is_true(value) == wanted:
                return value
        return value if final is _MISSING else final

    def _argument(self, dot: object, wanted: str, node: nodes.Node) -> object:
        self._node = node
        match node:
            case nodes.Dot():
                return self._checked(dot, wanted)
            case nodes.Nil():
                if wanted == ANY:
                    return None
                if wanted in NILABLE:
                    return NilPointer(wanted)
                raise self._fault(f"cannot assign nil to {wanted}")
            case nodes.Field():
                value = self._fields(dot, dot, node, node.names, (node,), _MISSING)
            case nodes.Variable():
                value = self._variable(dot, node, (), _MISSING)
            case nodes.Pipe():
                value = self._pipe(dot, node)
            case nodes.Identifier():
                value = self._function(dot, node, node, (), _MISSING)
            case nodes.Chain():
                value = self._chain(dot, node, (), _MISSING)
            case _:
                return self._constant_argument(dot, wanted, node)
        return self._checked(value, wanted)

    def _constant_argument(self, dot: object, wanted: str, node: nodes.Node) -> object:
        if wanted == ANY:
            return self._literal(dot, node)
        if wanted == "string":
            if isinstance(node, nodes.String):
                return node.text
            raise self._fault(f"expected string; found {node}")
        if wanted in ("int", "time.Duration"):
            if isinstance(node, nodes.Number) and node.integer is not None:
                return node.integer
            raise self._fault(f"expected integer; found {node}")
        raise self._fault(f"can't handle {node} for arg of type {wanted}")

    def _checked(self, value: object, wanted: str) -> object:
        if wanted == ANY:
            return None if value is _NIL_INTERFACE else value
        if value is None:
            if wanted in NILABLE:
                return NilPointer(wanted)
            raise self._fault(f"invalid value; expected {wanted}")
        own = type_name(value)
        if own not in (wanted, "*" + wanted):
            raise self._fault(f"wrong type for value; expected {wanted}; got {own}")
        return value
