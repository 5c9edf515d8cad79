"""Rule files in plain Prometheus format: our keys taken out, and said in comments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from exporter.model.durations import format_duration
from exporter.rules.model import AlertingRule, MissingData, Rule, RuleGroup


def prometheus_rules(groups: Sequence[RuleGroup]) -> str:
    """A rule file for Prometheus with these groups.

    Labels of a group stand on each of its rules, so that versions before 3.0 read the file too.
    """
    lines = ["groups:"]
    for group in groups:
        lines += [f"  - name: {quoted(group.name)}"]
        if group.interval_ms:
            lines.append(f"    interval: {format_duration(group.interval_ms)}")
        if group.limit:
            lines.append(f"    limit: {group.limit}")
        if group.query_offset_ms is not None:
            lines.append(f"    query_offset: {format_duration(group.query_offset_ms)}  # Prometheus 2.53 on")
        lines.append("    rules:" if group.rules else "    rules: []")
        for rule in group.rules:
            lines.extend(f"      {line}".rstrip() for line in _rule(rule))
    return "\n".join(lines if groups else ["groups: []"]) + "\n"


def quoted(text: str) -> str:
    """A YAML scalar in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _rule(rule: Rule) -> Iterator[str]:
    if isinstance(rule, AlertingRule):
        yield from _left_out(rule)
        yield f"- alert: {quoted(rule.name)}"
    else:
        yield f"- record: {quoted(rule.record)}"
    yield f"  expr: {quoted(rule.expr_text)}"
    if isinstance(rule, AlertingRule):
        if rule.for_ms:
            yield f"  for: {format_duration(rule.for_ms)}"
        if rule.keep_firing_for_ms:
            yield f"  keep_firing_for: {format_duration(rule.keep_firing_for_ms)}"
    yield from _mapping("labels", rule.labels)
    if isinstance(rule, AlertingRule):
        yield from _mapping("annotations", rule.annotations)


def _mapping(name: str, texts: Mapping[str, str]) -> Iterator[str]:
    if texts:
        yield f"  {name}:"
        for key, text in texts.items():
            yield f"    {key}: {quoted(text)}"


def _left_out(rule: AlertingRule) -> Iterator[str]:
    if rule.cooldown_ms:
        shared = ""
        if rule.cooldown_by is not None:
            shared = f", shared by equal {', '.join(rule.cooldown_by)}" if rule.cooldown_by else ", shared"
        yield f"# cooldown {format_duration(rule.cooldown_ms)}{shared}: repeat_interval in alertmanager.yml"
    if rule.missing_data is not MissingData.RESOLVE:
        yield f"# missing_data {rule.missing_data.value}: Prometheus resolves where the input vanishes"
    if rule.keep_firing_text:
        yield f"# keep_firing_expr left out, no hysteresis: {' '.join(rule.keep_firing_text.split())}"
