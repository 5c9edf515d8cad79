"""The episodes that are known: begun and ended by evaluations, acknowledged and resolved by people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from exporter.model.labels import LabelSet
from exporter.notify.flapping import FlapCounter
from exporter.notify.instances import InstanceTable
from exporter.notify.outcome import Outcome
from exporter.notify.records import Episode, fingerprint
from exporter.notify.steps import Steps, sliced
from exporter.rules.alert import AlertInstance, AlertState, ResolveReason, from_record
from exporter.rules.evaluation import RuleEvaluation
from exporter.rules.model import AlertingRule

EVALUATOR = "evaluator"
_SEPARATOR = "\x1f"


class EpisodeTable:
    """Every episode that fires or of which something is still to be told, with the rules that made them.

    Each change goes to the outcome's rows too.
    """

    def __init__(self, outcome: Outcome, external_labels: LabelSet) -> None:
        self.all: dict[str, Episode] = {}
        self.firing: dict[str, AlertInstance] = {}
        self.active: dict[str, tuple[AlertInstance, ...]] = {}  # by rule, the pending ones too
        self.rules: dict[str, AlertingRule] = {}
        self.instances = InstanceTable()
        self.flaps = FlapCounter()
        self._outcome = outcome
        self._external = external_labels
        self._by_rule: dict[str, set[str]] = {}
        self._leaving: dict[str, LabelSet] = {}

    def load(self, episodes: Mapping[str, Episode], needed: set[str]) -> None:
        """Take over stored ones: those that are active or needed, and of all others when they flapped."""
        for episode in episodes.values():
            instance = instance_key(episode)
            self.flaps.changed(instance, episode.triggered_at_ms)
            if not episode.active:
                self.flaps.changed(instance, episode.resolved_at_ms)
            if episode.active or episode.id in needed:
                self.all[episode.id] = episode
            if episode.active:
                self._by_rule.setdefault(episode.rule_key, set()).add(episode.id)

    def take_in(
        self, found: RuleEvaluation, rule: AlertingRule, now_ms: int
    ) -> Steps[tuple[list[str], list[str]]]:
        """Begin and end episodes as one evaluation of a rule says; the ids that fire now and did not before
        (to this table), and the ids that ended."""
        self.rules[rule.key] = rule
        self.active[rule.key] = found.active
        yield from self.instances.update(rule.key, found.active, self._outcome.changes)
        firing = {one.episode_id: one for one in found.active if one.state is AlertState.FIRING}
        active = self._by_rule.setdefault(rule.key, set())
        over = {one.episode_id: one for one in found.resolved}
        over |= {
            transition.instance.episode_id: transition.instance
            for transition in found.transitions
            if transition.instance.resolved_at_ms
        }
        started: list[str] = []
        ended = sorted(active - firing.keys())
        for some in sliced(ended):
            for episode_id in some:
                self._end(episode_id, over.get(episode_id), now_ms, ResolveReason.RULE_CHANGED.value)
            yield
        for few in sliced(firing.items()):
            for episode_id, instance in few:
                episode = self.all.get(episode_id)
                if episode is None:
                    self._start(rule, instance)
                elif episode.peak != instance.peak:
                    self.set(replace(episode, peak=instance.peak, value=instance.value))
                if episode_id not in self.firing:
                    started.append(episode_id)
                self.firing[episode_id] = instance
            yield
        active.update(firing)
        return started, ended

    def resume(self, rules: Mapping[str, AlertingRule]) -> list[str]:
        """Take what is stored of these rules' instances for their last evaluation: the ids that fire."""
        resumed: list[str] = []
        for rule_key, rule in rules.items():
            instances = [from_record(record) for record in self.instances.of_rule(rule_key)]
            firing = {
                one.episode_id: one
                for one in instances
                if one.state is AlertState.FIRING and one.episode_id in self.all
            }
            if firing:
                self.rules[rule_key], self.active[rule_key] = rule, tuple(instances)
                self.firing |= firing
                resumed.extend(firing)
        return resumed

    def of_rule(self, rule_key: str) -> set[str]:
        """The active episodes of a rule."""
        return self._by_rule.get(rule_key, set())

    def retain(self, rules: Mapping[str, AlertingRule], now_ms: int) -> Steps[list[str]]:
        """Only these rules are left, by key: the ids of the episodes that ended for want of theirs."""
        ended: list[str] = []
        for rule_key in [key for key in self._by_rule if key not in rules]:
            for some in sliced(sorted(self._by_rule[rule_key])):
                for episode_id in some:
                    self._end(episode_id, None, now_ms, ResolveReason.RULE_REMOVED.value)
                ended.extend(some)
                yield
            self.rules.pop(rule_key, None)
            self.active.pop(rule_key, None)
        self.instances.retain(rules, self._outcome.changes)
        self.rules.update({key: rules[key] for key in self.rules if key in rules})
        return ended

    def set(self, episode: Episode) -> None:
        """Put an episode in the place of its older state."""
        self.all[episode.id] = self._outcome.changes.episodes[episode.id] = episode

    def forget(self, episode_id: str) -> None:
        """An episode of which nothing more will be told."""
        del self.all[episode_id]
        self._leaving.pop(episode_id, None)

    def acknowledge(self, episode_id: str, by: str, notes: str, now_ms: int) -> Episode:
        """The episode, acknowledged.

        Raises: KeyError where no such episode is active.
        """
        episode = self._active(episode_id)
        episode = replace(episode, acked_at_ms=now_ms, acked_by=by, ack_notes=notes)
        self.set(episode)
        return episode

    def resolve(self, episode_id: str, by: str, notes: str, now_ms: int) -> tuple[Episode, bool]:
        """The episode, resolved by hand, and whether it was not before.

        Raises: KeyError where no such episode is active.
        """
        episode = self._active(episode_id)
        if episode.resolved_at_ms:
            return episode, False
        episode = replace(
            episode,
            resolved_at_ms=now_ms,
            resolved_by=by,
            resolution_notes=notes,
            resolve_reason=ResolveReason.BY_HAND.value,
        )
        self.set(episode)
        return episode, True

    def labels_of(self, episode: Episode) -> LabelSet:
        """The labels under which an episode leaves: its own, and external ones that it lacks."""
        if not self._external:
            return episode.labels
        found = self._leaving.get(episode.id)
        if found is None:
            found = self._leaving[episode.id] = self._external.merged(episode.labels)
        return found

    def leaving(self, labels: LabelSet) -> LabelSet:
        """The labels under which an instance with these labels leaves."""
        return self._external.merged(labels) if self._external else labels

    def count_delivery(self, episode_ids: Iterable[str], now_ms: int) -> None:
        """A notification of these has arrived."""
        for episode_id in dict.fromkeys(episode_ids):
            episode = self.all.get(episode_id)
            if episode is not None:
                self.set(replace(episode, notifications=episode.notifications + 1, notified_at_ms=now_ms))

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
        self.flaps.changed(instance_key(episode), instance.fired_at_ms)
        self.set(episode)

    def _end(self, episode_id: str, instance: AlertInstance | None, now_ms: int, otherwise: str) -> None:
        """Close an episode; `instance` is as it resolved, None where that was not seen."""
        episode = self.all[episode_id]
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
        self.set(closed)
        self.flaps.changed(instance_key(episode), at_ms)
        self.firing.pop(episode_id, None)
        self._by_rule[episode.rule_key].discard(episode_id)

    def _active(self, episode_id: str) -> Episode:
        episode = self.all[episode_id]
        if not episode.active:
            raise KeyError(episode_id)
        return episode


def instance_key(episode: Episode) -> str:
    """The alert instance that an episode is of."""
    return f"{episode.rule_key}{_SEPARATOR}{fingerprint(episode.labels)}"
