"""The dispatcher: from evaluations to what a receiver gets, over failures, outages and restarts."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import DeliveryError
from exporter.notify.records import Status
from exporter.rules.cooldown import EpisodeNote, Flight, Gate
from tests.notify.stage import config, rule, running

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
        (sent,) = rig.tables.rows.notifications.values()
        # undo what was recorded of the delivery, as if the process had died just before
        await rig.kill()
        rig.journal.unlink()
        rig.tables.rows.notifications[sent.id] = type(sent).from_record(
            {**sent.to_record(), "state": "queued", "finished_at_ms": 0}
        )
        gate = next(iter(rig.tables.rows.gates.values()))
        ((key, slot),) = sent.slots
        (episode,) = gate.episodes
        rig.tables.rows.gates[key] = Gate(
            key,
            gate.cooldown_ms,
            episodes={episode: EpisodeNote(sends=1)},
            flights=(Flight(slot, (episode,)),),
        )
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
