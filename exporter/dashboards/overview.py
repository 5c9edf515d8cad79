"""Overview: is the platform well, what fires, since when."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.dashboards import thresholds as limits
from exporter.dashboards.model import BLUE, GREEN, ORANGE, RED, Dashboard, Panel, Row, Step, Variable
from exporter.dashboards.panels import (
    UP_DOWN,
    alert_links,
    by_column,
    good_above,
    good_below,
    lines,
    prom,
    severity_column,
    sql,
    stat,
    table,
    timeline,
    values,
)

_HEALTH = """clamp_max(
  2 * (count(ALERTS{alertstate="firing",severity="critical"}) or vector(0))
  + ((count(ALERTS{alertstate="firing",severity="warning"}) or vector(0)) > bool 0),
2)"""
_STATES = values((0, "inactive", GREEN), (1, "pending", ORANGE), (2, "firing", RED))
TIMELINE = (
    'max by (alertname, severity) ((2 * ALERTS{alertstate="firing",severity=~"$severity"}) '
    'or ALERTS{alertstate="pending",severity=~"$severity"})'
)
FIRING_SINCE = (
    '(time() - ALERTS_FOR_STATE{severity=~"$severity"}) '
    'and ignoring (alertstate) ALERTS{alertstate="firing",severity=~"$severity"}'
)
SEVERITY = Variable("severity", "Severity", "critical,warning,info", custom=True)


def _firing(severity: str) -> str:
    return f'count(ALERTS{{alertstate="firing",severity="{severity}"}}) or vector(0)'


def overview() -> Dashboard:
    """The first page to look at."""
    return Dashboard(
        "quantum-overview",
        "Quantum / Overview",
        "Is the platform well? What fires, and since when? Colours change where the rules fire.",
        (
            Row("Is it well?", _state()),
            Row("What fires", _alerts()),
            Row("The platform", _platform()),
            Row("The machine", _machine()),
        ),
        (SEVERITY,),
    )


def _state() -> Sequence[Panel]:
    return (
        stat(
            "System health",
            prom(_HEALTH, "health"),
            "HEALTHY: no critical or warning alert fires. DEGRADED: a warning does. CRITICAL: a critical.",
            "none",
            filled=True,
            graph=False,
            width=6,
            height=4,
            steps=(Step(None, GREEN), Step(1, ORANGE), Step(2, RED)),
            mappings=(values((0, "HEALTHY", GREEN), (1, "DEGRADED", ORANGE), (2, "CRITICAL", RED)),),
        ),
        stat(
            "Critical",
            prom(_firing("critical"), "critical"),
            "Critical alerts that fire.",
            "short",
            steps=good_below(1),
            width=3,
        ),
        stat(
            "Warning",
            prom(_firing("warning"), "warning"),
            "Warning alerts that fire.",
            "short",
            steps=(Step(None, GREEN), Step(1, ORANGE)),
            width=3,
        ),
        stat(
            "Info",
            prom(_firing("info"), "info"),
            "Info alerts that fire.",
            "short",
            steps=(Step(None, GREEN), Step(1, BLUE)),
            width=3,
        ),
        stat(
            "Database",
            prom("quantum_database_up", "database"),
            "Whether Postgres answers within 5 s.",
            "none",
            mappings=(UP_DOWN,),
            steps=good_above(1),
            graph=False,
            width=3,
            links=alert_links("DatabaseConnectionLost"),
        ),
        stat(
            "Providers up",
            prom("sum(quantum_provider_up) / count(quantum_provider_up)", "share"),
            "Share of the enabled upstream providers whose last poll succeeded.",
            "percentunit",
            steps=good_above(0.5, 1),
            width=3,
            links=alert_links("AllApisFailing"),
        ),
        stat(
            "Snapshot age",
            prom("time() - quantum_snapshot_last_timestamp_seconds", "age"),
            "Time since the registry was last copied into the head. Rules see nothing newer.",
            "s",
            steps=good_below(45, 120),
            width=3,
            links=alert_links("MetricsPipelineStalled"),
        ),
    )


def _alerts() -> Sequence[Panel]:
    return (
        table(
            "Firing now",
            prom(FIRING_SINCE, table=True),
            "Alert instances that fire. Since: time since the condition first held, pending included.",
            hidden=("Time", "__name__"),
            order=("alertname", "severity", "Value"),
            renamed={"Value": "since", "alertname": "alert"},
            units={"since": "s"},
            sort=("since", True),
            overrides=(
                severity_column("severity"),
                by_column(
                    "alert",
                    links=[
                        {
                            "title": "History of ${__value.raw}",
                            "url": "/d/quantum-alerts?var-alertname=${__value.raw}",
                        },
                    ],
                ),
            ),
            width=12,
            height=9,
            no_value="nothing fires",
        ),
        timeline(
            "Alerts over time",
            prom(TIMELINE, "{{alertname}}"),
            "Each alert's worst state. A gap: inactive.",
            mappings=(_STATES,),
            width=12,
            height=9,
            no_value="nothing fired",
        ),
    )


def _platform() -> Sequence[Panel]:
    errors = (
        '(sum(rate(quantum_api_requests_total{outcome!="success"}[1h])) or vector(0)) '
        "/ sum(rate(quantum_api_requests_total[1h]))"
    )
    mean = (
        "sum(rate(quantum_api_request_duration_seconds_sum[1h])) "
        "/ sum(rate(quantum_api_request_duration_seconds_count[1h]))"
    )
    return (
        stat(
            "Error ratio (1 h)",
            prom(errors, "errors"),
            "Failed upstream calls of the last hour.",
            "percentunit",
            steps=good_below(limits.ERROR_RATIO),
            links=alert_links("HighErrorRate"),
        ),
        stat(
            "Mean response (1 h)",
            prom(mean, "mean"),
            "Mean time of an upstream call over the last hour.",
            "s",
            steps=good_below(limits.API_P95_S, limits.SLOW_RESPONSE_S),
            links=alert_links("SlowResponseTime"),
        ),
        stat(
            "Calls per minute",
            prom("60 * sum(rate(quantum_api_requests_total[5m]))", "calls"),
            "Upstream calls, retries among them.",
            "short",
        ),
        stat(
            "Data quality (3 h)",
            prom("quantum_data_quality_ratio", "quality"),
            "Mean data quality of the snapshots of the last 3 hours.",
            "percentunit",
            steps=good_above(limits.DATA_QUALITY_RATIO),
            links=alert_links("DataQualityLow"),
        ),
        stat(
            "Prediction accuracy",
            prom("quantum_prediction_accuracy_ratio", "accuracy"),
            "Newest overall accuracy of the predictions.",
            "percentunit",
            steps=good_above(limits.ACCURACY_RATIO),
            links=alert_links("AccuracyDrop"),
        ),
        stat("Active trades", prom("quantum_trades_active", "active"), "Trades with status ACTIVE.", "short"),
        lines(
            "Upstream calls by outcome",
            prom("60 * sum by (outcome) (rate(quantum_api_requests_total[$__rate_interval]))", "{{outcome}}"),
            "Calls per minute. Anything but success is an error; its name says which.",
            "short",
            stacked=True,
        ),
        table(
            "What the database says",
            sql("SELECT * FROM v_system_health_dashboard"),
            "The view v_system_health_dashboard, one row as Postgres sees the platform now.",
            width=12,
            as_rows=True,
        ),
    )


def _machine() -> Sequence[Panel]:
    disks = "max by (mountpoint) (quantum_system_disk_usage_ratio)"
    return (
        lines(
            "CPU",
            prom("quantum_system_cpu_usage_ratio", "in use"),
            "Share of all cores in use.",
            "percentunit",
            lowest=0,
            highest=1,
            width=8,
            steps=good_below(0.9),
        ),
        lines(
            "Memory",
            (
                prom("quantum_system_memory_used_bytes", "used"),
                prom("quantum_system_memory_available_bytes", "available"),
                prom("quantum_system_memory_total_bytes", "total"),
            ),
            "Memory of the machine.",
            "bytes",
            lowest=0,
            width=8,
        ),
        lines(
            "Disks",
            prom(disks, "{{mountpoint}}"),
            "Share of each disk in use.",
            "percentunit",
            lowest=0,
            highest=1,
            width=8,
            steps=good_below(0.9),
        ),
        lines(
            "Load",
            prom("quantum_system_load1", "1 min"),
            "Processes that run or wait for a core or a disk.",
            "short",
            lowest=0,
            width=12,
        ),
        lines(
            "Network",
            (
                prom("sum(rate(quantum_system_network_receive_bytes_total[$__rate_interval]))", "received"),
                prom("sum(rate(quantum_system_network_transmit_bytes_total[$__rate_interval]))", "sent"),
            ),
            "Bytes per second over all interfaces.",
            "Bps",
            lowest=0,
            width=12,
        ),
    )
