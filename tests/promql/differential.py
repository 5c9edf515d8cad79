"""Seeded data and random queries that our engine and another Prometheus can both be asked."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.model.labels import LabelSet
from exporter.storage import MemoryStorage

START_MS = 1_700_000_000_000
MINUTES = 90
SCRAPE_MS = 15_000

Series = dict[LabelSet, list[tuple[int, float]]]


def make_data(seed: int) -> Series:
    """Counters with resets and gaps, gauges, a histogram and information series.

    Samples lie between 100 and 400 ms after a whole second, so that no query at .777 meets one at an edge.
    """
    rng = random.Random(seed)
    out: Series = {}
    for job in ("api", "db", "web"):
        for instance in ("a", "b", "c"):
            base = {"job": job, "instance": instance}
            out[_labels("requests_total", **base)] = _counter(rng)
            out[_labels("queue_length", **base)] = _gauge(rng, whole=True)
            out[_labels("temperature", **base, zone=rng.choice("xy"))] = _gauge(rng, whole=False)
        out[_labels("build_info", job=job, version=f"v{rng.randrange(3)}")] = [
            (at, 1.0) for at in _times(rng, gaps=False)
        ]
        _histogram(rng, out, job)
    return out


def _labels(name: str, **labels: str) -> LabelSet:
    return LabelSet.of({"__name__": name, **labels})


def _times(rng: random.Random, *, gaps: bool) -> list[int]:
    phase = rng.randrange(SCRAPE_MS // 1000) * 1000
    times = []
    at = START_MS + phase
    while at < START_MS + MINUTES * 60_000:
        times.append(at + rng.randint(100, 400))
        at += SCRAPE_MS
        if gaps and rng.random() < 0.01:
            at += SCRAPE_MS * rng.choice((1, 2, 8, 30))
    return times


def _counter(rng: random.Random) -> list[tuple[int, float]]:
    """Far above zero throughout, resets too: 2.42 and 3 extrapolate towards zero differently."""
    points = []
    value = float(rng.randint(100_000, 200_000))
    for at in _times(rng, gaps=True):
        value += rng.randint(0, 40)
        if rng.random() < 0.01:
            value = float(rng.randint(50_000, 90_000))
        points.append((at, value))
    return points


def _gauge(rng: random.Random, *, whole: bool) -> list[tuple[int, float]]:
    points = []
    value = float(rng.randint(10, 50))
    for at in _times(rng, gaps=True):
        value += rng.randint(-3, 3) if whole else rng.uniform(-2, 2)
        points.append((at, value))
    return points


def _histogram(rng: random.Random, out: Series, job: str) -> None:
    bounds = ("0.1", "0.5", "1", "5", "+Inf")
    totals = [100_000.0] * len(bounds)
    columns: list[list[tuple[int, float]]] = [[] for _ in bounds]
    for at in _times(rng, gaps=False):
        steps = [rng.randint(0, 5) for _ in bounds]
        for number in range(len(bounds)):
            totals[number] += sum(steps[: number + 1])
            columns[number].append((at, totals[number]))
    for bound, column in zip(bounds, columns, strict=True):
        out[_labels("latency_bucket", job=job, le=bound)] = column


def exposition(data: Series) -> str:
    """The data as OpenMetrics text, metric by metric."""
    lines = []
    for name in sorted({labels.name for labels in data}):
        lines.append(f"# TYPE {name} unknown")
        for labels, points in data.items():
            if labels.name == name:
                pairs = ",".join(f'{key}="{value}"' for key, value in labels if key != "__name__")
                lines += [f"{name}{{{pairs}}} {value!r} {at / 1000:.3f}" for at, value in points]
    return "\n".join([*lines, "# EOF\n"])


def fill(data: Series) -> MemoryStorage:
    """The data in our storage."""
    storage = MemoryStorage()
    samples = [(at, labels, value) for labels, points in data.items() for at, value in points]
    for at, labels, value in sorted(samples, key=lambda sample: sample[0]):
        storage.append(labels, at, value)
    return storage


_OVER_TIME = (
    "rate",
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "sum_over_time",
    "avg_over_time",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "changes",
    "resets",
    "deriv",
    "quantile_over_time",
    "predict_linear",
)


_BOUNDED = ("acos", "asin", "atanh", "cosh", "sinh", "asinh", "exp")
_RARE = (
    *_BOUNDED,
    "sin",
    "cos",
    "tan",
    "atan",
    "deg",
    "rad",
    "log2",
    "log10",
    "days_in_month",
    "clamp",
    "sort_desc",
    "holt_winters",
    "absent_over_time",
)


@dataclass(frozen=True)
class Ask:
    """One query; an instant one where `step_ms` is 0."""

    text: str
    start_ms: int
    end_ms: int
    step_ms: int


class QueryMaker:
    """Random well-typed queries, from a seed, that Prometheus 2.42 understands as Prometheus 3 does.

    `wide` adds what the plain evaluator does not know.
    """

    def __init__(self, seed: int, *, wide: bool = False) -> None:
        self._rng = random.Random(seed)
        self._wide = wide

    def ask(self) -> Ask:
        """A query and its times; one in three is a range query."""
        rng = self._rng
        text = self.vector(3)
        start = START_MS + rng.randrange(10 * 60, MINUTES * 60) * 1000 + 777
        if rng.random() < 0.67:
            return Ask(text, start, start, 0)
        step = rng.choice((7, 15, 60, 301)) * 1000
        return Ask(text, start, start + step * rng.randrange(1, 25), step)

    def vector(self, depth: int) -> str:
        """An instant vector."""
        rng = self._rng
        if depth == 0 or rng.random() < 0.15:
            return self._selector() + self._modifiers()
        makers: list[Callable[[int], str]] = [
            self._aggregation,
            self._aggregation,
            self._over_time,
            self._over_time,
            self._over_time,
            self._elementwise,
            self._with_scalar,
            self._with_vector,
            self._with_vector,
            self._set,
            self._labelled,
            self._quantile,
            lambda inner: f"({self.vector(inner)})",
            lambda inner: f"-{self._over_time(inner)}",
        ]
        if self._wide:
            makers += [self._rare, self._dated, self._ranked]
        return rng.choice(makers)(depth - 1)

    def _selector(self) -> str:
        rng = self._rng
        name = rng.choice(("requests_total", "queue_length", "temperature", "build_info", "latency_bucket"))
        matchers = []
        if rng.random() < 0.4:
            matchers.append(rng.choice(('job="api"', 'job!="db"', 'job=~"a.*|w.+"', 'job!~"web"')))
        if rng.random() < 0.2:
            matchers.append(rng.choice(('instance=~"[ab]"', 'instance=""', 'zone="x"', 'nothing=~".*"')))
        return name + (f"{{{','.join(matchers)}}}" if matchers else "")

    def _modifiers(self) -> str:
        rng = self._rng
        text = ""
        if rng.random() < 0.12:
            at = (START_MS // 1000 + rng.randrange(600, MINUTES * 60)) + 0.777
            text += rng.choice((f" @ {at:.3f}", " @ start()", " @ end()"))
        if rng.random() < 0.15:
            text += f" offset {rng.choice(('30s', '1m', '-2m', '17m', '1h'))}"
        return text

    def _range(self, depth: int) -> str:
        rng = self._rng
        length = rng.choice(("20s", "1m", "5m", "7m", "30m", "1h"))
        if depth > 0 and rng.random() < 0.2:
            step = rng.choice(("", "20s", "1m", "90s"))
            return f"({self.vector(depth - 1)})[{length}:{step}]{self._modifiers()}"
        return f"{self._selector()}[{length}]{self._modifiers()}"

    def _counter_range(self) -> str:
        """Samples far above zero: 2.42 extrapolates others differently."""
        rng = self._rng
        length = rng.choice(("20s", "1m", "5m", "30m", "1h"))
        if rng.random() < 0.1:
            return f"(sum by (job) (latency_bucket{self._modifiers()}))[{length}:1m]"
        return f'{rng.choice(("requests_total", "latency_bucket"))}{{job!="db"}}[{length}]{self._modifiers()}'

    def _over_time(self, depth: int) -> str:
        rng = self._rng
        name = rng.choice(_OVER_TIME)
        window = self._counter_range() if name in ("rate", "increase") else self._range(depth)
        if name == "quantile_over_time":
            return f"{name}({rng.choice(('0', '0.5', '0.9', '1', '-1'))}, {window})"
        if name == "predict_linear":
            return f"{name}({window}, {rng.choice(('0', '600', '-60'))})"
        return f"{name}({window})"

    def _grouping(self) -> str:
        rng = self._rng
        labels = rng.sample(("job", "instance", "zone", "le", "version"), rng.randrange(0, 3))
        return rng.choice(("", f"by ({', '.join(labels)})", f"without ({', '.join(labels)})"))

    def _aggregation(self, depth: int) -> str:
        rng = self._rng
        inner = self.vector(depth)
        name = rng.choice(("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile"))
        if name == "quantile":
            inner = f"{rng.choice(('0.25', '0.5', '2'))}, {inner}"
        return f"{name} {self._grouping()} ({inner})"

    def _elementwise(self, depth: int) -> str:
        rng = self._rng
        inner = self.vector(depth)
        name = rng.choice(
            ("abs", "ceil", "floor", "exp", "ln", "sqrt", "sgn", "round", "clamp_min", "clamp_max")
        )
        if name == "exp":
            inner = f"({inner}) / 100000"
        if name in ("ceil", "floor", "round"):
            inner = f"({inner}) + 0.123"
        return f"{name}({inner}{', 20.5' if name.startswith('clamp') else ''})"

    def _scalar(self) -> str:
        rng = self._rng
        return rng.choice(("2", "0.37", "-1.5", "time() / 1e9", "scalar(sum(build_info))", "0", "1e3"))

    def _with_scalar(self, depth: int) -> str:
        rng = self._rng
        inner, number = self.vector(depth), self._scalar()
        operator = rng.choice(("+", "-", "*", "/", "^", "%", "> bool", "<", "<=", "!="))
        if operator == "^":
            return f"({inner}) ^ {rng.choice(('2', '0.5', '-1', '0'))}"
        if operator == "%":
            return f"floor(({inner}) + 0.123) % {rng.choice(('7', '-7', '2.5'))}"
        if operator in ("> bool", "<", "<=", "!="):
            number = rng.choice(("30.0373", "100000.37", "0.51737", "-3.1717"))
        return f"({inner}) {operator} {number}" if rng.random() < 0.7 else f"{number} {operator} ({inner})"

    def _with_vector(self, depth: int) -> str:
        rng = self._rng
        operator = rng.choice(("+", "-", "*", "/", "> bool", "=="))
        if rng.random() < 0.4:
            left = f"sum by (job) ({self.vector(depth)})"
            right = f"avg by (job) ({self.vector(depth)})"
            return f"{left} {operator} {right}"
        matching = rng.choice(
            (
                "",
                "on (job, instance)",
                "ignoring (zone)",
                "on (job) group_left ()",
                "on (job) group_left (version)",
                "on (job) group_right ()",
            )
        )
        many, one = self.vector(depth), f"max by (job, version) ({self._selector()})"
        if "right" in matching:
            many, one = one, many
        return f"({many}) {operator} {matching} ({one})"

    def _set(self, depth: int) -> str:
        rng = self._rng
        matching = rng.choice(("", "on (job)", "ignoring (instance, zone)", "on ()"))
        operator = rng.choice(("and", "or", "unless"))
        return f"({self.vector(depth)}) {operator} {matching} ({self.vector(depth)})"

    def _labelled(self, depth: int) -> str:
        inner = self.vector(depth)
        return self._rng.choice(
            (
                f'label_replace({inner}, "copy", "$1-x", "job", "(.).*")',
                f'label_replace({inner}, "instance", "", "instance", "a")',
                f'label_join({inner}, "place", "/", "job", "instance")',
                f"absent({inner})",
                f"sort({inner})",
                f"timestamp({inner})",
                f"vector(scalar({inner}))",
                f'count_values("value", floor(({inner}) + 0.123))',
            )
        )

    def _rare(self, depth: int) -> str:
        rng = self._rng
        name = rng.choice(_RARE)
        if name in ("holt_winters", "absent_over_time"):
            window = f"{self._selector()}[{rng.choice(('5m', '30m'))}]{self._modifiers()}"
            return f"{name}({window}{', 0.3, 0.6' if name == 'holt_winters' else ''})"
        inner = f"({self.vector(depth)}) / 1e6" if name in _BOUNDED else self.vector(depth)
        return f"{name}({inner}{', 5.5, 40.25' if name == 'clamp' else ''})"

    def _dated(self, depth: int) -> str:
        rng = self._rng
        name = rng.choice(("year", "month", "day_of_month", "day_of_week", "day_of_year", "hour", "minute"))
        return rng.choice((f"{name}()", f"{name}(floor(({self.vector(depth)}) + 0.123) * 86413 + 0.5)"))

    def _ranked(self, _depth: int) -> str:
        """topk and bottomk of values that all differ."""
        rng = self._rng
        name, count = rng.choice(("topk", "bottomk")), rng.choice(("0", "1", "3", "100", "-1", "2.9"))
        return f"{name} {self._grouping()} ({count}, temperature{self._modifiers()})"

    def _quantile(self, _depth: int) -> str:
        rng = self._rng
        window = rng.choice(("2m", "10m", "1h"))
        grouped = f"sum by ({rng.choice(('le', 'le, job'))}) (rate(latency_bucket[{window}]))"
        return f"histogram_quantile({rng.choice(('0', '0.5', '0.95', '1', '1.5'))}, {grouped})"


def points_of(data: Mapping[str, Any]) -> dict[tuple[tuple[str, str], ...], dict[float, float]]:
    """The `data` field of the HTTP API as label pairs -> time -> value."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return {(): {float(result[0]): float(result[1])}}
    out: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    for series in result:
        key = tuple(sorted(series["metric"].items()))
        values = series["values"] if kind == "matrix" else [series["value"]]
        assert key not in out, f"the series {key} stands twice"
        out[key] = {float(at): float(value) for at, value in values}
    return out


def close(a: float, b: float) -> bool:
    """Equal up to the noise of summing in another order."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or math.isclose(a, b, rel_tol=1e-7, abs_tol=1e-7)


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What differs between two `data` fields; empty where they agree."""
    if ours["resultType"] != theirs["resultType"]:
        return f"type {ours['resultType']} instead of {theirs['resultType']}"
    a, b = points_of(ours), points_of(theirs)
    if a.keys() != b.keys():
        extra, missing = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
        return f"series: only ours {extra[:3]}, only theirs {missing[:3]}"
    for key, points in a.items():
        own, other = points, b[key]
        if own.keys() != other.keys():
            return f"{key}: other times: {sorted(own.keys() ^ other.keys())[:5]}"
        for at, value in own.items():
            if not close(value, other[at]):
                return f"{key} at {at}: {value!r} instead of {other[at]!r}"
    return ""
