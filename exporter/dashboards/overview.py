"""Overview: is the platform well, what fires, since when."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.dashboards import thresholds as limits
from exporter.dashboards.common import (
    REAL,
    SEVERITY,
    accuracy,
    active_trades,
    alert_timeline,
    data_quality,
    database_up,
    firing_now,
    snapshot_age,
)
from exporter.dashboards.model import BLUE, GREEN, ORANGE, RED, Dashboard, Panel, Row, Step
from exporter.dashboards.panels import (
    alert_links,
    coloured,
    good_above,
    good_below,
    lines,
    prom,
    sql,
    stat,
    table,
    values,
)

_HEALTH = """clamp_max(
  2 * (count(ALERTS{alertstate="firing",severity="critical"}) or vector(0))
  + ((count(ALERTS{alertstate="firing",severity="warning"}) or vector(0)) > bool 0),
2)"""


def _firing(severity: str) -> str:
    return f'count(ALERTS{{alertstate="firing",severity="{severity}",{REAL}}}) or vector(0)'


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
        database_up(width=3),
        stat(
            "Providers up",
            prom("sum(quantum_provider_up) / count(quantum_provider_up)", "share"),
            "Share of the enabled upstream providers whose last poll succeeded.",
            "percentunit",
            steps=good_above(0.5, 1),
            width=3,
            links=alert_links("AllApisFailing"),
        ),
        snapshot_age(width=3),
    )


def _alerts() -> Sequence[Panel]:
    return (
        firing_now(width=12, height=9),
        alert_timeline("Alerts over time", width=12, height=9),
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
        data_quality(),
        accuracy(),
        active_trades(),
        lines(
            "Upstream calls by outcome",
            prom(
                "60 * sum by (outcome) (rate(quantum_api_requests_total[$__rate_interval])) > 0",
                "{{outcome}}",
            ),
            "Calls per minute. Anything but success is an error; its name says which.",
            "short",
            stacked=True,
            overrides=coloured(success=GREEN),
        ),
        table(
            "What the database says",
            sql("""
              SELECT status, connections, alerts_last_24h AS "alerts in 24 h",
                open_anomalies AS "open anomalies", trades_last_24h AS "trades in 24 h",
                users_last_24h AS "users in 24 h"
              FROM v_system_health_dashboard"""),
            "From the view v_system_health_dashboard: the platform as Postgres sees it now.",
            width=12,
            as_rows=True,
            renamed={"Field": "what", "Last *": "now"},
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
            width=8,
        ),
        lines(
            "Disks",
            prom(disks, "{{mountpoint}}"),
            "Share of each disk in use.",
            "percentunit",
            highest=1,
            width=8,
            steps=good_below(0.9),
        ),
        lines(
            "Load",
            prom("quantum_system_load1", "1 min"),
            "Processes that run or wait for a core or a disk.",
            "short",
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
            width=12,
        ),
    )
