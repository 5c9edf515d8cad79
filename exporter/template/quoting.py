"""Go's string literals: quoting as strconv.Quote, unquoting as strconv.Unquote."""

from __future__ import annotations

import unicodedata
from typing import Final

_NAMED: Final = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v"}
_SIMPLE: Final = {letter: char for char, letter in _NAMED.items()} | {"\\": "\\", "'": "'", '"': '"'}
_HEX_WIDTH: Final = {"x": 2, "u": 4, "U": 8}
_INVALID: Final = "invalid syntax"


def is_print(char: str) -> bool:
    """Whether Go counts a rune as printable: letters, marks, numbers, punctuation, symbols, the space."""
    return char == " " or unicodedata.category(char)[0] in "LMNPS"


def quote(text: str, mark: str = '"', *, ascii_only: bool = False) -> str:
    """The text between `mark`s with Go's escapes; non-ASCII stays unless `ascii_only`."""
    return mark + "".join(_escaped(char, mark, ascii_only) for char in text) + mark


def _escaped(char: str, mark: str, ascii_only: bool) -> str:
    code = ord(char)
    if char in (mark, "\\"):
        return "\\" + char
    if is_print(char) and (code < 0x80 or not ascii_only):
        return char
    if char in _NAMED:
        return "\\" + _NAMED[char]
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def can_backquote(text: str) -> bool:
    """Whether a text can stand between backquotes on one line."""
    return all(char == "\t" or (ord(char) >= 0x20 and char not in "`\x7f\ufeff") for char in text)


def unquote(literal: str) -> str:
    """The value of a quoted, raw or character literal, its marks included in `literal`.

    Raises: ValueError("invalid syntax") as strconv.Unquote.
    """
    if len(literal) < 2 or literal[0] != literal[-1]:
        raise ValueError(_INVALID)
    mark, body = literal[0], literal[1:-1]
    if mark == "`":
        if "`" in body:
            raise ValueError(_INVALID)
        return body.replace("\r", "")
    if mark not in "\"'" or "\n" in body:
        raise ValueError(_INVALID)
    text = _unescape(body, mark)
    if mark == "'" and len(text) != 1:
        raise ValueError(f"malformed character constant: {literal}" if text else _INVALID)
    return text


def _unescape(body: str, mark: str) -> str:
    out = bytearray()  # byte escapes may spell one character of several bytes
    at = 0
    while at < len(body):
        char = body[at]
        at += 1
        if char == mark:
            raise ValueError(_INVALID)
        if char != "\\":
            out += char.encode("utf-8", "surrogatepass")
            continue
        piece, at = _escape(body, at, mark)
        out += piece
    return out.decode("utf-8", "replace")


def _escape(body: str, at: int, mark: str) -> tuple[bytes, int]:
    if at >= len(body):
        raise ValueError(_INVALID)
    kind = body[at]
    at += 1
    if kind in _SIMPLE:
        if kind in "\"'" and kind != mark:
            raise ValueError(_INVALID)
        return _SIMPLE[kind].encode(), at
    if kind in _HEX_WIDTH:
        digits = body[at : at + _HEX_WIDTH[kind]]
        code = _number(digits, 16, _HEX_WIDTH[kind])
        at += len(digits)
        if kind == "x":
            return _byte_or_rune(code, mark), at
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise ValueError(_INVALID)
        return chr(code).encode(), at
    if kind in "01234567":
        code = _number(body[at - 1 : at + 2], 8, 3)
        if code > 255:
            raise ValueError(_INVALID)
        return _byte_or_rune(code, mark), at + 2
    raise ValueError(_INVALID)


def _byte_or_rune(code: int, mark: str) -> bytes:
    return chr(code).encode() if mark == "'" else bytes([code])


def _number(digits: str, base: int, width: int) -> int:
    if len(digits) != width or not all(
        char in "0123456789abcdefABCDEF"[: 8 if base == 8 else 22] for char in digits
    ):
        raise ValueError(_INVALID)
    return int(digits, base)
