"""Advice on a threshold rule from history: what other thresholds, `for` and cooldowns would have sent.

Each variant is a rule of its own in one backtest, so that the live state machine judges all of them. PURE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exporter.errors import NotFoundError, QueryError
from exporter.model.durations import format_duration
from exporter.model.samples import Float64s
from exporter.promql.ast import Binary, Expr, NumberLiteral, Paren
from exporter.promql.parse import parse_expr
from exporter.promql.printer import to_text
from exporter.rules.backtest import AlertReplay, Replay, ReplayOptions, Watch, replay
from exporter.rules.backtest_history import StoredSamples
from exporter.rules.backtest_notify import notifications
from exporter.rules.backtest_parts import components, keep_rules
from exporter.rules.condition import COMPARISONS, condition_of, constant
from exporter.rules.model import AlertingRule, RuleGroup, digest
from exporter.rules.timeline import merged

FACTORS = (0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0)
DURATION_FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
_WEEK_MS = 604_800_000
_BARS = "▁▂▃▄▅▆▇█"
_CANDIDATES = 20
_SOME_FORS_MS = (0, 60_000, 300_000, 900_000)  # where the rule waits not at all
_SOME_COOLDOWNS_MS = (0, 300_000, 1_800_000, 3_600_000, 14_400_000)
_KEPT_VALUES = 4_000_000


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of the left side at every evaluation: how many, their quantiles, a sparkline of 40 bins.

    `low` and `high` are the ends of the sparkline.
    """

    count: int
    quantiles: tuple[tuple[float, float], ...]
    sparkline: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Variant:
    """A rule with one thing changed. `share` is the part of the time in which any instance fires."""

    label: str
    value: float
    episodes: int
    share: float
    pages: int
    per_week: float
    is_current: bool = False


@dataclass(frozen=True, slots=True)
class Advice:
    """A threshold that stays within the wanted pages per week; `reachable` is False where none of those
    tried does, and the one with the fewest is named."""

    threshold: float
    per_week: float
    reachable: bool


@dataclass(frozen=True, slots=True)
class Tuning:
    """Everything that is known about a rule's threshold over a time range."""

    alert: str
    measured: str
    op: str
    threshold: float
    distribution: Distribution
    thresholds: tuple[Variant, ...]
    fors: tuple[Variant, ...]
    cooldowns: tuple[Variant, ...]
    wanted: float
    advice: Advice | None


def find_rule(groups: Sequence[RuleGroup], name: str) -> AlertingRule:
    """The alerting rule of a name.

    Raises: NotFoundError where there is none, or more than one.
    """
    found = [
        rule
        for group in groups
        for rule in group.rules
        if isinstance(rule, AlertingRule) and rule.name == name
    ]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(f"line {rule.line}" for rule in found)
        raise NotFoundError(f"{len(found)} alerts are named {name} ({places}): give a file with one of them")
    names = sorted({rule.name for group in groups for rule in group.rules if isinstance(rule, AlertingRule)})
    raise NotFoundError(f"no alert is named {name} (there are: {', '.join(names)})")


def needed_rules(groups: Sequence[RuleGroup], rule: AlertingRule) -> tuple[RuleGroup, ...]:
    """The groups with the rule and those that it reads, directly or not."""
    keys = next(keys for keys in components(groups) if rule.key in keys)
    return keep_rules(groups, keys)


def threshold_of(rule: AlertingRule) -> tuple[str, str, float]:
    """Measured side as text, operator and threshold.

    Raises: QueryError where the expression is not a comparison with a number.
    """
    condition = condition_of(rule.expr)
    threshold = constant(condition.threshold) if condition is not None else None
    if condition is None or threshold is None or condition.op in ("==", "!="):
        raise QueryError(
            f"{rule.name} is not a threshold rule: its expression is no <, <=, > or >= between something "
            f"measured and a number: {rule.expr_text}"
        )
    return to_text(condition.measured), condition.op, threshold


def with_threshold(rule: AlertingRule, value: float) -> AlertingRule:
    """The rule with another threshold and a key of its own."""
    expr = parse_expr(to_text(_replaced(rule.expr, value)))
    text = to_text(expr)
    return replace(
        rule, expr=expr, expr_text=text, expr_digest=digest(text), key=f"{rule.key}|threshold {value!r}"
    )


def _replaced(expr: Expr, value: float) -> Expr:
    if isinstance(expr, Paren):
        return replace(expr, expr=_replaced(expr.expr, value))
    assert isinstance(expr, Binary)
    if expr.op not in COMPARISONS:
        return replace(expr, lhs=_replaced(expr.lhs, value))
    if constant(expr.lhs) is not None and constant(expr.rhs) is None:
        return replace(expr, lhs=_number(expr.lhs, value))
    return replace(expr, rhs=_number(expr.rhs, value))


def _number(old: Expr, value: float) -> Expr:
    literal = NumberLiteral(value, old.span)
    return literal if value >= 0 else Paren(literal, old.span)


def tune(
    groups: Sequence[RuleGroup],
    rule: AlertingRule,
    history: StoredSamples,
    start_ms: int,
    end_ms: int,
    options: ReplayOptions | None = None,
    *,
    wanted: float = 2.0,
    progress: Callable[[float, int], None] = lambda share, reached_ms: None,  # noqa: ARG005
) -> Tuning:
    """What other settings of a threshold rule would have sent. `wanted` is in pages per week.

    `groups` are those of `needed_rules`. `progress` gets the share of the work and the time reached.

    Raises: QueryError where the rule has no threshold.
    """
    measured, op, threshold = threshold_of(rule)
    higher_is_worse = op in (">", ">=")
    span = max(1, end_ms - start_ms)
    values = _Values()

    def replayed(variants: Sequence[AlertingRule], base: float, watch: Watch | None = None) -> Replay:
        return replay(
            _with_variants(groups, rule, variants),
            history,
            start_ms,
            end_ms,
            options,
            progress=lambda at_ms: progress(base + 0.5 * (at_ms - start_ms) / span, at_ms),
            watch=watch,
        )

    by_factor = {factor: with_threshold(rule, _rounded(threshold * factor)) for factor in FACTORS}
    by_factor[1.0] = rule
    by_for = {for_ms: replace(rule, for_ms=for_ms, key=f"{rule.key}|for {for_ms}") for for_ms in _fors(rule)}
    by_for[rule.for_ms] = rule
    variants = list({one.key: one for one in [*by_factor.values(), *by_for.values()]}.values())
    first = replayed(variants, 0.0, Watch(rule.key, measured, values.take))
    found = {alert.rule.key: alert for alert in first.alerts}
    current = found[rule.key]

    candidates = _candidates(values.array(), threshold, higher_is_worse)
    second = replayed([with_threshold(rule, value) for value in candidates], 0.5)
    tried = {alert.rule.key: alert for alert in second.alerts}
    grid = [
        (value, _per_week(tried[with_threshold(rule, value).key], start_ms, end_ms)) for value in candidates
    ]
    grid += [
        (
            _rounded(threshold * factor) if factor != 1 else threshold,
            _per_week(found[one.key], start_ms, end_ms),
        )
        for factor, one in by_factor.items()
    ]
    return Tuning(
        alert=rule.name,
        measured=measured,
        op=op,
        threshold=threshold,
        distribution=_distribution(values.array(), values.count),
        thresholds=tuple(
            _variant(f"{factor:g}x", _rounded(threshold * factor), found[one.key], start_ms, end_ms)
            for factor, one in by_factor.items()
        ),
        fors=tuple(
            _variant(format_duration(for_ms), for_ms / 1000, found[one.key], start_ms, end_ms)
            for for_ms, one in sorted(by_for.items())
        ),
        cooldowns=tuple(
            _variant(format_duration(cooldown_ms), cooldown_ms / 1000, current, start_ms, end_ms, cooldown_ms)
            for cooldown_ms in _cooldowns(rule)
        ),
        wanted=wanted,
        advice=_advise(grid, wanted, higher_is_worse),
    )


class _Values:
    """The values of the left side, thinned out evenly where they are very many."""

    def __init__(self) -> None:
        self._parts: list[Float64s] = []
        self._kept = 0
        self._every = 1
        self.count = 0

    def take(self, values: Float64s) -> None:
        finite = values[np.isfinite(values)]
        self.count += len(finite)
        self._parts.append(finite[:: self._every])
        self._kept += len(self._parts[-1])
        if self._kept > _KEPT_VALUES:
            self._parts = [np.concatenate(self._parts)[::2]]
            self._kept, self._every = len(self._parts[0]), 2 * self._every

    def array(self) -> Float64s:
        return np.concatenate(self._parts) if self._parts else np.zeros(0)


def _with_variants(
    groups: Sequence[RuleGroup], rule: AlertingRule, variants: Sequence[AlertingRule]
) -> tuple[RuleGroup, ...]:
    return tuple(
        replace(
            group,
            rules=tuple(
                one for other in group.rules for one in (variants if other.key == rule.key else (other,))
            ),
        )
        for group in groups
    )


def _variant(
    label: str,
    value: float,
    alert: AlertReplay,
    start_ms: int,
    end_ms: int,
    cooldown_ms: int | None = None,
) -> Variant:
    sent = [one for one in notifications(alert, end_ms, cooldown_ms) if one.is_firing]
    spans = merged([(one.start_ms, one.end_ms or end_ms) for one in alert.episodes])
    span = max(1, end_ms - start_ms)
    return Variant(
        label,
        value,
        len(alert.episodes),
        sum(end - start for start, end in spans) / span,
        len(sent),
        len(sent) * _WEEK_MS / span,
        is_current="|" not in alert.rule.key.rpartition("}")[2]
        and cooldown_ms in (None, alert.rule.cooldown_ms),
    )


def _per_week(alert: AlertReplay, start_ms: int, end_ms: int) -> float:
    return _variant("", 0.0, alert, start_ms, end_ms).per_week


def _fors(rule: AlertingRule) -> tuple[int, ...]:
    if not rule.for_ms:
        return _SOME_FORS_MS
    return tuple(sorted({round(rule.for_ms * factor / 1000) * 1000 for factor in DURATION_FACTORS}))


def _cooldowns(rule: AlertingRule) -> tuple[int, ...]:
    if not rule.cooldown_ms:
        return _SOME_COOLDOWNS_MS
    scaled = {round(rule.cooldown_ms * factor / 1000) * 1000 for factor in DURATION_FACTORS}
    return tuple(sorted(scaled | {0}))


def _rounded(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def _candidates(values: Float64s, threshold: float, higher_is_worse: bool) -> list[float]:
    """Thresholds worth trying: quantiles, denser towards the worse end, and just beyond all values."""
    if not len(values):
        return []
    tail = np.concatenate([[0.0], np.logspace(-0.3, -5, _CANDIDATES - 2)])
    distinct = np.unique(values)
    few = len(distinct) <= _CANDIDATES
    levels = distinct if few else np.quantile(values, 1 - tail if higher_is_worse else tail)
    found = {_rounded(float(level)) for level in levels}
    found.update(_beyond(float(values.max() if higher_is_worse else values.min()), higher_is_worse))
    return sorted(value for value in found if math.isfinite(value) and value != threshold)


def _beyond(extreme: float, higher_is_worse: bool) -> tuple[float, float]:
    """The two values of three digits that lie next to the worst one, at or beyond it."""
    step = 10.0 ** (math.floor(math.log10(abs(extreme))) - 2) if extreme else 0.01
    number = math.ceil(extreme / step) if higher_is_worse else math.floor(extreme / step)
    after = number + 1 if higher_is_worse else number - 1
    return _rounded(number * step), _rounded(after * step)


def _advise(grid: Sequence[tuple[float, float]], wanted: float, higher_is_worse: bool) -> Advice | None:
    """The most sensitive threshold that, with all those less sensitive, stays within what is wanted."""
    if not grid:
        return None
    best: tuple[float, float] | None = None
    for value, per_week in sorted(set(grid), reverse=higher_is_worse):
        if per_week > wanted:
            break
        best = (value, per_week)
    if best is not None:
        return Advice(*best, reachable=True)
    return Advice(*min(grid, key=lambda one: one[1]), reachable=False)


def _distribution(values: Float64s, count: int) -> Distribution:
    if not len(values):
        return Distribution(0, (), "", math.nan, math.nan)
    quantiles = tuple(
        (level, float(value)) for level, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    )
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, bins=40, range=(low, high if high > low else low + 1))
    top = math.sqrt(counts.max())
    line = "".join(
        " " if not one else _BARS[min(7, int(math.sqrt(one) / top * 8))] for one in counts.tolist()
    )
    return Distribution(count, quantiles, line, low, high)
