"""Metrics of the exposition itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class ExpositionMetrics:
    """How often /metrics is asked for, how long a rendering takes, and how large it is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "quantum_exposition_requests_total",
            "Requests for /metrics; those that come while an equal one is answered share its rendering.",
            registry=registry,
        )
        self.duration = Histogram(
            "quantum_exposition_duration_seconds",
            "Time to render /metrics, compression aside.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=registry,
        )
        self.samples = Gauge(
            "quantum_exposition_samples",
            "Samples of the last whole rendering of /metrics.",
            registry=registry,
        )
