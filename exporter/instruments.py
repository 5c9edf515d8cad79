"""The instruments of API calls, shared by client and Monitor: one name, one help, one set of buckets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

# 5 ms to 30 s: the target for a call is 500 ms, an alert looks at 10 s
API_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)


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
            "Upstream API calls by outcome (success or the kind of error), retries among them.",
            labels,
            registry=registry,
        )
