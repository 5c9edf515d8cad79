"""Why an alert is notified nowhere: a person's act, a silence, or another alert that inhibits it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.config.matchers import match_all
from exporter.config.receivers import InhibitRule
from exporter.model.labels import LabelSet
from exporter.notify.episodes import EpisodeTable
from exporter.notify.inhibit import Inhibitor
from exporter.notify.outcome import Outcome
from exporter.notify.records import Episode, Silence
from exporter.notify.silences import silenced_by
from exporter.notify.steps import Steps, sliced


@dataclass(frozen=True, slots=True)
class Census:
    """Firing alerts that are quiet, by the first word of the reason; silences by state; the ids of active
    silences that match nothing that is pending or fires."""

    quiet: Counter[str]
    silences: Counter[str]
    idle: frozenset[str]


class Quiet:
    """The silences, and what inhibits what at the moment."""

    def __init__(self, episodes: EpisodeTable, outcome: Outcome) -> None:
        self.silences: dict[str, Silence] = {}
        self._episodes = episodes
        self._outcome = outcome
        self._inhibit_rules: Sequence[InhibitRule] = ()
        self._inhibitor: Inhibitor | None = None

    def configure(self, inhibit_rules: Sequence[InhibitRule]) -> None:
        """Inhibit by other rules from now on."""
        self._inhibit_rules = inhibit_rules
        self._inhibitor = None

    def firing_changed(self) -> None:
        """Other alerts fire than before."""
        self._inhibitor = None

    def set_silence(self, silence: Silence) -> None:
        """Add or replace a silence."""
        self.silences[silence.id] = self._outcome.changes.silences[silence.id] = silence

    def forget_silences(self, before_ms: int) -> None:
        """Drop those that expired before a time."""
        for silence in list(self.silences.values()):
            if silence.ends_at_ms < before_ms:
                del self.silences[silence.id]

    def census(self, now_ms: int) -> Steps[Census]:
        """How many firing alerts are quiet and why, and the silences with what they match."""
        silences = Counter(one.state(now_ms) for one in self.silences.values())
        idle = {one for one in self.silences.values() if one.state(now_ms) == "active"}
        quiet: Counter[str] = Counter()
        table = self._episodes
        for some in sliced([one for found in table.active.values() for one in found]):
            for instance in some:
                labels = table.leaving(instance.labels)
                idle -= {one for one in idle if match_all(one.matchers, labels)}
                episode = table.all.get(instance.episode_id)
                if episode is not None and (reason := self.because(episode, now_ms)):
                    quiet[reason.split()[0]] += 1
            yield
        return Census(quiet, silences, frozenset(one.id for one in idle))

    def because(self, episode: Episode, now_ms: int) -> str:
        """Why an episode is not notified anywhere now, '' if nothing keeps it quiet."""
        if episode.muted_by_hand:
            return f"resolved by {episode.resolved_by} until the condition has cleared"
        if episode.acked_at_ms:
            return f"acknowledged by {episode.acked_by}"
        if not self.silences and not self._inhibit_rules:
            return ""
        return self.of_labels(self._episodes.labels_of(episode), now_ms)

    def of_labels(self, labels: LabelSet, now_ms: int) -> str:
        """The silences or the alert that keep these labels quiet at a time, '' if none does."""
        if self.silences and (found := silenced_by(self.silences.values(), labels, now_ms)):
            return f"silenced by {', '.join(found)}"
        if self._inhibit_rules and (source := self._inhibited(labels)) is not None:
            return f"inhibited by {source}"
        return ""

    def _inhibited(self, labels: LabelSet) -> LabelSet | None:
        if self._inhibitor is None:
            table = self._episodes
            firing = (table.labels_of(table.all[one]) for one in table.firing)
            self._inhibitor = Inhibitor(self._inhibit_rules, firing)
        return self._inhibitor.inhibited_by(labels)
