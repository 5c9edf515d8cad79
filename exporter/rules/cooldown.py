"""The cooldown: send, hold back or nothing, with the reason. Events in, decisions out; no clock, no IO.

A `Gate` is the state of one cooldown at one destination: of one alert instance, or of all instances that
share a cooldown through `cooldown_by`. Its rules:

1. Only `delivered` arms it. While a firing notification is on its way the gate lets no second one out, and a
   failed one leaves it as if nothing had been sent.
2. An episode that starts while the gate is shut is counted and held back; if it still fires when the cooldown
   ends it is sent then, with the number of firings held back since the last delivered one.
3. An episode that fires on is sent again each time the cooldown ends; with a cooldown of 0 once per episode.
4. Each episode whose firing was delivered resolves once, at once, cooldown or not.
5. A gate is a value: `to_record` and `from_record` carry it over a restart at any step.

What is due at one moment leaves through one *slot*: all instances that share the gate travel together, so
that none of them starves. The slot's id is a function of the state, so that a decision that a crash has
undone is taken again under the same id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from exporter.rules.model import digest

# After its cooldown a gate remembers for a day how many firings it held back, for the next notification.
SUPPRESSED_MEMORY_MS = 86_400_000
# What failed for good is tried anew, as long as its episode fires, after 1, 2, 4 ... 60 minutes.
_RETRY_FIRST_MS = 60_000
_RETRY_MAX_MS = 3_600_000


class NotifyReason(Enum):
    """Why something is sent, or is not."""

    FIRST = "first"  # the first notification of an episode
    REPEAT_DUE = "repeat due"  # it fires on and the cooldown has ended
    HELD_BACK = "held back"  # a new episode inside the cooldown
    RESOLVED = "resolved"
    NOTHING = "nothing"

    @property
    def sends(self) -> bool:
        """Whether a notification leaves."""
        return self in (NotifyReason.FIRST, NotifyReason.REPEAT_DUE, NotifyReason.RESOLVED)


@dataclass(frozen=True, slots=True)
class NotifyDecision:
    """What becomes of one episode now.

    `slot` names what leaves ('' if nothing does). `next_at_ms` is when it is sent next if it fires on, 0 for
    never or not known yet. `suppressed` counts the firings held back since the last delivered one.
    """

    episode_id: str
    reason: NotifyReason
    slot: str = ""
    next_at_ms: int = 0
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class EpisodeNote:
    """What the gate knows of one episode. `sends` counts slots, `failures` the failed ones in a row.

    `counted`: held back and counted. `ended`: over while its firing notification was on its way.
    """

    sends: int = 0
    delivered: int = 0
    failures: int = 0
    retry_at_ms: int = 0
    counted: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Flight:
    """A firing notification on its way: given out, neither delivered nor failed for good."""

    slot: str
    episode_ids: tuple[str, ...]
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class Gate:
    """The state of one cooldown at one destination.

    `armed_at_ms` is the last delivery, `held_at_ms` the last time an episode was held back; 0 means never.
    """

    key: str
    cooldown_ms: int = 0
    armed_at_ms: int = 0
    suppressed: int = 0
    held_at_ms: int = 0
    episodes: Mapping[str, EpisodeNote] = field(default_factory=dict)
    flights: tuple[Flight, ...] = ()

    @property
    def until_ms(self) -> int:
        """When the cooldown ends; 0 if it is not armed or there is none."""
        return self.armed_at_ms + self.cooldown_ms if self.armed_at_ms and self.cooldown_ms else 0

    def has_told(self, episode_id: str) -> bool:
        """Whether the firing of an episode was delivered."""
        note = self.episodes.get(episode_id)
        return note is not None and note.delivered > 0

    def has_counted(self, episode_id: str) -> bool:
        """Whether the episode was held back, and is among the `suppressed`."""
        note = self.episodes.get(episode_id)
        return note is not None and note.counted

    def is_idle(self, now_ms: int) -> bool:
        """Whether the gate may be forgotten: it differs in nothing from a new one."""
        return (
            not self.episodes and not self.flights and now_ms >= self.until_ms and not _recall(self, now_ms)
        )


def decide(
    gate: Gate,
    cooldown_ms: int,
    firing: Iterable[str],
    resolved: Iterable[str],
    now_ms: int,
    *,
    quiet: Collection[str] = (),
) -> tuple[Gate, tuple[NotifyDecision, ...]]:
    """The decisions of one moment, and the gate afterwards.

    Args: `firing` and `resolved` are ids of episodes under this gate; one that is in neither is left alone.
    Firing episodes in `quiet` (silenced, inhibited, acknowledged) are not sent now; they keep their state.
    Returns: one decision per episode given, the resolved ones first. Deciding again with the same
    arguments sends nothing more.
    """
    episodes, flights = dict(gate.episodes), gate.flights
    armed_at_ms = min(gate.armed_at_ms, now_ms)  # a clock set back must not stretch the cooldown
    suppressed = _recall(gate, now_ms)
    gate = Gate(gate.key, cooldown_ms, armed_at_ms, suppressed, gate.held_at_ms, episodes, flights)
    in_flight = {episode for flight in flights for episode in flight.episode_ids}
    decisions = [_resolve(gate, episodes, episode, in_flight) for episode in dict.fromkeys(resolved)]

    shut = cooldown_ms > 0 and (bool(flights) or now_ms < gate.until_ms)
    held_at_ms = gate.held_at_ms
    due: list[str] = []
    still: list[NotifyDecision] = []
    for episode in sorted(set(firing)):
        note = episodes.get(episode, EpisodeNote())
        waiting = max(gate.until_ms if shut else 0, note.retry_at_ms)
        if episode in in_flight:
            still.append(NotifyDecision(episode, NotifyReason.NOTHING))
        elif episode in quiet or note.retry_at_ms > now_ms:
            still.append(NotifyDecision(episode, NotifyReason.NOTHING, next_at_ms=waiting))
        elif note.delivered and cooldown_ms == 0:
            still.append(NotifyDecision(episode, NotifyReason.NOTHING))
        elif not shut:
            due.append(episode)
        elif note.delivered:
            still.append(NotifyDecision(episode, NotifyReason.NOTHING, next_at_ms=waiting))
        else:
            if not note.counted:
                suppressed, held_at_ms = suppressed + 1, now_ms
                episodes[episode] = replace(note, counted=True)
            still.append(NotifyDecision(episode, NotifyReason.HELD_BACK, next_at_ms=waiting))
    if due:
        flight = Flight(_slot(gate.key, due[0], episodes), tuple(due), suppressed)
        flights += (flight,)
        for episode in due:
            note = episodes.get(episode, EpisodeNote())
            reason = NotifyReason.REPEAT_DUE if note.delivered else NotifyReason.FIRST
            episodes[episode] = replace(note, sends=note.sends + 1)
            decisions.append(NotifyDecision(episode, reason, flight.slot, suppressed=suppressed))
    decisions.extend(replace(decision, suppressed=suppressed) for decision in still)
    return Gate(gate.key, cooldown_ms, armed_at_ms, suppressed, held_at_ms, episodes, flights), tuple(
        decisions
    )


def delivered(gate: Gate, slot: str, at_ms: int) -> tuple[Gate, tuple[NotifyDecision, ...]]:
    """The gate after a firing notification arrived, armed; RESOLVED for what ended while it was on its way.

    A slot that is not on its way (delivered before, or a resolved one) changes nothing.
    """
    flight = next((one for one in gate.flights if one.slot == slot), None)
    if flight is None:
        return gate, ()
    episodes, decisions = dict(gate.episodes), []
    suppressed = max(0, gate.suppressed - flight.suppressed)
    for episode in flight.episode_ids:
        note = episodes.get(episode)
        if note is None:  # a repetition that was on its way when the episode resolved
            continue
        if note.ended:
            del episodes[episode]
            decisions.append(
                NotifyDecision(
                    episode, NotifyReason.RESOLVED, _resolved_slot(gate.key, episode), suppressed=suppressed
                )
            )
        else:
            episodes[episode] = EpisodeNote(note.sends, note.delivered + 1)
    armed_at_ms = max(gate.armed_at_ms, at_ms)
    flights = tuple(one for one in gate.flights if one is not flight)
    gate = Gate(gate.key, gate.cooldown_ms, armed_at_ms, suppressed, gate.held_at_ms, episodes, flights)
    return gate, tuple(decisions)


def failed(gate: Gate, slot: str, at_ms: int) -> Gate:
    """The gate after a firing notification failed for good: not armed; it is tried anew after a pause."""
    flight = next((one for one in gate.flights if one.slot == slot), None)
    if flight is None:
        return gate
    episodes = dict(gate.episodes)
    for episode in flight.episode_ids:
        note = episodes.get(episode)
        if note is None or note.ended:
            episodes.pop(episode, None)
            continue
        pause_ms = min(_RETRY_FIRST_MS << min(note.failures, 10), _RETRY_MAX_MS)
        episodes[episode] = replace(note, failures=note.failures + 1, retry_at_ms=at_ms + pause_ms)
    return replace(gate, episodes=episodes, flights=tuple(one for one in gate.flights if one is not flight))


def _resolve(
    gate: Gate, episodes: dict[str, EpisodeNote], episode: str, in_flight: Collection[str]
) -> NotifyDecision:
    """The decision for an episode that is over; it leaves `episodes` unless its firing is on its way."""
    note = episodes.get(episode)
    if note is not None and episode in in_flight and not note.delivered:
        episodes[episode] = replace(note, ended=True)
        return NotifyDecision(episode, NotifyReason.NOTHING, suppressed=gate.suppressed)
    episodes.pop(episode, None)
    if note is None or not note.delivered:
        return NotifyDecision(episode, NotifyReason.NOTHING, suppressed=gate.suppressed)
    slot = _resolved_slot(gate.key, episode)
    return NotifyDecision(episode, NotifyReason.RESOLVED, slot, suppressed=gate.suppressed)


def _recall(gate: Gate, now_ms: int) -> int:
    """The count of firings held back, forgotten a day after a gate came to rest."""
    resting = not gate.episodes and not gate.flights
    end_ms = max(gate.until_ms, gate.held_at_ms) + SUPPRESSED_MEMORY_MS
    return 0 if resting and now_ms >= end_ms else gate.suppressed


def _slot(key: str, leader: str, episodes: Mapping[str, EpisodeNote]) -> str:
    sends = episodes[leader].sends if leader in episodes else 0
    return digest(f"firing|{key}|{leader}|{sends}")


def _resolved_slot(key: str, episode: str) -> str:
    return digest(f"resolved|{key}|{episode}")


def to_record(gate: Gate) -> dict[str, object]:
    """The gate as JSON values."""
    return {
        "key": gate.key,
        "cooldown_ms": gate.cooldown_ms,
        "armed_at_ms": gate.armed_at_ms,
        "suppressed": gate.suppressed,
        "held_at_ms": gate.held_at_ms,
        "episodes": {
            episode: [note.sends, note.delivered, note.failures, note.retry_at_ms, note.counted, note.ended]
            for episode, note in gate.episodes.items()
        },
        "flights": [[flight.slot, list(flight.episode_ids), flight.suppressed] for flight in gate.flights],
    }


def from_record(record: Mapping[str, object]) -> Gate:
    """The inverse of `to_record`.

    Raises: ValueError for a record that `to_record` did not make.
    """
    try:
        episodes, flights = record["episodes"], record["flights"]
        if not isinstance(episodes, Mapping) or not isinstance(flights, list):
            raise TypeError("episodes and flights")
        return Gate(
            key=str(record["key"]),
            cooldown_ms=int(str(record["cooldown_ms"])),
            armed_at_ms=int(str(record["armed_at_ms"])),
            suppressed=int(str(record["suppressed"])),
            held_at_ms=int(str(record["held_at_ms"])),
            episodes={
                str(episode): EpisodeNote(
                    int(sends), int(arrived), int(failures), int(retry), bool(counted), bool(ended)
                )
                for episode, (sends, arrived, failures, retry, counted, ended) in episodes.items()
            },
            flights=tuple(
                Flight(str(slot), tuple(str(one) for one in ids), int(suppressed))
                for slot, ids, suppressed in flights
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not the record of a cooldown: {error!r}") from error
