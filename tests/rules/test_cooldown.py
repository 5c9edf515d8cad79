"""The cooldown's state machine: its sentences one by one, then over random histories."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.rules.cooldown import (
    SUPPRESSED_MEMORY_MS,
    Gate,
    NotifyReason,
    decide,
    delivered,
    failed,
    from_record,
    to_record,
)

MINUTE = 60_000
T0 = 1_700_000_000_000
COOLDOWN = 30 * MINUTE
FIRST, REPEAT, HELD, RESOLVED, NOTHING = (
    NotifyReason.FIRST,
    NotifyReason.REPEAT_DUE,
    NotifyReason.HELD_BACK,
    NotifyReason.RESOLVED,
    NotifyReason.NOTHING,
)


class Run:
    """A gate driven in minutes, with what left it."""

    def __init__(self, cooldown_ms: int = COOLDOWN) -> None:
        self.gate = Gate("log|rule")
        self.cooldown_ms = cooldown_ms

    def at(
        self, minute: float, firing: str = "", resolved: str = "", quiet: str = ""
    ) -> list[tuple[str, NotifyReason, int]]:
        now = T0 + round(minute * MINUTE)
        self.gate, decisions = decide(
            self.gate, self.cooldown_ms, firing.split(), resolved.split(), now, quiet=quiet.split()
        )
        self.decisions = decisions
        return [(one.episode_id, one.reason, one.suppressed) for one in decisions]

    def deliver(self, minute: float) -> list[tuple[str, NotifyReason]]:
        self.gate, decisions = delivered(self.gate, self.gate.flights[0].slot, T0 + round(minute * MINUTE))
        return [(one.episode_id, one.reason) for one in decisions]

    def fail(self, minute: float) -> None:
        self.gate = failed(self.gate, self.gate.flights[0].slot, T0 + round(minute * MINUTE))


def test_a_first_firing_is_sent_at_once() -> None:
    """An episode under a gate that was never armed is sent at its first decision."""
    run = Run()
    assert run.at(0, "a") == [("a", FIRST, 0)]
    assert run.at(0.25, "a") == [("a", NOTHING, 0)]  # on its way


def test_only_a_delivered_firing_arms() -> None:
    """A failed send leaves the gate open: the next episode is sent at once."""
    run = Run()
    run.at(0, "a")
    run.fail(1)
    assert run.gate.until_ms == 0
    assert run.at(2, "b", resolved="a") == [("a", NOTHING, 0), ("b", FIRST, 0)]


def test_a_failed_send_is_tried_anew_with_growing_pauses() -> None:
    """While its episode fires, a notification that failed for good comes again after 1, 2, 4 ... minutes."""
    run = Run()
    run.at(0, "a")
    run.fail(0)
    assert run.at(0.9, "a") == [("a", NOTHING, 0)]
    assert run.at(1, "a") == [("a", FIRST, 0)]
    run.fail(1)
    assert run.at(2.9, "a") == [("a", NOTHING, 0)]
    assert run.at(3, "a") == [("a", FIRST, 0)]


def test_an_episode_inside_the_cooldown_is_held_back_and_counted() -> None:
    """Five firings inside the cooldown give no message; the one still firing at its end says five."""
    run = Run()
    run.at(0, "e0")
    run.deliver(0)
    assert run.at(1, resolved="e0") == [("e0", RESOLVED, 0)]
    for number in range(1, 6):
        assert run.at(2 * number, f"e{number}") == [(f"e{number}", HELD, number)]
        assert run.at(2 * number + 0.5, f"e{number}") == [(f"e{number}", HELD, number)]  # counted once
        if number < 5:
            assert run.at(2 * number + 1, resolved=f"e{number}") == [(f"e{number}", NOTHING, number)]
    assert run.decisions[0].next_at_ms in (0, T0 + COOLDOWN)
    assert run.at(29.9, "e5") == [("e5", HELD, 5)]
    assert run.at(30, "e5") == [("e5", FIRST, 5)]
    run.deliver(30)
    assert run.gate.suppressed == 0


def test_held_back_says_when_it_is_sent() -> None:
    """The decision names the end of the cooldown."""
    run = Run()
    run.at(0, "a")
    run.deliver(0)
    run.at(5, "b", resolved="a")
    assert run.decisions[-1].next_at_ms == T0 + COOLDOWN


def test_what_fires_on_is_repeated_each_time_the_cooldown_ends() -> None:
    """The repetition is counted from the delivery before, not from the decision."""
    run = Run()
    run.at(0, "a")
    run.deliver(2)
    assert run.at(31, "a") == [("a", NOTHING, 0)]
    assert run.at(32, "a") == [("a", REPEAT, 0)]
    run.deliver(33)
    assert run.at(62.9, "a") == [("a", NOTHING, 0)]
    assert run.at(63, "a") == [("a", REPEAT, 0)]


def test_without_a_cooldown_each_episode_is_sent_once() -> None:
    """0s: no repetition, and the next episode goes out at once."""
    run = Run(0)
    assert run.at(0, "a") == [("a", FIRST, 0)]
    run.deliver(0)
    assert run.at(1000, "a") == [("a", NOTHING, 0)]
    assert run.at(1001, "b", resolved="a") == [("a", RESOLVED, 0), ("b", FIRST, 0)]


def test_an_episode_never_delivered_has_no_resolved() -> None:
    """Held back or failed for good: its end is not told."""
    run = Run()
    run.at(0, "a")
    run.fail(0)
    assert run.at(0.5, resolved="a") == [("a", NOTHING, 0)]
    assert run.at(1, resolved="unknown") == [("unknown", NOTHING, 0)]


def test_an_episode_that_ends_while_its_firing_is_on_the_way_resolves_on_delivery() -> None:
    """Resolved goes out as soon as the firing has arrived, and once."""
    run = Run()
    run.at(0, "a")
    assert run.at(1, resolved="a") == [("a", NOTHING, 0)]
    assert run.deliver(5) == [("a", RESOLVED)]
    assert run.at(6, resolved="a") == [("a", NOTHING, 0)]
    assert run.gate.until_ms == T0 + 35 * MINUTE


def test_a_repetition_on_the_way_does_not_bring_a_resolved_episode_back() -> None:
    """Resolved during a repetition: sent at once, and the repetition's arrival only arms."""
    run = Run()
    run.at(0, "a")
    run.deliver(0)
    run.at(30, "a")
    assert run.at(31, resolved="a") == [("a", RESOLVED, 0)]
    assert run.deliver(32) == []
    assert run.gate.episodes == {}
    assert run.gate.until_ms == T0 + 62 * MINUTE


def test_instances_that_share_a_cooldown_leave_together() -> None:
    """What is due at one moment has one slot; a later one waits for the end."""
    run = Run()
    assert run.at(0, "a b") == [("a", FIRST, 0), ("b", FIRST, 0)]
    assert len({one.slot for one in run.decisions}) == 1
    run.deliver(0)
    assert run.at(1, "a b c") == [("a", NOTHING, 1), ("b", NOTHING, 1), ("c", HELD, 1)]
    assert run.at(30, "a b c") == [("a", REPEAT, 1), ("b", REPEAT, 1), ("c", FIRST, 1)]


def test_a_second_firing_waits_while_one_is_on_its_way() -> None:
    """Two instances that share a cooldown cannot both be in flight."""
    run = Run()
    run.at(0, "a")
    assert [one[1] for one in run.at(1, "a b")] == [NOTHING, HELD]


def test_quiet_episodes_keep_their_turn() -> None:
    """What is silenced is not sent and not counted; it is sent when the silence ends."""
    run = Run()
    assert run.at(0, "a", quiet="a") == [("a", NOTHING, 0)]
    assert run.at(1, "a") == [("a", FIRST, 0)]


def test_a_shorter_cooldown_counts_from_the_same_delivery() -> None:
    """A reload that shortens the cooldown takes effect for what waits."""
    run = Run()
    run.at(0, "a")
    run.deliver(0)
    run.cooldown_ms = 5 * MINUTE
    assert run.at(5, "b", resolved="a") == [("a", RESOLVED, 0), ("b", FIRST, 0)]


def test_a_clock_set_back_does_not_stretch_the_cooldown() -> None:
    """A delivery in the future counts as one now."""
    run = Run()
    run.at(60, "a")
    run.deliver(60)
    run.at(0, "a")
    assert run.gate.until_ms == T0 + COOLDOWN


def test_deciding_again_sends_nothing_more() -> None:
    """The same arguments a second time give the same gate and nothing to send."""
    run = Run()
    run.at(0, "a b")
    before = run.gate
    assert all(not reason.sends for _, reason, _ in run.at(0, "a b"))
    assert run.gate == before


def test_an_undone_decision_is_taken_again_under_the_same_id() -> None:
    """The slot is a function of the state before: a crash between deciding and recording changes no id."""
    run = Run()
    run.at(0, "a")
    run.deliver(0)
    gate = run.gate
    run.at(30, "a")
    slot = run.gate.flights[0].slot
    run.gate = gate
    run.at(31, "a")
    assert run.gate.flights[0].slot == slot


def test_an_idle_gate_can_be_forgotten() -> None:
    """Without episodes, after the cooldown, a gate behaves like a new one; a count is kept for a day."""
    run = Run()
    run.at(0, "a")
    run.deliver(0)
    run.at(1, "b", resolved="a")
    run.at(2, resolved="b")
    assert not run.gate.is_idle(T0 + 29 * MINUTE)
    assert not run.gate.is_idle(T0 + 31 * MINUTE)
    assert run.gate.is_idle(T0 + COOLDOWN + SUPPRESSED_MEMORY_MS)
    assert run.at(40, "c") == [("c", FIRST, 1)]


@pytest.mark.parametrize("record", [{}, {"key": "a"}, {**to_record(Gate("a")), "episodes": {"e": [1]}}])
def test_a_foreign_record_is_refused(record: dict[str, object]) -> None:
    """from_record takes what to_record made and nothing else."""
    with pytest.raises(ValueError, match="not the record"):
        from_record(record)


@dataclass
class World:
    """An observer of one gate with `instances` that flap; checks each sentence as things happen."""

    cooldown_ms: int
    now: int = T0
    gate: Gate = field(default_factory=lambda: Gate("k"))
    firing: dict[int, str] = field(default_factory=dict)
    episodes: int = 0
    flying: dict[str, tuple[str, ...]] = field(default_factory=dict)
    carried: dict[str, set[str]] = field(default_factory=dict)  # what each slot tells was held back
    counted: set[str] = field(default_factory=set)
    slots_seen: set[str] = field(default_factory=set)
    last_delivered: int = -1
    told: dict[str, int] = field(default_factory=dict)  # deliveries per episode
    resolved_told: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)  # since the last delivered slot was decided

    def evaluate(self, ended: list[str]) -> None:
        self.gate, decisions = decide(self.gate, self.cooldown_ms, self.firing.values(), ended, self.now)
        self.absorb(decisions, ended)

    def absorb(self, decisions: tuple, ended: list[str]) -> None:  # type: ignore[type-arg]
        fresh: dict[str, list[str]] = {}
        for one in decisions:
            if one.reason is RESOLVED:
                # once per episode whose firing was delivered
                assert self.told.get(one.episode_id, 0) > 0
                assert one.episode_id not in self.resolved_told
                self.resolved_told.append(one.episode_id)
            elif one.reason.sends:
                assert one.episode_id in self.firing.values()
                # nothing inside the cooldown of a delivered one, and with one not while another is on its way
                if self.cooldown_ms:
                    assert self.last_delivered < 0 or self.now >= self.last_delivered + self.cooldown_ms
                    assert not self.flying
                else:
                    assert self.told.get(one.episode_id, 0) == 0
                fresh.setdefault(one.slot, []).append(one.episode_id)
                assert one.suppressed == len(self.held)
                assert (one.reason is REPEAT) == (self.told.get(one.episode_id, 0) > 0)
            elif one.reason is HELD:
                assert self.told.get(one.episode_id, 0) == 0
                if one.episode_id not in self.counted:  # a firing is counted once, however often it waits
                    self.held.add(one.episode_id)
                self.counted.add(one.episode_id)
        assert len(fresh) <= 1
        for slot, ids in fresh.items():
            assert slot not in self.slots_seen
            self.slots_seen.add(slot)
            self.flying[slot] = tuple(ids)
            self.carried[slot] = set(self.held)
        # at once: an ended episode that was told is resolved by now
        for episode in ended:
            if self.told.get(episode, 0):
                assert episode in self.resolved_told
        # what may be sent is sent: nothing waits once the gate is open
        shut = self.cooldown_ms and (
            self.flying or (self.last_delivered >= 0 and self.now < self.last_delivered + self.cooldown_ms)
        )
        if not shut:
            for one in decisions:
                assert one.reason is not HELD


OPS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(1, 20)),
        st.tuples(st.just("flip"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["deliver", "fail", "restart", "lose"]), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=250)
@given(OPS, st.sampled_from([0, 5 * MINUTE, 30 * MINUTE]))
def test_the_five_sentences_hold_over_random_histories(ops: list[tuple[str, int]], cooldown_ms: int) -> None:
    """Firing, resolving, deliveries, failures, restarts and lost decisions in any order."""
    world = World(cooldown_ms)
    for kind, number in ops:
        ended: list[str] = []
        if kind == "tick":
            world.now += number * MINUTE
        elif kind == "flip":
            if number in world.firing:
                ended = [world.firing.pop(number)]
            else:
                world.episodes += 1
                world.firing[number] = f"e{world.episodes:03d}"
        elif kind in ("deliver", "fail") and world.flying:
            slot = next(iter(world.flying))
            ids = world.flying.pop(slot)
            if kind == "deliver":
                world.gate, decisions = delivered(world.gate, slot, world.now)
                world.last_delivered = world.now
                for episode in ids:
                    world.told[episode] = world.told.get(episode, 0) + 1
                world.held -= world.carried[slot]
                over = [episode for episode in ids if episode not in world.firing.values()]
                over = [episode for episode in over if episode not in world.resolved_told]
                world.absorb(decisions, over)
                again = delivered(world.gate, slot, world.now)
                assert again == (world.gate, ())  # the same delivery reported twice
            else:
                before = world.gate.until_ms
                world.gate = failed(world.gate, slot, world.now)
                assert world.gate.until_ms == before  # not by a failed send
        elif kind == "restart":
            stored = json.loads(json.dumps(to_record(world.gate)))
            assert from_record(stored) == world.gate
            world.gate = from_record(stored)
        elif kind == "lose":  # a decision that never reached the disk
            decide(world.gate, cooldown_ms, world.firing.values(), [], world.now)
        quiet_after_failure = {
            episode for episode, note in world.gate.episodes.items() if note.retry_at_ms > world.now
        }
        world.evaluate(ended)
        # armed by a delivered firing and by nothing else
        assert world.gate.armed_at_ms == max(world.last_delivered, 0)
        if not cooldown_ms:
            for episode in world.firing.values():
                flying = any(episode in ids for ids in world.flying.values())
                assert world.told.get(episode) or flying or episode in quiet_after_failure
