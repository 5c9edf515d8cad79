"""One sample line of an exposition: name, labels, value, timestamp, exemplar.

Source: OpenMetrics 1.0, "Text format", ABNF; Prometheus' exposition formats page for the quoted form of names
outside the classic character set, `{"a.name",label="value"} 1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from exporter.model.labels import METRIC_NAME, LabelSet

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_QUOTED = r'"((?:[^"\\\n]|\\.)*)"'
_PAIR = re.compile(rf"(?:([a-zA-Z_][a-zA-Z0-9_]*)|{_QUOTED})={_QUOTED}", re.ASCII | re.DOTALL)
_BARE = re.compile(_QUOTED, re.DOTALL)
_REAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SPECIAL = re.compile(r"[+-]?(?:inf|infinity)|nan", re.ASCII | re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SampleLine:
    """A sample as it was written. `ts_s` and `exemplar_ts_s` are Unix seconds, None where there is none."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
    ts_s: float | None = None
    exemplar: tuple[tuple[str, str], ...] | None = None
    exemplar_value: float = 0.0
    exemplar_ts_s: float | None = None

    @property
    def series(self) -> LabelSet:
        """The labels with the metric name among them."""
        return LabelSet.of((*self.labels, (METRIC_NAME, self.name)))


def read_number(text: str) -> float:
    """A value: a decimal number, NaN or an infinity. Raises: ValueError."""
    if _REAL.fullmatch(text) is None and _SPECIAL.fullmatch(text) is None:
        raise ValueError(f'"{text}" is not a number')
    return float(text)


def read_seconds(text: str) -> float:
    """A timestamp: a finite decimal number. Raises: ValueError."""
    if _REAL.fullmatch(text) is None:
        raise ValueError(f'"{text}" is not a timestamp')
    return float(text)


def read_line(text: str) -> SampleLine:
    """A sample line of OpenMetrics, without its line break.

    Raises: ValueError saying what is wrong.
    """
    name, labels, rest = read_series(text)
    if not rest.startswith(" "):
        raise ValueError("a blank is needed before the value")
    sample, mark, exemplar = rest[1:].partition(" # ")
    value, ts_s = _value_and_time(sample)
    if not mark:
        return SampleLine(name, labels, value, ts_s)
    if not exemplar.startswith("{"):
        raise ValueError("an exemplar begins with its labels in braces")
    _, exemplar_labels, rest = _block(exemplar, "")
    if not rest.startswith(" "):
        raise ValueError("a blank is needed before the value of the exemplar")
    exemplar_value, exemplar_ts_s = _value_and_time(rest[1:])
    if sum(len(key) + len(content) for key, content in exemplar_labels) > 128:
        raise ValueError("the labels of an exemplar are longer than 128 characters")
    return SampleLine(name, labels, value, ts_s, exemplar_labels, exemplar_value, exemplar_ts_s)


def read_series(text: str) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """Metric name, labels, and the rest of a line after them. Raises: ValueError."""
    found = _NAME.match(text)
    name = found[0] if found else ""
    at = len(name)
    if not text.startswith("{", at):
        if not name:
            raise ValueError("a line must begin with a metric name, such as http_requests_total")
        return name, (), text[at:]
    return _block(text[at:], name)


def _value_and_time(text: str) -> tuple[float, float | None]:
    parts = text.split(" ")
    if len(parts) > 2:
        raise ValueError("only a timestamp may stand after the value")
    return read_number(parts[0]), read_seconds(parts[1]) if len(parts) == 2 else None


def _block(text: str, name: str) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """Labels in braces at the start of a text; a quoted text without a value is the metric name."""
    at = 1
    pairs: list[tuple[str, str]] = []
    first = True
    while not text.startswith("}", at):
        if not first:
            if not text.startswith(",", at):
                raise ValueError("labels are separated by commas")
            at += 1
        pair = _PAIR.match(text, at)
        if pair is not None:
            key = pair[1] if pair[1] is not None else _unescaped(pair[2])
            pairs.append((key, _unescaped(pair[3])))
            at = pair.end()
        elif first and not name and (bare := _BARE.match(text, at)):
            name, at = _unescaped(bare[1]), bare.end()
        else:
            raise ValueError('a label is written name="value"')
        first = False
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a label is repeated")
    return name, tuple(pairs), text[at + 1 :]


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else _plain(found[1], found[0]), text)


def _plain(char: str, whole: str) -> str:
    return char if char in '"\\' else whole
