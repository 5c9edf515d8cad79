"""The series notation of rule unit tests and engine test scripts: `a{b="c"} 1+1x5 _x3 stale -Inf`.

`v` is one sample, `_` a missing one, `stale` the staleness marker; `vxN` repeats v, so that there are N + 1
of it; `v+wxN` and `v-wxN` go on from v N times by w; `_xN` is N missing samples.
Source: Prometheus' page "Unit testing for rules", section "Series".
"""

from __future__ import annotations

import re
from typing import Final

from exporter.errors import QueryError, QueryErrorKind
from exporter.model.labels import METRIC_NAME, LabelSet
from exporter.model.staleness import STALE_NAN
from exporter.promql.cursor import Cursor, ParseError
from exporter.promql.lexer import scan_number
from exporter.promql.literals import number_value, string_value
from exporter.promql.selectors import names_metric
from exporter.promql.tokens import Kind

MAX_SAMPLES: Final = 10_000_000
_GAP = re.compile(r"[ \t\r\n]+")
_SPECIAL = re.compile(r"(?:inf|nan)(?![A-Za-z0-9_:])", re.IGNORECASE)
_REPEAT = re.compile(r"x([0-9]+)")

Values = tuple[float | None, ...]


def parse_series(text: str) -> tuple[LabelSet, Values]:
    """The labels and values of one series; None is a missing sample, STALE_NAN a marker.

    Raises: QueryError, of kind UNSUPPORTED for a native histogram, else SYNTAX.
    """
    try:
        labels, end = _metric(text)
        return labels, _values(text, end)
    except ParseError as error:
        raise error.to_query_error(text) from None


def parse_metric(text: str) -> LabelSet:
    """The labels of `name{a="b"}`. Raises: QueryError of kind SYNTAX."""
    labels, values = parse_series(text)
    if values:
        raise QueryError(f"unexpected values after the series {labels}", QueryErrorKind.SYNTAX)
    return labels


def parse_values(text: str) -> Values:
    """Values alone (`1+1x5 _ stale`). Raises: as `parse_series`."""
    try:
        return _values(" " + text, 0)
    except ParseError as error:
        raise error.to_query_error(" " + text) from None


def _metric(text: str) -> tuple[LabelSet, int]:
    """The labels, and where the values begin: the first space outside of braces and quotes."""
    head = text[: _metric_end(text)]
    cursor = Cursor(head)
    labels: dict[str, str] = {}
    if names_metric(cursor.token):
        labels[METRIC_NAME] = cursor.take().text
    elif not cursor.at("{") and not cursor.at_end():
        raise cursor.unexpected()
    if cursor.accept("{"):
        while not cursor.at("}"):
            _label(cursor, labels)
            if cursor.accept(",") is None and not cursor.at("}"):
                raise cursor.unexpected("label set", '"," or "}"')
        cursor.take()
    if not cursor.at_end():
        raise cursor.unexpected()
    return LabelSet.of(labels), len(head)


def _label(cursor: Cursor, labels: dict[str, str]) -> None:
    if cursor.token.kind is Kind.STRING:
        name = string_value(cursor.take())
        if not cursor.at("="):
            labels[METRIC_NAME] = name
            return
    elif cursor.token.kind is Kind.IDENTIFIER:
        name = cursor.take().text
        if not cursor.at("="):
            raise cursor.unexpected("label set", '"="')
    else:
        raise cursor.unexpected("label set", 'identifier or "}"')
    cursor.take()
    if cursor.token.kind is not Kind.STRING:
        raise cursor.unexpected("label set", "string")
    labels[name] = string_value(cursor.take())


_HEAD = re.compile(
    r"""\s*+[A-Za-z_:0-9]*+\s*+(?:\{(?!\{)(?:[^"'`}]++|"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+'|`[^`]*+`)*+\})?""",
    re.DOTALL,
)


def _metric_end(text: str) -> int:
    found = _HEAD.match(text)
    return found.end() if found and found.end() > 0 else len(text)


def _values(text: str, at: int) -> Values:
    values: list[float | None] = []
    while at < len(text):
        gap = _GAP.match(text, at)
        if gap is None and values:
            raise ParseError(f"unexpected {text[at]!r} in series values", at)
        at = gap.end() if gap else at
        if at < len(text):
            at = _item(text, at, values)
    return tuple(values)


def _item(text: str, at: int, values: list[float | None]) -> int:
    """Append one item's samples; returns where it ends."""
    if text.startswith("{{", at):
        raise ParseError("native histograms are not supported", at, QueryErrorKind.UNSUPPORTED)
    if text[at] == "_":
        times, end = _repeat(text, at + 1)
        _extend(values, [None], 1 if times is None else times, at)
        return end
    if text.startswith("stale", at):
        value, end = STALE_NAN, at + 5
    else:
        value, end = _number(text, at)
    step = 0.0
    stepped = text[end : end + 1] in ("+", "-") and end < len(text)
    if stepped:
        step, end = _number(text, end)
    times, after = _repeat(text, end)
    if times is None:
        if stepped:
            raise ParseError("a step needs its repetition (as in 1+2x3)", end)
        values.append(value)
    elif not stepped:
        _extend(values, [value], times + 1, at)
    else:
        _check_room(values, times + 1, at)
        for _ in range(times + 1):
            values.append(value)
            value += step
    return after


def _number(text: str, at: int) -> tuple[float, int]:
    sign = text[at] if text[at] in "+-" else ""
    start = at + len(sign)
    special = _SPECIAL.match(text, start)
    end, valid = (special.end(), True) if special else scan_number(text, start, in_series=True)
    if not valid:
        word = _GAP.split(text[at:], maxsplit=1)[0]
        raise ParseError(f'unexpected "{word}" in series values, expected number or "stale"', at)
    try:
        value = number_value(text[start:end])
    except ValueError as error:
        raise ParseError(f"error parsing number: {error}", at) from None
    return -value if sign == "-" else value, end


def _repeat(text: str, at: int) -> tuple[int | None, int]:
    found = _REPEAT.match(text, at)
    return (int(found[1][:20]), found.end()) if found else (None, at)


def _check_room(values: list[float | None], more: int, at: int) -> None:
    if len(values) + more > MAX_SAMPLES:
        raise ParseError(f"a series may hold at most {MAX_SAMPLES} samples", at)


def _extend(values: list[float | None], one: list[float | None], times: int, at: int) -> None:
    _check_room(values, times, at)
    values.extend(one * times)
