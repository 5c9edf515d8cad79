"""The JSON of a webhook: Alertmanager's payload, version 4, with fields of ours beside it. Pure.

Source: Alertmanager's configuration page, webhook_config. Ours: notificationId, title and message at the top;
episodeId, value, peak, valueNow, reason, suppressed, resolveReason, resolvedBy, resolutionNotes, flapping in
each alert.
"""

from __future__ import annotations

import math
from typing import Any

from exporter.notify.message import bounded, common, text_of, title_of
from exporter.notify.records import Notification, NotifiedAlert
from exporter.notify.silences import rfc3339

_NO_TIME = "0001-01-01T00:00:00Z"


def webhook_payload(
    notification: Notification,
    now_ms: int,
    *,
    external_url: str = "",
    max_alerts: int = 0,
    title: str = "",
    text: str = "",
) -> dict[str, Any]:
    """The document for one notification; `max_alerts` 0 sends all that it has."""
    pairs = [(bounded(alert.labels), bounded(alert.annotations)) for alert in notification.alerts]
    shown = notification.alerts[:max_alerts] if max_alerts else notification.alerts
    truncated = notification.truncated + len(notification.alerts) - len(shown)
    return {
        "version": "4",
        "groupKey": notification.group_key,
        "truncatedAlerts": truncated,
        "status": notification.status,
        "receiver": notification.receiver,
        "groupLabels": bounded(notification.group_labels),
        "commonLabels": common(labels for labels, _ in pairs),
        "commonAnnotations": common(annotations for _, annotations in pairs),
        "externalURL": external_url,
        "notificationId": notification.id,
        "title": title_of(notification, title),
        "message": text_of(notification, now_ms, text),
        "alerts": [_alert(alert, *own) for alert, own in zip(shown, pairs, strict=False)],
    }


def _alert(alert: NotifiedAlert, labels: dict[str, str], annotations: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "status": alert.status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": rfc3339(alert.starts_at_ms),
        "endsAt": rfc3339(alert.ends_at_ms) if alert.ends_at_ms else _NO_TIME,
        "generatorURL": alert.generator_url,
        "fingerprint": alert.fingerprint,
        "episodeId": alert.episode_id,
        "value": number_text(alert.value),
        "peak": number_text(alert.peak),
        "reason": alert.reason,
        "suppressed": alert.suppressed,
        "flapping": alert.flapping,
    }
    if alert.status == "resolved":
        document["valueNow"] = None if alert.resolved_value is None else number_text(alert.resolved_value)
        document["resolveReason"] = alert.resolve_reason
        document["resolvedBy"] = alert.resolved_by
        document["resolutionNotes"] = alert.resolution_notes
    return document


def number_text(value: float) -> str:
    """A float in Prometheus' spelling; text, since JSON has no NaN."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    return text.removesuffix(".0")
