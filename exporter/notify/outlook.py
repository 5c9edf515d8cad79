"""What each destination will be told of an alert, and when or why not; asking changes nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.model.labels import LabelSet
from exporter.notify.decide import Decider
from exporter.notify.episodes import EpisodeTable
from exporter.notify.gates import gate_key
from exporter.notify.quiet import Quiet
from exporter.notify.records import fingerprint
from exporter.notify.route import Target
from exporter.rules import cooldown
from exporter.rules.cooldown import Gate
from exporter.rules.model import AlertingRule


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a destination will be told of an episode: when, or why not."""

    receiver: str
    next_at_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A destination that a label set is routed to, with its gate as it is; `muted` by an interval."""

    target: Target
    cooldown_ms: int
    gate: Gate
    muted: str


def standings(
    decider: Decider, episodes: EpisodeTable, rule: AlertingRule, labels: LabelSet, now_ms: int
) -> list[Standing]:
    """Where an instance with these labels is routed, whether it fires or not."""
    found = []
    for target in decider.router.targets(episodes.leaving(labels)):
        key = gate_key(target.destination.key, rule, labels, fingerprint(labels))
        cooldown_ms = max(rule.cooldown_ms, target.route.cooldown_ms)
        muted = decider.router.muted_by(target.route, now_ms)
        found.append(Standing(target, cooldown_ms, decider.gates.get(key), muted))
    return found


def outlook(
    decider: Decider, episodes: EpisodeTable, quiet: Quiet, episode_id: str, now_ms: int
) -> list[Outlook]:
    """What each destination will be told next of an episode that fires; nothing of one that does not."""
    instance, episode = episodes.firing.get(episode_id), episodes.all.get(episode_id)
    if instance is None or episode is None:
        return []
    because = quiet.because(episode, now_ms)
    rule = episodes.rules[episode.rule_key]
    return [
        _next(decider, one, episode_id, because, now_ms)
        for one in standings(decider, episodes, rule, instance.labels, now_ms)
    ]


def _next(decider: Decider, standing: Standing, episode_id: str, because: str, now_ms: int) -> Outlook:
    gate, receiver = standing.gate, standing.target.destination.key
    if because or standing.muted:
        return Outlook(receiver, 0, because or f"muted: {standing.muted}")
    flight = next((one for one in gate.flights if episode_id in one.episode_ids), None)
    if flight is not None:
        return Outlook(receiver, 0, _on_its_way(decider, gate.key, flight.slot))
    _, decisions = cooldown.decide(gate, standing.cooldown_ms, [episode_id], (), now_ms)
    decision = decisions[-1]
    next_at_ms = decision.next_at_ms or (now_ms if decision.reason.sends else 0)
    if next_at_ms:
        return Outlook(receiver, next_at_ms, "")
    return Outlook(receiver, 0, "waits for another delivery" if gate.flights else "once per episode")


def _on_its_way(decider: Decider, key: str, slot: str) -> str:
    one = decider.queued.of_slot((key, slot))
    if one is None or not one.attempts:
        return "on its way"
    return f"on its way, {one.attempts} tries failed: {one.error}"
