"""What the database package tells about itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DROP_REASONS = ("spool_full", "spool_corrupt", "memory_full", "rejected", "unstorable", "closed", "disk")


class WriteMetrics:
    """Counters of one way into the database: `what` is samples or events.

    For samples: quantum_samples_{persisted,spooled,dropped}_total, quantum_spool_{bytes,batches},
    quantum_writer_{lag,write}_seconds and quantum_persistence_last_progress_timestamp_seconds; for events
    quantum_events_{persisted,spooled,dropped}_total, quantum_events_spool_{bytes,batches} and so on.
    """

    def __init__(self, registry: CollectorRegistry, what: str = "samples") -> None:
        spool = "quantum_spool" if what == "samples" else f"quantum_{what}_spool"
        writer = "quantum_writer" if what == "samples" else f"quantum_{what}_writer"
        self.persisted = Counter(
            f"quantum_{what}_persisted_total", f"{what.capitalize()} written to Postgres.", registry=registry
        )
        self.spooled = Counter(
            f"quantum_{what}_spooled_total", f"{what.capitalize()} kept on disk for later.", registry=registry
        )
        self.dropped = Counter(
            f"quantum_{what}_dropped_total", f"{what.capitalize()} given up.", ["reason"], registry=registry
        )
        for reason in DROP_REASONS:
            self.dropped.labels(reason)
        self.spool_bytes = Gauge(f"{spool}_bytes", f"Size of the spool of {what}.", registry=registry)
        self.spool_batches = Gauge(f"{spool}_batches", f"Batches of {what} in the spool.", registry=registry)
        self.lag = Gauge(
            f"{writer}_lag_seconds", f"Age of the oldest {what} not yet in Postgres.", registry=registry
        )
        self.write_seconds = Histogram(
            f"{writer}_write_seconds",
            f"Time of one write of {what} to Postgres.",
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.last_progress: Gauge | None = None
        if what == "samples":
            self.last_progress = Gauge(
                "quantum_persistence_last_progress_timestamp_seconds",
                "When samples were last safe in Postgres or in the spool.",
                registry=registry,
            )


class RetentionMetrics:
    """What retention removed, and what it could not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.dropped_partitions = Counter(
            "quantum_retention_partitions_dropped_total",
            "Day partitions dropped because of their age.",
            ["table"],
            registry=registry,
        )
        self.failures = Counter(
            "quantum_retention_failures_total", "Retention runs that could not finish.", registry=registry
        )


class PackingMetrics:
    """How packing of finished days goes on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.samples = Counter(
            "quantum_packing_samples_total", "Samples packed into chunks.", registry=registry
        )
        self.steps = Counter("quantum_packing_steps_total", "Steps of packing done.", registry=registry)
        self.days = Counter(
            "quantum_packing_partitions_total", "Days whose rows gave way to chunks.", registry=registry
        )
        self.restarts = Counter(
            "quantum_packing_restarts_total",
            "Days begun again because samples came in while they were packed.",
            registry=registry,
        )
        self.failures = Counter(
            "quantum_packing_failures_total", "Packing runs that could not finish.", registry=registry
        )
        self.last_run = Gauge(
            "quantum_packing_last_run_timestamp_seconds",
            "When packing last found nothing left to pack.",
            registry=registry,
        )
