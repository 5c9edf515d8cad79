"""The dispatcher: from evaluations to what a receiver gets, over failures, outages and restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

from exporter.errors import DeliveryError
from exporter.notify.outbox import LanePolicy
from exporter.notify.records import Changes, Status
from exporter.rules.cooldown import EpisodeNote, Flight, Gate
from tests.helpers.clock import settle
from tests.notify.stage import MemoryStore, config, rule, running

EACH = config(
    "route: {receiver: ops, group_by: ['...']}\n"
    "receivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]"
)

RETRY = DeliveryError("HTTP 500", retryable=True)
FINAL = DeliveryError("HTTP 400", retryable=False)


async def test_an_episode_is_told_once_when_it_fires_and_once_when_it_resolves(tmp_path: Path) -> None:
    """Without a cooldown: firing, resolved, nothing in between."""
    async with running(tmp_path, [rule()]) as rig:
        await rig.fire("a")
        for _ in range(5):
            await rig.minutes(1)
            await rig.fire("a")
        await rig.fire()
        assert rig.ops.said == ["firing a", "resolved a"]
        assert rig.metric("quantum_notifications_total", receiver="ops", outcome="delivered") == 2
        assert rig.metric("quantum_alerts", alertname="Down", severity="warning", state="firing") == 0
        (episode,) = rig.tables.rows.episodes.values()
        assert (episode.notifications, episode.resolved_by, episode.resolve_reason) == (
            2,
            "evaluator",
            "recovered",
        )


async def test_flapping_inside_the_cooldown_is_counted_and_told_at_its_end(tmp_path: Path) -> None:
    """Fire, deliver, restart, flap five times: one message, then one that says five."""
    async with running(tmp_path, [rule(cooldown=30)]) as rig:
        await rig.fire("a")
        await rig.restart()
        await rig.fire()
        for number in range(5):
            await rig.minutes(1)
            await rig.fire("a")
            await rig.restart()
            await rig.fire("a")
            if number < 4:
                await rig.minutes(1)
                await rig.fire()
        assert rig.ops.said == ["firing a", "resolved a"]
        await rig.minutes(30)  # no evaluation is needed for the end of the cooldown
        assert rig.ops.said == ["firing a", "resolved a", "firing a (5 held back)"]
        assert rig.ops.took[-1].alerts[0].reason == "first"


async def test_a_failed_delivery_is_tried_again_under_the_same_id(tmp_path: Path) -> None:
    """Retries grow apart; the cooldown starts with the delivery."""
    async with running(tmp_path, [rule(cooldown=30)]) as rig:
        rig.ops.answers = [RETRY, RETRY, None]
        await rig.fire("a")
        assert rig.ops.said == []
        await rig.minutes(0.1)
        assert rig.ops.said == ["firing a"]
        assert len(rig.ops.tries) == 3
        assert len(set(rig.ops.tries)) == 1


async def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    """429 with Retry-After for two minutes: no try before, one delivery after, none lost."""
    async with running(tmp_path, [rule()]) as rig:
        rig.ops.answers = [DeliveryError("HTTP 429", retryable=True, retry_after_s=120)]
        await rig.fire("a")
        await rig.fire("a", "b")
        await rig.minutes(1.9)
        assert len(rig.ops.tries) == 1
        await rig.minutes(0.2)
        assert sorted(rig.ops.said) == ["firing a", "firing b"]


async def test_a_final_error_is_a_dead_letter_and_does_not_arm(tmp_path: Path) -> None:
    """It is kept and counted; the episode is tried anew later, as another notification."""
    async with running(tmp_path, [rule(cooldown=30)]) as rig:
        rig.ops.answers = [FINAL, None]
        await rig.fire("a")
        await rig.minutes(0.5)
        assert len(rig.ops.tries) == 1
        assert rig.metric("quantum_notifications_total", receiver="ops", outcome="dead") == 1
        await rig.minutes(1)
        assert rig.ops.said == ["firing a"]
        states = sorted(one.state.value for one in rig.tables.rows.notifications.values())
        assert states == ["dead", "delivered"]


async def test_a_crash_between_delivery_and_record_repeats_the_same_id(tmp_path: Path) -> None:
    """At least once, recognisable by its id, and still only one cooldown."""
    async with running(tmp_path, [rule(cooldown=30)]) as rig:
        await rig.fire("a")
        (sent,) = rig.ops.took
        # undo what was recorded of the delivery, as if the process had died just before
        await rig.kill()
        rig.journal.unlink()
        gate = next(iter(rig.tables.rows.gates.values()))
        ((key, slot),) = sent.slots
        (episode,) = gate.episodes
        gate = Gate(
            key,
            gate.cooldown_ms,
            episodes={episode: EpisodeNote(sends=1)},
            flights=(Flight(slot, (episode,)),),
        )
        rig.tables.rows.merge(Changes(notifications={sent.id: sent}, gates={key: gate}))
        await rig.start()
        await rig.fire("a")
        assert rig.ops.said == ["firing a", "firing a"]
        assert len(set(rig.ops.tries)) == 1
        await rig.minutes(29)
        assert len(rig.ops.said) == 2


async def test_notifications_go_out_while_the_database_is_away(tmp_path: Path) -> None:
    """From the journal, over a restart too; when the tables are back they get everything."""
    async with running(tmp_path, [rule(cooldown=30)]) as rig:
        await rig.fire("a")
        rig.tables.away = True
        await rig.fire("a", "b")
        assert rig.ops.said == ["firing a", "firing b"]
        assert rig.metric("quantum_alert_store_journaling") == 1
        await rig.restart()
        await rig.fire("a", "b")
        await rig.minutes(1)
        assert rig.ops.said == ["firing a", "firing b"]
        await rig.fire("a")
        assert rig.ops.said == ["firing a", "firing b", "resolved b"]
        rig.tables.away = False
        await rig.minutes(0.2)
        assert rig.metric("quantum_alert_store_journaling") == 0
        assert sorted(one.notifications for one in rig.tables.rows.episodes.values()) == [1, 2]
        states = [one.state for one in rig.tables.rows.notifications.values()]
        assert states == [Status.DELIVERED] * 3


async def test_a_receiver_that_hangs_delays_no_other(tmp_path: Path) -> None:
    """Each destination has its own lane."""
    both = config(
        "route: {receiver: dead,"
        " routes: [{receiver: dead, matchers: [a!=b], continue: true}, {receiver: ops}]}\n"
        "receivers: [{name: dead, webhook_configs: [{url: 'http://x'}]},"
        " {name: ops, webhook_configs: [{url: 'http://x'}]}]"
    )
    async with running(tmp_path, [rule()], both) as rig:
        rig.receivers["dead"].hang = True
        await rig.fire("a")
        assert rig.ops.said == ["firing a"]
        assert rig.metric("quantum_notification_queue_length", receiver="dead") == 1


class CheckedStore(MemoryStore):
    """Looks after each commit whether what is on its way has its notification among the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []

    async def commit(self, changes: Changes) -> None:
        await super().commit(changes)
        queued = {slot for one in self.rows.notifications.values() for _, slot in one.slots}
        for gate in self.rows.gates.values():
            self.broken += [one.slot for one in gate.flights if one.slot not in queued] if gate else []


async def test_many_alerts_are_decided_in_steps_and_recorded_whole(tmp_path: Path) -> None:
    """Others run while a thousand alerts are decided: deliveries, a person. What is decided is recorded in
    one transaction all the same, and each episode is told once."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    policy = LanePolicy(concurrency=1)  # so that deliveries go on for long
    async with running(tmp_path, [rule(cooldown=30)], EACH, store=CheckedStore(), policy=policy) as rig:
        first = [f"a{number}" for number in range(500)]
        await rig.dispatcher.handle(rig.stage.evaluate(rig.clock.now_ms(), first))
        acked = next(iter(rig.dispatcher.book.firing))
        while not rig.ops.took:
            await settle()
        recording = asyncio.create_task(rig.dispatcher.flush())  # at once what is reported
        await settle(1)
        rig.clock.jump(15)
        second = first[100:] + [f"b{number}" for number in range(500)]
        watch = asyncio.create_task(others())
        deciding = asyncio.create_task(rig.dispatcher.handle(rig.stage.evaluate(rig.clock.now_ms(), second)))
        await settle(3)
        rig.dispatcher.book.acknowledge(acked, "ann", "", rig.clock.now_ms())
        await deciding
        watch.cancel()
        assert turns > 20
        await recording
        while len(rig.ops.took) < 1100:
            await rig.minutes(0.01)
        said = Counter(rig.ops.said)
        assert said == {
            **{f"firing {name}": 1 for name in {*first, *second}},
            **{f"resolved {name}": 1 for name in first[:100]},
        }
        rows = rig.tables.rows.episodes
        assert Counter(one.notifications for one in rows.values()) == {1: 900, 2: 100}
        assert rows[acked].acked_by == "ann"
        assert rig.tables.broken == []


async def test_a_cancelled_decision_is_brought_to_its_end(tmp_path: Path) -> None:
    """The program is stopped in the middle of a decision: it is recorded whole."""
    async with running(tmp_path, [rule(cooldown=30)], EACH, store=CheckedStore()) as rig:
        names = [f"a{number}" for number in range(500)]
        deciding = asyncio.create_task(rig.dispatcher.handle(rig.stage.evaluate(rig.clock.now_ms(), names)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        deciding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await deciding
        await rig.stop()
        assert len(rig.tables.rows.notifications) == len(rig.tables.rows.gates) == 500
