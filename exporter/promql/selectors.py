"""Label matchers in braces, and lists of label names after by, without, on, ignoring and group_*."""

from __future__ import annotations

from exporter.model.labels import METRIC_NAME, Matcher, MatchOp
from exporter.promql.ast import Span, VectorSelector
from exporter.promql.cursor import Cursor, ParseError
from exporter.promql.gotext import quote
from exporter.promql.literals import string_value
from exporter.promql.tokens import LABEL_NAME_WORDS, METRIC_NAME_WORDS, Kind, Token

_MATCH_OPS = {"=": MatchOp.EQUAL, "!=": MatchOp.NOT_EQUAL, "=~": MatchOp.REGEX, "!~": MatchOp.NOT_REGEX}


def names_metric(token: Token) -> bool:
    """Whether this token may stand as a metric name (most keywords may)."""
    if token.kind in (Kind.IDENTIFIER, Kind.METRIC_IDENTIFIER):
        return True
    return token.key in METRIC_NAME_WORDS and token.kind is not Kind.STRING


def selector(cursor: Cursor) -> VectorSelector:
    """`name`, `name{...}` or `{...}` from the current token on."""
    if names_metric(cursor.token):
        return named_selector(cursor, cursor.take())
    if not cursor.at("{"):
        raise cursor.unexpected()
    start = cursor.token.start
    matchers = _matchers(cursor)
    return VectorSelector("", tuple(matchers), Span(start, cursor.last_end))


def named_selector(cursor: Cursor, name: Token) -> VectorSelector:
    """The selector whose name has just been taken. The name's own matcher comes last."""
    matchers = _matchers(cursor) if cursor.at("{") else []
    matchers.append(Matcher(METRIC_NAME, MatchOp.EQUAL, name.text))
    return VectorSelector(name.text, tuple(matchers), Span(name.start, cursor.last_end))


def _matchers(cursor: Cursor) -> list[Matcher]:
    cursor.take()
    matchers: list[Matcher] = []
    while not cursor.at("}"):
        matchers.append(_matcher(cursor))
        if cursor.accept(",") is None:
            if not cursor.at("}"):
                raise cursor.unexpected("label matching", '"," or "}"')
            break
    cursor.take()
    return matchers


def _matcher(cursor: Cursor) -> Matcher:
    if cursor.token.kind is Kind.STRING:
        label = cursor.take()
        name = string_value(label)
        if cursor.token.key not in _MATCH_OPS:
            return Matcher(METRIC_NAME, MatchOp.EQUAL, name)
    elif cursor.token.kind is Kind.IDENTIFIER:
        label = cursor.take()
        name = label.text
        if cursor.token.key not in _MATCH_OPS:
            raise cursor.unexpected("label matching", "label matching operator")
    else:
        raise cursor.unexpected("label matching", 'identifier or "}"')
    op = _MATCH_OPS[cursor.take().key]
    if cursor.token.kind is not Kind.STRING:
        raise cursor.unexpected("label matching", "string")
    value = cursor.take()
    try:
        return Matcher(name, op, string_value(value))
    except ValueError as error:
        raise ParseError(str(error), label.start) from None


def label_names(cursor: Cursor) -> tuple[str, ...]:
    """`(a, b, "c.d")`, a comma allowed at the end."""
    if not cursor.at("("):
        raise cursor.unexpected("grouping opts", '"("')
    cursor.take()
    names: list[str] = []
    while not cursor.at(")"):
        names.append(_label_name(cursor))
        if cursor.accept(",") is None:
            if not cursor.at(")"):
                raise cursor.unexpected("grouping opts", '"," or ")"')
            break
    cursor.take()
    return tuple(names)


def _label_name(cursor: Cursor) -> str:
    token = cursor.token
    if token.kind is Kind.STRING:
        name = string_value(cursor.take())
        if not _is_utf8_name(name):
            raise ParseError(f"invalid label name for grouping: {quote(name)}", token.start)
        return name
    named = token.kind in (Kind.IDENTIFIER, Kind.METRIC_IDENTIFIER)
    if not named and token.key not in LABEL_NAME_WORDS:
        raise cursor.unexpected("grouping opts", "label")
    return cursor.take().text


def _is_utf8_name(name: str) -> bool:
    return name != "" and not any("\ud800" <= char <= "\udfff" for char in name)
