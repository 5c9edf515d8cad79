"""Matchers as Alertmanager writes them: `severity="critical"`, `{a=~"x|y", b!=c}`. Pure.

Source: Alertmanager's configuration page, label matchers: the UTF-8 syntax first, the classic one where that
does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from exporter.model.labels import LabelSet, Matcher, MatchOp

_TOKEN = re.compile(
    r"\s*(?:(?P<op>=~|!~|!=|=)|(?P<comma>,)|(?P<quoted>\"(?:[^\"\\]|\\.)*\")|(?P<word>[^\s{}!=~,\\\"'`]+))\s*",
    re.DOTALL,
)
_CLASSIC = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL | re.ASCII)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

ALLOWED = 'matchers such as severity="critical", provider=~"kraken|coingecko", env!="test"'


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """The matchers of one expression, braces optional; `{}` and the empty text are no matchers.

    Raises: ValueError saying what is wrong, for bad syntax and for a regular expression outside RE2.
    """
    try:
        return tuple(_utf8(text))
    except _SyntaxError as fault:
        found = _classic(text)
        if found is None:
            raise ValueError(f"bad matcher {text!r}: {fault}") from None
        return found


def match_all(matchers: Iterable[Matcher], labels: LabelSet) -> bool:
    """Whether a label set satisfies every matcher; an absent label counts as empty."""
    return all(matcher.matches(labels.get(matcher.name)) for matcher in matchers)


class _SyntaxError(Exception):
    """The text is not in the UTF-8 syntax."""


def _utf8(text: str) -> Iterator[Matcher]:
    tokens = _tokens(_without_braces(text.strip()))
    while tokens:
        if len(tokens) < 3:
            raise _SyntaxError("a label name, an operator and a value are needed")
        (name_kind, name), (op_kind, op), (value_kind, value) = tokens[:3]
        if name_kind not in ("word", "quoted") or not name:
            raise _SyntaxError("a label name is needed first")
        if op_kind != "op":
            raise _SyntaxError("an operator (=, !=, =~ or !~) must follow the label name")
        if value_kind not in ("word", "quoted"):
            raise _SyntaxError("a value must follow the operator")
        yield Matcher(name, MatchOp(op), value)
        if len(tokens) > 3 and tokens[3][0] != "comma":
            raise _SyntaxError("a comma must stand between matchers")
        del tokens[:4]


def _without_braces(text: str) -> str:
    opened, closed = text.startswith("{"), text.endswith("}")
    if opened != closed or text == "{":
        raise _SyntaxError("an opening and a closing brace go together")
    return text[1:-1] if opened else text


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _SyntaxError(f"unexpected {text[at : at + 10]!r}")
        kind = match.lastgroup or ""
        value = match.group(kind)
        found.append((kind, _unquoted(value) if kind == "quoted" else value))
        at = match.end()
    return found


def _unquoted(text: str) -> str:
    """The content of a double-quoted Go string."""
    out = bytearray()
    body, at = text[1:-1], 0
    for match in _ESCAPE.finditer(body):
        out += body[at : match.start()].encode()
        byte, short, long, octal, plain = match.groups()
        if byte or octal:
            number = int(byte, 16) if byte else int(octal, 8)
            if number > 255:
                raise _SyntaxError(f"unknown escape {match.group()}")
            out.append(number)
        elif short or long:
            try:
                out += chr(int(short or long, 16)).encode()
            except (ValueError, UnicodeEncodeError):
                raise _SyntaxError(f"unknown escape {match.group()}") from None
        elif plain in _SIMPLE:
            out += _SIMPLE[plain].encode()
        else:
            raise _SyntaxError(f"unknown escape {match.group()}")
        at = match.end()
    out += body[at:].encode()
    try:
        return out.decode()
    except UnicodeDecodeError:
        raise _SyntaxError("the escapes are not UTF-8") from None


def _classic(text: str) -> tuple[Matcher, ...] | None:
    body = text.strip()
    if body.startswith("{") and body.endswith("}") and len(body) > 1:
        body = body[1:-1]
    found = []
    for part in _split_outside_quotes(body):
        match = _CLASSIC.fullmatch(part)
        if match is None:
            return None
        name, op, raw = match.groups()
        value = _classic_value(raw)
        if value is None:
            return None
        found.append(Matcher(name, MatchOp(op), value))
    return tuple(found)


def _split_outside_quotes(text: str) -> list[str]:
    parts: list[str] = []
    current: list[str] = []
    quoted = escaped = False
    for char in text:
        if char == "," and not quoted:
            parts.append("".join(current))
            current = []
            continue
        if char == '"' and not escaped:
            quoted = not quoted
        escaped = char == "\\" and not escaped
        current.append(char)
    if last := "".join(current).strip():
        parts.append(last)
    return parts


def _classic_value(raw: str) -> str | None:
    inner = raw
    if raw.startswith('"'):
        if len(raw) < 2 or not raw.endswith('"'):
            return None
        inner = raw[1:-1]
    if re.search(r'(?<!\\)(?:\\\\)*"', inner):
        return None
    return re.sub(r'\\([\\n"])', lambda match: "\n" if match.group(1) == "n" else match.group(1), inner)
