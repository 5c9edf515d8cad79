"""The instruments of the Monitor."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

# 5 ms to 30 s: the targets are 100 ms for a query and 500 ms for an API call, an alert looks at 10 s
API_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
QUERY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ApiMetrics:
    """Upstream calls: how long they took and how they ended, by provider, endpoint and method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("provider", "endpoint", "method", "outcome")
        self.duration = Histogram(
            "quantum_api_request_duration_seconds",
            "Time of one upstream API call, cache hits not counted.",
            labels,
            buckets=API_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "quantum_api_requests_total",
            "Upstream API calls by outcome (success or the kind of error), cache hits not counted.",
            labels,
            registry=registry,
        )


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


def expired_counter(registry: CollectorRegistry) -> Counter:
    """Counts the label sets that were dropped because nobody used them."""
    return Counter(
        "quantum_label_sets_expired_total",
        "Label sets dropped because nobody used them for long.",
        registry=registry,
    )
