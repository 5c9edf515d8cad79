"""Rule groups as a PrometheusRule, for Prometheus' operator."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from exporter.rules.export import prometheus_rules, quoted
from exporter.rules.model import RuleGroup


def prometheus_rule(groups: Sequence[RuleGroup], name: str, labels: Mapping[str, str]) -> str:
    """The manifest; `labels` are what the operator's ruleSelector asks for.

    Source: API reference of the Prometheus operator, monitoring.coreos.com/v1.
    """
    lines = ["apiVersion: monitoring.coreos.com/v1", "kind: PrometheusRule", "metadata:"]
    lines.append(f"  name: {quoted(name)}")
    if labels:
        lines.append("  labels:")
        lines += (f"    {key}: {quoted(text)}" for key, text in labels.items())
    return "\n".join([*lines, "spec:", textwrap.indent(prometheus_rules(groups), "  ")])
