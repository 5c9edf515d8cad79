"""The instruments of the Monitor."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from exporter.instruments import ApiMetrics
from exporter.observe.outcome import SUCCESS, outcome_of

# 1 ms to 30 s: the target for a query is 100 ms
QUERY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


__all__ = ["ApiMetrics", "QueryMetrics", "expired_counter"]


class QueryMetrics:
    """Database queries: how long they took and how they ended, by operation and table."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "quantum_db_query_duration_seconds",
            "Time of one database query.",
            ("operation", "table", "outcome"),
            buckets=QUERY_BUCKETS,
            registry=registry,
        )

    def record(self, operation: str, table: str, seconds: float, error: BaseException | None = None) -> None:
        """One query that was timed elsewhere: measured, without an event."""
        outcome = SUCCESS if error is None else outcome_of(error)
        self.duration.labels(operation, table, outcome).observe(seconds)


def expired_counter(registry: CollectorRegistry) -> Counter:
    """Counts the label sets that were dropped because nobody used them."""
    return Counter(
        "quantum_label_sets_expired_total",
        "Label sets dropped because nobody used them for long.",
        registry=registry,
    )
