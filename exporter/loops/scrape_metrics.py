"""Metrics of the scraping of other exporters."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES = ("success", "timeout", "network", "http", "content", "body_size", "parse", "limit")


class ScrapeMetrics:
    """By job; the label sets of a job are born at zero when it is loaded and go with it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.scrapes = Counter(
            "quantum_scrapes_total", "Scrapes of targets, by outcome.", ["job", "outcome"], registry=registry
        )
        self.duration = Histogram(
            "quantum_scrape_duration_seconds",
            "Time of a scrape, from the request until its samples are in the head.",
            ["job"],
            registry=registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.missed = Counter(
            "quantum_scrapes_missed_total",
            "Slots in which a target should have been scraped and was not.",
            ["job"],
            registry=registry,
        )
        self.samples = Counter(
            "quantum_scraped_samples_total", "Samples that targets sent.", ["job"], registry=registry
        )
        self.targets = Gauge(
            "quantum_scrape_targets", "Targets that are scraped.", ["job"], registry=registry
        )
        self.file_errors = Counter(
            "quantum_scrape_file_errors_total",
            "Readings of file_sd_configs files that failed; what was read before stays.",
            ["job"],
            registry=registry,
        )

    def add_job(self, job: str) -> None:
        """Give a job its label sets."""
        for outcome in OUTCOMES:
            self.scrapes.labels(job, outcome)
        for metric in (self.duration, self.missed, self.samples, self.targets, self.file_errors):
            metric.labels(job)

    def forget_job(self, job: str) -> None:
        """Remove the label sets of a job that is no longer configured."""
        for outcome in OUTCOMES:
            self.scrapes.remove(job, outcome)
        for metric in (self.duration, self.missed, self.samples, self.targets, self.file_errors):
            metric.remove(job)
