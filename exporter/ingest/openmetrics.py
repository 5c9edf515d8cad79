"""OpenMetrics 1.0 expositions, checked as a whole: metadata, types, histograms, grouping, order.

Source: the OpenMetrics 1.0 specification; its parser test vectors decide where the text leaves room.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from exporter.errors import ExpositionError, Problem
from exporter.ingest.line import SampleLine, read_line

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "counter": ("_total", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
    "info": ("_info",),
    "stateset": ("",),
    "gauge": ("",),
    "unknown": ("",),
}
_KINDS = ", ".join(_SUFFIXES)
_INNER = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}
_NEVER_NEGATIVE = {
    "counter": ("_total",),
    "summary": ("_count", "_sum"),
    "histogram": ("_bucket", "_count", "_sum"),
    "gaugehistogram": ("_bucket", "_gcount"),
}
_EXEMPLARS = (("counter", "_total"), ("histogram", "_bucket"), ("gaugehistogram", "_bucket"))


@dataclass(slots=True)
class Family:
    """A metric family: what its metadata say, and its samples in order."""

    name: str
    kind: str = "unknown"
    help: str = ""
    unit: str = ""
    samples: list[SampleLine] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """The sample names that belong to it."""
        return tuple(self.name + suffix for suffix in _SUFFIXES[self.kind])


def parse_openmetrics(text: str, file: str = "") -> list[Family]:
    """The families of an exposition, in order.

    Raises: ExpositionError with the place of the first fault.
    """
    parser = _Parser()
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    number = 0
    try:
        for line in lines:
            number += 1
            parser.line(line)
        parser.end()
    except ValueError as error:
        raise ExpositionError(Problem(str(error), file, number, 1)) from None
    return parser.families


class _Parser:
    """State between lines."""

    def __init__(self) -> None:
        self.families: list[Family] = []
        self._family: Family | None = None
        self._said: set[str] = set()
        self._taken: set[str] = set()
        self._check: _Grouping | None = None
        self._ended = False

    def line(self, line: str) -> None:
        if self._ended:
            raise ValueError("nothing may stand after # EOF")
        if line == "# EOF":
            self._ended = True
        elif line.startswith("#"):
            self._metadata(line)
        elif not line:
            raise ValueError("a blank line is not allowed")
        else:
            self._sample(read_line(line))

    def end(self) -> None:
        self._close()
        if not self._ended:
            raise ValueError("the last line must be # EOF")

    def _metadata(self, line: str) -> None:
        parts = line.split(" ", 3)
        if len(parts) < 4 or parts[0] != "#" or parts[1] not in ("TYPE", "HELP", "UNIT"):
            raise ValueError("expected # TYPE, # HELP or # UNIT, a name and a text, or # EOF")
        _, what, name, text = parts
        name = name[1:-1] if name.startswith('"') else name
        if not name:
            raise ValueError(f"# {what} needs a metric name")
        family = self._family
        if family is None or family.name != name:
            self._close()
            family = self._family = Family(name)
            self._said = set()
        elif family.samples:
            raise ValueError(f"# {what} of {name} must stand before its samples")
        if what in self._said:
            raise ValueError(f"# {what} of {name} is repeated")
        self._said.add(what)
        if what == "TYPE":
            if text not in _SUFFIXES:
                raise ValueError(f'"{text}" is not a type (allowed: {_KINDS})')
            family.kind = text
        elif what == "HELP":
            family.help = text.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
        else:
            family.unit = text

    def _sample(self, sample: SampleLine) -> None:
        family = self._family
        if family is None or sample.name not in family.names:
            self._close()
            family = self._family = Family(sample.name)
            self._said = set()
        if self._check is None:
            self._check = _Grouping(family)
        self._check.sample(sample)
        family.samples.append(sample)

    def _close(self) -> None:
        family, self._family = self._family, None
        if family is None:
            return
        if family.unit and not family.name.endswith(f"_{family.unit}"):
            raise ValueError(f"the name {family.name} must end with its unit, _{family.unit}")
        if family.unit and family.kind in ("info", "stateset"):
            raise ValueError(f"a {family.kind} has no unit")
        names = {family.name, *family.names}
        if names & self._taken:
            raise ValueError(f"the name {min(names & self._taken)} belongs to another family already")
        self._taken |= names
        if self._check is not None:
            self._check.end()
            self._check = None
        self.families.append(family)


class _Grouping:
    """Checks the samples of one family: values, labels, that metrics do not interleave, that time ascends."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._inner = family.name if family.kind == "stateset" else _INNER.get(family.kind, "")
        self._seen: set[tuple[tuple[str, str], ...]] = set()
        self._metric: tuple[tuple[str, str], ...] | None = None
        self._ts_s: float | None = None
        self._point: _Point = _Point(family)
        self._keys: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    def sample(self, sample: SampleLine) -> None:
        suffix = sample.name[len(self._family.name) :]
        self._value(sample, suffix)
        metric = tuple(sorted(pair for pair in sample.labels if pair[0] != self._inner))
        if metric != self._metric:
            self._next_point()
            if metric in self._seen:
                raise ValueError("samples of one metric must stand together")
            self._seen.add(metric)
            self._metric = metric
        elif (sample.ts_s is None) != (self._ts_s is None):
            raise ValueError("a metric has a timestamp on all of its samples or on none")
        elif sample.ts_s is not None and self._ts_s is not None and sample.ts_s != self._ts_s:
            if sample.ts_s < self._ts_s:
                raise ValueError("timestamps of a metric must ascend")
            self._next_point()
        self._ts_s = sample.ts_s
        key = (suffix, tuple(sorted(sample.labels)))
        if key in self._keys and sample.ts_s is None:
            raise ValueError("a sample is repeated")
        self._keys.add(key)
        self._point.sample(sample, suffix)

    def end(self) -> None:
        self._next_point()

    def _next_point(self) -> None:
        self._point.end()
        self._point = _Point(self._family)
        self._keys = set()

    def _value(self, sample: SampleLine, suffix: str) -> None:
        kind = self._family.kind
        if suffix in _NEVER_NEGATIVE.get(kind, ()) and not sample.value >= 0:
            raise ValueError(f"{sample.name} of a {kind} must not be negative or NaN")
        if suffix == "_gsum" and math.isnan(sample.value):
            raise ValueError(f"{sample.name} must not be NaN")
        if kind == "info" and sample.value != 1:
            raise ValueError("the value of an info is 1")
        if kind == "stateset":
            if sample.value not in (0, 1):
                raise ValueError("the value of a state is 0 or 1")
            if not any(name == self._family.name for name, _ in sample.labels):
                raise ValueError(f"a stateset needs the label {self._family.name}")
        if kind == "summary" and not suffix:
            quantile = _number_label(sample, "quantile")
            if not 0 <= quantile <= 1:
                raise ValueError("quantile must be between 0 and 1")
        if sample.exemplar is not None and (kind, suffix) not in _EXEMPLARS:
            raise ValueError(f"{sample.name} of a {kind} has no exemplars")


class _Point:
    """One point of a histogram: its buckets, count and sum at one time."""

    def __init__(self, family: Family) -> None:
        self._gauge = family.kind == "gaugehistogram"
        self._active = self._gauge or family.kind == "histogram"
        self._le: float | None = None
        self._value = 0.0
        self._negative = False
        self._count: float | None = None
        self._sum: float | None = None
        self._any = False

    def sample(self, sample: SampleLine, suffix: str) -> None:
        if not self._active:
            return
        if suffix == "_bucket":
            le = _number_label(sample, "le")
            if self._le is not None and le <= self._le:
                raise ValueError("buckets must ascend by le")
            if self._le is not None and sample.value < self._value:
                raise ValueError("buckets must not fall: they are cumulative")
            self._le, self._value = le, sample.value
            self._negative |= le < 0
        elif suffix in ("_count", "_gcount"):
            self._count = sample.value
        elif suffix in ("_sum", "_gsum"):
            self._sum = sample.value
        self._any |= suffix != "_created"

    def end(self) -> None:
        if not self._active or not self._any:
            return
        if self._le != math.inf:
            raise ValueError('a histogram needs a bucket le="+Inf"')
        if self._count is not None and self._count != self._value:
            raise ValueError("the count of a histogram equals its +Inf bucket")
        if self._negative and self._sum is not None and not self._gauge:
            raise ValueError("a histogram with negative buckets has no sum")
        if (self._sum is None) != (self._count is None):
            raise ValueError("a histogram has both a sum and a count, or neither")
        if self._gauge and self._sum is not None and self._sum < 0 and not self._negative:
            raise ValueError("a negative sum needs negative buckets")


def _number_label(sample: SampleLine, name: str) -> float:
    text = next((value for label, value in sample.labels if label == name), None)
    if text is None:
        raise ValueError(f"{sample.name} needs the label {name}")
    if text.lstrip("+-").lower() in ("inf", "infinity", "nan") and text not in ("+Inf", "-Inf"):
        raise ValueError(f'{name}="{text}" is not a number as OpenMetrics writes it')
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{name}="{text}" is not a number') from None


def samples_of(families: list[Family]) -> Iterator[SampleLine]:
    """All samples, in order."""
    for family in families:
        yield from family.samples
