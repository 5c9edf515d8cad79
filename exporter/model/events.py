"""A measured event: one row of `performance_metrics`, and the port that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MetricEvent:
    """One API call, query, error or health reading.

    `metric_type` is api_response, db_query, error_rate or system_health; `unit` is ms, count, percentage
    or bytes; `context` must be JSON-able and never holds a key.
    """

    metric_type: str
    metric_name: str
    value: float
    unit: str
    ts_ms: int
    context: Mapping[str, object] = field(default_factory=dict)


class EventSink(Protocol):
    """Takes events; never blocks and never raises: what it cannot keep it counts."""

    def put(self, event: MetricEvent) -> None:
        """Hand over one event."""
