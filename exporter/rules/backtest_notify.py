"""What a backtest would have sent: the live cooldown over episodes, with a receiver that takes everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.model.labels import LabelSet
from exporter.rules.backtest import AlertReplay, Episode
from exporter.rules.cooldown import Gate, NotifyReason, decide, delivered
from exporter.rules.model import AlertingRule


@dataclass(frozen=True, slots=True)
class Sent:
    """One notification: when, of which episode, why, and how many firings were held back before it."""

    at_ms: int
    episode_id: str
    labels: LabelSet
    reason: NotifyReason
    suppressed: int = 0

    @property
    def is_firing(self) -> bool:
        """Whether it tells of a firing, not of its end."""
        return self.reason is not NotifyReason.RESOLVED


def notifications(alert: AlertReplay, end_ms: int, cooldown_ms: int | None = None) -> tuple[Sent, ...]:
    """The notifications of an alert up to `end_ms`, in order; `cooldown_ms` None takes the rule's own.

    Decisions fall at the slots of the rule, as in live evaluation.
    """
    rule = alert.rule
    by_gate: dict[LabelSet, list[Episode]] = {}
    for episode in alert.episodes:
        by_gate.setdefault(_shared(rule, episode.labels), []).append(episode)
    wanted_ms = rule.cooldown_ms if cooldown_ms is None else cooldown_ms
    sent = [
        one
        for labels, episodes in by_gate.items()
        for one in _through_gate(f"{rule.key}|{labels}", wanted_ms, episodes, alert.slots, end_ms)
    ]
    return tuple(sorted(sent, key=lambda one: (one.at_ms, one.labels.pairs)))


def _shared(rule: AlertingRule, labels: LabelSet) -> LabelSet:
    return labels if rule.cooldown_by is None else labels.keep(rule.cooldown_by)


def _through_gate(
    key: str, cooldown_ms: int, episodes: Sequence[Episode], slots: tuple[int, int], end_ms: int
) -> list[Sent]:
    by_id = {one.id: one for one in episodes}
    starts = sorted(episodes, key=lambda one: one.start_ms, reverse=True)
    ends = sorted((one for one in episodes if one.end_ms), key=lambda one: one.end_ms, reverse=True)
    gate, firing, sent = Gate(key), dict[str, Episode](), list[Sent]()
    repeat_ms = 0
    while True:
        times = [starts[-1].start_ms] if starts else []
        times += [ends[-1].end_ms] if ends else []
        times += [repeat_ms] if repeat_ms else []
        now_ms = min(times, default=end_ms + 1)
        if now_ms > end_ms:
            return sent
        ended: list[str] = []
        while ends and ends[-1].end_ms <= now_ms:
            ended.append(ends.pop().id)
        while starts and starts[-1].start_ms <= now_ms:
            one = starts.pop()
            firing[one.id] = one
        for gone in ended:
            firing.pop(gone, None)
        gate, decisions = decide(gate, cooldown_ms, firing, ended, now_ms)
        for decision in decisions:
            if decision.reason.sends:
                labels = by_id[decision.episode_id].labels
                sent.append(Sent(now_ms, decision.episode_id, labels, decision.reason, decision.suppressed))
        for slot in {decision.slot for decision in decisions if decision.slot}:
            gate, _ = delivered(gate, slot, now_ms)
        repeat_ms = _slot_from(slots, gate.until_ms) if firing and gate.until_ms > now_ms else 0


def _slot_from(slots: tuple[int, int], at_ms: int) -> int:
    first_ms, interval_ms = slots
    return first_ms + -(-(at_ms - first_ms) // interval_ms) * interval_ms
