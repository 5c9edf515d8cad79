"""The notifier's own metrics; label sets are born at zero with each destination."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES = ("delivered", "failed", "dead")
QUIET_REASONS = ("acknowledged", "inhibited", "resolved", "silenced")  # first words of the book's reasons
SILENCE_STATES = ("active", "expired", "idle", "pending")


class NotifyMetrics:
    """Counters and gauges of the notifier, in a given registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._known: set[str] = set()
        self.notifications = Counter(
            "quantum_notifications",
            "Tries to deliver a notification, by outcome: delivered, failed (tried again), dead (given up).",
            ["receiver", "outcome"],
            registry=registry,
        )
        self.suppressed = Counter(
            "quantum_notifications_suppressed",
            "Firings held back by a cooldown.",
            ["receiver"],
            registry=registry,
        )
        self.flapping = Counter(
            "quantum_notifications_flapping",
            "Notices that an alert instance is flapping.",
            ["receiver"],
            registry=registry,
        )
        self.fallback = Counter(
            "quantum_notifications_fallback",
            "Notifications that the fallback receiver took in the place of this one.",
            ["receiver"],
            registry=registry,
        )
        self.receiver_up = Gauge(
            "quantum_notification_receiver_up",
            "0 while the last try to deliver failed in a way that may pass (no answer, HTTP 5xx, 429).",
            ["receiver"],
            registry=registry,
        )
        self.queue_length = Gauge(
            "quantum_notification_queue_length",
            "Notifications that wait for delivery.",
            ["receiver"],
            registry=registry,
        )
        self.duration = Histogram(
            "quantum_notification_duration_seconds",
            "Time of one try to deliver.",
            ["receiver"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30),
            registry=registry,
        )
        self.latency = Histogram(
            "quantum_notification_latency_seconds",
            "Time from the decision to send to the delivery.",
            ["receiver"],
            buckets=(0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 3600),
            registry=registry,
        )
        self.alerts = Gauge(
            "quantum_alerts",
            "Alert instances, by state.",
            ["alertname", "severity", "state"],
            registry=registry,
        )
        self.quiet = Gauge(
            "quantum_alerts_quiet",
            "Firing alert instances that are notified nowhere, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in QUIET_REASONS:
            self.quiet.labels(reason)
        self.silences = Gauge(
            "quantum_silences",
            "Silences, by state; idle: active ones that match nothing pending or firing.",
            ["state"],
            registry=registry,
        )
        for state in SILENCE_STATES:
            self.silences.labels(state)
        self.journaling = Gauge(
            "quantum_alert_store_journaling",
            "1 while alert state waits in the journal for the database.",
            registry=registry,
        )
        self.faults = Counter(
            "quantum_notifier_faults",
            "Unexpected errors inside the notifier.",
            registry=registry,
        )
        self.alertmanager_sent = Counter(
            "quantum_alertmanager_alerts_sent",
            "Alerts that an Alertmanager took.",
            ["alertmanager"],
            registry=registry,
        )
        self.alertmanager_errors = Counter(
            "quantum_alertmanager_errors",
            "Failed requests to an Alertmanager.",
            ["alertmanager"],
            registry=registry,
        )
        self.alertmanager_dropped = Counter(
            "quantum_alertmanager_alerts_dropped",
            "Alerts dropped because too many waited for an Alertmanager.",
            ["alertmanager"],
            registry=registry,
        )

    def add_receivers(self, names: Iterable[str]) -> None:
        """Give birth to the label sets of these destinations."""
        for name in names:
            for outcome in OUTCOMES:
                self.notifications.labels(name, outcome)
            self.suppressed.labels(name)
            self.flapping.labels(name)
            self.fallback.labels(name)
            if name not in self._known:  # after a reload it is what it was
                self._known.add(name)
                self.receiver_up.labels(name).set(1)
            self.queue_length.labels(name)
            self.duration.labels(name)
            self.latency.labels(name)

    def remove_receiver(self, name: str) -> None:
        """A destination is configured no more: its queue is gone; its counters stay."""
        self.queue_length.remove(name)
        self.receiver_up.remove(name)
        self._known.discard(name)

    def rest(self) -> None:
        """Another replica notifies: nothing waits here, and nothing is known of receivers. Counters stay."""
        self.alerts.clear()
        for name in self._known:
            self.queue_length.labels(name).set(0)
            self.receiver_up.labels(name).set(1)
        for reason in QUIET_REASONS:
            self.quiet.labels(reason).set(0)
        for state in SILENCE_STATES:
            self.silences.labels(state).set(0)
        self.journaling.set(0)

    def add_alertmanagers(self, targets: Iterable[str]) -> None:
        """Give birth to the label sets of these Alertmanagers."""
        for target in targets:
            self.alertmanager_sent.labels(target)
            self.alertmanager_errors.labels(target)
            self.alertmanager_dropped.labels(target)
