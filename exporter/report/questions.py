"""What a report asks of the samples, as PromQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.report.model import Period

COVERAGE_STEP_MS = 300_000
_FAILED = '{outcome!="success"}'


@dataclass(frozen=True, slots=True)
class Question:
    """A query over [start, end] with a step; `step_ms` 0 is one instant, the end."""

    expr: str
    start_ms: int
    end_ms: int
    step_ms: int = 0
    legend: tuple[str, ...] = ()  # labels that name a series, joined with " / "


def figures(period: Period) -> Mapping[str, Question]:
    """The figures of a whole period."""
    window = f"[{(period.end_ms - period.start_ms) // 1000}s]"
    calls = f"increase(quantum_api_requests_total{window})"
    failed = f"increase(quantum_api_requests_total{_FAILED}{window})"
    lookups = f"sum(increase(quantum_api_cache_requests_total{window}))"
    served = f'sum(increase(quantum_api_cache_requests_total{{result!="miss"}}{window}))'
    asked = {
        "database_up": (f"avg_over_time(quantum_database_up{window})", ()),
        "provider_up": (f"avg by (provider) (avg_over_time(quantum_provider_up{window}))", ("provider",)),
        "calls": (f"sum by (provider) ({calls})", ("provider",)),
        "errors": (f"sum by (provider) ({failed})", ("provider",)),
        "limit_use": (_limit_use(window), ("provider", "window")),
        "cache_hits": (f"{served} / {lookups}", ()),
        "data_quality": (f"avg_over_time(quantum_data_quality_ratio{window})", ()),
        "accuracy": (f"last_over_time(quantum_prediction_accuracy_ratio{window})", ()),
    }
    found = {
        name: Question(expr, period.end_ms, period.end_ms, 0, legend)
        for name, (expr, legend) in asked.items()
    }
    found["coverage"] = Question(
        "count(quantum_snapshot_last_timestamp_seconds)",
        period.start_ms + COVERAGE_STEP_MS,
        period.end_ms,
        COVERAGE_STEP_MS,
    )
    return found


def plots(period: Period) -> Mapping[str, Question]:
    """What is drawn over the steps of a period, by the title of its section."""
    window = f"[{period.step_ms // 1000}s]"
    asked = {
        "Availability": (f"avg by (provider) (avg_over_time(quantum_provider_up{window}))", ("provider",)),
        "Error budget": (
            f"sum by (outcome) (increase(quantum_api_requests_total{_FAILED}{window}))",
            ("outcome",),
        ),
        "Limits": (_limit_use(window), ("provider", "window")),
    }
    first = period.start_ms + period.step_ms
    return {
        title: Question(expr, first, period.end_ms, period.step_ms, legend)
        for title, (expr, legend) in asked.items()
    }


def _limit_use(window: str) -> str:
    # not of windows of a second: where one call a second is allowed, each call fills one
    used, limit = (
        f"max by (provider, window) (max_over_time(quantum_rate_limit_{name}{chosen}{window}))"
        for name, chosen in (("used", '{window!="second"}'), ("limit", ""))
    )
    return f"{used} / {limit}"
