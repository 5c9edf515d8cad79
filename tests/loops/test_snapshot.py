"""The snapshot loop: one copy of the registry per slot, into the head and on to persistence."""

from __future__ import annotations

import asyncio
import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge

from exporter.loops.metrics import PipelineMetrics
from exporter.loops.snapshot import SnapshotLoop
from exporter.model.labels import Matcher, MatchOp
from exporter.model.samples import SampleBatch
from exporter.observe.snapshot import Snapshotter
from exporter.storage import MemoryStorage
from tests.helpers.clock import FakeClock

START = 1_700_000_020_000  # five seconds before a multiple of the interval


class World:
    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.registry = CollectorRegistry()
        self.metrics = PipelineMetrics(self.registry)
        self.storage = MemoryStorage()
        self.persisted: list[SampleBatch] = []
        self.faults: list[tuple[str, BaseException]] = []
        self.loop = SnapshotLoop(
            Snapshotter(self.registry),
            self.storage,
            self.persisted.append,
            self.clock,
            self.metrics,
            interval_ms=15_000,
            head_window_ms=600_000,
            on_fault=lambda component, error: self.faults.append((component, error)),
        )

    def samples(self, name: str) -> list[tuple[int, float]]:
        block = self.storage.select([Matcher("__name__", MatchOp.EQUAL, name)], 0, 2**60)
        return list(zip(block.ts_ms.tolist(), block.values.tolist(), strict=True))


@contextlib.asynccontextmanager
async def running(world: World):
    task = asyncio.create_task(world.loop.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_snapshots_stand_at_multiples_of_the_interval() -> None:
    """The first is taken at once, the others at the multiples that follow."""
    world = World()
    gauge = Gauge("g", "A gauge.", registry=world.registry)
    async with running(world):
        gauge.set(1)
        await world.clock.advance(5)
        gauge.set(2)
        await world.clock.advance(15)
    assert world.samples("g") == [(START, 1.0), (START + 5_000, 1.0), (START + 20_000, 2.0)]


async def test_everything_goes_to_persistence_too() -> None:
    """What the head gets, persistence gets, in the same order."""
    world = World()
    async with running(world):
        await world.clock.advance(31)
    assert [batch.ts_ms for batch in world.persisted] == sorted(batch.ts_ms for batch in world.persisted)
    assert len({batch.ts_ms for batch in world.persisted}) == 3


async def test_a_counter_born_between_snapshots_starts_at_zero() -> None:
    """Its first event is seen by increase(): a zero stands at the snapshot before."""
    world = World()
    counter = Counter("c", "A counter.", ["kind"], registry=world.registry)
    async with running(world):
        await world.clock.advance(1)
        counter.labels("x").inc()
        await world.clock.advance(5)
    assert world.samples("c_total") == [(START, 0.0), (START + 5_000, 1.0)]


async def test_a_fault_does_not_stop_the_loop() -> None:
    """A persistence port that raises is reported, and the next slot is taken all the same."""
    world = World()
    failing = iter([RuntimeError("full")])

    def persist(batch: SampleBatch) -> None:
        for error in failing:
            raise error
        world.persisted.append(batch)

    world.loop._persist = persist
    async with running(world):
        await world.clock.advance(16)
    assert [component for component, _ in world.faults] == ["snapshot"]
    assert world.persisted


async def test_slots_that_passed_are_counted() -> None:
    """A machine that slept for a minute makes nothing up, and says how many slots it lost."""
    world = World()
    await world.loop.turn()
    world.clock.jump(65)
    await world.loop.turn()
    assert world.registry.get_sample_value("quantum_snapshots_missed_total") == 4
    assert [ts for ts, _ in world.samples("quantum_head_series")] == [START, START + 65_000]
