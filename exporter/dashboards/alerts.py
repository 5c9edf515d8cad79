"""Alerts: what fired, how often, how long, who resolved it, what the cooldown held back."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.dashboards.common import SEVERITY, alert_timeline, firing_now, quantile
from exporter.dashboards.model import BLUE, ORANGE, RED, Dashboard, Panel, Row, Variable
from exporter.dashboards.panels import (
    ALERTS_UID,
    UP_DOWN,
    alert_history_link,
    alert_links,
    by_column,
    coloured,
    good_below,
    lines,
    prom,
    severity_column,
    sql,
    stat,
    table,
    timeline,
)

# never without a choice: an empty list would be no valid SQL
_NAMES = """SELECT DISTINCT type FROM system_alerts
UNION ALL SELECT 'none' WHERE NOT EXISTS (SELECT FROM system_alerts) ORDER BY 1"""
_REAL = "coalesce(labels ->> 'role', '') <> 'heartbeat'"
_CHOSEN = f"lower(severity) IN (${{severity:sqlstring}}) AND type IN (${{alertname:sqlstring}}) AND {_REAL}"
_PERIOD = "triggered_at <= $__timeTo() AND coalesce(resolved_at, now()) >= $__timeFrom()"
_WHICH = f"FROM system_alerts WHERE {_CHOSEN} AND {_PERIOD}"
_LABELS = "coalesce(labels, '{}') - 'alertname' - 'severity'"
_RUNBOOK = "(record -> 'annotations' ->> 'runbook_url')"
ALERTNAME = Variable("alertname", "Alert", " ".join(_NAMES.split()), sql=True)
DOCS = Variable("docs", "Runbooks at", "http://127.0.0.1:8000", text=True, multi=False)
"""Before a runbook's path where that is no URL."""


_TODAY = "dateTimeAsIsoNoDateIfToday"


def alerts() -> Dashboard:
    """The history of alerts."""
    return Dashboard(
        ALERTS_UID,
        "Quantum / Alerts",
        "History of alerts out of system_alerts: episodes, cooldown and suppression, flapping, deliveries.",
        (
            Row("Now", _now()),
            Row("History", _history()),
            Row("Notifications", _notifications()),
        ),
        (SEVERITY, ALERTNAME, DOCS),
        time_from="now-7d",
        annotations=False,
    )


def _now() -> Sequence[Panel]:
    return (
        alert_timeline("Pending and firing", width=14, height=9),
        firing_now(width=10, height=9),
    )


def _history() -> Sequence[Panel]:
    length = "extract(epoch FROM coalesce(resolved_at, now()) - triggered_at)"
    return (
        stat(
            "Episodes",
            sql(f"SELECT count(*) AS episodes {_WHICH}"),
            "Alert instances that fired in the period.",
            "short",
            graph=False,
        ),
        stat(
            "Mean length",
            sql(f"SELECT avg({length}) AS mean {_WHICH}"),
            "Mean time from firing to resolved; one that still fires counts until now.",
            "s",
            graph=False,
            no_value="-",
        ),
        stat(
            "Held back",
            sql(f"SELECT coalesce(sum(suppressed_count), 0) AS suppressed {_WHICH}"),
            "Firings that the cooldown held back: recorded, not sent.",
            "short",
            graph=False,
        ),
        stat(
            "Notifications",
            sql(f"SELECT coalesce(sum(notification_count), 0) AS sent {_WHICH}"),
            "Notifications delivered.",
            "short",
            graph=False,
        ),
        stat(
            "Resolved by hand",
            sql(f"""SELECT count(*) AS "by hand" {_WHICH} AND resolve_reason = 'by hand'"""),
            "Episodes that a person ended.",
            "short",
            graph=False,
        ),
        stat(
            "Still open",
            sql(f"SELECT count(*) AS open {_WHICH} AND resolved_at IS NULL"),
            "Episodes without an end.",
            "short",
            steps=good_below(1),
            graph=False,
        ),
        lines(
            "Episodes begun",
            sql(
                f"""
              SELECT $__timeGroup(triggered_at, $__interval) AS "time", severity AS metric, count(*) AS value
              FROM system_alerts WHERE {_CHOSEN} AND $__timeFilter(triggered_at) GROUP BY 1, 2 ORDER BY 1""",
                series=True,
            ),
            "Episodes that began in each step, by severity.",
            "short",
            bars=True,
            stacked=True,
            calcs=("sum",),
            overrides=coloured(CRITICAL=RED, WARNING=ORANGE, INFO=BLUE),
            no_value="no alert in this period",
        ),
        table(
            "Flapping",
            sql(f"""
              SELECT type AS "alert", {_LABELS} AS "labels", count(*) AS "episodes",
                avg({length}) AS "mean length", sum(suppressed_count) AS "held back"
              {_WHICH} GROUP BY type, fingerprint, labels HAVING count(*) > 1 ORDER BY 3 DESC LIMIT 20"""),
            "Instances that fired more than once: a longer `for`, keep_firing_expr or cooldown may help.",
            units={"mean length": "s"},
            width=12,
            no_value="nothing fired twice",
        ),
        table(
            "Episodes",
            sql(f"""
              SELECT triggered_at AS "fired", type AS "alert", severity, {_LABELS} AS "labels", value, peak,
                {length} AS "length", resolved_at AS "resolved",
                concat_ws(': ', resolve_reason, nullif(resolution_notes, '')) AS "reason",
                resolved_by AS "resolved by", acked_by AS "acknowledged", notification_count AS "sent",
                suppressed_count AS "held back", regexp_replace({_RUNBOOK}, '^.*/', '') AS "runbook",
                CASE WHEN {_RUNBOOK} ~ '^[a-z]+://' THEN {_RUNBOOK}
                  ELSE rtrim(${{docs:sqlstring}}, '/') || '/' || {_RUNBOOK} END AS "runbook_url"
              {_WHICH} ORDER BY triggered_at DESC LIMIT 500"""),
            "One row for each episode of an alert instance: values, why and by whom it ended, what was sent.",
            units={"fired": _TODAY, "resolved": _TODAY, "length": "s"},
            overrides=(
                severity_column("severity"),
                by_column("alert", links=[alert_history_link()]),
                by_column("runbook", links=[{"title": "Runbook", "url": "${__data.fields.runbook_url}"}]),
                by_column("runbook_url", custom__hidden=True),
            ),
            height=12,
            no_value="no alert in this period",
        ),
    )


def _p95(histogram: str) -> str:
    return quantile(0.95, histogram, by="receiver")


def _notifications() -> Sequence[Panel]:
    return (
        timeline(
            "Receivers",
            prom("quantum_notification_receiver_up", "{{receiver}}"),
            "Down: the last try failed in a way that may pass; what is due waits and is tried again.",
            mappings=(UP_DOWN,),
            links=alert_links("ReceiverDown", "NotificationsFailing"),
            height=6,
        ),
        lines(
            "Deliveries",
            prom(
                "sum by (receiver, outcome) (increase(quantum_notifications_total[1h]))",
                "{{receiver}}: {{outcome}}",
            ),
            "Notifications of the last hour by receiver and outcome.",
            "short",
            links=alert_links("NotificationsFailing", "DeadLetters"),
        ),
        lines(
            "Held back by the cooldown",
            prom(
                "sum by (receiver) (increase(quantum_notifications_suppressed_total[1h]))",
                "{{receiver}}",
            ),
            "Firings of the last hour that were not sent.",
            "short",
        ),
        lines(
            "Quiet",
            (
                prom("quantum_alerts_quiet", "{{reason}}"),
                prom('quantum_silences{state="active"}', "silences in force"),
                prom('quantum_silences{state="idle"}', "silences that match nothing"),
            ),
            "Firing alerts that a silence, another alert or a person keeps quiet, and the silences.",
            "short",
            stepped=True,
        ),
        lines(
            "Flapping and fallback",
            (
                prom(
                    "sum by (receiver) (increase(quantum_notifications_flapping_total[1h]))",
                    "{{receiver}}: flapping notices",
                ),
                prom(
                    "sum by (receiver) (increase(quantum_notifications_fallback_total[1h]))",
                    "{{receiver}}: taken by its fallback",
                ),
            ),
            "Notices of the last hour that an instance flaps, and notifications that a fallback took.",
            "short",
        ),
        lines(
            "Waiting",
            prom("quantum_notification_queue_length", "{{receiver}}"),
            "Notifications in the outbox, by receiver. Growing: the receiver does not take them.",
            "short",
            steps=good_below(100),
            links=alert_links("NotificationQueueLong"),
        ),
        lines(
            "From decision to delivery, p95",
            prom(_p95("quantum_notification_latency_seconds"), "{{receiver}}"),
            "Time from the decision to send to the delivery, retries included.",
            "s",
            no_value="nothing was sent",
        ),
        lines(
            "Alertmanager",
            (
                prom(
                    "sum by (alertmanager) (increase(quantum_alertmanager_alerts_sent_total[1h]))",
                    "{{alertmanager}}: sent",
                ),
                prom(
                    "sum by (alertmanager) (increase(quantum_alertmanager_errors_total[1h]))",
                    "{{alertmanager}}: failed requests",
                ),
                prom(
                    "sum by (alertmanager) (increase(quantum_alertmanager_alerts_dropped_total[1h]))",
                    "{{alertmanager}}: dropped",
                ),
            ),
            "Alerts handed to each Alertmanager in the last hour.",
            "short",
            no_value="no Alertmanager is configured",
            links=alert_links("AlertmanagerFailing"),
        ),
        lines(
            "Alert store",
            (
                prom("quantum_alert_store_journaling", "journal in use"),
                prom("increase(quantum_notifier_faults_total[1h])", "faults (1 h)"),
            ),
            "1: alert state waits in a file on disk until the database is back.",
            "short",
            stepped=True,
        ),
        lines(
            "Delivery time, p95",
            prom(_p95("quantum_notification_duration_seconds"), "{{receiver}}"),
            "Time of one delivery.",
            "s",
            no_value="nothing was sent",
        ),
        lines(
            "Heartbeats",
            prom("sum by (outcome) (increase(quantum_heartbeats_total[1h]))", "{{outcome}}"),
            "Beats of the dead man's switch in the last hour, by outcome.",
            "short",
            no_value="no heartbeat is configured",
        ),
        table(
            "Newest deliveries",
            sql("""
              SELECT created_at AS "decided", receiver, via, status, state, attempts,
                extract(epoch FROM finished_at - created_at) AS "took", error
              FROM quantum_alert_notifications WHERE $__timeFilter(created_at)
              ORDER BY created_at DESC LIMIT 100"""),
            "Each notification with its outcome; dead: given up after the last try.",
            units={"decided": _TODAY, "took": "s"},
            width=24,
            no_value="none sent in this period",
        ),
    )
