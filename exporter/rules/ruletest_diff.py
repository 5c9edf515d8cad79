"""What a rule test expected against what it got, in words that show the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.model.durations import format_duration
from exporter.model.labels import LabelSet
from exporter.promql.gotext import format_float
from exporter.rules.ruletest_format import ExpectedAlert, ExpectedNotification


def alert_difference(expected: Sequence[ExpectedAlert], got: Sequence[ExpectedAlert]) -> str:
    """'' where both hold the same alerts in any order; else what differs."""
    missing, unexpected = _apart(expected, got)
    lines = []
    for alert in missing:
        twin = next((one for one in unexpected if one.labels == alert.labels), None)
        if twin is None:
            lines.append(f"- not firing:  {_labels(alert.labels)}")
            continue
        unexpected.remove(twin)
        lines.append(f"  firing:      {_labels(alert.labels)}")
        want, have = alert.annotations.as_dict(), twin.annotations.as_dict()
        for name in sorted({*want, *have}):
            if want.get(name) != have.get(name):
                lines.append(f"- annotation {name}: {want.get(name, '(none)')}")
                lines.append(f"+ annotation {name}: {have.get(name, '(none)')}")
    lines.extend(
        f"+ not expected: {_labels(alert.labels)} annotations {_labels(alert.annotations)}"
        for alert in unexpected
    )
    return _indented(lines)


def sample_difference(
    expected: Sequence[tuple[LabelSet, float]],
    got: Sequence[tuple[LabelSet, float]],
    same: Callable[[float, float], bool],
) -> str:
    """'' where both hold the same samples in any order; else the ones that differ."""
    want, have = sorted(expected, key=lambda one: one[0]), sorted(got, key=lambda one: one[0])
    if len(want) == len(have) and all(
        one[0] == other[0] and same(one[1], other[1]) for one, other in zip(want, have, strict=True)
    ):
        return ""
    shown_want = [f"{labels} {format_float(value)}" for labels, value in want]
    shown_have = [f"{labels} {format_float(value)}" for labels, value in have]
    lines = [f"- exp: {text}" for text in shown_want if text not in shown_have]
    lines += [f"+ got: {text}" for text in shown_have if text not in shown_want]
    if not want:
        lines.insert(0, "  exp: nothing")
    if not have:
        lines.append("  got: nothing")
    return _indented(lines or ["  the same samples, not as often"])


def notification_difference(
    expected: Sequence[ExpectedNotification], sent: Sequence[ExpectedNotification]
) -> str:
    """'' where the same was sent, in any order; an expectation without `suppressed` fits any number."""
    rest = list(sent)
    missing = []
    for one in expected:
        twin = next((other for other in rest if _fits(one, other)), None)
        if twin is None:
            missing.append(one)
        else:
            rest.remove(twin)
    lines = [f"- not sent: {_notification(one)}" for one in missing]
    lines += [f"+ sent:     {_notification(one)}" for one in rest]
    return _indented(lines)


def _fits(expected: ExpectedNotification, sent: ExpectedNotification) -> bool:
    return (
        expected.at_ms == sent.at_ms
        and expected.status == sent.status
        and expected.labels == sent.labels
        and expected.suppressed in (None, sent.suppressed)
    )


def _notification(one: ExpectedNotification) -> str:
    count = "" if one.suppressed is None else f", {one.suppressed} suppressed"
    return f"{one.status} at {format_duration(one.at_ms)} {_labels(one.labels)}{count}"


def _apart(
    expected: Sequence[ExpectedAlert], got: Sequence[ExpectedAlert]
) -> tuple[list[ExpectedAlert], list[ExpectedAlert]]:
    rest = list(got)
    missing = []
    for one in expected:
        if one in rest:
            rest.remove(one)
        else:
            missing.append(one)
    return missing, rest


def _labels(labels: LabelSet) -> str:
    return str(labels) or "{}"


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"\n        {line}" for line in lines)
