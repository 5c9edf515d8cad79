"""Why an alert did, or did not, fire or notify: rule, samples, instances and deliveries put side by side.

For now everything comes from memory. For the past the samples come from the head or Postgres (through the
query service), the state of the instances from the stored `ALERTS` and `ALERTS_FOR_STATE`, and what was sent
from the history of episodes; the rule and the routes are those of today.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from exporter.clock import Clock
from exporter.compose.why_words import answer, as_json, shown
from exporter.config.matchers import match_all
from exporter.errors import NotFoundError, QueryError, StorageError
from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, quote
from exporter.notify.records import fingerprint
from exporter.promql.values import InstantVector, ScalarValue
from exporter.rules.alert import ALERT_NAME, ALERT_STATE, ALERTS, ALERTS_FOR_STATE, AlertState
from exporter.rules.evaluation import GroupView, RuleEvaluation
from exporter.rules.model import AlertingRule
from exporter.rules.probe import Vector
from exporter.rules.schedule import slot_at_or_before
from exporter.rules.why import Explained, Judged, judge, of_instance, questions
from exporter.web.encode import rfc3339
from exporter.web.ports import QueryService, RuleService

_INSTANCES_SHOWN = 100
_EPISODES_READ = 500


class _Alerts(Protocol):
    """What of the alert service is needed."""

    def alert(self, episode_id: str) -> Mapping[str, Any] | None: ...

    def standing(self, rule: AlertingRule, labels: LabelSet, at_ms: int) -> dict[str, Any]: ...

    async def find(self, **wanted: Any) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class _Instance:
    """An alert instance at the time asked for; `source` are the labels of the expression as far as known."""

    labels: LabelSet
    source: LabelSet
    state: AlertState
    active_at_ms: int
    fired_at_ms: int = 0
    keep_firing_since_ms: int = 0
    held: str = ""
    value: float | None = None
    peak: float | None = None
    episode_id: str = ""


@dataclass(frozen=True, slots=True)
class _Moment:
    """The time asked for: the evaluation at or before it, and whether that is the newest one."""

    at_ms: int
    evaluated_ms: int
    now: bool


class WhyService:
    """See the module. `alerts` gives the alert service of the moment."""

    def __init__(
        self, rules: RuleService, queries: QueryService, alerts: Callable[[], _Alerts], clock: Clock
    ) -> None:
        self._rules = rules
        self._queries = queries
        self._alerts = alerts
        self._clock = clock

    async def why(
        self, alert: str, at_ms: int | None = None, matchers: Sequence[Matcher] = ()
    ) -> Mapping[str, Any]:
        """One document: `answer` in a sentence, then `rules`, each with its `instances`.

        Raises: NotFoundError for a name that no alerting rule has; QueryError where samples cannot be read.
        """
        found = [
            (view, rule)
            for view in self._rules.groups()
            for rule in view.group.rules
            if isinstance(rule, AlertingRule) and rule.name == alert
        ]
        if not found:
            raise NotFoundError(self._unknown(alert))
        rules = [await self._rule(view, rule, at_ms, matchers) for view, rule in found]
        shown_ms = self._clock.now_ms() if at_ms is None else at_ms
        return {
            "alert": alert,
            "at": rfc3339(shown_ms),
            "answer": answer(alert, rules),
            "rules": rules,
        }

    def _unknown(self, alert: str) -> str:
        names = {
            rule.name
            for view in self._rules.groups()
            for rule in view.group.rules
            if isinstance(rule, AlertingRule)
        }
        near = difflib.get_close_matches(alert, sorted(names), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"no alerting rule is called {alert}{hint}"

    async def _rule(
        self, view: GroupView, rule: AlertingRule, at_ms: int | None, matchers: Sequence[Matcher]
    ) -> dict[str, Any]:
        moment = self._moment(view, at_ms)
        offset_ms = view.group.query_offset_ms or 0
        answers = await self._ask(questions(rule), moment.evaluated_ms - offset_ms)
        explained = judge(rule, answers)
        evaluation = _evaluation(view, rule)
        notes = [] if moment.now else ["judged with the rule, the routes and the silences of today"]
        if moment.now:
            instances = self._instances_now(evaluation)
        else:
            instances = await self._instances_then(rule, moment.evaluated_ms - offset_ms)
        episodes, fault = await self._episodes(rule.name, moment.at_ms)
        if fault:
            notes.append(f"deliveries are not known: {fault}")
        if explained.left_out:
            notes.append(
                f"{explained.left_out} more label sets are left out, those furthest from the threshold"
            )
        everything = _paired(rule, instances, explained)
        pairs = [pair for pair in everything if match_all(matchers, pair[0])]
        if not pairs:  # where nothing is measured, that is the answer for every label set
            pairs = [pair for pair in everything if pair[2] is not None and pair[2].missing]
        return {
            "name": rule.name,
            "group": view.group.name,
            "file": view.group.file,
            "line": rule.line,
            "expr": rule.expr_text,
            "for": rule.for_ms / 1000,
            "keepFiringFor": rule.keep_firing_for_ms / 1000,
            "keepFiringExpr": rule.keep_firing_text,
            "cooldown": rule.cooldown_ms / 1000,
            "cooldownBy": None if rule.cooldown_by is None else list(rule.cooldown_by),
            "missingData": rule.missing_data.value,
            "evaluatedAt": rfc3339(moment.evaluated_ms),
            "now": moment.now,
            "health": evaluation.health.value if moment.now and evaluation else "unknown",
            "error": evaluation.error if moment.now and evaluation else "",
            "inputs": [
                {"selector": one.selector, "series": one.series, "missing": not one.series}
                for one in explained.inputs
            ],
            "instances": [
                self._describe(rule, labels, instance, judged, moment, episodes)
                for labels, instance, judged in pairs[:_INSTANCES_SHOWN]
            ],
            "notes": notes,
        }

    def _moment(self, view: GroupView, at_ms: int | None) -> _Moment:
        newest_ms = view.evaluation.ts_ms if view.evaluation else self._clock.now_ms()
        if at_ms is None or at_ms >= newest_ms:
            return _Moment(self._clock.now_ms() if at_ms is None else at_ms, newest_ms, True)
        return _Moment(at_ms, slot_at_or_before(view.group.key, view.interval_ms, at_ms), False)

    async def _ask(self, texts: Sequence[str], ts_ms: int) -> dict[str, Vector]:
        found = await asyncio.gather(*(self._vector(text, ts_ms) for text in texts))
        return dict(zip(texts, found, strict=True))

    async def _vector(self, text: str, ts_ms: int) -> Vector:
        value = (await self._queries.instant(text, ts_ms)).value
        if isinstance(value, ScalarValue):
            return [(LabelSet(()), value.value)]
        if isinstance(value, InstantVector):
            return list(zip(value.labels, value.values.tolist(), strict=True))
        raise QueryError(f"{text} is neither a vector nor a scalar")

    # -- instances ------------------------------------------------------------------------------------

    @staticmethod
    def _instances_now(evaluation: RuleEvaluation | None) -> list[_Instance]:
        return [
            _Instance(
                one.labels,
                one.source,
                one.state,
                one.active_at_ms,
                one.fired_at_ms,
                one.keep_firing_since_ms,
                one.held,
                one.value,
                one.peak,
                one.episode_id,
            )
            for one in (evaluation.active if evaluation else ())
        ]

    async def _instances_then(self, rule: AlertingRule, ts_ms: int) -> list[_Instance]:
        """As `ALERTS` and `ALERTS_FOR_STATE` have them."""
        name = quote(rule.name)
        states = await self._vector(f"{ALERTS}{{{ALERT_NAME}={name}}}", ts_ms)
        since = await self._vector(f"{ALERTS_FOR_STATE}{{{ALERT_NAME}={name}}}", ts_ms)
        active = {labels.without((METRIC_NAME,)): round(value * 1000) for labels, value in since}
        found = []
        for series, _ in states:
            labels = series.without((METRIC_NAME, ALERT_STATE))
            if not _belongs(rule, labels):
                continue
            state = AlertState[series.get(ALERT_STATE).upper()]
            source = labels.without((ALERT_NAME, *rule.labels))
            found.append(_Instance(labels, source, state, active.get(labels, 0)))
        return found

    async def _episodes(self, name: str, at_ms: int) -> tuple[Sequence[Mapping[str, Any]], str]:
        """The newest episodes that had begun by then, and what kept them from being read."""
        try:
            return await self._alerts().find(alertname=name, end_ms=at_ms, limit=_EPISODES_READ), ""
        except StorageError as error:
            return (), str(error)

    # -- one instance ---------------------------------------------------------------------------------

    def _describe(
        self,
        rule: AlertingRule,
        labels: LabelSet,
        instance: _Instance | None,
        judged: Judged | None,
        moment: _Moment,
        episodes: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        state = instance.state if instance else AlertState.INACTIVE
        own = [one for one in episodes if one["labels"] == labels.as_dict()]
        episode = next((one for one in own if _running(one, moment.at_ms)), None)
        document: dict[str, Any] = {
            "labels": labels.as_dict(),
            "shown": shown(labels, rule),
            "state": state.text,
            "returned": judged.returned if judged else False,
            "reason": judged.reason if judged else "the expression no longer returns it",
            "missing": list(judged.missing) if judged else [],
            "comparison": as_json(judged.comparison) if judged else None,
            "tree": as_json(judged.tree) if judged else None,
            **_progress(rule, instance, episode, moment.evaluated_ms),
        }
        standing = self._alerts().standing(rule, labels, moment.at_ms)
        document["quiet"] = standing["quiet"]
        document["destinations"] = standing["destinations"]
        if moment.now:
            self._add_outlook(document, instance)
        else:
            _past_gates(document["destinations"], rule, labels, episodes, moment.at_ms)
        if episode is not None:
            document["episode"] = _episode(episode, moment.at_ms)
            if episode["acked_at"] and _ms(episode["acked_at"]) <= moment.at_ms:
                document["quiet"] = document["quiet"] or f"acknowledged by {episode['acked_by']}"
        document["deliveries"] = _deliveries(own[:5], moment.at_ms)
        return document

    def _add_outlook(self, document: dict[str, Any], instance: _Instance | None) -> None:
        """What each destination is told next, where it fires."""
        if instance is None or not instance.episode_id:
            return
        live = self._alerts().alert(instance.episode_id)
        if live is None:
            return
        by_receiver = {one["receiver"]: one for one in live["outlook"]}
        for destination in document["destinations"]:
            next_one = by_receiver.get(destination["receiver"], {})
            destination["nextSendAt"] = next_one.get("nextSendAt")
            destination["why"] = next_one.get("why", "")
        document["notifications"] = live["notifications"]
        document["notifiedAt"] = live["notifiedAt"]
        document["heldBack"] = live["suppressed"]
        whys = {one["why"] for one in live["outlook"]}
        for why in whys:
            if why.startswith(("acknowledged", "silenced", "inhibited", "resolved")):
                document["quiet"] = why


# -- inside -------------------------------------------------------------------------------------------


def _evaluation(view: GroupView, rule: AlertingRule) -> RuleEvaluation | None:
    rules = view.evaluation.rules if view.evaluation else ()
    return next((one for one in rules if one.rule.key == rule.key), None)


def _paired(
    rule: AlertingRule, instances: Sequence[_Instance], explained: Explained
) -> list[tuple[LabelSet, _Instance | None, Judged | None]]:
    """Every instance with its label set of the expression, then the label sets that are no instance."""
    found: list[tuple[LabelSet, _Instance | None, Judged | None]] = []
    used: set[int] = set()
    for instance in sorted(instances, key=lambda one: (-one.state, one.labels)):
        judged = of_instance(explained.judged, instance.source)
        if judged is not None:
            used.add(id(judged))
        found.append((instance.labels, instance, judged))
    for judged in explained.judged:
        if id(judged) in used or (used and not judged.labels and judged.missing):
            continue
        fixed = {name: text for name, text in rule.labels.items() if "{{" not in text}
        labels = LabelSet.of({**judged.labels.as_dict(), **fixed, ALERT_NAME: rule.name})
        found.append((labels, None, judged))
    return found


def _belongs(rule: AlertingRule, labels: LabelSet) -> bool:
    """Whether an instance of this name has the fixed labels of the rule: names may repeat."""
    return all(labels.get(name) == text for name, text in rule.labels.items() if "{{" not in text)


def _progress(
    rule: AlertingRule,
    instance: _Instance | None,
    episode: Mapping[str, Any] | None,
    evaluated_ms: int,
) -> dict[str, Any]:
    """How far `for` and keep_firing_for have come, seconds left, and what holds the instance."""
    if instance is None:
        return {"activeAt": None, "firedAt": None, "forLeft": rule.for_ms / 1000, "held": ""}
    pending = instance.state is AlertState.PENDING
    left_ms = max(0, instance.active_at_ms + rule.for_ms - evaluated_ms) if pending else 0
    keep_ms = instance.keep_firing_since_ms
    fired = rfc3339(instance.fired_at_ms) if instance.fired_at_ms else None
    return {
        "activeAt": rfc3339(instance.active_at_ms) if instance.active_at_ms else None,
        "firedAt": fired or (episode and episode["triggered_at"]),
        "forLeft": left_ms / 1000,
        "held": instance.held,
        "keepFiringSince": rfc3339(keep_ms) if keep_ms else None,
        "keepFiringLeft": max(0, keep_ms + rule.keep_firing_for_ms - evaluated_ms) / 1000 if keep_ms else 0,
        "value": None if instance.value is None else f"{instance.value:.6g}",
        "peak": None if instance.peak is None else f"{instance.peak:.6g}",
        "fingerprint": fingerprint(instance.labels),
    }


def _running(episode: Mapping[str, Any], at_ms: int) -> bool:
    """Whether an episode of the history had begun and not ended at a time."""
    ended = episode["resolved_at"]
    return _ms(episode["triggered_at"]) <= at_ms and (not ended or _ms(ended) > at_ms)


def _episode(row: Mapping[str, Any], at_ms: int) -> dict[str, Any]:
    acked = row["acked_at"] and _ms(row["acked_at"]) <= at_ms
    return {
        "id": row["episode_id"],
        "triggeredAt": row["triggered_at"],
        "resolvedAt": row["resolved_at"],
        "resolveReason": row["resolve_reason"],
        "acknowledgedBy": row["acked_by"] if acked else None,
    }


def _deliveries(episodes: Sequence[Mapping[str, Any]], at_ms: int) -> list[dict[str, Any]]:
    """What was sent of these episodes up to a time, newest episode first, with the answers."""
    found = []
    for row in episodes:
        for one in row["notifications"]:
            if _ms(one["createdAt"]) > at_ms:
                continue
            done = one["finishedAt"] and _ms(one["finishedAt"]) <= at_ms
            state = one["state"] if done else "queued"
            text = {"delivered": "taken", "dead": "given up", "queued": "on its way"}.get(state, state)
            if one["via"]:
                text += f" by the fallback {one['via']}"
            if one["error"]:
                text += f": {one['error']}"
            found.append(
                {
                    "episode": row["episode_id"],
                    "receiver": one["receiver"],
                    "status": one["status"],
                    "state": state,
                    "createdAt": one["createdAt"],
                    "finishedAt": one["finishedAt"] if done else None,
                    "attempts": one["attempts"],
                    "answer": text,
                }
            )
    return found


def _past_gates(
    destinations: Sequence[dict[str, Any]],
    rule: AlertingRule,
    labels: LabelSet,
    episodes: Sequence[Mapping[str, Any]],
    at_ms: int,
) -> None:
    """The cooldown as it stood at a time: the last delivered firing, and the episodes begun since."""
    by = rule.cooldown_by
    wanted = labels.as_dict() if by is None else {name: labels.get(name) for name in by}
    sharing = [
        row for row in episodes
        if all((row["labels"] or {}).get(name, "") == value for name, value in wanted.items())
    ]  # fmt: skip
    for one in destinations:
        receiver = one["receiver"].partition("#")[0]
        armed_ms = max(
            (
                _ms(sent["finishedAt"])
                for row in sharing
                for sent in row["notifications"]
                if sent["receiver"].partition("#")[0] == receiver
                and sent["status"] == "firing"
                and sent["state"] == "delivered"
                and sent["finishedAt"]
                and _ms(sent["finishedAt"]) <= at_ms
            ),
            default=0,
        )
        until_ms = armed_ms + round(one["cooldown"] * 1000) if armed_ms and one["cooldown"] else 0
        shut = armed_ms and at_ms < until_ms
        begun = [row for row in sharing if armed_ms < _ms(row["triggered_at"]) <= at_ms]
        one["armedAt"] = rfc3339(armed_ms) if armed_ms else None
        one["until"] = rfc3339(until_ms) if until_ms else None
        one["suppressed"] = len(begun) if shut else 0
        one["onItsWay"] = False


def _ms(text: str | datetime) -> int:
    moment = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return round(moment.timestamp() * 1000)
