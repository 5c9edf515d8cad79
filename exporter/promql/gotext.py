"""Text as Go writes and reads it: quoted strings, quoted characters and floats in PromQL and its errors.

Bytes that are not UTF-8 (a query may write them as `\\xc5`) live in Python strings as surrogate escapes.
"""

from __future__ import annotations

import math
import re
from typing import Final

_SHORT_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_SIMPLE_ESCAPES: Final = re.compile(r"""(?:[^\\]++|\\[abfnrtv\\"'])*+""")
_ESCAPED_BYTES: Final = {
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    '"': b'"',
    "'": b"'",
}


def quote(text: str) -> str:
    """A double-quoted Go string literal (`strconv.Quote`)."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_escape(char, '"') for char in text) + '"'


def quote_char(char: str) -> str:
    """A single-quoted Go character literal (`%q` of a rune); the empty string stands for end of input."""
    return "'" + _escape(char or "\ufffd", "'") + "'"


def quote_prefix(text: str, limit: int) -> str:
    """The first `limit` characters quoted, with dots after them when the text is longer in bytes."""
    shortened = len(text.encode("utf-8", "surrogateescape")) > limit
    return quote(text[:limit]) + "..." if shortened else quote(text)


def _escape(char: str, delimiter: str) -> str:
    if char == delimiter:
        return "\\" + char
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(literal: str) -> str:
    """The value of a quoted literal with the escapes that the lexer has found valid.

    Quotes are `"`, `'` (both with Go's escapes) or a backquote (raw).
    Raises: ValueError where the literal is not well formed.
    """
    if len(literal) < 2 or literal[0] != literal[-1] or literal[0] not in "\"'`":
        raise ValueError("invalid syntax")
    body = literal[1:-1]
    if literal[0] == "`" or "\\" not in body:
        return body
    if body.isascii() and _SIMPLE_ESCAPES.fullmatch(body):
        return body.encode("ascii").decode("unicode_escape")
    out = bytearray()
    start = 0
    while (at := body.find("\\", start)) >= 0:
        out += body[start:at].encode("utf-8", "surrogateescape")
        code = body[at + 1 : at + 2]
        if code in _ESCAPED_BYTES and code:
            out += _ESCAPED_BYTES[code]
            start = at + 2
            continue
        digits, base = _NUMERIC_ESCAPES.get(code, (3, 8))
        first = at + 1 if base == 8 else at + 2
        value = int(body[first : first + digits], base)
        out += bytes((value,)) if code not in ("u", "U") else chr(value).encode("utf-8")
        start = first + digits
    out += body[start:].encode("utf-8", "surrogateescape")
    return out.decode("utf-8", "surrogateescape")


_NUMERIC_ESCAPES: Final = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}


def format_float(value: float) -> str:
    """The shortest decimal that reads back as `value`, with no exponent (Go's format 'f')."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return mantissa.removesuffix(".0")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits, point = whole + fraction, len(whole) + int(exponent)
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits + "0" * (point - len(digits))
    return f"{sign}{digits[:point]}.{digits[point:]}"


def format_general(value: float) -> str:
    """A float as Go's `%v` prints it: exponent form from 1e21 up and below 1e-4."""
    if value == 0 or not math.isfinite(value) or 1e-4 <= abs(value) < 1e21:
        return format_float(value)
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        exact = f"{value:.17e}"
        for digits in range(17):
            candidate = f"{value:.{digits}e}"
            if float(candidate) == value:
                exact = candidate
                break
        mantissa, _, exponent = exact.partition("e")
    power = int(exponent)
    return f"{mantissa.removesuffix('.0')}e{'-' if power < 0 else '+'}{abs(power):02d}"
