"""Rule groups and alerts in the shapes of Prometheus' API. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from exporter.model.labels import LabelSet, Matcher
from exporter.promql.printer import to_text
from exporter.rules.evaluation import GroupView, RuleEvaluation, RuleHealth
from exporter.rules.instance import AlertInstance
from exporter.rules.model import AlertingRule, Rule
from exporter.web.encode import go_exponent, rfc3339
from exporter.web.params import ParamError


def active_alerts(groups: Iterable[GroupView]) -> list[dict[str, Any]]:
    """Every pending and firing instance."""
    return [
        alert_json(instance)
        for view in groups
        for evaluation in (view.evaluation.rules if view.evaluation else ())
        for instance in evaluation.active
    ]


def rule_groups(
    groups: Sequence[GroupView],
    *,
    kind: str = "",
    files: Sequence[str] = (),
    names: Sequence[str] = (),
    groups_wanted: Sequence[str] = (),
    matcher_sets: Sequence[Sequence[Matcher]] = (),
    exclude_alerts: bool = False,
    group_limit: int = 0,
    next_token: str = "",
) -> dict[str, Any]:
    """The data of /api/v1/rules: groups that keep at least one rule after the filters, paged by group.

    Raises: ParamError for a token without a limit, a limit below 0, or a token that names no group.
    """
    if next_token and not group_limit:
        raise ParamError(
            "group_limit needs to be specified in order to paginate over the groups", "group_next_token"
        )
    if group_limit < 0:
        raise ParamError("group_limit needs to be greater than 0", "group_limit")
    found: list[dict[str, Any]] = []
    waiting = bool(next_token)
    more = ""
    for view in groups:
        group = view.group
        if waiting:
            if _token(view) != next_token:
                continue
            waiting = False
        if (files and group.file not in files) or (groups_wanted and group.name not in groups_wanted):
            continue
        rules = [
            _rule_json(rule, evaluation, exclude_alerts=exclude_alerts)
            for rule, evaluation in _with_evaluations(view)
            if _wanted(rule, kind, names, matcher_sets)
        ]
        if not rules:
            continue
        if group_limit and len(found) == group_limit:
            more = _token(view)
            break
        evaluation = view.evaluation
        found.append(
            {
                "name": group.name,
                "file": group.file,
                "rules": rules,
                "interval": view.interval_ms / 1000,
                "limit": group.limit,
                "evaluationTime": evaluation.duration_s if evaluation else 0,
                "lastEvaluation": rfc3339(evaluation.ts_ms if evaluation else 0),
            }
        )
    if waiting:
        raise ParamError(
            f"invalid group_next_token '{next_token}'. were rule groups changed?", "group_next_token"
        )
    document: dict[str, Any] = {"groups": found}
    if more:
        document["groupNextToken"] = more
    return document


def alert_json(instance: AlertInstance) -> dict[str, Any]:
    """One active alert of /api/v1/alerts and /api/v1/rules."""
    document: dict[str, Any] = {
        "labels": instance.labels,
        "annotations": dict(sorted(instance.annotations.items())),
        "state": instance.state.text,
        "activeAt": rfc3339(instance.active_at_ms),
    }
    if instance.keep_firing_since_ms:
        document["keepFiringSince"] = rfc3339(instance.keep_firing_since_ms)
    document["value"] = go_exponent(instance.value)
    return document


def _with_evaluations(view: GroupView) -> Iterable[tuple[Rule, RuleEvaluation]]:
    done = (
        {evaluation.rule.key: evaluation for evaluation in view.evaluation.rules} if view.evaluation else {}
    )
    for rule in view.group.rules:
        yield rule, done.get(rule.key) or RuleEvaluation(rule, RuleHealth.UNKNOWN)


def _wanted(rule: Rule, kind: str, names: Sequence[str], matcher_sets: Sequence[Sequence[Matcher]]) -> bool:
    if kind and (kind == "alert") != isinstance(rule, AlertingRule):
        return False
    if names and rule.name not in names:
        return False
    labels = LabelSet.of(rule.labels)
    return not matcher_sets or any(
        all(matcher.matches(labels.get(matcher.name)) for matcher in matchers) for matchers in matcher_sets
    )


def _rule_json(rule: Rule, evaluation: RuleEvaluation, *, exclude_alerts: bool) -> dict[str, Any]:
    tail: dict[str, Any] = {"health": evaluation.health.value}
    if evaluation.error:
        tail["lastError"] = evaluation.error
    tail["evaluationTime"] = evaluation.duration_s
    tail["lastEvaluation"] = rfc3339(evaluation.evaluated_at_ms)
    if not isinstance(rule, AlertingRule):
        head: dict[str, Any] = {"name": rule.record, "query": to_text(rule.expr)}
        if rule.labels:
            head["labels"] = dict(sorted(rule.labels.items()))
        return {**head, **tail, "type": "recording"}
    return {
        "state": evaluation.state.text,
        "name": rule.name,
        "query": to_text(rule.expr),
        "duration": rule.for_ms / 1000,
        "keepFiringFor": rule.keep_firing_for_ms / 1000,
        "labels": dict(sorted(rule.labels.items())),
        "annotations": dict(sorted(rule.annotations.items())),
        "alerts": [] if exclude_alerts else [alert_json(instance) for instance in evaluation.active],
        **tail,
        "type": "alerting",
    }


def _token(view: GroupView) -> str:
    name = f"{view.group.file};{view.group.name}".encode()
    return base64.urlsafe_b64encode(hashlib.sha256(name).digest()[:15]).decode()
