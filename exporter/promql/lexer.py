"""Query text to tokens, one at a time and in linear time, with Prometheus' words for what cannot be read.

The text is kept as UTF-8 bytes spelled one per character, so that every offset is a byte offset as in
Prometheus' positions. What a token may be depends on the bracket it stands in: keywords are plain names
inside braces, and inside square brackets only durations, their operators and a few words may stand.
"""

from __future__ import annotations

import re
from typing import Final

from exporter.promql.gotext import quote, quote_char
from exporter.promql.tokens import FILL_WORDS, WORD_KINDS, Kind, Token

_SPACE = re.compile(r"[ \t\r\n]*+")
_WORD = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*+")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*+")
_LETTERS = re.compile(r"[A-Za-z_]*+")
_SKIPPED = re.compile(r"(?:[ \t\r\n]++|#[^\r\n]*+)*+")
_PLAIN_STRING = {
    '"': re.compile(r'"(?:[^"\\\n\x80-\xff]++|\\[abfnrtv\\"])*+"'),
    "'": re.compile(r"'(?:[^'\\\n\x80-\xff]++|\\[abfnrtv\\'])*+'"),
    "`": re.compile(r"`[^`\x80-\xff]*+`"),
}
_CODE = r"\\x[0-9a-fA-F]{2}|\\[0-3][0-7]{2}|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
_STRING_RUN = {
    '"': re.compile(r'(?:[^"\\\n]++|\\[abfnrtv\\"]|' + _CODE + ")*+"),
    "'": re.compile(r"(?:[^'\\\n]++|\\[abfnrtv\\']|" + _CODE + ")*+"),
}
_DECIMAL_RUN = re.compile(r"[0-9]++(?:_[0-9]++)*+")
_HEX_RUN = re.compile(r"[0-9a-fA-F]++")
_DURATION_REST = re.compile(r"[smhdwy]s?(?:[0-9]++[smhdw]s?)*+")
_DIGITS: Final = "0123456789"
_HEX_DIGITS: Final = "0123456789abcdefABCDEF"
_ALNUM: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_" + _DIGITS)
_ALPHA: Final = _ALNUM - frozenset(_DIGITS)
_BRACKET_WORDS: Final = frozenset({"step", "range", "min", "max", "min_of", "max_of"})
_SINGLE_OPERATORS: Final = frozenset("*/%+-^@")
_ESCAPES: Final = {"x": (2, 16, 255), "u": (4, 16, 0x10FFFF), "U": (8, 16, 0x10FFFF)}


class LexError(Exception):
    """The text cannot be read at byte offset `start`; str() is the reason."""

    def __init__(self, message: str, start: int) -> None:
        self.start = start
        super().__init__(message)


class Lexer:
    """Yields one token per `next()`; after the end it yields EOF for ever.

    `next` raises LexError. `text` holds one UTF-8 byte per character.
    """

    def __init__(self, query: str) -> None:
        self.text = query if query.isascii() else query.encode("utf-8", "surrogatepass").decode("latin-1")
        self._pos = 0
        self._parens = 0
        self._in_braces = False
        self._in_brackets = False
        self._bracket_start = False  # right after "[": nothing but a duration may begin here
        self._colon_seen = False
        self._duration_seen = False

    def next(self) -> Token:
        """The next token; comments and white space are skipped."""
        if self._bracket_start:
            return self._duration_start()
        found = _SKIPPED.match(self.text, self._pos)
        pos = self._pos = found.end() if found else self._pos
        return self._in_brace_token(pos) if self._in_braces else self._token(pos)

    def _emit(self, kind: Kind, start: int, end: int) -> Token:
        self._pos = end
        text = self.text[start:end]
        return Token(kind, text, start, end, text)

    def _emit_decoded(self, start: int, end: int) -> Token:
        """A string token that may hold other than ASCII."""
        self._pos = end
        text = self.text[start:end].encode("latin-1").decode("utf-8")
        return Token(Kind.STRING, text, start, end, text)

    def _char(self, pos: int) -> str:
        """The whole character at a byte offset; empty at the end of the text."""
        raw = self.text[pos : pos + 4].encode("latin-1")
        for width in range(1, len(raw) + 1):
            try:
                return raw[:width].decode("utf-8")
            except UnicodeDecodeError:
                continue
        return "\ufffd" if raw else ""

    def _token(self, pos: int) -> Token:
        text = self.text
        if pos >= len(text):
            if self._parens:
                raise LexError("unclosed left parenthesis", pos)
            if self._in_brackets:
                raise LexError("unclosed left bracket", pos)
            return Token(Kind.EOF, "", pos, pos, "")
        char = text[pos]
        if char in _ALPHA or char == ":":
            return self._bracket_word(pos) if self._in_brackets else self._word(pos)
        after = text[pos + 1 : pos + 2]
        if char in _DIGITS or (char == "." and after in _DIGITS and after):
            return self._number(pos)
        if char in "\"'`":
            return self._string(pos)
        if char == "(":
            self._parens += 1
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == ")":
            return self._close_paren(pos)
        if char in _SINGLE_OPERATORS:
            return self._emit(Kind.OPERATOR, pos, pos + 1)
        if char == ",":
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == "{":
            self._in_braces = True
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == "[":
            return self._open_bracket(pos)
        if char == "]":
            if not self._in_brackets:
                raise LexError(f"unexpected right bracket {quote_char(char)}", pos)
            self._in_brackets = False
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char in "=!<>":
            return self._comparison(pos, char, after)
        raise LexError(f"unexpected character: {quote_char(self._char(pos))}", pos)

    def _comparison(self, pos: int, char: str, after: str) -> Token:
        if char == "=":
            if after == "~":
                raise LexError(f"unexpected character after '=': {quote_char(after)}", pos)
            if after != "=":
                return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        elif char == "!":
            if after != "=":
                raise LexError(f"unexpected character after '!': {quote_char(self._char(pos + 1))}", pos)
        elif after not in ("=", "/"):
            return self._emit(Kind.OPERATOR, pos, pos + 1)
        return self._emit(Kind.OPERATOR, pos, pos + 2)

    def _close_paren(self, pos: int) -> Token:
        self._parens -= 1
        if self._parens < 0:
            raise LexError("unexpected right parenthesis ')'", pos + 1)
        return self._emit(Kind.PUNCTUATION, pos, pos + 1)

    def _open_bracket(self, pos: int) -> Token:
        if self._in_brackets:
            raise LexError("unexpected left bracket '['", pos)
        self._in_brackets = self._bracket_start = True
        self._colon_seen = self._duration_seen = False
        return self._emit(Kind.PUNCTUATION, pos, pos + 1)

    def _duration_start(self) -> Token:
        """A token between "[" and the first number: comments and strings are not looked for here."""
        text = self.text
        found = _SPACE.match(text, self._pos)
        pos = self._pos = found.end() if found else self._pos
        if pos >= len(text):
            raise LexError("unexpected end of input in duration expression", pos)
        char = text[pos]
        after = text[pos + 1 : pos + 2]
        if char in _DIGITS or (char == "." and after in _DIGITS and after):
            self._bracket_start = False
            self._duration_seen = True
            return self._number(pos)
        if char == "]":
            self._bracket_start = self._in_brackets = False
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == ":":
            if not self._duration_seen:
                raise LexError("unexpected colon before duration in duration expression", pos + 1)
            if self._colon_seen:
                raise LexError("unexpected repeated colon in duration expression", pos + 1)
            self._colon_seen = True
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == "(":
            self._parens += 1
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == ")":
            return self._close_paren(pos)
        if char == ",":
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char in "+-*/%^":
            return self._emit(Kind.OPERATOR, pos, pos + 1)
        word = self._bracket_keyword(pos)
        if word is None:
            raise LexError(f"unexpected character in duration expression: {quote_char(self._char(pos))}", pos)
        self._duration_seen = True
        return word

    def _bracket_keyword(self, pos: int) -> Token | None:
        found = _LETTERS.match(self.text, pos)
        word = found.group() if found else ""
        key = word.lower()
        if key not in _BRACKET_WORDS:
            return None
        self._pos = pos + len(word)
        return Token(WORD_KINDS[key], word, pos, self._pos, key)

    def _bracket_word(self, pos: int) -> Token:
        char = self.text[pos]
        if char == ":":
            if self._colon_seen:
                raise LexError(f"unexpected colon {quote_char(char)}", pos)
            self._colon_seen = True
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        word = self._bracket_keyword(pos)
        if word is None:
            raise LexError(f"unexpected character: {quote_char(char)}, expected ':'", pos)
        return word

    def _word(self, pos: int) -> Token:
        found = _WORD.match(self.text, pos)
        word = found.group() if found else ""
        end = self._pos = pos + len(word)
        key = word.lower()
        kind = WORD_KINDS.get(key)
        if kind is None or (key in FILL_WORDS and not self._paren_follows(end)):
            kind = Kind.METRIC_IDENTIFIER if ":" in word else Kind.IDENTIFIER
            return Token(kind, word, pos, end, word)
        return Token(kind, word, pos, end, key)

    def _paren_follows(self, pos: int) -> bool:
        found = _SPACE.match(self.text, pos)
        at = found.end() if found else pos
        return self.text[at : at + 1] == "("

    def _in_brace_token(self, pos: int) -> Token:
        text = self.text
        if pos >= len(text):
            raise LexError("unexpected end of input inside braces", pos)
        char = text[pos]
        if char in _ALPHA:
            found = _LABEL.match(text, pos)
            return self._emit(Kind.IDENTIFIER, pos, found.end() if found else pos + 1)
        if char in "\"'`":
            return self._string(pos)
        if char == ",":
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == "}":
            self._in_braces = False
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        after = text[pos + 1 : pos + 2]
        if char == "=":
            if after == "~":
                return self._emit(Kind.OPERATOR, pos, pos + 2)
            return self._emit(Kind.PUNCTUATION, pos, pos + 1)
        if char == "!":
            if after not in ("~", "="):
                shown = quote_char(self._char(pos + 1))
                raise LexError(f"unexpected character after '!' inside braces: {shown}", pos)
            return self._emit(Kind.OPERATOR, pos, pos + 2)
        if char == "{":
            raise LexError(f"unexpected left brace {quote_char(char)}", pos)
        raise LexError(f"unexpected character inside braces: {quote_char(self._char(pos))}", pos)

    def _number(self, pos: int) -> Token:
        end, valid = scan_number(self.text, pos)
        if valid:
            return self._emit(Kind.NUMBER, pos, end)
        found = _DURATION_REST.match(self.text, end)
        if found is None:
            raise LexError(f"bad number or duration syntax: {quote(self.text[pos:end])}", pos)
        end = found.end()
        rest = self.text[end : end + 1]
        if rest in _ALNUM and rest:
            digits = _DIGITS_RUN.match(self.text, end)
            stop = digits.end() if digits and digits.end() > end else end + 1
            raise LexError(f"bad number or duration syntax: {quote(self.text[pos:stop])}", pos)
        return self._emit(Kind.DURATION, pos, end)

    def _string(self, pos: int) -> Token:
        delimiter = self.text[pos]
        plain = _PLAIN_STRING[delimiter].match(self.text, pos)
        if plain is not None:
            return self._emit(Kind.STRING, pos, plain.end())
        return self._raw_string(pos) if delimiter == "`" else self._escaped_string(pos, delimiter)

    def _raw_string(self, pos: int) -> Token:
        end = self.text.find("`", pos + 1)
        body = self.text[pos + 1 : end if end >= 0 else len(self.text)]
        self._check_utf8(body, pos)
        if end < 0:
            raise LexError("unterminated raw string", pos)
        return self._emit_decoded(pos, end + 1)

    def _escaped_string(self, pos: int, delimiter: str) -> Token:
        """A string with escapes or other than ASCII, its faults reported in the order in which they stand."""
        text = self.text
        at = pos + 1
        while True:
            run = _STRING_RUN[delimiter].match(text, at)
            end = run.end() if run else at
            self._check_utf8(text[at:end], pos)
            char = text[end : end + 1]
            if char in ("", "\n"):
                raise LexError("unterminated quoted string", pos)
            if char == delimiter:
                return self._emit_decoded(pos, end + 1)
            at = self._escape(pos, end + 1, delimiter)

    def _check_utf8(self, body: str, start: int) -> None:
        if body.isascii():
            return
        try:
            decoded = body.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            raise LexError("invalid UTF-8 rune", start) from None
        if "\ufffd" in decoded:
            raise LexError("invalid UTF-8 rune", start)

    def _escape(self, start: int, at: int, delimiter: str) -> int:
        """Check the escape after a backslash; returns the offset behind it."""
        char = self._char(at)
        if not char:
            raise LexError("escape sequence not terminated", start)
        if char in "abfnrtv\\" or char == delimiter:
            return at + 1
        if char in "01234567":
            width, base, highest = 3, 8, 255
        elif char in _ESCAPES:
            width, base, highest = _ESCAPES[char]
            at += 1
        else:
            raise LexError(f"unknown escape sequence {_unicode_name(char)}", start)
        value = 0
        for _ in range(width):
            char = self._char(at)
            if not char:
                raise LexError("escape sequence not terminated", start)
            digit = _HEX_DIGITS.lower().find(char.lower()) if char in _HEX_DIGITS else 16
            if digit >= base:
                raise LexError(f"illegal character {_unicode_name(char)} in escape sequence", start)
            value = value * base + digit
            at += 1
        if value > highest or 0xD800 <= value < 0xE000:
            raise LexError("escape sequence is an invalid Unicode code point", start)
        return at


_DIGITS_RUN = re.compile(r"[0-9]*+")


def _unicode_name(char: str) -> str:
    code = ord(char)
    return f"U+{code:04X} {quote_char(char)}" if char.isprintable() else f"U+{code:04X}"


def scan_number(text: str, pos: int, *, in_series: bool = False) -> tuple[int, bool]:
    """Where a number that begins at `pos` ends, and whether it is one.

    False means that a duration may follow, or that the text up to the end is no number. In the series
    notation there is no hexadecimal, and an `x` (the repeat sign) may follow directly.
    """
    length = len(text)
    at = pos
    digits = _DIGITS
    if not in_series and text[at : at + 1] == "0":
        at += 1
        if text[at : at + 1] in ("x", "X"):
            at += 1
            digits = _HEX_DIGITS
            if text[at : at + 1] == "_":
                at += 1
    if at < length and text[at] == ".":
        at += 1
    if at < length and text[at] in digits:
        at += 1
    dotted = raised = False
    while at < length:
        char = text[at]
        after = text[at + 1 : at + 2]
        if char == ".":
            if dotted or (after and after in "_.") or digits is _HEX_DIGITS:
                return at + (2 if not dotted and after and after in "_." else 1), False
            dotted = True
            at += 1
        elif char in "eE":
            if raised:
                return at + 1, False
            raised = True
            at += 1
            if at < length and text[at] in "+-":
                at += 1
            if at >= length:
                return at, False
            if text[at] in "._eE":
                return at + 1, False
        elif char == "_":
            at += 1
            if at >= length:
                return at, False
            if text[at] in "._eE":
                return at + 1, False
        elif char in digits:
            run = (_DECIMAL_RUN if digits is _DIGITS else _HEX_RUN).match(text, at)
            at = run.end() if run else at + 1
        else:
            break
    if at == pos:
        return at, False
    rest = text[at : at + 1]
    return at, (in_series and rest == "x") or not (rest and rest in _ALNUM)
