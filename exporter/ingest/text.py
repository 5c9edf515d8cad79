"""Prometheus' text format 0.0.4, as lenient as Prometheus reads it.

Source: Prometheus' exposition formats page: blanks and tabs between the parts, comments, blank lines, a comma
behind the last label; timestamps are Unix milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import replace

from exporter.errors import ExpositionError, Problem
from exporter.ingest.line import SampleLine, read_number, read_series

_BLANKS = re.compile(r"[ \t]+")
# Blanks around the signs of a label block, and the comma that may end it, are taken out before it is read.
_LOOSE = re.compile(r'("(?:[^"\\\n]|\\.)*")|[ \t]+')
_LAST_COMMA = re.compile(r",\}")
_TIMESTAMP = re.compile(r"-?\d+", re.ASCII)


def parse_text(text: str, file: str = "") -> list[SampleLine]:
    """The samples of an exposition, in order.

    Raises: ExpositionError with the place of the first fault.
    """
    found: list[SampleLine] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            found.append(_sample(line))
        except ValueError as error:
            raise ExpositionError(Problem(str(error), file, number, 1)) from None
    return found


def _sample(line: str) -> SampleLine:
    try:
        name, labels, rest = read_series(line)
        if rest[:1] not in (" ", "\t") or rest.lstrip(" \t").startswith("{"):
            raise ValueError("a blank is needed before the value")
    except ValueError:
        name, labels, rest = read_series(_tight(line))
    if not name:
        raise ValueError("a sample needs a metric name")
    parts = _BLANKS.split(rest.strip(" \t"))
    if len(parts) > 2:
        raise ValueError("only a timestamp may stand after the value")
    sample = SampleLine(name, labels, read_number(parts[0]))
    if len(parts) == 1:
        return sample
    if _TIMESTAMP.fullmatch(parts[1]) is None:
        raise ValueError(f'"{parts[1]}" is not a timestamp in milliseconds')
    return replace(sample, ts_s=int(parts[1]) / 1000)


def _tight(line: str) -> str:
    """The line without blanks in its label block."""
    head, brace, tail = line.partition("{")
    if not brace:
        raise ValueError("a blank is needed before the value")
    end = _closing(tail)
    block = _LOOSE.sub(lambda found: found[1] or "", tail[:end])
    rest = tail[end + 1 :]
    head, rest = head.rstrip(" \t"), rest.lstrip(" \t")
    block = _LAST_COMMA.sub("}", block + "}")
    return f"{head}{{{block} {rest}"


def _closing(text: str) -> int:
    """Where the brace is that closes a label block."""
    at, quoted = 0, False
    while at < len(text):
        char = text[at]
        if quoted and char == "\\":
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == "}" and not quoted:
            return at
        at += 1
    raise ValueError("the labels are not closed with a brace")
