"""Values inside a JSON document by path, and the one error for a document that has drifted.

A path is keys and list indexes: `bitcoin.usd`, `result.XXBTZUSD.c[0]`, `data["a.b"]`. Numbers may be written
as strings; NaN and infinity are refused, as no provider means them.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from exporter.errors import ExporterError

_STEP = re.compile(r"""\.?([^.\[\]"]+)|\[(\d+)\]|\["([^"]*)"\]""")


class SchemaError(ExporterError):
    """An answer lacks a field or holds another type; `path` names the field."""

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        super().__init__(f'field "{path}" {what}')


def parse_path(text: str) -> tuple[str | int, ...]:
    """The steps of a path; the empty path is the document itself.

    Raises: ValueError where the text is not a path.
    """
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None or match.end() == at:
            raise ValueError(f'not a JSON path: "{text}" (stops at character {at + 1})')
        key, index, quoted = match.groups()
        steps.append(int(index) if index is not None else key if key is not None else quoted)
        at = match.end()
    return tuple(steps)


def shown(steps: tuple[str | int, ...]) -> str:
    """A path as text, for messages."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "(document)"


def find(document: object, path: str | tuple[str | int, ...]) -> object:
    """The value at a path.

    Raises: SchemaError naming the first step that is missing.
    """
    steps = parse_path(path) if isinstance(path, str) else path
    node = document
    for count, step in enumerate(steps, 1):
        if isinstance(step, int):
            if not isinstance(node, list):
                raise SchemaError(shown(steps[: count - 1]), f"should be a list, not {kind_of(node)}")
            if step >= len(node):
                raise SchemaError(shown(steps[:count]), "is missing")
        else:
            if not isinstance(node, dict):
                raise SchemaError(shown(steps[: count - 1]), f"should be an object, not {kind_of(node)}")
            if step not in node:
                raise SchemaError(shown(steps[:count]), "is missing")
        node = node[step]  # type: ignore[index]
    return node


def number(document: object, path: str | tuple[str | int, ...]) -> float:
    """A finite number at a path, given as a number or as its text."""
    value = find(document, path)
    name = path if isinstance(path, str) else shown(path)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SchemaError(name, f"should be a number, not {kind_of(value)}")
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise SchemaError(name, "should be a number, not other text") from None
    if not math.isfinite(result):
        raise SchemaError(name, "should be a finite number")
    return result


def optional_number(document: object, path: str | tuple[str | int, ...]) -> float | None:
    """As `number`; None where the field is missing or null."""
    try:
        value = find(document, path)
    except SchemaError:
        return None
    return None if value is None else number(document, path)


def integer(document: object, path: str | tuple[str | int, ...]) -> int:
    """A whole number at a path, given in any notation."""
    value = number(document, path)
    if value != int(value):
        raise SchemaError(path if isinstance(path, str) else shown(path), "should be a whole number")
    return int(value)


def text(document: object, path: str | tuple[str | int, ...]) -> str:
    """A string at a path."""
    value = find(document, path)
    if not isinstance(value, str):
        name = path if isinstance(path, str) else shown(path)
        raise SchemaError(name, f"should be a string, not {kind_of(value)}")
    return value


def items(document: object, path: str | tuple[str | int, ...]) -> list[object]:
    """A list at a path."""
    value = find(document, path)
    if not isinstance(value, list):
        name = path if isinstance(path, str) else shown(path)
        raise SchemaError(name, f"should be a list, not {kind_of(value)}")
    return value


def iso_ms(document: object, path: str | tuple[str | int, ...]) -> int | None:
    """An ISO 8601 time at a path as Unix milliseconds; None where missing or null; UTC without a zone."""
    try:
        value = find(document, path)
    except SchemaError:
        return None
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        name = path if isinstance(path, str) else shown(path)
        raise SchemaError(name, "should be an ISO 8601 time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def kind_of(value: object) -> str:
    """What a JSON value is, in words for a message; never the value itself."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
