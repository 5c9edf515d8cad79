"""The functions of Go's text/template itself: logic, comparison, index, slice, length, printing, escaping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final
from urllib.parse import quote_plus

from exporter.template.goformat import sprint, sprintln
from exporter.template.printf import sprintf
from exporter.template.quoting import is_print
from exporter.template.signature import ANY, STRING, CallError, Function, Surroundings
from exporter.template.values import (
    AlertData,
    AnyMap,
    Byte,
    NilPointer,
    QueryResult,
    Sample,
    StringMap,
    is_true,
    type_name,
)

_HTML: Final = str.maketrans(
    {'"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"}
)
_JS: Final = {
    "\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D",
}  # fmt: skip


def _kind(value: object) -> str:
    """The group of types inside which values compare: int covers every signed size."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Byte):
        return "uint"
    for cls, name in ((int, "int"), (float, "float"), (str, "string"), (complex, "complex")):
        if isinstance(value, cls):
            return name
    return ""


def _comparable(value: object) -> None:
    if isinstance(value, (dict, QueryResult, AlertData)):
        raise CallError(f"non-comparable type {sprintf('%s', [value])}: {type_name(value)}")


def _equal(left: object, right: object) -> bool:
    kinds = {_kind(left), _kind(right)}
    if len(kinds) > 1 and kinds != {"int", "uint"}:
        if left is not None and right is not None:
            raise CallError("incompatible types for comparison")
        return False
    if kinds == {""}:
        if left is None or right is None:
            return left is right
        _comparable(left)
        _comparable(right)
        return left is right or (not isinstance(left, Sample) and left == right)
    return left == right


def _eq(values: Sequence[object]) -> bool:
    first, *others = values
    if not others:
        raise CallError("missing argument for comparison")
    return any(_equal(first, other) for other in others)


def _less(left: object, right: object) -> bool:
    kinds = _kind(left), _kind(right)
    if "" in kinds:
        raise CallError("invalid type for comparison")
    if kinds[0] != kinds[1] and set(kinds) != {"int", "uint"}:
        raise CallError("incompatible types for comparison")
    if kinds[0] in ("bool", "complex"):
        raise CallError("invalid type for comparison")
    if isinstance(left, str) and isinstance(right, str):
        return left.encode() < right.encode()
    assert isinstance(left, (int, float))
    assert isinstance(right, (int, float))
    return left < right


def _less_equal(left: object, right: object) -> bool:
    return _less(left, right) or _equal(left, right)


def _greater(left: object, right: object) -> bool:
    return not _less_equal(left, right)


def _greater_equal(left: object, right: object) -> bool:
    return not _less(left, right)


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (dict, list)):
        return len(value)
    if value is None:
        raise CallError("reflect: call of reflect.Value.Type on zero Value")
    if isinstance(value, NilPointer):
        raise CallError("len of nil pointer")
    raise CallError(f"len of type {type_name(value).lstrip('*')}")


def _position(value: object, limit: int) -> int:
    if value is None:
        raise CallError("cannot index slice/array with nil")
    if not isinstance(value, int) or isinstance(value, bool):
        raise CallError(f"cannot index slice/array with type {type_name(value)}")
    if not 0 <= value <= limit:
        raise CallError(f"index out of range: {int(value)}")
    return int(value)


def _index(values: Sequence[object]) -> object:
    item, *indexes = values
    if item is None:
        raise CallError("index of untyped nil")
    for index in indexes:
        item = _element(item, index)
    return item


def _element(item: object, index: object) -> object:
    if isinstance(item, str):
        data = item.encode()
        at = _position(index, len(data))
        if at == len(data):
            raise CallError("reflect: string index out of range")
        return Byte(data[at])
    if isinstance(item, list):
        at = _position(index, len(item))
        if at == len(item):
            raise CallError("reflect: slice index out of range")
        return item[at]
    if isinstance(item, dict):
        if index is None:
            raise CallError("value is nil; should be of type string")
        if type_name(index) != "string":
            raise CallError(f"value has type {type_name(index)}; should be string")
        return item.get(index, "" if isinstance(item, StringMap) else None)
    if item is None or isinstance(item, NilPointer):
        raise CallError("index of nil pointer")
    raise CallError(f"can't index item of type {type_name(item).lstrip('*')}")


def _slice(values: Sequence[object]) -> object:
    item, *bounds = values
    if item is None:
        raise CallError("slice of untyped nil")
    if len(bounds) > 3:
        raise CallError(f"too many slice indexes: {len(bounds)}")
    if isinstance(item, str):
        if len(bounds) == 3:
            raise CallError("cannot 3-index slice a string")
        data: bytes | QueryResult = item.encode()
    elif isinstance(item, QueryResult):
        data = item
    else:
        raise CallError(f"can't slice item of type {type_name(item)}")
    places = [0, len(data), len(data)]
    for at, bound in enumerate(bounds):
        places[at] = _position(bound, len(data))
    if places[0] > places[1]:
        raise CallError(f"invalid slice index: {places[0]} > {places[1]}")
    if len(bounds) == 3 and places[1] > places[2]:
        raise CallError(f"invalid slice index: {places[1]} > {places[2]}")
    part = data[places[0] : places[1]]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else QueryResult(part)


def _call(values: Sequence[object]) -> object:
    function = values[0]
    if function is None:
        raise CallError("call of nil")
    raise CallError(f"non-function of type {type_name(function)}")


def printable(values: Sequence[object]) -> str:
    """The text of values as an action would print them: pointers followed, a missing one `<no value>`."""
    return sprint(["<no value>" if value is None else value for value in values], indirect=True)


def _js_char(char: str) -> str:
    if char in _JS:
        return _JS[char]
    if char < " ":
        return f"\\u00{ord(char):02X}"
    if char < "\x80" or is_print(char):
        return char
    return f"\\u{ord(char):04X}"


def _js(values: Sequence[object]) -> str:
    return "".join(_js_char(char) for char in printable(values))


def _format(_: Surroundings, values: Sequence[object]) -> str:
    return sprintf(str(values[0]), values[1:])


def query_escape(text: str) -> str:
    """Text as Go's url.QueryEscape writes it: a space becomes +."""
    return quote_plus(text, safe="")


BUILTINS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        # `and` and `or` stop at the first deciding argument: the evaluator does that
        "and": Function(lambda _, values: values[-1], (ANY,), ANY),
        "or": Function(lambda _, values: values[-1], (ANY,), ANY),
        "not": Function(lambda _, values: not is_true(values[0]), (ANY,)),
        "eq": Function(lambda _, values: _eq(values), (ANY,), ANY),
        "ne": Function(lambda _, values: not _eq(values), (ANY, ANY)),
        "lt": Function(lambda _, values: _less(*values), (ANY, ANY)),
        "le": Function(lambda _, values: _less_equal(*values), (ANY, ANY)),
        "gt": Function(lambda _, values: _greater(*values), (ANY, ANY)),
        "ge": Function(lambda _, values: _greater_equal(*values), (ANY, ANY)),
        "len": Function(lambda _, values: _length(values[0]), (ANY,)),
        "index": Function(lambda _, values: _index(values), (ANY,), ANY),
        "slice": Function(lambda _, values: _slice(values), (ANY,), ANY),
        "call": Function(lambda _, values: _call(values), (ANY,), ANY),
        "print": Function(lambda _, values: sprint(values), (), ANY),
        "printf": Function(_format, (STRING,), ANY),
        "println": Function(lambda _, values: sprintln(values), (), ANY),
        "html": Function(lambda _, values: printable(values).translate(_HTML), (), ANY),
        "js": Function(lambda _, values: _js(values), (), ANY),
        "urlquery": Function(lambda _, values: query_escape(printable(values)), (), ANY),
    }
)


def any_map(values: Sequence[object]) -> AnyMap:
    """arg0, arg1, ... to the values, for templates that take several."""
    return AnyMap({f"arg{at}": value for at, value in enumerate(values)})
