"""Metrics of the query API."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class QueryMetrics:
    """How the query API is used."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Histogram(
            "quantum_query_duration_seconds",
            "Time to evaluate a query of the HTTP API, waiting included.",
            ["kind"],
            registry=registry,
            buckets=(0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30),
        )
        self.failures = Counter(
            "quantum_query_failures_total",
            "Queries of the HTTP API that failed.",
            ["kind"],
            registry=registry,
        )
        self.running = Gauge(
            "quantum_queries_running", "Queries under evaluation or waiting for a place.", registry=registry
        )
        # Bound once: looking a label up takes a twentieth of a small query.
        self.kinds = {
            kind: (self.duration.labels(kind), self.failures.labels(kind))
            for kind in ("instant", "range", "labels")
        }
