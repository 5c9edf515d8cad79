"""The alert book: everything that is firing, what each destination was told, and what it is told next. Pure.

Synchronous, and told the time. Each method changes the book and gathers what must be recorded (`Changes`)
and what must be sent; `take` hands both over. An episode is considered anew when it starts, when a time comes
at which something about it may change (a cooldown ends, a group opens), and at each evaluation while quiet.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.config.receivers import NotificationConfig
from exporter.model.labels import LabelSet
from exporter.notify.flapping import FlapCounter
from exporter.notify.gates import GateTable, destination_of, gate_key
from exporter.notify.group import WaitingGroups
from exporter.notify.inhibit import Inhibitor
from exporter.notify.instances import InstanceTable
from exporter.notify.message import bounded
from exporter.notify.outgoing import QueuedNotifications, Unit, in_order
from exporter.notify.records import (
    Changes,
    Episode,
    Notification,
    NotifiedAlert,
    Silence,
    Status,
    fingerprint,
)
from exporter.notify.route import Destination, Router, Target, destinations
from exporter.notify.silences import silenced_by
from exporter.rules import cooldown
from exporter.rules.alert import AlertInstance, AlertState, ResolveReason
from exporter.rules.cooldown import Gate, NotifyDecision, NotifyReason
from exporter.rules.evaluation import GroupEvaluation, RuleEvaluation
from exporter.rules.model import AlertingRule

EVALUATOR = "evaluator"
_SEPARATOR = "\x1f"
_FLAP_MEMORY_MS = 24 * 3_600_000


@dataclass(slots=True)
class Outcome:
    """What came of the calls since the last `take`: rows to record, what to send, firings held back."""

    changes: Changes = field(default_factory=Changes)
    notifications: list[Notification] = field(default_factory=list)
    suppressed: Counter[str] = field(default_factory=Counter)  # by receiver


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


@dataclass(slots=True)
class _GateInput:
    """What one gate is asked at one moment; no destination where the configuration no longer has it."""

    destination: Destination | None
    target: Target | None = None
    cooldown_ms: int = 0
    firing: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    quiet: set[str] = field(default_factory=set)


_Units = dict[tuple[str, ...], Unit]


class AlertBook:
    """See the module. `link` makes the URL of a rule's expression."""

    def __init__(
        self,
        config: NotificationConfig,
        *,
        external_labels: LabelSet,
        link: Callable[[AlertingRule], str],
    ) -> None:
        self.episodes: dict[str, Episode] = {}
        self.firing: dict[str, AlertInstance] = {}
        self.active: dict[str, tuple[AlertInstance, ...]] = {}  # by rule, the pending ones too
        self.queued = QueuedNotifications()
        self.silences: dict[str, Silence] = {}
        self._external = external_labels
        self._link = link
        self._rules: dict[str, AlertingRule] = {}
        self._by_rule: dict[str, set[str]] = {}
        self._gates = GateTable()
        self._instances = InstanceTable()
        self._labels: dict[str, LabelSet] = {}
        self._attention: set[str] = set()
        self._wakes: list[tuple[int, str]] = []
        self._flaps = FlapCounter()
        self._groups = WaitingGroups()
        self._inhibitor: Inhibitor | None = None
        self._outcome = Outcome()
        self.configure(config)

    # what the dispatcher calls

    def configure(self, config: NotificationConfig) -> None:
        """Route by another configuration from now on; what is firing is considered anew."""
        self.config = config
        self.router = Router(config)
        self.destinations = destinations(config)
        self._inhibitor = None
        self._groups = WaitingGroups()
        self._attention = set(self.firing)

    def take(self) -> Outcome:
        """What has gathered since the last call."""
        outcome, self._outcome = self._outcome, Outcome()
        return outcome

    def load(self, state: Changes, now_ms: int) -> None:
        """Take over a stored state; undelivered notifications are among the next outcome's."""
        for gate in state.gates.values():
            if gate is not None:
                self._gates.set(gate, Changes())
        self._instances.load(state.instances)
        self.silences.update(state.silences)
        queued = in_order(one for one in state.notifications.values() if one.state is Status.QUEUED)
        needed = {episode for one in queued for episode in one.episode_ids}
        for episode in state.episodes.values():
            instance = _instance_key(episode)
            self._flaps.changed(instance, episode.triggered_at_ms)
            if not episode.active:
                self._flaps.changed(instance, episode.resolved_at_ms)
            if episode.active or episode.id in needed:
                self.episodes[episode.id] = episode
            if episode.active:
                self._by_rule.setdefault(episode.rule_key, set()).add(episode.id)
        for one in queued:
            self.queued.add(one)
            self._outcome.notifications.append(one)
        self._drop_lost_flights(now_ms)

    def snapshot(self) -> Changes:
        """Everything that a restart needs."""
        return Changes(
            episodes=dict(self.episodes),
            gates=dict(self._gates),
            notifications={one.id: one for one in self.queued},
            instances=self._instances.all(),
            silences=dict(self.silences),
        )

    def loaded_instances(self, rule_key: str) -> list[Mapping[str, Any]]:
        """The stored records of a rule's instances, for the evaluator to go on with."""
        return self._instances.of_rule(rule_key)

    def evaluate(self, evaluation: GroupEvaluation, now_ms: int) -> None:
        """Take in one evaluation of a group: what fires, what ended, and decide what is sent."""
        started: list[str] = []
        ended: list[str] = []
        for rule in evaluation.rules:
            if isinstance(rule.rule, AlertingRule) and rule.is_current:
                self._take_in(rule, rule.rule, now_ms, started, ended)
        if started or ended:
            self._inhibitor = None
        considered = self._due(now_ms) | self._attention | set(started)
        self._consider(considered, ended, now_ms)

    def tick(self, now_ms: int) -> None:
        """Decide what has fallen due since."""
        due = self._due(now_ms)
        if due:
            self._consider(due, (), now_ms)

    def retain(self, rules: Iterable[AlertingRule], now_ms: int) -> None:
        """These are the rules now: episodes of others end, because their rule was removed."""
        kept = {rule.key: rule for rule in rules}
        ended = []
        for rule_key in [key for key in self._by_rule if key not in kept]:
            for episode_id in sorted(self._by_rule[rule_key]):
                self._end(episode_id, None, now_ms, ResolveReason.RULE_REMOVED.value)
                ended.append(episode_id)
            self._rules.pop(rule_key, None)
            self.active.pop(rule_key, None)
        self._instances.retain(kept, self._outcome.changes)
        self._rules.update({key: kept[key] for key in self._rules if key in kept})
        self._inhibitor = None
        self._consider(set(self._attention), ended, now_ms)

    def delivered(self, notification_id: str, now_ms: int, *, via: str = "", attempts: int = 0) -> None:
        """A destination took a notification: the cooldown is armed, the episodes count it."""
        notification = self.queued.finish(notification_id)
        if notification is None:
            return
        done = replace(
            notification,
            state=Status.DELIVERED,
            finished_at_ms=now_ms,
            via=via,
            attempts=attempts or notification.attempts + 1,
            error="",
        )
        self._outcome.changes.notifications[done.id] = done
        units: _Units = {}
        for key, slot in notification.slots:
            gate = self._gates.find(key)
            if gate is None or notification.status != "firing":
                continue
            gate, decisions = cooldown.delivered(gate, slot, now_ms)
            self._gates.set(gate, self._outcome.changes)
            self._wake_all(gate, gate.until_ms or now_ms)
            given = _GateInput(self.destinations.get(destination_of(key)))
            for decision in decisions:
                self._add_to_unit(units, given, key, decision, now_ms)
        for episode_id in dict.fromkeys(notification.episode_ids):
            episode = self.episodes.get(episode_id)
            if episode is not None:
                self._set_episode(
                    replace(episode, notifications=episode.notifications + 1, notified_at_ms=now_ms)
                )
        self._emit(units, now_ms)
        self._release(notification.episode_ids)

    def failed(self, notification_id: str, error: str, *, attempts: int, next_try_ms: int) -> None:
        """A try failed and another will follow."""
        notification = self.queued.get(notification_id)
        if notification is not None:
            tried = replace(notification, attempts=attempts, next_try_ms=next_try_ms, error=error)
            self.queued.update(tried)
            self._outcome.changes.notifications[notification_id] = tried

    def dead(self, notification_id: str, now_ms: int, error: str, *, attempts: int) -> None:
        """No try will follow: the notification is kept as a dead letter, the cooldown stays unarmed."""
        notification = self.queued.finish(notification_id)
        if notification is None:
            return
        done = replace(notification, state=Status.DEAD, finished_at_ms=now_ms, attempts=attempts, error=error)
        self._outcome.changes.notifications[done.id] = done
        for key, slot in notification.slots:
            gate = self._gates.find(key)
            if gate is not None and notification.status == "firing":
                gate = cooldown.failed(gate, slot, now_ms)
                self._gates.set(gate, self._outcome.changes)
                self._wake_all(gate, now_ms)
        self._release(notification.episode_ids)

    def acknowledge(self, episode_id: str, by: str, notes: str, now_ms: int) -> Episode:
        """Stop the repetitions of an episode until it ends.

        Raises: KeyError where no such episode is active.
        """
        episode = self._active(episode_id)
        episode = replace(episode, acked_at_ms=now_ms, acked_by=by, ack_notes=notes)
        self._set_episode(episode)
        self._attention.add(episode_id)
        return episode

    def resolve(self, episode_id: str, by: str, notes: str, now_ms: int) -> Episode:
        """Resolve an episode by hand: told at once, and quiet until its condition has cleared.

        Raises: KeyError where no such episode is active.
        """
        episode = self._active(episode_id)
        if episode.resolved_at_ms == 0:
            episode = replace(
                episode,
                resolved_at_ms=now_ms,
                resolved_by=by,
                resolution_notes=notes,
                resolve_reason=ResolveReason.BY_HAND.value,
            )
            self._set_episode(episode)
            self._attention.add(episode_id)
            self._consider((), [episode_id], now_ms)
        return episode

    def set_silence(self, silence: Silence) -> None:
        """Add or replace a silence; what it frees or mutes is considered at the next evaluation."""
        self.silences[silence.id] = self._outcome.changes.silences[silence.id] = silence
        self._attention.update(self.firing)

    def forget_old(self, now_ms: int, silences_before_ms: int) -> None:
        """Drop gates that differ in nothing from new ones, old changes of state and long expired silences."""
        self._gates.forget_idle(now_ms, self._outcome.changes)
        self._flaps.forget(now_ms - _FLAP_MEMORY_MS)
        for silence in list(self.silences.values()):
            if silence.ends_at_ms < silences_before_ms:
                del self.silences[silence.id]

    def outlook(self, episode_id: str, now_ms: int) -> list[Outlook]:
        """What each destination will be told next of an episode that fires, changing nothing."""
        instance, episode = self.firing.get(episode_id), self.episodes.get(episode_id)
        if instance is None or episode is None:
            return []
        rule = self._rules[episode.rule_key]
        quiet = self.quiet_because(episode, now_ms)
        found = []
        for target in self.router.targets(self.labels_of(episode)):
            key = gate_key(target.destination.key, rule, instance.labels, fingerprint(instance.labels))
            gate = self._gates.get(key)
            cooldown_ms = max(rule.cooldown_ms, target.route.cooldown_ms)
            why = quiet or (
                f"muted: {muted}" if (muted := self.router.muted_by(target.route, now_ms)) else ""
            )
            flight = next((one for one in gate.flights if episode_id in one.episode_ids), None)
            _, decisions = cooldown.decide(gate, cooldown_ms, [episode_id], (), now_ms)
            next_at_ms = 0
            if not why and flight is not None:
                why = self._on_its_way(key, flight.slot)
            elif not why:
                decision = decisions[-1]
                next_at_ms = decision.next_at_ms or (now_ms if decision.reason.sends else 0)
                why = (
                    ""
                    if next_at_ms
                    else "once per episode"
                    if not gate.flights
                    else "waits for another delivery"
                )
            found.append(Outlook(target.destination.key, next_at_ms, why))
        return found

    def standings(self, rule: AlertingRule, labels: LabelSet, now_ms: int) -> list[Standing]:
        """Where an instance with these labels is routed, whether it fires or not, changing nothing."""
        found = []
        for target in self.router.targets(self._external.merged(labels)):
            key = gate_key(target.destination.key, rule, labels, fingerprint(labels))
            cooldown_ms = max(rule.cooldown_ms, target.route.cooldown_ms)
            muted = self.router.muted_by(target.route, now_ms)
            found.append(Standing(target, cooldown_ms, self._gates.get(key), muted))
        return found

    def quieted(self, labels: LabelSet, now_ms: int) -> str:
        """The silences or the alert that keep these labels quiet at a time, '' if none does."""
        leaving = self._external.merged(labels)
        if found := silenced_by(self.silences.values(), leaving, now_ms):
            return f"silenced by {', '.join(found)}"
        source = self._inhibited(leaving) if self.config.inhibit_rules else None
        return f"inhibited by {source}" if source is not None else ""

    def quiet_because(self, episode: Episode, now_ms: int) -> str:
        """Why an episode is not notified anywhere now, '' if nothing keeps it quiet."""
        if episode.muted_by_hand:
            return f"resolved by {episode.resolved_by} until the condition has cleared"
        if episode.acked_at_ms:
            return f"acknowledged by {episode.acked_by}"
        labels = self.labels_of(episode)
        if self.silences and (found := silenced_by(self.silences.values(), labels, now_ms)):
            return f"silenced by {', '.join(found)}"
        if self.config.inhibit_rules and (source := self._inhibited(labels)) is not None:
            return f"inhibited by {source}"
        return ""

    def link_of(self, episode: Episode) -> str:
        """The URL of the expression of an episode's rule; '' for a rule that is gone."""
        rule = self._rules.get(episode.rule_key)
        return self._link(rule) if rule else ""

    def labels_of(self, episode: Episode) -> LabelSet:
        """The labels under which an episode leaves: its own, and external ones that it lacks."""
        if not self._external:
            return episode.labels
        found = self._labels.get(episode.id)
        if found is None:
            found = self._labels[episode.id] = self._external.merged(episode.labels)
        return found

    # evaluations

    def _take_in(
        self, found: RuleEvaluation, rule: AlertingRule, now_ms: int, started: list[str], ended: list[str]
    ) -> None:
        known = self._rules.get(rule.key)
        if known is not rule:  # its cooldown may be another one
            self._attention |= self._by_rule.get(rule.key, set())
        self._rules[rule.key] = rule
        self.active[rule.key] = found.active
        self._instances.update(rule.key, found.active, self._outcome.changes)
        firing = {one.episode_id: one for one in found.active if one.state is AlertState.FIRING}
        active = self._by_rule.setdefault(rule.key, set())
        over = {one.episode_id: one for one in found.resolved}
        over |= {
            transition.instance.episode_id: transition.instance
            for transition in found.transitions
            if transition.instance.resolved_at_ms
        }
        for episode_id in sorted(active - firing.keys()):
            self._end(episode_id, over.get(episode_id), now_ms, ResolveReason.RULE_CHANGED.value)
            ended.append(episode_id)
        for episode_id, instance in firing.items():
            episode = self.episodes.get(episode_id)
            if episode is None:
                self._start(rule, instance)
            elif episode.peak != instance.peak:
                self._set_episode(replace(episode, peak=instance.peak, value=instance.value))
            if episode_id not in self.firing:
                started.append(episode_id)
            self.firing[episode_id] = instance
        active.update(firing)

    def _start(self, rule: AlertingRule, instance: AlertInstance) -> None:
        episode = Episode(
            id=instance.episode_id,
            rule_key=rule.key,
            labels=instance.labels,
            annotations=dict(instance.annotations),
            value=instance.value,
            peak=instance.peak,
            triggered_at_ms=instance.fired_at_ms,
        )
        self._flaps.changed(_instance_key(episode), instance.fired_at_ms)
        self._set_episode(episode)

    def _end(self, episode_id: str, instance: AlertInstance | None, now_ms: int, otherwise: str) -> None:
        """Close an episode; `instance` is as it resolved, None where that was not seen."""
        episode = self.episodes[episode_id]
        last = instance or self.firing.get(episode_id)
        at_ms = (instance.resolved_at_ms if instance else 0) or now_ms
        reason = instance.resolve_reason.value if instance and instance.resolve_reason else otherwise
        closed = replace(
            episode,
            active=False,
            value=last.value if last else episode.value,
            peak=last.peak if last else episode.peak,
            annotations=dict(last.annotations) if last else episode.annotations,
            resolved_value=instance.resolved_value if instance else None,
        )
        if not episode.resolved_at_ms:
            closed = replace(closed, resolved_at_ms=at_ms, resolved_by=EVALUATOR, resolve_reason=reason)
        self._set_episode(closed)
        self._flaps.changed(_instance_key(episode), at_ms)
        self.firing.pop(episode_id, None)
        self._attention.discard(episode_id)
        self._groups.leave(episode_id)
        self._by_rule[episode.rule_key].discard(episode_id)

    # decisions

    def _consider(self, episode_ids: Iterable[str], ended: Iterable[str], now_ms: int) -> None:
        inputs: dict[str, _GateInput] = {}
        firing = [one for one in episode_ids if one in self.firing]
        self._attention.intersection_update(self.firing)
        for episode_id in sorted(firing, key=lambda one: self.firing[one].labels.pairs):
            self._add_firing(inputs, episode_id, now_ms)
        for episode_id in ended:
            for key in self._gates.keys_of(episode_id):
                if key not in inputs:
                    destination = self.destinations.get(destination_of(key))
                    inputs[key] = _GateInput(destination, cooldown_ms=self._gates.get(key).cooldown_ms)
                inputs[key].resolved.append(episode_id)
        units: _Units = {}
        for key, given in inputs.items():
            gate = self._gates.get(key)
            after, decisions = cooldown.decide(
                gate, given.cooldown_ms, given.firing, given.resolved, now_ms, quiet=given.quiet
            )
            if after != gate:
                self._gates.set(after, self._outcome.changes)
            if after.suppressed > gate.suppressed and given.destination is not None:
                self._outcome.suppressed[given.destination.receiver] += after.suppressed - gate.suppressed
            for decision in decisions:
                self._after(decision, given, now_ms)
                if decision.slot:
                    self._add_to_unit(units, given, key, decision, now_ms)
        self._emit(units, now_ms)
        self._release(ended)

    def _add_firing(self, inputs: dict[str, _GateInput], episode_id: str, now_ms: int) -> None:
        episode, instance = self.episodes[episode_id], self.firing[episode_id]
        rule = self._rules[episode.rule_key]
        quiet = bool(self.quiet_because(episode, now_ms))
        self._attention.discard(episode_id)
        labels = self.labels_of(episode)
        for target in self.router.targets(labels):
            route = target.route
            if route.group_wait_ms or route.group_interval_ms:
                group = self._group_key(target, labels)
                opens_at_ms = self._groups.opens_at(
                    group,
                    episode_id,
                    instance.fired_at_ms,
                    route.group_wait_ms,
                    route.group_interval_ms,
                    now_ms,
                )
                if opens_at_ms:
                    heapq.heappush(self._wakes, (opens_at_ms, episode_id))
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
        return bound.hold and self._flaps.noticed(key, _instance_key(episode), bound, now_ms)

    def _after(self, decision: NotifyDecision, given: _GateInput, now_ms: int) -> None:
        """Note what a decision means for its episode: when to look again, that it was held back."""
        episode_id = decision.episode_id
        if decision.next_at_ms > now_ms:
            heapq.heappush(self._wakes, (decision.next_at_ms, episode_id))
        if episode_id in given.quiet:
            self._attention.add(episode_id)
        if decision.reason is NotifyReason.HELD_BACK:
            episode = self.episodes[episode_id]
            if not episode.suppressed:
                self._set_episode(replace(episode, suppressed=1))

    def _add_to_unit(
        self,
        units: _Units,
        given: _GateInput,
        key: str,
        decision: NotifyDecision,
        now_ms: int,
    ) -> None:
        """Put a decision that sends into the notification it leaves with."""
        destination = given.destination
        resolved = decision.reason is NotifyReason.RESOLVED
        if destination is None or (resolved and not destination.config.send_resolved):
            return
        episode = self.episodes[decision.episode_id]
        labels = self.labels_of(episode)
        target = given.target or next(
            (one for one in self.router.targets(labels) if one.destination.key == destination.key), None
        )
        rule = self._rules.get(episode.rule_key)
        status = "resolved" if resolved else "firing"
        group_labels = target.group_labels(labels) if target else LabelSet(())
        group_key = self._group_key(target, labels) if target else destination.key
        if rule is not None and rule.cooldown_by is not None and not resolved:
            unit_key: tuple[str, ...] = (status, key, decision.slot)
        else:
            unit_key = (status, destination.key, group_key)
        unit = units.get(unit_key)
        if unit is None:
            unit = units[unit_key] = Unit(destination, status, group_key, group_labels)
        flapping = 0
        if target is not None and not resolved:
            flapping = self._flaps.notice(key, _instance_key(episode), target.route.flapping, now_ms)
        unit.entries.append(((key, decision.slot), self._notified(episode, decision, status, flapping)))

    def _notified(
        self, episode: Episode, decision: NotifyDecision, status: str, flapping: int
    ) -> NotifiedAlert:
        instance = self.firing.get(episode.id)
        return NotifiedAlert(
            episode_id=episode.id,
            status=status,
            labels=self.labels_of(episode),
            annotations=bounded(instance.annotations if instance else episode.annotations, 16_000),
            fingerprint=fingerprint(self.labels_of(episode)),
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

    def _emit(self, units: _Units, now_ms: int) -> None:
        for unit in units.values():
            for notification in unit.notifications(now_ms):
                numbered = replace(notification, seq=self.queued.last_seq + 1)
                self.queued.add(numbered)
                self._outcome.changes.notifications[numbered.id] = numbered
                self._outcome.notifications.append(numbered)

    # small things

    def _due(self, now_ms: int) -> set[str]:
        due: set[str] = set()
        while self._wakes and self._wakes[0][0] <= now_ms:
            due.add(heapq.heappop(self._wakes)[1])
        return due

    def _wake_all(self, gate: Gate, at_ms: int) -> None:
        for episode_id, note in gate.episodes.items():
            if episode_id in self.firing:
                heapq.heappush(self._wakes, (max(at_ms, note.retry_at_ms), episode_id))

    def _set_episode(self, episode: Episode) -> None:
        self.episodes[episode.id] = self._outcome.changes.episodes[episode.id] = episode

    def _release(self, episode_ids: Iterable[str]) -> None:
        """Forget episodes that are over and of which nothing more will be told."""
        for episode_id in episode_ids:
            episode = self.episodes.get(episode_id)
            if episode is None or episode.active:
                continue
            if self._gates.knows(episode_id) or self.queued.tells_of(episode_id):
                continue
            del self.episodes[episode_id]
            self._labels.pop(episode_id, None)

    def _active(self, episode_id: str) -> Episode:
        episode = self.episodes[episode_id]
        if not episode.active:
            raise KeyError(episode_id)
        return episode

    def _drop_lost_flights(self, now_ms: int) -> None:
        """A slot whose notification is not in the outbox will never report back."""
        for _, gate in self._gates:
            after = gate
            for flight in gate.flights:
                if self.queued.of_slot((gate.key, flight.slot)) is None:
                    after = cooldown.failed(after, flight.slot, now_ms)
            if after is not gate:
                self._gates.set(after, self._outcome.changes)

    def _inhibited(self, labels: LabelSet) -> LabelSet | None:
        if self._inhibitor is None:
            firing = (self.labels_of(self.episodes[one]) for one in self.firing)
            self._inhibitor = Inhibitor(self.config.inhibit_rules, firing)
        return self._inhibitor.inhibited_by(labels)

    def _on_its_way(self, key: str, slot: str) -> str:
        one = self.queued.of_slot((key, slot))
        if one is None or not one.attempts:
            return "on its way"
        return f"on its way, {one.attempts} tries failed: {one.error}"

    def _group_key(self, target: Target, labels: LabelSet) -> str:
        return f"{target.destination.key}/{target.route_id}:{target.group_labels(labels)}"


def _instance_key(episode: Episode) -> str:
    return f"{episode.rule_key}{_SEPARATOR}{fingerprint(episode.labels)}"
