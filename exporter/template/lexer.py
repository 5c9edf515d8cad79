"""Template text to tokens. Positions are character offsets; trimming markers act here.

Source: text/template's documentation (actions, comments, "Text and spaces") and the running program.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from exporter.template.quoting import is_print, quote

_SPACE: Final = " \t\r\n"
_LEFT: Final = "{{"
_RIGHT: Final = "}}"


class Kind(Enum):
    """What a token is."""

    ERROR = "error"
    EOF = "EOF"
    TEXT = "text"
    LEFT = "left delimiter"
    RIGHT = "right delimiter"
    SPACE = "space"
    PIPE = "pipe"
    LEFT_PAREN = "left paren"
    RIGHT_PAREN = "right paren"
    ASSIGN = "="
    DECLARE = ":="
    CHAR = "char"
    BOOL = "bool"
    CHAR_CONSTANT = "character constant"
    NUMBER = "number"
    COMPLEX = "complex"
    STRING = "string"
    RAW_STRING = "raw string"
    IDENTIFIER = "identifier"
    FIELD = "field"
    VARIABLE = "variable"
    KEYWORD = "keyword"


KEYWORDS: Final = frozenset(
    ["block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with"]
)


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its kind, offset, text (of an error: the message), and line from 1."""

    kind: Kind
    pos: int
    text: str
    line: int

    def is_keyword(self, word: str) -> bool:
        """Whether this is that keyword (`.` alone is a keyword too)."""
        return self.kind is Kind.KEYWORD and self.text == word

    def __str__(self) -> str:
        """As Go names a token in its error messages."""
        if self.kind is Kind.EOF:
            return "EOF"
        if self.kind is Kind.ERROR:
            return self.text
        if self.kind is Kind.KEYWORD:
            return f"<{self.text}>"
        if len(self.text.encode()) > 10:
            return quote(self.text[:10]) + "..."
        return quote(self.text)


class _LexError(Exception):
    """Ends the scan; carries the message of the error token."""


def tokenize(text: str) -> list[Token]:
    """The tokens of a template. The last one is EOF or ERROR; nothing is raised."""
    return _Lexer(text).run()


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._start = 0
        self._line = 1  # of `_start`
        self._parens = 0
        self._tokens: list[Token] = []

    def run(self) -> list[Token]:
        try:
            while self._text_until_action():
                self._action()
            self._emit(Kind.EOF)
        except _LexError as error:
            self._tokens.append(Token(Kind.ERROR, self._start, str(error), self._line))
        return self._tokens

    def _emit(self, kind: Kind, end: int | None = None) -> None:
        end = self._pos if end is None else end
        self._tokens.append(Token(kind, self._start, self._text[self._start : end], self._line))
        self._skip()

    def _skip(self) -> None:
        self._line += self._text.count("\n", self._start, self._pos)
        self._start = self._pos

    def _peek(self, ahead: int = 0) -> str:
        at = self._pos + ahead
        return self._text[at] if at < len(self._text) else ""

    def _text_until_action(self) -> bool:
        """Emits plain text, less what a `{{-` trims; False at the end of the input."""
        found = self._text.find(_LEFT, self._pos)
        self._pos = len(self._text) if found < 0 else found
        end = self._pos
        if found >= 0 and self._trims_left(found + 2):
            end = self._start + len(self._text[self._start : found].rstrip(_SPACE))
        if end > self._start:
            self._emit(Kind.TEXT, end)
        else:
            self._skip()
        return found >= 0

    def _trims_left(self, at: int) -> bool:
        return self._text[at : at + 1] == "-" and self._text[at + 1 : at + 2] in tuple(_SPACE)

    def _right_delimiter(self) -> tuple[bool, bool]:
        """(whether the action ends here, whether with a trim marker)."""
        char = self._peek()
        if char and char in _SPACE and self._text.startswith("-" + _RIGHT, self._pos + 1):
            return True, True
        return self._text.startswith(_RIGHT, self._pos), False

    def _leave(self, trim: bool) -> None:
        if trim:
            self._pos += 2
            self._skip()
        self._pos += 2

    def _after_trim(self, trim: bool) -> None:
        if trim:
            while self._peek() and self._peek() in _SPACE:
                self._pos += 1
        self._skip()

    def _action(self) -> None:
        trim = self._trims_left(self._pos + 2)
        marker = 2 if trim else 0
        if self._text.startswith("/*", self._pos + 2 + marker):
            self._pos += 2 + marker
            self._skip()
            self._comment()
            return
        self._pos += 2
        self._emit(Kind.LEFT)
        self._pos += marker
        self._skip()
        self._parens = 0
        while True:
            ends, trims = self._right_delimiter()
            if ends:
                if self._parens:
                    raise _LexError("unclosed left paren")
                self._leave(trims)
                self._emit(Kind.RIGHT)
                self._after_trim(trims)
                return
            self._inside()

    def _comment(self) -> None:
        end = self._text.find("*/", self._pos)
        if end < 0:
            raise _LexError("unclosed comment")
        self._pos = end + 2
        ends, trims = self._right_delimiter()
        if not ends:
            raise _LexError("comment ends before closing delimiter")
        self._leave(trims)
        self._after_trim(trims)

    def _inside(self) -> None:
        char = self._peek()
        if not char:
            raise _LexError("unclosed action")
        if char in _SPACE:
            self._spaces()
        elif char == ":" and self._peek(1) != "=":
            raise _LexError("expected :=")
        elif char == ":":
            self._take(2, Kind.DECLARE)
        elif char in "=|":
            self._take(1, Kind.ASSIGN if char == "=" else Kind.PIPE)
        elif char == '"' or char == "'":
            self._quoted(char)
        elif char == "`":
            self._raw()
        elif char == "$" or (char == "." and not _is_digit(self._peek(1)) and self._peek(1)):
            self._field_or_variable(char)
        elif char in "+-." or _is_digit(char):
            self._number()
        elif _is_word(char):
            self._identifier()
        elif char in "()":
            self._paren(char)
        elif char < "\x80" and is_print(char):
            self._take(1, Kind.CHAR)
        else:
            raise _LexError(f"unrecognized character in action: {code_point(char)}")

    def _take(self, count: int, kind: Kind) -> None:
        self._pos += count
        self._emit(kind)

    def _spaces(self) -> None:
        while self._peek() and self._peek() in _SPACE:
            if self._pos > self._start and self._right_delimiter()[1]:
                break  # the last space belongs to the trim marker
            self._pos += 1
        self._emit(Kind.SPACE)

    def _paren(self, char: str) -> None:
        self._take(1, Kind.LEFT_PAREN if char == "(" else Kind.RIGHT_PAREN)
        self._parens += 1 if char == "(" else -1
        if self._parens < 0:
            raise _LexError(f"unexpected right paren {code_point(char)}")

    def _word(self) -> None:
        while self._peek() and _is_word(self._peek()):
            self._pos += 1
        if not self._at_terminator():
            raise _LexError(f"bad character {code_point(self._peek())}")

    def _at_terminator(self) -> bool:
        char = self._peek()
        return not char or char in _SPACE or char in ".,|:)(" or self._text.startswith(_RIGHT, self._pos)

    def _identifier(self) -> None:
        self._word()
        word = self._text[self._start : self._pos]
        if word in KEYWORDS:
            self._emit(Kind.KEYWORD)
        else:
            self._emit(Kind.BOOL if word in ("true", "false") else Kind.IDENTIFIER)

    def _field_or_variable(self, char: str) -> None:
        self._pos += 1
        if self._at_terminator():
            self._emit(Kind.VARIABLE if char == "$" else Kind.KEYWORD)
            return
        self._word()
        self._emit(Kind.VARIABLE if char == "$" else Kind.FIELD)

    def _quoted(self, mark: str) -> None:
        what = "quoted string" if mark == '"' else "character constant"
        self._pos += 1
        while True:
            char = self._peek()
            if char == "\\" and self._peek(1) not in ("", "\n"):
                self._pos += 2
                continue
            if char in ("", "\n", "\\"):
                raise _LexError(f"unterminated {what}")
            self._pos += 1
            if char == mark:
                break
        self._emit(Kind.STRING if mark == '"' else Kind.CHAR_CONSTANT)

    def _raw(self) -> None:
        end = self._text.find("`", self._pos + 1)
        if end < 0:
            raise _LexError("unterminated raw quoted string")
        self._pos = end + 1
        self._emit(Kind.RAW_STRING)

    def _number(self) -> None:
        kind = Kind.NUMBER
        good = self._scan_number()
        if good and self._peek() in ("+", "-") and self._peek():
            good = self._scan_number() and self._text[self._pos - 1] == "i"
            kind = Kind.COMPLEX
        if not good:
            raise _LexError(f"bad number syntax: {quote(self._text[self._start : self._pos])}")
        self._emit(kind)

    def _scan_number(self) -> bool:
        self._accept("+-")
        digits, decimal, hexadecimal = "0123456789_", True, False
        if self._accept("0"):
            for marks, own in (("xX", "0123456789abcdefABCDEF_"), ("oO", "01234567_"), ("bB", "01_")):
                if self._accept(marks):
                    digits, decimal, hexadecimal = own, False, marks == "xX"
                    break
        self._accept_run(digits)
        if self._accept("."):
            self._accept_run(digits)
        if (decimal and self._accept("eE")) or (hexadecimal and self._accept("pP")):
            self._accept("+-")
            self._accept_run("0123456789_")
        self._accept("i")
        if self._peek() and _is_word(self._peek()):
            self._pos += 1
            return False
        return True

    def _accept(self, valid: str) -> bool:
        char = self._peek()
        if char and char in valid:
            self._pos += 1
            return True
        return False

    def _accept_run(self, valid: str) -> None:
        while self._accept(valid):
            pass


def _is_digit(char: str) -> bool:
    return char != "" and char in "0123456789"


def _is_word(char: str) -> bool:
    return char == "_" or char.isalpha() or char.isdecimal()


def code_point(char: str) -> str:
    """A rune as Go's %#U prints it: U+0040 '@'."""
    if not char:
        return "U+FFFFFFFFFFFFFFFF"  # Go's end-of-input rune is -1
    text = f"U+{ord(char):04X}"
    return f"{text} '{char}'" if is_print(char) else text
