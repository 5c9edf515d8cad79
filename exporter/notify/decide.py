"""Which destinations are told what of which episodes at one moment: routes, groups, gates. Pure.

An episode is put before the gate of each destination that it is routed to; what the gates let out at one
moment leaves together, in notifications that `outgoing` makes of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from exporter.config.receivers import NotificationConfig
from exporter.model.labels import LabelSet
from exporter.notify.agenda import Agenda
from exporter.notify.episodes import EpisodeTable, instance_key
from exporter.notify.gates import GateTable, destination_of, gate_key
from exporter.notify.group import WaitingGroups
from exporter.notify.message import bounded
from exporter.notify.outcome import Outcome
from exporter.notify.outgoing import QueuedNotifications, Unit
from exporter.notify.quiet import Quiet
from exporter.notify.records import Episode, NotifiedAlert, fingerprint
from exporter.notify.route import Destination, Router, Target, destinations
from exporter.notify.steps import Steps, sliced
from exporter.rules import cooldown
from exporter.rules.cooldown import Gate, NotifyDecision, NotifyReason
from exporter.rules.model import AlertingRule

Link = Callable[[AlertingRule], str]
Units = dict[tuple[str, ...], Unit]
_SORTED_AT_ONCE = 1_000
_KEPT_ANNOTATION = 16_000  # characters of one annotation in a notification


@dataclass(slots=True)
class _GateInput:
    """What one gate is asked at one moment; no destination where the configuration no longer has it."""

    destination: Destination | None
    target: Target | None = None
    cooldown_ms: int = 0
    firing: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    quiet: set[str] = field(default_factory=set)


class Decider:
    """See the module. `link` makes the URL of a rule's expression."""

    def __init__(
        self,
        config: NotificationConfig,
        episodes: EpisodeTable,
        quiet: Quiet,
        agenda: Agenda,
        outcome: Outcome,
        link: Link,
    ) -> None:
        self.gates = GateTable()
        self.queued = QueuedNotifications()
        self._episodes = episodes
        self._quiet = quiet
        self._agenda = agenda
        self._outcome = outcome
        self._link = link
        self._ending: set[str] = set()  # over, and what is said of it is being decided
        self.configure(config)

    def configure(self, config: NotificationConfig) -> None:
        """Route by another configuration from now on."""
        self.router = Router(config)
        self.destinations = destinations(config)
        self._groups = WaitingGroups()

    def resume(self, episode_ids: Collection[str], now_ms: int) -> None:
        """These have fired since before a restart: their groups have waited since then, and each is
        considered when something may be due for a destination."""
        standing = [(one, target, gate) for one in episode_ids for target, gate in self._standing(one)]
        for episode_id, target, gate in standing:
            if _is_grouped(target):
                self._groups.resume(
                    self._group_of(target, episode_id),
                    episode_id,
                    self._episodes.firing[episode_id].fired_at_ms,
                    gate.armed_at_ms if gate.has_told(episode_id) else 0,
                    target.route.group_wait_ms,
                    target.route.group_interval_ms,
                )
        for episode_id, target, gate in standing:
            rule = self._episodes.rules[self._episodes.all[episode_id].rule_key]
            cooldown_ms = max(rule.cooldown_ms, target.route.cooldown_ms)
            if any(episode_id in flight.episode_ids for flight in gate.flights):
                continue
            ends_at_ms = gate.armed_at_ms + cooldown_ms if cooldown_ms else 0
            if gate.has_told(episode_id):
                if cooldown_ms:
                    self._agenda.at(max(now_ms, ends_at_ms), episode_id)
            else:
                opens_at_ms = self._groups.next_ms(self._group_of(target, episode_id))
                held_until_ms = ends_at_ms if gate.has_counted(episode_id) else 0
                self._agenda.at(max(now_ms, opens_at_ms, held_until_ms), episode_id)

    def _group_of(self, target: Target, episode_id: str) -> str:
        return _group_key(target, self._episodes.labels_of(self._episodes.all[episode_id]))

    def _standing(self, episode_id: str) -> Iterator[tuple[Target, Gate]]:
        """Where an episode that fires is routed, with the gate there."""
        episode, labels = self._episodes.all[episode_id], self._episodes.firing[episode_id].labels
        rule = self._episodes.rules[episode.rule_key]
        for target in self.router.targets(self._episodes.labels_of(episode)):
            key = gate_key(target.destination.key, rule, labels, fingerprint(labels))
            yield target, self.gates.get(key)

    def leave(self, episode_id: str) -> None:
        """An episode is over: its groups wait for it no more."""
        self._groups.leave(episode_id)

    def consider(self, episode_ids: Iterable[str], ended: Collection[str], now_ms: int) -> Steps[None]:
        """Decide about episodes that fire, and about those that have ended.

        Between the steps gates may change and episodes may be acknowledged; the outcome is whole at the end.
        """
        self._ending.update(ended)
        inputs: dict[str, _GateInput] = {}
        for some in sliced((yield from self._in_order(episode_ids))):
            for episode_id in some:
                self._add_firing(inputs, episode_id, now_ms)
            yield
        for some in sliced(ended):
            for episode_id in some:
                self._add_ended(inputs, episode_id)
            yield
        units: Units = {}
        for few in sliced(inputs.items()):
            for key, given in few:
                self._decide(units, key, given, now_ms)
            yield
        for unit in sliced(units.values()):
            self.emit(unit, now_ms)
            yield
        self._ending.difference_update(ended)
        self.release(ended)

    def arrived(self, units: Units, key: str, slot: str, now_ms: int) -> None:
        """The firing notification of a slot was delivered: arm the gate, add what is to be said now to the
        units, and look at its episodes again when the cooldown ends."""
        gate = self.gates.find(key)
        if gate is None:
            return
        gate, decisions = cooldown.delivered(gate, slot, now_ms)
        self.gates.set(gate, self._outcome.changes)
        self._wake_all(gate, gate.until_ms or now_ms)
        given = _GateInput(self.destinations.get(destination_of(key)))
        for decision in decisions:
            self._add_to_unit(units, given, key, decision, now_ms)

    def given_up(self, key: str, slot: str, now_ms: int) -> None:
        """The firing notification of a slot was given up: the gate stays unarmed."""
        gate = self.gates.find(key)
        if gate is not None:
            gate = cooldown.failed(gate, slot, now_ms)
            self.gates.set(gate, self._outcome.changes)
            self._wake_all(gate, now_ms)

    def drop_lost_flights(self, now_ms: int) -> None:
        """A slot whose notification is not in the outbox will never report back."""
        for _, gate in self.gates:
            after = gate
            for flight in gate.flights:
                if self.queued.of_slot((gate.key, flight.slot)) is None:
                    after = cooldown.failed(after, flight.slot, now_ms)
            if after is not gate:
                self.gates.set(after, self._outcome.changes)

    def emit(self, units: Iterable[Unit], now_ms: int) -> None:
        """Make the notifications of the units, queue them and hand them out."""
        for unit in units:
            for notification in unit.notifications(now_ms, self.queued.last_seq + 1):
                self.queued.add(notification)
                self._outcome.changes.notifications[notification.id] = notification
                self._outcome.notifications.append(notification)

    def release(self, episode_ids: Iterable[str]) -> None:
        """Forget episodes that are over and of which nothing more will be told."""
        for episode_id in episode_ids:
            episode = self._episodes.all.get(episode_id)
            if episode is None or episode.active:
                continue
            if self.gates.knows(episode_id) or self.queued.tells_of(episode_id):
                continue
            if episode_id in self._ending:
                continue
            self._episodes.forget(episode_id)

    def link_of(self, episode: Episode) -> str:
        """The URL of the expression of an episode's rule; '' for a rule that is gone."""
        rule = self._episodes.rules.get(episode.rule_key)
        return self._link(rule) if rule else ""

    # inside

    def _in_order(self, episode_ids: Iterable[str]) -> Steps[Iterator[str]]:
        """Those that fire, by their labels; sorted in parts, so that none of them takes long."""
        firing = self._episodes.firing

        def place(episode_id: str) -> tuple[tuple[str, str], ...]:
            return firing[episode_id].labels.pairs

        chosen = (one for one in episode_ids if one in firing)
        parts = []
        for part in sliced(chosen, _SORTED_AT_ONCE):
            parts.append(sorted(part, key=place))
            yield
        return heapq.merge(*parts, key=place)

    def _add_ended(self, inputs: dict[str, _GateInput], episode_id: str) -> None:
        """Put an episode that is over before the gates that know it."""
        for key in self.gates.keys_of(episode_id):
            if key not in inputs:
                destination = self.destinations.get(destination_of(key))
                inputs[key] = _GateInput(destination, cooldown_ms=self.gates.get(key).cooldown_ms)
            inputs[key].resolved.append(episode_id)

    def _add_firing(self, inputs: dict[str, _GateInput], episode_id: str, now_ms: int) -> None:
        """Put an episode before the gates of its destinations, but where its group has to wait."""
        episode, instance = self._episodes.all[episode_id], self._episodes.firing[episode_id]
        rule = self._episodes.rules[episode.rule_key]
        quiet = bool(self._quiet.because(episode, now_ms))
        self._agenda.considered(episode_id)
        labels = self._episodes.labels_of(episode)
        for target in self.router.targets(labels):
            route = target.route
            if _is_grouped(target):
                opens_at_ms = self._groups.opens_at(
                    _group_key(target, labels),
                    episode_id,
                    instance.fired_at_ms,
                    route.group_wait_ms,
                    route.group_interval_ms,
                    now_ms,
                )
                if opens_at_ms:
                    self._agenda.at(opens_at_ms, episode_id)
                    continue
            key = gate_key(target.destination.key, rule, instance.labels, fingerprint(instance.labels))
            given = inputs.get(key)
            if given is None:
                given = inputs[key] = _GateInput(target.destination, target)
            given.cooldown_ms = max(given.cooldown_ms, rule.cooldown_ms, route.cooldown_ms)
            given.firing.append(episode_id)
            if (
                quiet
                or self.router.muted_by(route, now_ms)
                or self._held_for_flapping(key, episode, target, now_ms)
            ):
                given.quiet.add(episode_id)

    def _held_for_flapping(self, key: str, episode: Episode, target: Target, now_ms: int) -> bool:
        bound = target.route.flapping
        return bound.hold and self._episodes.flaps.noticed(key, instance_key(episode), bound, now_ms)

    def _decide(self, units: Units, key: str, given: _GateInput, now_ms: int) -> None:
        """Ask one gate, and put what it lets out into the units."""
        gate = self.gates.get(key)
        after, decisions = cooldown.decide(
            gate, given.cooldown_ms, given.firing, given.resolved, now_ms, quiet=given.quiet
        )
        if after != gate:
            self.gates.set(after, self._outcome.changes)
        if after.suppressed > gate.suppressed and given.destination is not None:
            self._outcome.suppressed[given.destination.key] += after.suppressed - gate.suppressed
        for decision in decisions:
            self._note(decision, given, now_ms)
            if decision.slot:
                self._add_to_unit(units, given, key, decision, now_ms)

    def _note(self, decision: NotifyDecision, given: _GateInput, now_ms: int) -> None:
        """Note what a decision means for its episode: when to look again, that it was held back."""
        episode_id = decision.episode_id
        if decision.next_at_ms > now_ms:
            self._agenda.at(decision.next_at_ms, episode_id)
        if episode_id in given.quiet:
            self._agenda.attend((episode_id,))
        if decision.reason is NotifyReason.HELD_BACK:
            episode = self._episodes.all[episode_id]
            if not episode.suppressed:
                self._episodes.set(replace(episode, suppressed=1))

    def _add_to_unit(
        self, units: Units, given: _GateInput, key: str, decision: NotifyDecision, now_ms: int
    ) -> None:
        """Put a decision that sends into the notification it leaves with."""
        destination = given.destination
        resolved = decision.reason is NotifyReason.RESOLVED
        if destination is None or (resolved and not destination.config.send_resolved):
            return
        episode = self._episodes.all[decision.episode_id]
        labels = self._episodes.labels_of(episode)
        target = given.target or next(
            (one for one in self.router.targets(labels) if one.destination.key == destination.key), None
        )
        rule = self._episodes.rules.get(episode.rule_key)
        status = "resolved" if resolved else "firing"
        group_labels = target.group_labels(labels) if target else LabelSet(())
        group_key = _group_key(target, labels) if target else destination.key
        if rule is not None and rule.cooldown_by is not None and not resolved:
            unit_key: tuple[str, ...] = (status, key, decision.slot)
        else:
            unit_key = (status, destination.key, group_key)
        unit = units.get(unit_key)
        if unit is None:
            unit = units[unit_key] = Unit(destination, status, group_key, group_labels)
        flapping = 0
        if target is not None and not resolved:
            bound = target.route.flapping
            flapping = self._episodes.flaps.notice(key, instance_key(episode), bound, now_ms)
            self._outcome.flapping[destination.key] += flapping > 0
        unit.entries.append(((key, decision.slot), self._notified(episode, decision, status, flapping)))

    def _notified(
        self, episode: Episode, decision: NotifyDecision, status: str, flapping: int
    ) -> NotifiedAlert:
        instance = self._episodes.firing.get(episode.id)
        labels = self._episodes.labels_of(episode)
        return NotifiedAlert(
            episode_id=episode.id,
            status=status,
            labels=labels,
            annotations=bounded(instance.annotations if instance else episode.annotations, _KEPT_ANNOTATION),
            fingerprint=fingerprint(labels),
            starts_at_ms=episode.triggered_at_ms,
            ends_at_ms=episode.resolved_at_ms if status == "resolved" else 0,
            value=instance.value if instance else episode.value,
            peak=instance.peak if instance else episode.peak,
            resolved_value=episode.resolved_value,
            reason=decision.reason.value,
            suppressed=decision.suppressed,
            resolve_reason=episode.resolve_reason,
            resolved_by=episode.resolved_by,
            resolution_notes=episode.resolution_notes,
            flapping=flapping,
            held=instance.held if instance else "",
            generator_url=self.link_of(episode),
        )

    def _wake_all(self, gate: Gate, at_ms: int) -> None:
        for episode_id, note in gate.episodes.items():
            if episode_id in self._episodes.firing:
                self._agenda.at(max(at_ms, note.retry_at_ms), episode_id)


def _is_grouped(target: Target) -> bool:
    return bool(target.route.group_wait_ms or target.route.group_interval_ms)


def _group_key(target: Target, labels: LabelSet) -> str:
    return f"{target.destination.key}/{target.route_id}:{target.group_labels(labels)}"
