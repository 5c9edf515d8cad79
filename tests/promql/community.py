"""Made-up series that the selectors of real rules find, so that the rules have something to say."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    Paren,
    Subquery,
    Unary,
    VectorSelector,
)
from tests.promql.differential import START_MS, Series

MINUTES = 45
SCRAPE_MS = 30_000
VARIANTS = 3
BOUNDS = ("0.1", "1", "10", "+Inf")
_ALTERNATIVE = re.compile(r"[\w\- /.:]+")


def parts(expr: Expr) -> Iterator[Expr]:
    """A tree's nodes, the root first."""
    yield expr
    children: tuple[Expr | None, ...] = ()
    match expr:
        case Paren() | Unary() | Subquery():
            children = (expr.expr,)
        case MatrixSelector():
            children = (expr.selector,)
        case Binary():
            children = (expr.lhs, expr.rhs)
        case Aggregate():
            children = (expr.expr, expr.param)
        case Call():
            children = expr.args
    for child in children:
        if child is not None:
            yield from parts(child)


def label_names(expr: Expr) -> set[str]:
    """The labels that a query groups or matches by."""
    names: set[str] = set()
    for node in parts(expr):
        if isinstance(node, Aggregate):
            names.update(node.grouping)
        elif isinstance(node, Binary) and node.matching is not None:
            names.update(node.matching.labels, node.matching.include)
    return names - {METRIC_NAME, "le"}


def make_series(expressions: Iterable[Expr], seed: int) -> Series:
    """A few series for each selector, with samples between 100 and 400 ms after a whole second."""
    rng = random.Random(seed)
    out: Series = {}
    for expr in expressions:
        names = sorted(label_names(expr) | {"instance", "job"})
        for node in parts(expr):
            if isinstance(node, VectorSelector):
                for variant in range(VARIANTS):
                    _add(rng, out, node.matchers, names, variant)
    return out


def _add(
    rng: random.Random, out: Series, matchers: tuple[Matcher, ...], names: list[str], variant: int
) -> None:
    labels = {name: f"{name}-{variant}" for name in names}
    for matcher in matchers:
        value = _value(rng, matcher)
        if value is None:
            return
        labels[matcher.name] = value
    if METRIC_NAME not in labels:
        return
    if not all(matcher.matches(labels.get(matcher.name, "")) for matcher in matchers):
        return
    if labels[METRIC_NAME].endswith("_bucket") and "le" not in labels:
        total = 0.0
        for bound in BOUNDS:
            total += rng.choice((1.0, 3.0))
            out.setdefault(LabelSet.of({**labels, "le": bound}), _points(rng, total, steady=True))
        return
    out.setdefault(LabelSet.of(labels), _points(rng, rng.choice((0.0, 0.5, 3.0, 20.0)), steady=False))


def _value(rng: random.Random, matcher: Matcher) -> str | None:
    """A value that the matcher accepts, if one is easily found."""
    if matcher.op is MatchOp.EQUAL:
        return matcher.value
    candidates = ["other", "a-1", "1", ""]
    if matcher.op is MatchOp.REGEX:
        candidates = [*_ALTERNATIVE.findall(matcher.value.replace("\\", "")), *candidates]
        rng.shuffle(candidates)
    return next((value for value in candidates if matcher.matches(value)), None)


def _points(rng: random.Random, slope: float, *, steady: bool) -> list[tuple[int, float]]:
    """Growing values far above zero, or a level (slope 0) of 0, 1 or more."""
    phase = rng.randrange(SCRAPE_MS // 1000) * 1000
    value = 100_000.0 if slope else rng.choice((0.0, 1.0, 1.0, 3.0))
    points = []
    for tick in range(MINUTES * 60_000 // SCRAPE_MS):
        at = START_MS + phase + tick * SCRAPE_MS + rng.randint(100, 400)
        value += slope if steady else slope * rng.choice((0, 1, 2))
        points.append((at, value))
    return points
