"""Warnings and infos of an evaluation, in Prometheus' words, each with its place in the query.

Kernels only find out that something is odd; the node that knows names and places notes it here.
Source: Prometheus' util/annotations texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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


def narrow_window(function: str, least_minutes: int, start: int) -> Note:
    """A range too short for samples that are kept as one number for five minutes."""
    text = (
        f"the samples of the older part are gone, five minutes of them are one number: {function} needs a "
        f"range of {least_minutes}m or more there"
    )
    return Note(Level.WARNING, text, start)


def forced_monotonic(
    name: str, bounds: tuple[float, float], most: float, count: int, times_ms: tuple[int, int], start: int
) -> Note:
    """Buckets that fell where they must not: between which bounds, by how much, how often, when."""
    text = (
        "input to histogram_quantile needed to be fixed for monotonicity "
        "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
    )
    low, high = map(general_float, bounds)
    first, last = map(_utc, times_ms)
    detail = (
        f", from buckets {low} to {high}, with a max diff of {most:.2g}, "
        f"over {count} samples from {first} to {last}"
    )
    return Note(Level.INFO, _for_metric(text, name) + detail, start)


def _utc(ts_ms: int) -> str:
    """RFC 3339 in UTC, fractions without trailing zeros."""
    seconds, ms = divmod(ts_ms, 1000)
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    fraction = f".{ms:03d}".rstrip("0") if ms else ""
    return f"{when:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def incompatible_types(op: str, start: int) -> Note:
    """A trim operator between floats."""
    text = f'incompatible sample types encountered for binary operator "{op}": float {op} float'
    return Note(Level.INFO, text, start)
