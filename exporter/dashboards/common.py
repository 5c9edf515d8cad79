"""Panels that stand on more than one dashboard, so that each is the same wherever it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from exporter.dashboards import thresholds as limits
from exporter.dashboards.model import ORANGE, RED, Panel, Variable
from exporter.dashboards.panels import (
    UP_DOWN,
    alert_history_link,
    alert_links,
    by_column,
    good_above,
    good_below,
    heatmap,
    lines,
    prom,
    severity_column,
    stat,
    table,
    timeline,
    values,
)

SEVERITY: Final = Variable("severity", "Severity", "critical,warning,info", custom=True)
REAL: Final = 'role!="heartbeat"'
"""Leaves out the dead man's switch, which fires as long as all is well."""

_STATES = values((1, "pending", ORANGE), (2, "firing", RED))
_CHOSEN = f'severity=~"$severity",{REAL}'


def firing_now(**rest: Any) -> Panel:
    """Table of the alert instances that fire, the oldest first."""
    firing = (
        f"(time() - ALERTS_FOR_STATE{{{_CHOSEN}}}) "
        f'and ignoring (alertstate) ALERTS{{alertstate="firing",{_CHOSEN}}}'
    )
    return table(
        "Firing now",
        prom(firing, table=True),
        "Alert instances that fire. Since: time since the condition first held, pending included.",
        hidden=("Time", "__name__"),
        order=("alertname", "severity", "Value"),
        renamed={"Value": "since", "alertname": "alert"},
        units={"since": "s"},
        sort=("since", True),
        overrides=(severity_column("severity"), by_column("alert", links=[alert_history_link()])),
        no_value="nothing fires",
        **rest,
    )


def alert_timeline(title: str, **rest: Any) -> Panel:
    """Each alert's worst state over time."""
    worst = (
        f'max by (alertname, severity) ((2 * ALERTS{{alertstate="firing",{_CHOSEN}}}) '
        f'or ALERTS{{alertstate="pending",{_CHOSEN}}})'
    )
    return timeline(
        title,
        prom(worst, "{{alertname}}"),
        "Each alert's worst state. A gap: inactive.",
        mappings=(_STATES,),
        no_value="nothing fired",
        **rest,
    )


def database_up(**rest: Any) -> Panel:
    """Whether Postgres answers."""
    return stat(
        "Database",
        prom("quantum_database_up", "database"),
        "Whether Postgres answers within 5 s.",
        "none",
        mappings=(UP_DOWN,),
        steps=good_above(1),
        graph=False,
        links=alert_links("DatabaseConnectionLost"),
        **rest,
    )


def snapshot_age(**rest: Any) -> Panel:
    """How old the newest samples are."""
    return stat(
        "Snapshot age",
        prom("time() - quantum_snapshot_last_timestamp_seconds", "age"),
        "Time since the registry was last copied into the head. Rules see nothing newer.",
        "s",
        steps=good_below(45, 120),
        links=alert_links("MetricsPipelineStalled"),
        **rest,
    )


def accuracy(**rest: Any) -> Panel:
    """The newest accuracy of the predictions."""
    return stat(
        "Prediction accuracy",
        prom("quantum_prediction_accuracy_ratio", "accuracy"),
        "Newest overall accuracy of the predictions.",
        "percentunit",
        steps=good_above(limits.ACCURACY_RATIO),
        links=alert_links("AccuracyDrop"),
        **rest,
    )


def data_quality(**rest: Any) -> Panel:
    """The data quality that DataQualityLow judges."""
    return stat(
        "Data quality (3 h)",
        prom("quantum_data_quality_ratio", "quality"),
        "Mean data quality of the snapshots of the last 3 hours.",
        "percentunit",
        steps=good_above(limits.DATA_QUALITY_RATIO),
        links=alert_links("DataQualityLow"),
        **rest,
    )


def active_trades(**rest: Any) -> Panel:
    """How many trades are open."""
    return stat(
        "Active trades",
        prom("quantum_trades_active", "active"),
        "Trades with status ACTIVE.",
        "short",
        **rest,
    )


def quantile(share: float, histogram: str, selector: str = "", by: str = "") -> str:
    """A quantile of a histogram's rate, by labels."""
    buckets = f"rate({_buckets(histogram, selector)}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (le{', ' + by if by else ''}) ({buckets}))"


def durations(
    title: str, histogram: str, selector: str, by: str, target_s: float, *, what: str, target: str, alert: str
) -> Sequence[Panel]:
    """How long things take: the whole histogram over time, three quantiles, and p95 by one label."""

    def of(share: float, label: str = "") -> str:
        return quantile(share, histogram, selector, label)

    cells = f"sum by (le) (increase({_buckets(histogram, selector)}[$__rate_interval]))"
    steps = good_below(target_s)
    quantiles = (prom(of(0.5), "p50"), prom(of(0.95), "p95"), prom(of(0.99), "p99"))
    links = alert_links(alert)
    return (
        heatmap(title, cells, f"{what.capitalize()} by duration. Darker: more {what}.", "s", links=links),
        lines(f"{title} quantiles", quantiles, target, "s", steps=steps, links=links),
        lines(
            f"p95 by {by}",
            prom(of(0.95, by), f"{{{{{by}}}}}"),
            f"95 of 100 {what} were faster.",
            "s",
            steps=steps,
            links=links,
        ),
    )


def _buckets(histogram: str, selector: str) -> str:
    return f"{histogram}_bucket{{{selector}}}" if selector else f"{histogram}_bucket"
