"""Tokens to syntax trees: the main template and those that `define` and `block` add.

Source: text/template's documentation; error messages as the running program gives them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NoReturn

from exporter.template import nodes
from exporter.template.lexer import Kind, Token, tokenize
from exporter.template.numbers import char_constant, complex_constant, number
from exporter.template.quoting import quote, unquote

_OPERANDS: Final = frozenset(
    [
        Kind.BOOL,
        Kind.CHAR_CONSTANT,
        Kind.COMPLEX,
        Kind.FIELD,
        Kind.IDENTIFIER,
        Kind.LEFT_PAREN,
        Kind.NUMBER,
        Kind.RAW_STRING,
        Kind.STRING,
        Kind.VARIABLE,
    ]
)
_MAX_DEPTH: Final = 60  # nested parentheses and branches; keeps the evaluator's recursion bounded


class TemplateSyntaxError(Exception):
    """A parse error: Go's message without the template's name, and the line it names."""

    def __init__(self, message: str, line: int, pos: int) -> None:
        super().__init__(message)
        self.line = line
        self.pos = pos


def parse(text: str, functions: Collection[str], name: str) -> Mapping[str, nodes.Body]:
    """The trees of a template by name; the main one stands under `name`.

    Raises: TemplateSyntaxError.
    """
    parser = _Parser(tokenize(text), functions, name)
    try:
        return parser.main()
    except RecursionError:
        raise TemplateSyntaxError("max expression depth exceeded", 1, 0) from None


class _Parser:
    def __init__(self, tokens: list[Token], functions: Collection[str], name: str) -> None:
        self._tokens = tokens
        self._at = 0
        self._functions = functions
        self._name = name
        self._trees: dict[str, nodes.Body] = {}
        self._variables = ["$"]
        self._action_line = 0
        self._range_depth = 0
        self._depth = 0

    # tokens

    def _next(self) -> Token:
        token = self._tokens[min(self._at, len(self._tokens) - 1)]
        self._at += 1
        return token

    def _back(self, count: int = 1) -> None:
        self._at -= count

    def _peek(self) -> Token:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _next_solid(self) -> Token:
        while (token := self._next()).kind is Kind.SPACE:
            pass
        return token

    def _peek_solid(self) -> Token:
        token = self._next_solid()
        self._back()
        return token

    def _fault(self, message: str) -> TemplateSyntaxError:
        newest = self._tokens[max(0, min(self._at - 1, len(self._tokens) - 1))]
        return TemplateSyntaxError(message, newest.line, newest.pos)

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind is Kind.ERROR:
            started = ""
            if self._action_line and self._action_line != token.line:
                inside = "" if token.text.endswith(" action") else " in action"
                started = f"{inside} started at {self._name}:{self._action_line}"
            raise TemplateSyntaxError(f"{token}{started}", token.line, token.pos)
        raise self._fault(f"unexpected {token} in {context}")

    def _expect(self, kinds: tuple[Kind, ...], context: str) -> Token:
        token = self._next_solid()
        if token.kind not in kinds:
            self._unexpected(token, context)
        return token

    # templates

    def main(self) -> Mapping[str, nodes.Body]:
        pos = self._peek().pos
        found: list[nodes.Node] = []
        while self._peek().kind is not Kind.EOF:
            if self._peek().kind is Kind.LEFT:
                start = self._at
                self._next()
                if self._next_solid().is_keyword("define"):
                    self._definition()
                    continue
                self._at = start
            node = self._text_or_action()
            if isinstance(node, (nodes.End, nodes.Else)):
                raise self._fault(f"unexpected {node}")
            found.append(node)
        self._add(self._name, nodes.Body(pos, tuple(found)))
        return self._trees

    def _add(self, name: str, body: nodes.Body) -> None:
        known = self._trees.get(name)
        if known is None or known.is_empty():
            self._trees[name] = body
        elif not body.is_empty():
            raise self._fault(f"template: multiple definition of template {quote(name)}")

    def _definition(self) -> None:
        token = self._expect((Kind.STRING, Kind.RAW_STRING), "define clause")
        name = self._unquoted(token)
        self._expect((Kind.RIGHT,), "define clause")
        self._sub_template(name, "define clause")

    def _sub_template(self, name: str, context: str) -> None:
        outer = self._variables, self._range_depth, self._action_line
        self._variables, self._range_depth, self._action_line = ["$"], 0, 0
        body, end = self._body()
        if not isinstance(end, nodes.End):
            raise self._fault(f"unexpected {end} in {context}")
        self._variables, self._range_depth, self._action_line = outer
        self._add(name, body)

    def _body(self) -> tuple[nodes.Body, nodes.Node]:
        pos = self._peek_solid().pos
        found: list[nodes.Node] = []
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._fault("max expression depth exceeded")
        while self._peek_solid().kind is not Kind.EOF:
            node = self._text_or_action()
            if isinstance(node, (nodes.End, nodes.Else)):
                self._depth -= 1
                return nodes.Body(pos, tuple(found)), node
            found.append(node)
        self._next()
        raise self._fault("unexpected EOF")

    def _text_or_action(self) -> nodes.Node:
        token = self._next_solid()
        if token.kind is Kind.TEXT:
            return nodes.Text(token.pos, token.text)
        if token.kind is not Kind.LEFT:
            self._unexpected(token, "input")
        self._action_line = token.line
        node = self._action()
        self._action_line = 0
        return node

    def _action(self) -> nodes.Node:
        token = self._next_solid()
        if token.kind is Kind.KEYWORD:
            match token.text:
                case "if" | "with" | "range":
                    return self._branch(token.text)
                case "else":
                    return self._else()
                case "end":
                    return nodes.End(self._expect((Kind.RIGHT,), "end").pos)
                case "template":
                    return self._invoke()
                case "block":
                    return self._block()
                case "break" | "continue":
                    return self._jump(token)
        self._back()
        return nodes.Action(self._peek().pos, self._pipeline("command", Kind.RIGHT))

    def _jump(self, token: Token) -> nodes.Node:
        end = self._next_solid()
        if end.kind is not Kind.RIGHT:
            self._unexpected(end, "{{" + token.text + "}}")
        if not self._range_depth:
            raise self._fault("{{" + token.text + "}} outside {{range}}")
        return nodes.Jump(token.pos, token.text)

    def _else(self) -> nodes.Node:
        peeked = self._peek_solid()
        if peeked.is_keyword("if") or peeked.is_keyword("with"):
            return nodes.Else(peeked.pos)
        return nodes.Else(self._expect((Kind.RIGHT,), "else").pos)

    def _branch(self, word: str) -> nodes.Node:
        mark = len(self._variables)
        pipe = self._pipeline(word, Kind.RIGHT)
        self._range_depth += word == "range"
        body, end = self._body()
        self._range_depth -= word == "range"
        otherwise = None
        if isinstance(end, nodes.Else):
            # `else if` is an `if` inside the else part; the one `end` closes both
            if word != "range" and self._peek().is_keyword(word):
                self._next()
                otherwise = nodes.Body(end.pos, (self._branch(word),))
            else:
                otherwise, end = self._body()
                if not isinstance(end, nodes.End):
                    raise self._fault(f"expected end; found {end}")
        del self._variables[mark:]
        return nodes.Branch(pipe.pos, word, pipe, body, otherwise)

    def _invoke(self) -> nodes.Node:
        token = self._next_solid()
        name = self._template_name(token, "template clause")
        pipe = None
        if self._next_solid().kind is not Kind.RIGHT:
            self._back()
            pipe = self._pipeline("template clause", Kind.RIGHT)
        return nodes.Invoke(token.pos, name, pipe)

    def _block(self) -> nodes.Node:
        token = self._next_solid()
        name = self._template_name(token, "block clause")
        pipe = self._pipeline("block clause", Kind.RIGHT)
        self._sub_template(name, "block clause")
        return nodes.Invoke(token.pos, name, pipe)

    def _template_name(self, token: Token, context: str) -> str:
        if token.kind not in (Kind.STRING, Kind.RAW_STRING):
            self._unexpected(token, context)
        return self._unquoted(token)

    def _unquoted(self, token: Token) -> str:
        try:
            return unquote(token.text)
        except ValueError as error:
            raise self._fault(str(error)) from error

    # pipelines

    def _pipeline(self, context: str, end: Kind) -> nodes.Pipe:
        pos = self._peek_solid().pos
        declared, assigns = self._declarations(context)
        commands: list[nodes.Command] = []
        while True:
            token = self._next_solid()
            if token.kind is end:
                break
            if token.kind in _OPERANDS or token.is_keyword(".") or token.is_keyword("nil"):
                self._back()
                commands.append(self._command())
            else:
                self._unexpected(token, context)
        if not commands:
            raise self._fault(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], start=2):
            if isinstance(command.args[0], (nodes.Bool, nodes.Dot, nodes.Nil, nodes.Number, nodes.String)):
                raise self._fault(f"non executable command in pipeline stage {stage}")
        return nodes.Pipe(pos, tuple(declared), assigns, tuple(commands))

    def _declarations(self, context: str) -> tuple[list[nodes.Variable], bool]:
        declared: list[nodes.Variable] = []
        while self._peek_solid().kind is Kind.VARIABLE:
            variable = self._next_solid()
            start = self._at
            after = self._next_solid()
            comma = after.kind is Kind.CHAR and after.text == ","
            if after.kind not in (Kind.ASSIGN, Kind.DECLARE) and not comma:
                self._at = start - 1  # an argument, not a declaration
                break
            declared.append(nodes.Variable(variable.pos, (variable.text,)))
            self._variables.append(variable.text)
            if not comma:
                return declared, after.kind is Kind.ASSIGN
            if context != "range" or len(declared) > 1:
                raise self._fault(f"too many declarations in {context}")
            if self._peek_solid().kind not in (Kind.VARIABLE, Kind.RIGHT, Kind.RIGHT_PAREN):
                raise self._fault("range can only initialize variables")
        return declared, False

    def _command(self) -> nodes.Command:
        pos = self._peek_solid().pos
        args: list[nodes.Node] = []
        while True:
            self._peek_solid()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT, Kind.RIGHT_PAREN):
                self._back()
            elif token.kind is not Kind.PIPE:
                self._unexpected(token, "operand")
            break
        if not args:
            raise self._fault("empty command")
        return nodes.Command(pos, tuple(args))

    def _operand(self) -> nodes.Node | None:
        node = self._term()
        if node is None or self._peek().kind is not Kind.FIELD:
            return node
        pos, names = self._peek().pos, []
        while self._peek().kind is Kind.FIELD:
            names.append(self._next().text[1:])
        if isinstance(node, nodes.Field):
            return nodes.Field(pos, (*node.names, *names))
        if isinstance(node, nodes.Variable):
            return nodes.Variable(pos, (*node.names, *names))
        if isinstance(node, (nodes.Bool, nodes.String, nodes.Number, nodes.Nil, nodes.Dot)):
            raise self._fault(f"unexpected . after term {quote(str(node))}")
        return nodes.Chain(pos, node, tuple(names))

    def _term(self) -> nodes.Node | None:
        token = self._next_solid()
        match token.kind:
            case Kind.IDENTIFIER:
                if token.text not in self._functions:
                    raise self._fault(f"function {quote(token.text)} not defined")
                return nodes.Identifier(token.pos, token.text)
            case Kind.KEYWORD if token.text == ".":
                return nodes.Dot(token.pos)
            case Kind.KEYWORD if token.text == "nil":
                return nodes.Nil(token.pos)
            case Kind.VARIABLE:
                if token.text not in self._variables:
                    raise self._fault(f"undefined variable {quote(token.text)}")
                return nodes.Variable(token.pos, (token.text,))
            case Kind.FIELD:
                return nodes.Field(token.pos, (token.text[1:],))
            case Kind.BOOL:
                return nodes.Bool(token.pos, token.text == "true")
            case Kind.NUMBER | Kind.COMPLEX | Kind.CHAR_CONSTANT:
                return self._constant(token)
            case Kind.LEFT_PAREN:
                return self._parenthesized()
            case Kind.STRING | Kind.RAW_STRING:
                return nodes.String(token.pos, token.text, self._unquoted(token))
        self._back()
        return None

    def _constant(self, token: Token) -> nodes.Number:
        read = {Kind.NUMBER: number, Kind.COMPLEX: complex_constant, Kind.CHAR_CONSTANT: char_constant}
        try:
            return read[token.kind](token.pos, token.text)
        except ValueError as error:
            raise self._fault(str(error)) from error

    def _parenthesized(self) -> nodes.Pipe:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._fault("max expression depth exceeded")
        pipe = self._pipeline("parenthesized pipeline", Kind.RIGHT_PAREN)
        self._depth -= 1
        return pipe
