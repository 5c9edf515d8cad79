"""The words of a notification: title and text, bounded in size, safe to print. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

from exporter.model.durations import format_duration
from exporter.model.labels import LabelSet
from exporter.notify.records import Episode, Notification, NotifiedAlert
from exporter.template import TemplateContext, expand_annotation

TITLE_MAX = 250  # characters; system_alerts.title has 255
TEXT_MAX = 16_000
VALUE_MAX = 4_000  # of one label or annotation
_PAIRS_MAX = 100  # labels or annotations of one alert
_ALERTS_IN_TEXT = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# C0 and C1 controls but line feed and tab, line separators, bidirectional overrides, lone surrogates
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINKS = (("runbook_url", "Runbook"), ("dashboard_url", "Dashboard"), ("panel_url", "Panel"))


def printable(text: str, limit: int) -> str:
    """The text with control characters escaped, cut at `limit` characters with a mark that says so."""
    if len(text) > limit:
        mark = f" [truncated, {len(text)} characters]"
        text = text[: max(0, limit - len(mark))] + mark
    if text.isprintable() and text.isascii():  # nearly always
        return text
    return _UNSAFE.sub(_escaped, text)


def bounded(pairs: Mapping[str, str] | LabelSet, limit: int = VALUE_MAX) -> dict[str, str]:
    """Labels or annotations with long values cut and at most 100 of them; control characters stay."""
    found = {}
    for name, value in islice(pairs if isinstance(pairs, LabelSet) else pairs.items(), _PAIRS_MAX):
        if len(value) > limit:
            mark = f" [truncated, {len(value)} characters]"
            value = value[: limit - len(mark)] + mark
        # a lone surrogate is not UTF-8
        found[name] = value if value.isascii() else value.encode("utf-8", "replace").decode()
    return found


def value_text(value: float | None) -> str:
    """A measured value for people; None is the absence of data."""
    return "no data" if value is None else f"{value:.6g}"


def time_text(ts_ms: int) -> str:
    """A time for people, to the second."""
    return f"{_EPOCH + timedelta(milliseconds=ts_ms):%Y-%m-%d %H:%M:%S} UTC"


def common(sets: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The pairs that all mappings have."""
    found: dict[str, str] | None = None
    for one in sets:
        if found is None:
            found = dict(one)
        else:
            found = {name: value for name, value in found.items() if one.get(name) == value}
    return found or {}


def title_of(notification: Notification, template: str = "") -> str:
    """One line: state, severity, what, and how many where there are several."""
    if template:
        return printable(_expanded(notification, template).replace("\n", " "), TITLE_MAX)
    alerts = notification.alerts
    count = len(alerts) + notification.truncated
    state = notification.status.upper() + (f":{count}" if count > 1 else "")
    names = list(dict.fromkeys(alert.labels.get("alertname") for alert in alerts))
    severities = list(dict.fromkeys(alert.labels.get("severity") for alert in alerts))
    severity = f" {severities[0]}" if len(severities) == 1 and severities[0] else ""
    subject = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if count == 1:
        summary = alerts[0].annotations.get("summary", "")
        subject += f": {summary}" if summary else f" {_labels_text(alerts[0].labels)}".rstrip()
    flapping = " FLAPPING" if any(alert.flapping for alert in alerts) else ""
    return printable(f"[{state}{severity}{flapping}] {subject}".replace("\n", " "), TITLE_MAX)


def text_of(notification: Notification, now_ms: int, template: str = "") -> str:
    """Some lines for each alert: what, value now and peak, labels, since when, what was suppressed, links."""
    if template:
        return printable(_expanded(notification, template), TEXT_MAX)
    shown = notification.alerts[:_ALERTS_IN_TEXT]
    parts = [alert_text(alert, now_ms) for alert in shown]
    left = len(notification.alerts) - len(shown) + notification.truncated
    if left:
        parts.append(f"... and {left} more alerts")
    return printable("\n\n".join(parts), TEXT_MAX)


def alert_text(alert: NotifiedAlert, now_ms: int) -> str:
    """The lines of one alert."""
    texts = (alert.annotations.get(name, "") for name in ("summary", "description", "message"))
    lines = [printable(text, VALUE_MAX) for text in texts if text]
    if not lines:
        lines.append(printable(alert.labels.get("alertname"), VALUE_MAX))
    if alert.status == "resolved":
        lines.extend(_resolved_lines(alert))
    else:
        lines.append(f"Value: {value_text(alert.value)} (peak {value_text(alert.peak)})")
        since = f"Since: {time_text(alert.starts_at_ms)}"
        lines.append(f"{since} (for {_duration(now_ms - alert.starts_at_ms)})")
        if alert.held:
            lines.append(f"Kept firing: {alert.held}")
    lines.append(f"Labels: {printable(_labels_text(alert.labels, 100), VALUE_MAX)}")
    if alert.suppressed:
        firings = "firing was" if alert.suppressed == 1 else "firings were"
        lines.append(f"Suppressed: {alert.suppressed} {firings} held back since the last notification")
    if alert.flapping:
        lines.append(f"Flapping: {alert.flapping} changes of state lately")
    for name, word in _LINKS:
        if link := alert.annotations.get(name):
            lines.append(f"{word}: {printable(link, VALUE_MAX)}")
    if alert.generator_url:
        lines.append(f"Expression: {alert.generator_url}")
    return "\n".join(lines)


def episode_title(episode: Episode) -> str:
    """The title of an episode's row."""
    summary = episode.annotations.get("summary", "")
    subject = (
        f"{episode.alertname}: {summary}"
        if summary
        else f"{episode.alertname} {_labels_text(episode.labels)}"
    )
    return printable(subject.replace("\n", " ").rstrip(), TITLE_MAX)


def episode_message(episode: Episode) -> str:
    """The message of an episode's row."""
    texts = (episode.annotations.get(name, "") for name in ("description", "message", "summary"))
    return printable(next((text for text in texts if text), episode.alertname), TEXT_MAX)


def _resolved_lines(alert: NotifiedAlert) -> Sequence[str]:
    fired = _duration(alert.ends_at_ms - alert.starts_at_ms)
    by = f" by {printable(alert.resolved_by, 200)}" if alert.resolved_by not in ("", "evaluator") else ""
    notes = f" ({printable(alert.resolution_notes, 1000)})" if alert.resolution_notes else ""
    return (
        f"Resolved: {alert.resolve_reason or 'recovered'}{by}{notes}",
        f"Value now: {value_text(alert.resolved_value)} (peak {value_text(alert.peak)})",
        f"Fired for {fired}: {time_text(alert.starts_at_ms)} to {time_text(alert.ends_at_ms)}",
    )


def _labels_text(labels: LabelSet, most: int = 8) -> str:
    pairs = [f"{name}={value}" for name, value in labels if name not in ("alertname", "severity")]
    return ", ".join(pairs[:most])


def _duration(ms: int) -> str:
    return format_duration(max(0, ms) // 1000 * 1000)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _expanded(notification: Notification, template: str) -> str:
    """A title or text of the configuration: a rule's template language, over what the alerts have in common.

    `$labels` has the common labels and annotations, and status, receiver, count, alertnames, suppressed,
    since and text; `$value` is the first alert's value.
    """
    alerts = notification.alerts
    extra = {
        "status": notification.status,
        "receiver": notification.receiver,
        "count": str(len(alerts) + notification.truncated),
        "alertnames": ", ".join(dict.fromkeys(alert.labels.get("alertname") for alert in alerts)),
        "suppressed": str(max((alert.suppressed for alert in alerts), default=0)),
        "since": time_text(min((alert.starts_at_ms for alert in alerts), default=0)),
        "text": "\n\n".join(
            alert_text(alert, notification.created_at_ms) for alert in alerts[:_ALERTS_IN_TEXT]
        ),
    }
    labels = {
        **common(bounded(alert.annotations) for alert in alerts),
        **extra,
        **common(alert.labels.as_dict() for alert in alerts),
    }
    context = TemplateContext(
        labels=labels, value=alerts[0].value if alerts else 0.0, now_ms=notification.created_at_ms
    )
    return expand_annotation(template, context, "notification")[0]
