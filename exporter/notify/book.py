"""The alert book: everything that is firing, what each destination was told, and what it is told next. Pure.

Synchronous, and told the time. Each event (an evaluation, a report of a lane, a person's act, a second that
went by) changes the book and gathers what must be recorded and what must be sent; `take` hands both over.
What may take long is a generator of steps: between them reports and acts of people may come in, another
evaluation, tick or configuration may not, and nothing may be taken before the last step.
An episode is considered anew when it starts, when a time comes at which something about it may change (a
cooldown ends, a group opens), and at each evaluation while quiet.

Its parts: `episodes` (which there are), `quiet` (what keeps them quiet), `agenda` (when to look again),
`decide` (what leaves), `outlook` (what will leave).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from exporter.config.receivers import NotificationConfig
from exporter.model.labels import LabelSet
from exporter.notify.agenda import Agenda
from exporter.notify.decide import Decider, Link, Units
from exporter.notify.episodes import EpisodeTable
from exporter.notify.outcome import Outcome
from exporter.notify.outgoing import QueuedNotifications, in_order
from exporter.notify.outlook import Outlook, Standing, outlook, standings
from exporter.notify.quiet import Census, Quiet
from exporter.notify.records import Changes, Episode, Notification, Silence, Status
from exporter.notify.route import Destination, Router
from exporter.notify.steps import Steps, finish
from exporter.rules.alert import AlertInstance
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.model import AlertingRule

_FLAP_MEMORY_MS = 24 * 3_600_000


class AlertBook:
    """See the module. `link` makes the URL of a rule's expression."""

    def __init__(self, config: NotificationConfig, *, external_labels: LabelSet, link: Link) -> None:
        self.config = config
        self._outcome = Outcome()
        self._agenda = Agenda()
        self._episodes = EpisodeTable(self._outcome, external_labels)
        self._quiet = Quiet(self._episodes, self._outcome)
        self._quiet.configure(config.inhibit_rules)
        self._decider = Decider(config, self._episodes, self._quiet, self._agenda, self._outcome, link)

    # life

    def configure(self, config: NotificationConfig) -> None:
        """Route by another configuration from now on; what is firing is considered anew."""
        self.config = config
        self._quiet.configure(config.inhibit_rules)
        self._decider.configure(config)
        self._agenda.attend(self.firing)

    def take(self) -> Outcome:
        """What has gathered since the last call."""
        return self._outcome.take()

    def load(self, state: Changes, now_ms: int) -> None:
        """Take over a stored state; undelivered notifications are among the next outcome's."""
        for gate in state.gates.values():
            if gate is not None:
                self._decider.gates.set(gate, Changes())
        self._episodes.instances.load(state.instances)
        self.silences.update(state.silences)
        queued = in_order(one for one in state.notifications.values() if one.state is Status.QUEUED)
        self._episodes.load(state.episodes, {episode for one in queued for episode in one.episode_ids})
        for one in queued:
            self.queued.add(one)
            self._outcome.notifications.append(one)
        self._decider.drop_lost_flights(now_ms)

    def resume(self, rules: Iterable[AlertingRule], now_ms: int) -> None:
        """Right after a load, where the last evaluation was just now: what it found to fire counts until the
        next one, so that what falls due before is told in time."""
        self._decider.resume(self._episodes.resume({rule.key: rule for rule in rules}), now_ms)
        self._quiet.firing_changed()

    def snapshot(self) -> Changes:
        """Everything that a restart needs."""
        return Changes(
            episodes=dict(self.episodes),
            gates=dict(self._decider.gates),
            notifications={one.id: one for one in self.queued},
            instances=self._episodes.instances.all(),
            silences=dict(self.silences),
        )

    def loaded_instances(self, rule_key: str) -> list[Mapping[str, Any]]:
        """The stored records of a rule's instances, for the evaluator to go on with."""
        return self._episodes.instances.of_rule(rule_key)

    def forget_old(self, now_ms: int, silences_before_ms: int) -> None:
        """Drop gates that differ in nothing from new ones, old changes of state and long expired silences."""
        self._decider.gates.forget_idle(now_ms, self._outcome.changes)
        self._episodes.flaps.forget(now_ms - _FLAP_MEMORY_MS)
        self._quiet.forget_silences(silences_before_ms)

    # the evaluator, and time

    def evaluate(self, evaluation: GroupEvaluation, now_ms: int) -> Steps[None]:
        """Take in one evaluation of a group: what fires, what ended, and decide what is sent."""
        started: list[str] = []
        ended: list[str] = []
        for found in evaluation.rules:
            rule = found.rule
            if not isinstance(rule, AlertingRule) or not found.is_current:
                continue
            if self._episodes.rules.get(rule.key) is not rule:  # its cooldown may be another one
                self._agenda.attend(self._episodes.of_rule(rule.key))
            begun, over = yield from self._episodes.take_in(found, rule, now_ms)
            started.extend(begun)
            ended.extend(over)
        if started or ended:
            self._quiet.firing_changed()
        considered = self._agenda.due(now_ms) | self._agenda.attention | set(started)
        yield from self._consider(considered, ended, now_ms)

    def tick(self, now_ms: int) -> Steps[None]:
        """Decide what has fallen due since."""
        due = self._agenda.due(now_ms)
        if due:
            yield from self._consider(due, (), now_ms)

    def retain(self, rules: Iterable[AlertingRule], now_ms: int) -> Steps[None]:
        """These are the rules now: episodes of others end, because their rule was removed."""
        ended = yield from self._episodes.retain({rule.key: rule for rule in rules}, now_ms)
        self._quiet.firing_changed()
        yield from self._consider(self._agenda.attention, ended, now_ms)

    # the lanes

    def delivered(self, notification_id: str, now_ms: int, *, via: str = "", attempts: int = 0) -> None:
        """A destination took a notification: the cooldown is armed, the episodes count it."""
        notification = self.queued.finish(notification_id)
        if notification is None:
            return
        self._record(notification.arrived(now_ms, via=via, attempts=attempts or notification.attempts + 1))
        units: Units = {}
        if notification.status == "firing":
            for key, slot in notification.slots:
                self._decider.arrived(units, key, slot, now_ms)
        self._episodes.count_delivery(notification.episode_ids, now_ms)
        self._decider.emit(units.values(), now_ms)
        self._decider.release(notification.episode_ids)

    def failed(self, notification_id: str, error: str, *, attempts: int, next_try_ms: int) -> None:
        """A try failed and another will follow."""
        notification = self.queued.get(notification_id)
        if notification is not None:
            tried = replace(notification, attempts=attempts, next_try_ms=next_try_ms, error=error)
            self.queued.update(tried)
            self._record(tried)

    def dead(self, notification_id: str, now_ms: int, error: str, *, attempts: int) -> None:
        """No try will follow: the notification is kept as a dead letter, the cooldown stays unarmed."""
        notification = self.queued.finish(notification_id)
        if notification is None:
            return
        self._record(
            replace(notification, state=Status.DEAD, finished_at_ms=now_ms, attempts=attempts, error=error)
        )
        if notification.status == "firing":
            for key, slot in notification.slots:
                self._decider.given_up(key, slot, now_ms)
        self._decider.release(notification.episode_ids)

    # people

    def acknowledge(self, episode_id: str, by: str, notes: str, now_ms: int) -> Episode:
        """Stop the repetitions of an episode until it ends.

        Raises: KeyError where no such episode is active.
        """
        episode = self._episodes.acknowledge(episode_id, by, notes, now_ms)
        self._agenda.attend((episode_id,))
        return episode

    def resolve(self, episode_id: str, by: str, notes: str, now_ms: int) -> Episode:
        """Resolve an episode by hand: told at once, and quiet until its condition has cleared.

        Raises: KeyError where no such episode is active.
        """
        episode, is_new = self._episodes.resolve(episode_id, by, notes, now_ms)
        if is_new:
            self._agenda.attend((episode_id,))
            finish(self._decider.consider((), [episode_id], now_ms))
        return episode

    def set_silence(self, silence: Silence) -> None:
        """Add or replace a silence; what it frees or mutes is considered at the next evaluation."""
        self._quiet.set_silence(silence)
        self._agenda.attend(self.firing)

    # questions

    @property
    def episodes(self) -> Mapping[str, Episode]:
        """The episodes that fire or of which something is still to be told."""
        return self._episodes.all

    @property
    def firing(self) -> Mapping[str, AlertInstance]:
        """What fires, by episode."""
        return self._episodes.firing

    @property
    def active(self) -> Mapping[str, tuple[AlertInstance, ...]]:
        """The pending and firing instances, by rule."""
        return self._episodes.active

    @property
    def queued(self) -> QueuedNotifications:
        """The notifications that are neither delivered nor dead."""
        return self._decider.queued

    @property
    def silences(self) -> dict[str, Silence]:
        """The silences by id."""
        return self._quiet.silences

    @property
    def router(self) -> Router:
        """The route tree."""
        return self._decider.router

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """Every integration of every receiver, by key."""
        return self._decider.destinations

    def outlook(self, episode_id: str, now_ms: int) -> list[Outlook]:
        """What each destination will be told next of an episode that fires."""
        return outlook(self._decider, self._episodes, self._quiet, episode_id, now_ms)

    def standings(self, rule: AlertingRule, labels: LabelSet, now_ms: int) -> list[Standing]:
        """Where an instance with these labels is routed, whether it fires or not."""
        return standings(self._decider, self._episodes, rule, labels, now_ms)

    def quieted(self, labels: LabelSet, now_ms: int) -> str:
        """The silences or the alert that keep these labels quiet at a time, '' if none does."""
        return self._quiet.of_labels(self._episodes.leaving(labels), now_ms)

    def quiet_because(self, episode: Episode, now_ms: int) -> str:
        """Why an episode is not notified anywhere now, '' if nothing keeps it quiet."""
        return self._quiet.because(episode, now_ms)

    def census(self, now_ms: int) -> Steps[Census]:
        """How many firing alerts are quiet and why, and the silences with what they match."""
        return self._quiet.census(now_ms)

    def link_of(self, episode: Episode) -> str:
        """The URL of the expression of an episode's rule; '' for a rule that is gone."""
        return self._decider.link_of(episode)

    def labels_of(self, episode: Episode) -> LabelSet:
        """The labels under which an episode leaves: its own, and external ones that it lacks."""
        return self._episodes.labels_of(episode)

    # inside

    def _consider(self, episode_ids: Iterable[str], ended: Collection[str], now_ms: int) -> Steps[None]:
        for episode_id in ended:
            self._decider.leave(episode_id)
        self._agenda.keep(self.firing)
        yield from self._decider.consider(episode_ids, ended, now_ms)

    def _record(self, notification: Notification) -> None:
        self._outcome.changes.notifications[notification.id] = notification
