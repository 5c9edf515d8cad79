from __future__ import annotations

import asyncio

import pytest

from exporter.client.gate import Gate, Pause, Priority
from exporter.client.journal import NoJournal
from exporter.client.limits import ProviderLimits
from exporter.errors import ApiError, ApiErrorKind, StorageError
from exporter.model.quota import SharedSlot, Windows
from exporter.providers.spec import LimitSpec
from tests.helpers.clock import FakeClock, settle


def _gate(clock: FakeClock, *limits: LimitSpec, **options: int) -> Gate:
    return Gate("test", ProviderLimits(limits), clock, NoJournal(), **options)  # type: ignore[arg-type]


async def _take(gate: Gate, order: list[str], name: str, priority: Priority, deadline: float = 1e9) -> None:
    lease = await gate.acquire(priority, deadline)
    lease.sent()
    order.append(name)


async def test_the_queue_goes_by_priority_then_by_arrival() -> None:
    """A high call overtakes waiting normal and low ones; equals keep their order."""
    clock = FakeClock()
    order: list[str] = []
    gate = _gate(clock, LimitSpec("second", 1))
    await _take(gate, order, "first", Priority.LOW)
    names = [
        ("low", Priority.LOW),
        ("normal a", Priority.NORMAL),
        ("normal b", Priority.NORMAL),
        ("high", Priority.HIGH),
    ]
    tasks = []
    for name, priority in names:
        tasks.append(asyncio.create_task(_take(gate, order, name, priority)))
        await settle()
    await clock.advance(10)
    await asyncio.gather(*tasks)
    assert order == ["first", "high", "normal a", "normal b", "low"]


async def test_a_cancelled_caller_leaves_the_queue_and_takes_no_slot() -> None:
    """The next one in line gets the slot."""
    clock = FakeClock()
    order: list[str] = []
    gate = _gate(clock, LimitSpec("second", 1))
    await _take(gate, order, "first", Priority.NORMAL)
    gone = asyncio.create_task(_take(gate, order, "gone", Priority.HIGH))
    stays = asyncio.create_task(_take(gate, order, "stays", Priority.NORMAL))
    await settle()
    gone.cancel()
    await clock.advance(1.1)
    await asyncio.gather(gone, stays, return_exceptions=True)
    assert order == ["first", "stays"]
    assert gate.queue_length == 0


async def test_a_slot_granted_to_a_caller_that_is_cancelled_at_that_moment_goes_back() -> None:
    """Granted and cancelled in one round of the loop: the slot is not lost."""
    clock = FakeClock()
    gate = _gate(clock, LimitSpec("minute", 1))
    held = await gate.acquire(Priority.NORMAL, 1e9)
    waiting = asyncio.create_task(gate.acquire(Priority.NORMAL, 1e9))
    await settle()
    held.release()  # grants the slot to the waiter, which has not run yet
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    lease = await gate.acquire(Priority.NORMAL, clock.monotonic() + 0.1)
    lease.release()


async def test_a_slot_at_once_passes_neither_the_limit_nor_the_queue() -> None:
    """Taken where it is free; not where callers wait, nor where a send must be on the disk first."""
    clock = FakeClock()
    gate = _gate(clock, LimitSpec("second", 1))
    lease = gate.acquire_now(Priority.NORMAL)
    assert lease is not None
    lease.sent()
    assert gate.acquire_now(Priority.HIGH) is None  # the limit
    order: list[str] = []
    tasks = [asyncio.create_task(_take(gate, order, name, Priority.LOW)) for name in "ab"]
    await settle()
    await clock.advance(1.1)
    assert order == ["a"]
    assert gate.acquire_now(Priority.HIGH) is None  # b waits
    await clock.advance(10)
    await asyncio.gather(*tasks)
    assert gate.acquire_now(Priority.LOW) is not None
    assert _gate(clock, LimitSpec("day", 100)).acquire_now(Priority.HIGH) is None


async def test_a_deadline_before_the_next_slot_fails_at_once() -> None:
    """Nobody waits for a slot that cannot come in time; the error tells when it comes."""
    clock = FakeClock()
    gate = _gate(clock, LimitSpec("minute", 1))
    (await gate.acquire(Priority.NORMAL, 1e9)).sent()
    with pytest.raises(ApiError, match=r"next call in 60\.3 s") as caught:
        await gate.acquire(Priority.NORMAL, clock.monotonic() + 5)
    assert caught.value.kind is ApiErrorKind.DEADLINE
    assert caught.value.retry_after_s == pytest.approx(60.3)


async def test_a_waiter_is_told_at_its_deadline() -> None:
    """Pushed back by others, a waiter fails when its deadline passes, not later."""
    clock = FakeClock()
    gate = _gate(clock, LimitSpec("second", 1))
    (await gate.acquire(Priority.NORMAL, 1e9)).sent()
    low = asyncio.create_task(gate.acquire(Priority.LOW, 2.0))
    await settle()
    order: list[str] = []
    high = [asyncio.create_task(_take(gate, order, str(n), Priority.HIGH)) for n in range(3)]
    await clock.advance(2.0)
    assert low.done()
    with pytest.raises(ApiError) as caught:
        await low
    assert caught.value.kind is ApiErrorKind.DEADLINE
    await clock.advance(5.0)
    await asyncio.gather(*high)


@pytest.mark.parametrize("size", [0, 1, 3])
async def test_the_queue_is_bounded(size: int) -> None:
    """One caller more than the bound is refused at once."""
    clock = FakeClock()
    gate = _gate(clock, LimitSpec("minute", 1), max_queue=size)
    (await gate.acquire(Priority.NORMAL, 1e9)).sent()
    waiting = [asyncio.create_task(gate.acquire(Priority.NORMAL, 1e9)) for _ in range(size)]
    await settle()
    with pytest.raises(ApiError) as caught:
        await gate.acquire(Priority.NORMAL, 1e9)
    assert caught.value.kind is ApiErrorKind.QUEUE_FULL
    await gate.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, ApiError) for result in results)


async def test_a_pause_holds_all_back_and_refuses_who_cannot_wait() -> None:
    """Waiters whose deadline lies before the pause's end fail at once with the pause's kind."""
    clock = FakeClock()
    gate = _gate(clock, LimitSpec("second", 1))
    (await gate.acquire(Priority.NORMAL, 1e9)).sent()
    short = asyncio.create_task(gate.acquire(Priority.NORMAL, 20.0))
    patient = asyncio.create_task(gate.acquire(Priority.NORMAL, 100.0))
    await settle()
    gate.pause_until(Pause(30.0, ApiErrorKind.RATE_LIMITED, "slow down"))
    await settle()
    with pytest.raises(ApiError, match="slow down") as caught:
        await short
    assert caught.value.kind is ApiErrorKind.RATE_LIMITED
    await clock.advance(29.9)
    assert not patient.done()
    await clock.advance(0.2)
    (await patient).sent()
    gate.pause_until(Pause(1000.0, ApiErrorKind.BILLING, "pay"))
    gate.resume()
    await clock.advance(2)
    (await gate.acquire(Priority.NORMAL, clock.monotonic() + 1)).sent()


async def test_a_shorter_pause_does_not_replace_a_longer_one() -> None:
    """The longest wait wins."""
    clock = FakeClock()
    gate = _gate(clock)
    gate.pause_until(Pause(100.0, ApiErrorKind.QUOTA, "day"))
    gate.pause_until(Pause(10.0, ApiErrorKind.RATE_LIMITED, "minute"))
    assert gate.pause is not None
    assert gate.pause.kind is ApiErrorKind.QUOTA


async def test_a_high_call_goes_ahead_of_the_pace_not_of_the_limit() -> None:
    """A quota of 4 a day: high calls use it up at once, and then wait like all."""
    clock = FakeClock()
    gate = _gate(clock, LimitSpec("day", 4))
    for _ in range(4):
        (await gate.acquire(Priority.HIGH, clock.monotonic())).sent()
    with pytest.raises(ApiError):
        await gate.acquire(Priority.HIGH, clock.monotonic() + 3600)


class _Shared:
    """A shared store that makes the first claims wait."""

    def __init__(self, waits: list[float]) -> None:
        self.waits = waits
        self.claims = 0
        self.replaced: list[SharedSlot | None] = []
        self.released: list[int | None] = []

    async def claim(
        self, scope: str, windows: Windows, within_s: float, replaces: SharedSlot | None = None
    ) -> SharedSlot:
        assert scope == "test"
        assert windows == ((1.05, 1),)
        self.claims += 1
        self.replaced.append(replaces)
        wait_s = self.waits.pop(0) if self.waits else 0.0
        return SharedSlot(wait_s, self.claims, wait_s <= within_s)

    async def release(self, scope: str, slot: SharedSlot) -> None:
        self.released.append(slot.id)


async def test_a_shared_quota_is_claimed_before_the_call_goes_out() -> None:
    """Each slot is taken in the shared store too; one past the deadline is refused, one unused goes back."""
    clock = FakeClock()
    shared = _Shared([0.5])
    gate = Gate("test", ProviderLimits([LimitSpec("second", 1)]), clock, NoJournal(), shared=shared)
    taking = asyncio.create_task(gate.acquire(Priority.NORMAL, 10.0))
    await clock.advance(0.4)
    assert not taking.done()
    await clock.advance(0.2)
    (await taking).release()
    await settle()
    assert (shared.claims, shared.released) == (1, [1])
    shared.waits = [100.0]
    with pytest.raises(ApiError, match="shared limit"):
        await gate.acquire(Priority.NORMAL, 10.0)
    (await gate.acquire(Priority.NORMAL, 10.0)).sent()
    await gate.close()


async def test_a_shared_slot_that_was_missed_is_taken_anew() -> None:
    """A connection that took longer than the window's margin allows: the slot goes back for a later one."""
    clock = FakeClock()
    shared = _Shared([])
    gate = Gate("test", ProviderLimits([LimitSpec("second", 1)]), clock, NoJournal(), shared=shared)
    lease = await gate.acquire(Priority.NORMAL, 10.0)
    clock.jump(0.02)
    await gate.renew(lease, Priority.NORMAL, 10.0)
    assert shared.claims == 1
    clock.jump(0.02)
    await gate.renew(lease, Priority.NORMAL, 10.0)
    lease.sent()
    assert shared.claims == 2
    assert shared.replaced[1] == SharedSlot(0.0, 1)
    await gate.close()


class _FullDisk(NoJournal):
    """A journal that cannot write."""

    def record(self, provider: str, at_ms: int) -> None:
        raise StorageError("no space left on device")

    def release(self, provider: str, at_ms: int) -> None:
        raise StorageError("no space left on device")

    async def commit(self, provider: str) -> None:
        raise StorageError("no space left on device")


async def test_a_full_disk_does_not_end_the_calls(caplog: pytest.LogCaptureFixture) -> None:
    """The limit holds in memory, waiters are served, and the fault is told once."""
    clock = FakeClock()
    gate = Gate("test", ProviderLimits([LimitSpec("second", 1), LimitSpec("day", 100)]), clock, _FullDisk())
    order: list[str] = []
    tasks = [asyncio.create_task(_take(gate, order, str(n), Priority.HIGH)) for n in range(3)]
    await clock.advance(1.0)
    assert order == ["0"]
    await clock.advance(2.0)
    await asyncio.gather(*tasks)
    assert order == ["0", "1", "2"]
    assert [record.message for record in caplog.records] == [
        "test: sends are not remembered over a restart: no space left on device"
    ]
