"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS

# name: length, length of one step of the plots
LENGTHS: Final = {
    "day": (_DAY_MS, _HOUR_MS),
    "week": (7 * _DAY_MS, 6 * _HOUR_MS),
    "month": (30 * _DAY_MS, _DAY_MS),
}


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time, Unix milliseconds; `step_ms` divides it for plots."""

    name: str
    start_ms: int
    end_ms: int
    step_ms: int

    @staticmethod
    def ending(name: str, end_ms: int) -> Period:
        """The day, week (7 days) or month (30 days) that ends then."""
        length_ms, step_ms = LENGTHS[name]
        return Period(name, end_ms - length_ms, end_ms, step_ms)

    @property
    def before(self) -> Period:
        """The period of the same length that ends where this one begins."""
        return Period(self.name, 2 * self.start_ms - self.end_ms, self.start_ms, self.step_ms)


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode of an alert instance; `end_ms` None: it still fires."""

    alert: str
    severity: str
    instance: str
    start_ms: int
    end_ms: int | None
    sent: int
    held_back: int
    by_hand: bool


@dataclass(frozen=True, slots=True)
class Calls:
    """The measured calls of one provider: how many, and their times."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


Points = Mapping[str, tuple[tuple[int, float], ...]]
"""Series by name: (Unix milliseconds at the end of a step, value)."""


@dataclass(frozen=True, slots=True)
class AlertFigures:
    """What one alert did in a period; durations in seconds, inside the period."""

    name: str
    severity: str
    episodes: int
    instances: int
    flapping: int  # episodes of instances that fired more than once
    firing_s: float
    longest_s: float
    sent: int
    held_back: int
    by_hand: int
    open: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Figures of one period; what is not in a mapping, or None, is not known. Ratios are 0 to 1."""

    coverage: float | None = None
    database_up: float | None = None
    provider_up: Mapping[str, float] = field(default_factory=dict)
    calls: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    times: Mapping[str, Calls] = field(default_factory=dict)
    limit_use: Mapping[str, float] = field(default_factory=dict)
    cache_hits: float | None = None
    data_quality: float | None = None
    accuracy: float | None = None
    alerts: tuple[AlertFigures, ...] = ()

    def success(self, provider: str) -> float | None:
        """The share of a provider's calls that succeeded; None where there was no call."""
        calls = self.calls.get(provider, 0.0)
        return 1 - min(1.0, self.errors.get(provider, 0.0) / calls) if calls >= 0.5 else None

    def budget_used(self, provider: str, objective: float) -> float | None:
        """Errors over those that an objective allows: 1 is all of the budget."""
        success = self.success(provider)
        return None if success is None else (1 - success) / (1 - objective)


@dataclass(frozen=True, slots=True)
class Report:
    """A period, the one before it, and the plots of the period by title of their section."""

    period: Period
    objective: float
    now: Facts
    before: Facts
    plots: Mapping[str, Points]

    def to_json(self) -> dict[str, Any]:
        """As a program reads it."""
        return {
            "period": asdict(self.period),
            "objective": self.objective,
            "now": asdict(self.now),
            "before": asdict(self.before),
            "plots": {
                title: {name: [list(point) for point in points] for name, points in series.items()}
                for title, series in self.plots.items()
            },
        }
