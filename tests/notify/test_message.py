"""The words of notifications, whole and by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.model.labels import LabelSet
from exporter.notify.message import TEXT_MAX, TITLE_MAX, bounded, common, printable, text_of, title_of
from exporter.notify.records import Notification, NotifiedAlert

T0 = 1_700_000_000_000
LABELS = LabelSet.of({"alertname": "ApiReliabilityLow", "severity": "warning", "provider": "kraken"})
FIRING = NotifiedAlert(
    "e1",
    "firing",
    LABELS,
    {
        "summary": "kraken answers 82 %",
        "description": "of its calls of the last hour",
        "runbook_url": "https://docs/r",
        "dashboard_url": "https://g/d",
    },
    "00ff",
    T0,
    value=0.82,
    peak=0.755,
    suppressed=5,
    flapping=24,
    held="no data, kept by missing_data",
    generator_url="http://x/graph?g0.expr=up",
)
RESOLVED = replace(
    FIRING,
    status="resolved",
    ends_at_ms=T0 + 750_000,
    resolved_value=0.97,
    resolve_reason="recovered",
    flapping=0,
    held="",
)


def of(*alerts: NotifiedAlert, **values: object) -> Notification:
    return Notification("n", "ops", "ops", alerts[0].status, alerts, created_at_ms=T0, **values)  # type: ignore[arg-type]


def test_a_firing_text_says_everything() -> None:
    """Value now, peak, since when, labels, suppressed, flapping, links."""
    assert title_of(of(FIRING)) == "[FIRING warning FLAPPING] ApiReliabilityLow: kraken answers 82 %"
    assert text_of(of(FIRING), T0 + 300_000) == (
        "kraken answers 82 %\n"
        "of its calls of the last hour\n"
        "Value: 0.82 (peak 0.755)\n"
        "Since: 2023-11-14 22:13:20 UTC (for 5m)\n"
        "Kept firing: no data, kept by missing_data\n"
        "Labels: provider=kraken\n"
        "Suppressed: 5 firings were held back since the last notification\n"
        "Flapping: 24 changes of state lately\n"
        "Runbook: https://docs/r\n"
        "Dashboard: https://g/d\n"
        "Expression: http://x/graph?g0.expr=up"
    )


def test_a_resolved_text_says_how_it_ended() -> None:
    """The value now, the peak, how long it fired, what was suppressed and why it resolved."""
    assert title_of(of(RESOLVED)) == "[RESOLVED warning] ApiReliabilityLow: kraken answers 82 %"
    assert text_of(of(RESOLVED), T0 + 900_000).splitlines()[2:7] == [
        "Resolved: recovered",
        "Value now: 0.97 (peak 0.755)",
        "Fired for 12m30s: 2023-11-14 22:13:20 UTC to 2023-11-14 22:25:50 UTC",
        "Labels: provider=kraken",
        "Suppressed: 5 firings were held back since the last notification",
    ]
    by_hand = replace(
        RESOLVED, resolve_reason="by hand", resolved_by="ann", resolution_notes="known", resolved_value=None
    )
    text = text_of(of(by_hand), T0)
    assert "Resolved: by hand by ann (known)\nValue now: no data" in text


def test_several_alerts_are_counted() -> None:
    """Title with the number, text with the first twenty."""
    alerts = [replace(FIRING, flapping=0, labels=LABELS.merged({"n": str(n)})) for n in range(30)]
    message = of(*alerts, truncated=3)
    assert title_of(message) == "[FIRING:33 warning] ApiReliabilityLow"
    assert text_of(message, T0).endswith("... and 13 more alerts")


def test_sizes_are_bounded() -> None:
    """A megabyte is cut with a mark that says how much there was."""
    big = replace(FIRING, annotations={"summary": "x" * 1_000_000, "description": "y" * 1_000_000})
    assert len(title_of(of(big))) <= TITLE_MAX
    assert "[truncated, 1000000 characters]" in text_of(of(big), T0)
    many = [replace(big, labels=LABELS.merged({"n": str(n)})) for n in range(20)]
    assert len(text_of(of(*many), T0)) <= TEXT_MAX + 100
    assert len(bounded({str(n): "v" for n in range(1000)})) == 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext ✓ 日本", "plain\n\ttext ✓ 日本"),
        ("\x1b[31mred\x00\x7f", "\\x1b[31mred\\x00\\x7f"),
        ("a\u202eb\u2028c\u0085", "a\\u202eb\\u2028c\\x85"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    """What would steer a terminal or a log is shown, not done."""
    assert printable(text, 1000) == shown


def test_common_pairs() -> None:
    """What all have, with equal values."""
    assert common([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1"}]) == {"a": "1"}
    assert common([]) == {}


def test_templates_of_the_configuration() -> None:
    """A rule's template language over what is common; a fault shows, and stops nothing."""
    template = "{{ $labels.provider }}: {{ $value | humanizePercentage }} {{ $labels.status }}"
    assert title_of(of(FIRING), template) == "kraken: 82% firing"
    assert text_of(of(FIRING), T0, "{{ $labels.suppressed }} held back\n{{ $labels.summary }}").startswith(
        "5 held back\nkraken"
    )
    assert "error" in title_of(of(FIRING), "{{ nonsense")
