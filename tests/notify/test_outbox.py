"""A lane: order, pauses, fallback, bounds; the journal and the queue below it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from exporter.errors import DeliveryError
from exporter.model.labels import LabelSet
from exporter.notify.journal import Journal
from exporter.notify.lanes import OrderedQueue
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.outbox import Lane, LanePolicy, retry_delay_s
from exporter.notify.records import Notification, NotifiedAlert
from tests.helpers.clock import FakeClock, settle
from tests.notify.stage import Receiver

RETRY = DeliveryError("HTTP 500", retryable=True)
FINAL = DeliveryError("HTTP 400", retryable=False)


class Reports:
    """What a lane reported, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def delivered(self, notification: Notification, *, via: str, attempts: int) -> None:
        self.lines.append(
            f"delivered {notification.id}" + (f" via {via}" if via else "") + f" after {attempts}"
        )

    def failed(self, notification: Notification, error: str, *, attempts: int, next_try_ms: int) -> None:
        self.lines.append(f"failed {notification.id} {attempts}")

    def dead(self, notification: Notification, error: str, *, attempts: int) -> None:
        self.lines.append(f"dead {notification.id}: {error}")


class World:
    """A lane with its clock, receiver and reports."""

    def __init__(self, **policy: Any) -> None:
        self.clock, self.reports, self.receiver, self.other = FakeClock(), Reports(), Receiver(), Receiver()
        self.registry = CollectorRegistry()
        self.metrics = NotifyMetrics(self.registry)
        self.metrics.add_receivers(["ops"])
        fallback = policy.pop("fallback", False)
        self.lane = Lane(
            "ops",
            self.receiver,
            self.reports,
            self.clock,
            self.metrics,
            policy=LanePolicy(**policy),
            rng=Random(1),
            fallback_name="other" if fallback else "",
            fallbacks=[self.other] if fallback else [],
        )

    def put(self, name: str, instance: str = "", **values: Any) -> None:
        alert = NotifiedAlert(
            "e", "firing", LabelSet.of({"instance": instance or name}), {}, instance or name, 1
        )
        values.setdefault("created_at_ms", self.clock.now_ms())
        self.lane.put(Notification(name, "ops", "ops", "firing", (alert,), **values))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"receiver": "ops", **labels})

    async def seconds(self, seconds: float) -> None:
        await self.clock.advance(seconds)


@contextlib.asynccontextmanager
async def running(**policy: Any) -> AsyncIterator[World]:
    world = World(**policy)
    task = asyncio.create_task(world.lane.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_tells_of_one_instance_stays_in_order() -> None:
    """A retry holds back what comes after it for the same instance, and nothing else."""
    async with running() as world:
        world.receiver.answers = [RETRY]
        world.put("a1", "a")
        world.put("a2", "a")
        world.put("b1", "b")
        await settle()
        assert world.reports.lines == ["failed a1 1", "delivered b1 after 1"]
        await world.seconds(2)
        assert world.reports.lines[2:] == ["delivered a1 after 2", "delivered a2 after 1"]


async def test_after_three_failures_in_a_row_the_whole_lane_pauses() -> None:
    """A dead receiver is asked one thing at a time, ever more rarely."""
    async with running() as world:
        world.receiver.answers = [RETRY] * 1000
        for number in range(20):
            world.put(f"n{number}")
        await world.seconds(600)
        assert len(world.receiver.tries) < 60
        world.receiver.answers = []
        await world.seconds(120)
        assert len(world.receiver.took) == 20


async def test_a_fallback_takes_over_after_n_failures() -> None:
    """And at once where the answer was final; the own receiver is still asked first."""
    async with running(fallback=True, fallback_after=3) as world:
        world.receiver.answers = [RETRY] * 3 + [FINAL]
        world.put("n1")
        await world.seconds(60)
        assert world.reports.lines == ["failed n1 1", "failed n1 2", "delivered n1 via other after 3"]
        world.put("n2")
        await world.seconds(60)
        assert world.reports.lines[-1] == "delivered n2 via other after 1"
        assert [one.id for one in world.other.took] == ["n1", "n2"]
        assert world.metric("quantum_notifications_fallback_total") == 2


async def test_a_receiver_is_down_from_a_failed_try_to_the_next_success() -> None:
    """A refusal of one notification is no outage: the receiver answers."""
    async with running() as world:
        assert world.metric("quantum_notification_receiver_up") == 1
        world.receiver.answers = [FINAL]
        world.put("n1")
        await settle()
        assert world.metric("quantum_notification_receiver_up") == 1
        world.receiver.answers = [RETRY]
        world.put("n2")
        await settle()
        assert world.metric("quantum_notification_receiver_up") == 0
        await world.seconds(60)
        assert world.metric("quantum_notification_receiver_up") == 1
        outcomes = ("delivered", "failed", "dead")
        assert [world.metric("quantum_notifications_total", outcome=one) for one in outcomes] == [1, 1, 1]


async def test_a_row_of_refusals_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """With its cause; another cause, or the same after a success, is logged anew. Each is counted."""
    other = DeliveryError("HTTP 413", retryable=False)
    async with running() as world:
        world.receiver.answers = [FINAL, FINAL, other, None, FINAL]
        for number in range(5):
            world.put(f"n{number}")
            await settle()
        logged = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert [line.partition("notification ")[2][:2] for line in logged] == ["n0", "n2", "n4"]
        assert world.metric("quantum_notifications_total", outcome="dead") == 4


async def test_both_receivers_down_is_a_retry() -> None:
    """The fallback's failure is no end."""
    async with running(fallback=True, fallback_after=1) as world:
        world.receiver.answers, world.other.answers = [RETRY, None], [RETRY]
        world.put("n1")
        await world.seconds(2)
        assert world.reports.lines == ["failed n1 1", "delivered n1 after 2"]


async def test_a_hanging_try_is_cut_off() -> None:
    """The lane's own time-out holds for receivers without one."""
    async with running(timeout_s=0.05) as world:
        world.receiver.hang = True
        world.put("n1")
        async with asyncio.timeout(5):
            while not world.reports.lines:  # noqa: ASYNC110 - the time-out is the machine's
                await asyncio.sleep(0.01)
        assert world.reports.lines == ["failed n1 1"]


async def test_a_fault_of_ours_does_not_end_the_lane() -> None:
    """An unexpected exception is counted and retried."""
    async with running() as world:
        world.receiver.answers = [ValueError("bug"), None]  # type: ignore[list-item]
        world.put("n1")
        await world.seconds(2)
        assert world.reports.lines == ["failed n1 1", "delivered n1 after 2"]


@pytest.mark.parametrize(("queued", "dead"), [(0, 0), (2, 0), (3, 0), (4, 1)])
async def test_a_full_lane_gives_up_the_oldest(queued: int, dead: int) -> None:
    """At N everything waits, at N + 1 the oldest is a dead letter."""
    async with running(max_queued=3) as world:
        world.receiver.answers = [DeliveryError("429", retryable=True, retry_after_s=60)] * 10
        for number in range(queued):
            world.put(f"n{number}")
            await settle()
        given_up = [line for line in world.reports.lines if line.startswith("dead")]
        assert given_up == ["dead n0: too many notifications wait for this receiver"] * dead
        assert len(world.lane) == min(queued, 3)


async def test_a_notification_is_given_up_after_a_day() -> None:
    """Its age counts from the decision, restarts included."""
    async with running(max_age_s=100) as world:
        world.receiver.answers = [RETRY] * 100
        world.put("old", created_at_ms=world.clock.now_ms() - 99_900)
        await settle()
        assert world.reports.lines == ["dead old: HTTP 500"]


async def test_a_restored_notification_waits_for_its_time() -> None:
    """next_try_ms of before a restart is kept."""
    async with running() as world:
        world.put("n1", next_try_ms=world.clock.now_ms() + 30_000, attempts=4)
        await world.seconds(29)
        assert world.receiver.tries == []
        await world.seconds(1)
        assert world.reports.lines == ["delivered n1 after 5"]


async def test_a_cancelled_lane_keeps_what_it_was_sending() -> None:
    """Cancelled in the middle of a try: nothing is reported, the try is not lost."""
    world = World()
    world.receiver.hang = True
    task = asyncio.create_task(world.lane.run())
    world.put("n1")
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert world.reports.lines == []
    assert len(world.lane) == 1


def test_the_pause_doubles_up_to_a_minute() -> None:
    """1, 2, 4 ... 60 seconds, cut by up to a half."""
    for failures, full in ((1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)):
        assert all(full / 2 <= retry_delay_s(failures, Random(seed)) <= full for seed in range(20))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "take", "done", "retry"]),
            st.integers(0, 9),
            st.sets(st.integers(0, 3), max_size=2),
        ),
        max_size=60,
    )
)
def test_the_queue_hands_out_in_order_by_key(ops: list[tuple[str, int, set[int]]]) -> None:
    """What is handed out has no earlier one with a common key in the queue; nothing is lost."""
    queue, waiting, out = OrderedQueue(), {}, []
    for number, (kind, which, keys) in enumerate(ops):
        if kind == "add":
            name = f"{number}"
            queue.add(name, [str(key) for key in keys])
            waiting[name] = keys
        elif kind == "take":
            taken = queue.take(0)
            if taken is None:
                earlier = list(waiting)
                for name in [one for one in waiting if one not in out]:
                    before = earlier[: earlier.index(name)]
                    assert any(waiting[name] & waiting[other] for other in before)
            else:
                assert taken not in out
                out.append(taken)
                for other in waiting:
                    if other == taken:
                        break
                    assert not waiting[other] & waiting[taken]
        elif out:
            name = out.pop(which % len(out))
            if kind == "done":
                queue.done(name)
                del waiting[name]
            else:
                queue.retry(name, 0)
    assert len(queue) == len(waiting)


def test_the_journal_reads_what_it_appended(tmp_path: Path) -> None:
    """In order, over a new opening, without the torn last line."""
    path = tmp_path / "folder" / "journal"
    journal = Journal(path)
    for number in range(3):
        journal.append(json.dumps({"n": number}), sync=number == 1)
    journal.close()
    with path.open("ab") as file:
        file.write(b'0badc0de {"n": 9')
    again = Journal(path)
    assert again.read() == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert again.damaged == 1
    again.append('{"n": 3}', sync=True)
    assert again.read() == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]
    again.replace(['{"n": 7}'])
    again.append('{"n": 8}', sync=False)
    assert again.read() == [{"n": 7}, {"n": 8}]
    again.close()


@settings(deadline=None)  # files are slow at times
@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_byte_costs_at_most_its_records(where: int, byte: int) -> None:
    """Flipping any byte leaves the other records, and never a wrong one."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "j")
        records = [{"n": number, "text": "x" * 10} for number in range(6)]
        for record in records:
            journal.append(json.dumps(record), sync=False)
        journal.close()
        data = bytearray(journal.path.read_bytes())
        data[where % len(data)] = byte
        journal.path.write_bytes(bytes(data))
        found = journal.read()
        assert all(record in records for record in found)
        assert len(found) >= 4
