"""The notifications that a rule test would send: the live cooldown, with a receiver that takes everything."""

from __future__ import annotations

from exporter.model.labels import LabelSet
from exporter.rules.alert import AlertInstance, AlertState, TransitionKind
from exporter.rules.cooldown import Gate, NotifyReason, decide, delivered
from exporter.rules.evaluation import GroupEvaluation, RuleEvaluation
from exporter.rules.model import AlertingRule
from exporter.rules.ruletest_format import ExpectedNotification


class Sender:
    """Takes evaluations and lists what is sent; `at_ms` of a notification is the evaluation's time."""

    def __init__(self) -> None:
        self.sent: list[ExpectedNotification] = []
        self._gates: dict[str, Gate] = {}

    def take(self, evaluation: GroupEvaluation) -> None:
        """Decide on every alert instance of an evaluation, and deliver at once."""
        for one in evaluation.rules:
            if isinstance(one.rule, AlertingRule) and (one.active or one.transitions):
                self._rule(one, one.rule, evaluation.ts_ms)

    def _rule(self, one: RuleEvaluation, rule: AlertingRule, now_ms: int) -> None:
        instances: dict[str, dict[str, AlertInstance]] = {}
        for instance in one.active:
            if instance.state is AlertState.FIRING:
                instances.setdefault(_gate_key(rule, instance.labels), {})[instance.episode_id] = instance
        ended: dict[str, dict[str, AlertInstance]] = {}
        for transition in one.transitions:
            if transition.kind is TransitionKind.RESOLVED:
                gone = transition.instance
                ended.setdefault(_gate_key(rule, gone.labels), {})[gone.episode_id] = gone
        for key in {**ended, **instances}:
            self._gate(key, rule, instances.get(key, {}), ended.get(key, {}), now_ms)

    def _gate(
        self,
        key: str,
        rule: AlertingRule,
        firing: dict[str, AlertInstance],
        ended: dict[str, AlertInstance],
        now_ms: int,
    ) -> None:
        gate = self._gates.get(key, Gate(key))
        gate, decisions = decide(gate, rule.cooldown_ms, firing, ended, now_ms)
        for decision in decisions:
            if not decision.reason.sends:
                continue
            resolved = decision.reason is NotifyReason.RESOLVED
            instance = (ended if resolved else firing)[decision.episode_id]
            status = "resolved" if resolved else "firing"
            self.sent.append(ExpectedNotification(now_ms, status, instance.labels, decision.suppressed))
        for slot in {decision.slot for decision in decisions if decision.slot}:
            gate, _ = delivered(gate, slot, now_ms)
        self._gates[key] = gate


def _gate_key(rule: AlertingRule, labels: LabelSet) -> str:
    shared = labels if rule.cooldown_by is None else labels.keep(rule.cooldown_by)
    return f"{rule.key}|{shared}"
