"""Warnings and infos of an evaluation, in Prometheus' words, each with its place in the query.

Kernels only find out that something is odd; the node that knows names and places notes it here.
Source: Prometheus' util/annotations texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from exporter.promql.floats import general_float

_NEWLINE = b"\n"


class Level(Enum):
    """How loud a note is."""

    WARNING = "PromQL warning"
    INFO = "PromQL info"


@dataclass(frozen=True, slots=True)
class Note:
    """One remark. `start` is the byte offset in the query that it is about."""

    level: Level
    text: str
    start: int

    def moved(self, shift: int) -> Note:
        """The same remark on the same expression that stands elsewhere."""
        return self if shift == 0 else Note(self.level, self.text, self.start + shift)

    def render(self, query: str) -> str:
        """The sentence with line and column."""
        return f"{self.level.value}: {self.text} ({place(query, self.start)})"


def place(query: str, start: int) -> str:
    """`line:column` of a byte offset, both counted from 1."""
    before = query.encode("utf-8", "surrogatepass")[:start]
    return f"{before.count(_NEWLINE) + 1}:{start - before.rfind(_NEWLINE)}"


def _for_metric(text: str, name: str) -> str:
    return f'{text} for metric name "{name}"' if name else text


def bad_quantile(quantile: float, start: int) -> Note:
    """A quantile outside 0 to 1."""
    text = f"quantile value should be between 0 and 1, got {general_float(quantile)}"
    return Note(Level.WARNING, text, start)


def bad_ratio(ratio: float, capped: float, start: int) -> Note:
    """A ratio outside -1 to 1."""
    text = (
        f"ratio value should be between -1 and 1, got {general_float(ratio)}, "
        f"capping to {general_float(capped)}"
    )
    return Note(Level.WARNING, text, start)


def bad_bucket(name: str, value: str, start: int) -> Note:
    """A bucket whose `le` is no number."""
    text = f'bucket label "le" is missing or has a malformed value of "{value}"'
    return Note(Level.WARNING, _for_metric(text, name), start)


def maybe_no_counter(name: str, start: int) -> Note:
    """A rate of something that is not named like a counter."""
    text = f'metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "{name}"'
    return Note(Level.INFO, text, start)


def forced_monotonic(name: str, start: int) -> Note:
    """Buckets that fell where they must not."""
    text = (
        "input to histogram_quantile needed to be fixed for monotonicity "
        "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
    )
    return Note(Level.INFO, _for_metric(text, name), start)


def incompatible_types(op: str, start: int) -> Note:
    """A trim operator between floats."""
    text = f'incompatible sample types encountered for binary operator "{op}": float {op} float'
    return Note(Level.INFO, text, start)
