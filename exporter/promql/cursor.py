"""The parser's place in the query: one token of look-ahead, and errors that say where it stands."""

from __future__ import annotations

from typing import Final, NoReturn

from exporter.errors import QueryError, QueryErrorKind
from exporter.promql.lexer import Lexer, LexError
from exporter.promql.tokens import Kind, Token

MAX_DEPTH: Final = 200
MAX_TOKENS: Final = 10_000


def position_text(query: str, offset: int) -> str:
    """`line:column` of a byte offset, both from 1, columns in bytes; `unknown position` in an empty query."""
    if query == "":
        return "unknown position"
    before = query.encode("utf-8", "surrogatepass")[:offset]
    return f"{before.count(10) + 1}:{offset - before.rfind(10)}"


class ParseError(Exception):
    """A fault in the query at a byte offset; becomes a QueryError where the query text is at hand."""

    def __init__(self, message: str, start: int, kind: QueryErrorKind = QueryErrorKind.SYNTAX) -> None:
        self.message = message
        self.start = start
        self.kind = kind
        super().__init__(message)

    def to_query_error(self, query: str) -> QueryError:
        """The error as Prometheus words it: `1:5: parse error: ...`."""
        return QueryError(f"{position_text(query, self.start)}: parse error: {self.message}", self.kind)


class Cursor:
    """Reads tokens one ahead. `last_end` is the end of the token just taken.

    All methods that meet a fault raise ParseError. `context` is what a fault is "in" when the rule that
    meets it has no words of its own (inside an aggregation: " in aggregation").
    """

    def __init__(self, query: str) -> None:
        self._lexer = Lexer(query)
        self._tokens = 0
        self._depth = 0
        self.context = ""
        self.last_end = 0
        self._token: Token | None = None

    @property
    def token(self) -> Token:
        """The token to come; read when first asked for.

        So what is wrong with the text before it is said before its own faults, as in Prometheus.
        """
        if self._token is None:
            self._token = self._read()
        return self._token

    def _read(self) -> Token:
        self._tokens += 1
        if self._tokens > MAX_TOKENS:
            raise ParseError(f"query has more than {MAX_TOKENS} tokens", self.last_end)
        try:
            return self._lexer.next()
        except LexError as error:
            raise ParseError(str(error), error.start) from None

    def take(self) -> Token:
        """The current token, moving on to the next."""
        token = self.token
        self.last_end = token.end
        self._token = None
        return token

    def accept(self, text: str) -> Token | None:
        """The current token if it is this punctuation, operator or keyword; None leaves it in place."""
        return self.take() if self.at(text) else None

    def at(self, text: str) -> bool:
        """Whether the current token is this punctuation, operator or keyword."""
        token = self.token
        return token.key == text and token.kind in _FIXED

    def at_end(self) -> bool:
        """Whether all of the query has been taken."""
        return self.token.kind is Kind.EOF

    def expect(self, text: str) -> Token:
        """The current token, which must be this punctuation."""
        if not self.at(text):
            raise self.unexpected()
        return self.take()

    def unexpected(self, where: str = "", expected: str = "") -> ParseError:
        """The complaint about the current token; without `where` in the words of the surrounding rule."""
        message = f"unexpected {self.token.describe()}"
        message += f" in {where}" if where else self.context
        if expected:
            message += f", expected {expected}"
        return ParseError(message, self.token.start)

    def enter(self) -> None:
        """Go one level deeper; refuses a query nested beyond MAX_DEPTH."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.too_deep()

    def leave(self) -> None:
        """Come back up one level."""
        self._depth -= 1

    def check_height(self, height: int) -> int:
        """`height` of a tree just built, if the engine can walk it."""
        if height > MAX_DEPTH:
            self.too_deep()
        return height

    def too_deep(self) -> NoReturn:
        """Refuse the query: its tree is higher than MAX_DEPTH."""
        raise ParseError(f"expression is nested more than {MAX_DEPTH} levels deep", self.token.start)


_FIXED: Final = frozenset({Kind.PUNCTUATION, Kind.OPERATOR, Kind.KEYWORD, Kind.AGGREGATOR, Kind.PREPROCESSOR})
