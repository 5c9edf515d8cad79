"""Metrics of the pipeline itself: snapshots, the head, rule evaluation, faults."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class PipelineMetrics:
    """Born at zero where a label set is known; one instance per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.snapshot_last = Gauge(
            "quantum_snapshot_last_timestamp_seconds", "When the last snapshot was taken.", registry=registry
        )
        self.snapshot_duration = Histogram(
            "quantum_snapshot_duration_seconds",
            "Time to copy the registry into the head.",
            registry=registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1),
        )
        self.snapshots_missed = Counter(
            "quantum_snapshots_missed_total", "Snapshot slots that passed unused.", registry=registry
        )
        self.head_series = Gauge("quantum_head_series", "Series in the head.", registry=registry)
        self.head_samples = Gauge("quantum_head_samples", "Samples in the head.", registry=registry)
        self.rejected = Counter(
            "quantum_head_rejected_samples_total",
            "Samples that the head refused, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in ("out_of_order", "duplicate"):
            self.rejected.labels(reason)
        group = ["group"]
        self.evaluations = Counter(
            "quantum_rule_evaluations_total", "Evaluations of single rules.", group, registry=registry
        )
        self.failures = Counter(
            "quantum_rule_evaluation_failures_total",
            "Rule evaluations that failed.",
            group,
            registry=registry,
        )
        self.missed = Counter(
            "quantum_rule_group_iterations_missed_total",
            "Group slots that passed unused.",
            group,
            registry=registry,
        )
        self.last_evaluation = Gauge(
            "quantum_rule_group_last_evaluation_timestamp_seconds",
            "When the group was last evaluated.",
            group,
            registry=registry,
        )
        self.last_duration = Gauge(
            "quantum_rule_group_last_duration_seconds",
            "How long the group's last evaluation took.",
            group,
            registry=registry,
        )
        self.group_interval = Gauge(
            "quantum_rule_group_interval_seconds", "The group's interval.", group, registry=registry
        )
        self.group_rules = Gauge("quantum_rule_group_rules", "Rules in the group.", group, registry=registry)
        self.unmatched = Gauge(
            "quantum_rule_unmatched",
            "1 for each metric that a rule reads and of which no series has been seen since the start.",
            ["group", "rule", "metric"],
            registry=registry,
        )
        self.reload_successful = Gauge(
            "quantum_config_last_reload_successful",
            "Whether the last reload of the configuration succeeded.",
            registry=registry,
        )
        self.reload_time = Gauge(
            "quantum_config_last_reload_success_timestamp_seconds",
            "When the configuration was last loaded successfully.",
            registry=registry,
        )
        self.faults = Counter(
            "quantum_faults_total",
            "Faults of this program itself, by component.",
            ["component"],
            registry=registry,
        )

    def forget_group(self, name: str) -> None:
        """Remove the label sets of a group that is no longer loaded."""
        for metric in (
            self.evaluations,
            self.failures,
            self.missed,
            self.last_evaluation,
            self.last_duration,
            self.group_interval,
            self.group_rules,
        ):
            metric.remove(name)
