"""The collectors' own metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class CollectorMetrics:
    """How each collector does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duration = Gauge(
            "quantum_collector_duration_seconds",
            "Time of the collector's last run.",
            ["collector"],
            registry=registry,
        )
        self.success = Gauge(
            "quantum_collector_success",
            "Whether the collector's last run succeeded.",
            ["collector"],
            registry=registry,
        )
        self.last_success = Gauge(
            "quantum_collector_last_success_timestamp_seconds",
            "When the collector last succeeded.",
            ["collector"],
            registry=registry,
        )
        self.runs = Counter(
            "quantum_collector_runs_total",
            "Runs of the collector by outcome; skipped means that the run before had not ended.",
            ["collector", "outcome"],
            registry=registry,
        )
        self.refused = Counter(
            "quantum_collector_refused_values_total",
            "Values that could not become samples: text, NULL, repeated label sets.",
            ["collector"],
            registry=registry,
        )
