"""The words of `why`: the answer in one sentence, the parts as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.model.durations import format_duration
from exporter.model.labels import LabelSet
from exporter.promql.floats import api_float
from exporter.rules.alert import ALERT_NAME
from exporter.rules.model import AlertingRule
from exporter.rules.why import Comparison, Part

_RANK = {"firing": 0, "pending": 1, "inactive": 2}


def as_json(value: Comparison | Part | None) -> dict[str, Any] | None:
    """A comparison or a tree of parts as JSON values; floats as text, as in Prometheus' API."""
    if value is None:
        return None
    if isinstance(value, Comparison):
        return {
            "value": api_float(value.value),
            "op": value.op,
            "threshold": api_float(value.threshold),
            "holds": value.holds,
            "distance": api_float(value.distance),
            "relative": value.relative,
            "text": value.text,
        }
    return {
        "text": value.text,
        "value": None if value.value is None else api_float(value.value),
        "series": value.series,
        "comparison": as_json(value.comparison),
        "parts": [as_json(part) for part in value.parts],
    }


def shown(labels: LabelSet, rule: AlertingRule) -> str:
    """The labels that tell an instance from its siblings, for people; a single one without its name."""
    rest = [(name, value) for name, value in labels if name != ALERT_NAME and name not in rule.labels]
    if len(rest) == 1:
        return rest[0][1]
    return ", ".join(f'{name}="{value}"' for name, value in rest)


def span(seconds: float) -> str:
    """A length of time for people."""
    return format_duration(max(0, round(seconds)) * 1000)


def answer(alert: str, rules: Sequence[Mapping[str, Any]]) -> str:
    """The whole in one sentence: of the instance that stands highest, or that came closest."""
    pairs = [(rule, one) for rule in rules for one in rule["instances"]]
    failed = next((rule for rule in rules if rule["health"] == "err" and rule["error"]), None)
    if failed is not None:
        return f"{alert} could not be judged: {failed['error']}"
    if not pairs:
        return f"{alert} has no instance or label set that matches"
    # the order within a state is that of the list: what is closest to its threshold comes first
    rule, one = min(pairs, key=lambda pair: _RANK[pair[1]["state"]])
    count = sum(other["state"] == one["state"] for _, other in pairs)
    whom = f" for {one['shown']}" if one["shown"] else ""
    more = f" (and {count - 1} more)" if count > 1 else ""
    past = not rule["now"]
    if one["state"] == "firing":
        return _firing(alert, f"{whom}{more}", one, past=past)
    if one["state"] == "pending":
        verb = "was" if past else "is"
        left = f"fires in {span(one['forLeft'])} if it goes on" if one["forLeft"] else "fires next"
        return f"{alert} {verb} pending{whom}{more}: {one['reason']}; it {left}"
    verb = "did" if past else "does"
    return f"{alert} {verb} not fire{whom}{more}: {one['reason']}"


def _firing(alert: str, whom: str, one: Mapping[str, Any], *, past: bool) -> str:
    verb = "fired" if past else "fires"
    why = one["reason"]
    if one["held"]:
        why = f"it is held ({one['held']}), {why}"
    return f"{alert} {verb}{whom}: {why}; {_told(one)}"


def _told(one: Mapping[str, Any]) -> str:
    """What became of its notification."""
    sent = [
        delivery["receiver"]
        for delivery in one["deliveries"]
        if delivery["status"] == "firing"
        and delivery["state"] == "delivered"
        and delivery["episode"] == one.get("episode", {}).get("id")
    ]
    if sent:
        return f"sent to {', '.join(dict.fromkeys(sent))}"
    if one.get("notifications"):
        return "notified"
    if one["quiet"]:
        return f"not sent: {one['quiet']}"
    shut = [to for to in one["destinations"] if to["until"] and to["suppressed"]]
    if shut:
        return f"not sent: the cooldown of {shut[0]['receiver']} holds it back until {shut[0]['until']}"
    failed = next((delivery for delivery in one["deliveries"] if delivery["state"] != "delivered"), None)
    if failed is not None:
        return f"not sent to {failed['receiver']}: {failed['answer']}"
    return "not sent yet" if one["destinations"] else "no route leads to a receiver that sends"
