"""Number and character constants of a template, read as Go reads them."""

from __future__ import annotations

import math
import re

from exporter.template.gofloat import parse_float
from exporter.template.nodes import Number
from exporter.template.quoting import quote, unquote

_INT = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO]?(?:_?[0-7])+|0[bB](?:_?[01])+|0|[1-9](?:_?\d)*)", re.ASCII
)
_UNDERSCORES = re.compile(r"(?<=[0-9a-fA-FxXoObB])_(?=[0-9a-fA-F])")
_MAX_INT, _MAX_UINT = 2**63 - 1, 2**64 - 1


def char_constant(pos: int, text: str) -> Number:
    """The number of a rune such as 'x'.

    Raises: ValueError with Go's words for a malformed one.
    """
    if len(text) < 2 or text[-1] != "'":
        raise ValueError(f"malformed character constant: {text}")
    code = ord(unquote(text))
    return Number(pos, text, code, code, float(code), None, False)


def number(pos: int, text: str) -> Number:
    """A number with all its readings.

    Raises: ValueError with Go's words where none fits.
    """
    if text.endswith("i"):
        return _imaginary(pos, text)
    whole = _integer(text)
    if whole is not None:
        unsigned = whole if 0 <= whole <= _MAX_UINT and text[0] not in "+-" else None
        signed = whole if -_MAX_INT - 1 <= whole <= _MAX_INT else None
        if whole == 0:
            unsigned = signed = 0
        if signed is not None or unsigned is not None:
            return Number(pos, text, signed, unsigned, float(whole), None, False)
    try:
        real = parse_float(_UNDERSCORES.sub("", text))
    except ValueError:
        raise ValueError(f"illegal number syntax: {quote(text)}") from None
    if not any(char in text for char in ".eEpP"):
        raise ValueError(f"integer overflow: {quote(text)}")
    integral = real == math.trunc(real)
    signed = int(real) if integral and abs(real) < 2.0**63 else None
    unsigned = int(real) if integral and 0 <= real < 2.0**64 else None
    return Number(pos, text, signed, unsigned, real, None, True)


def complex_constant(pos: int, text: str) -> Number:
    """A complex constant such as 1+2i.

    Raises: ValueError with Go's words.
    """
    split = max(text.rfind("+", 1), text.rfind("-", 1))
    try:
        if text[split - 1] in "eEpP":
            raise ValueError
        return _complex(pos, text, complex(_part(text[:split]), _part(text[split:-1])))
    except ValueError:
        raise ValueError(f"illegal number syntax: {quote(text)}") from None


def _imaginary(pos: int, text: str) -> Number:
    try:
        return _complex(pos, text, complex(0.0, _part(text[:-1])))
    except ValueError:
        raise ValueError(f"illegal number syntax: {quote(text)}") from None


def _part(text: str) -> float:
    return parse_float(_UNDERSCORES.sub("", text))


def _complex(pos: int, text: str, value: complex) -> Number:
    return Number(pos, text, None, None, None, value, False)


def _integer(text: str) -> int | None:
    """An integer in Go's base-0 notation; None where it is not one."""
    if not _INT.fullmatch(text):
        return None
    digits = text.lstrip("+-").replace("_", "")
    base = {"x": 16, "o": 8, "b": 2}.get(
        digits[1:2].lower(), 8 if digits[0] == "0" and len(digits) > 1 else 10
    )
    value = int(digits[2:] if base != 10 and not digits[1].isdigit() else digits, base)
    return -value if text[0] == "-" else value
