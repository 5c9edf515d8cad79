"""The runner: each collector on its own, one run at a time, failures counted and their families gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily

from exporter.collectors.base import Collected, CollectorRunner, Outcome
from exporter.collectors.metrics import CollectorMetrics
from exporter.model.staleness import stale_mask
from exporter.observe.snapshot import Snapshotter
from tests.helpers.clock import FakeClock, settle


class Fake:
    """A collector that does what the test says."""

    def __init__(self, name: str = "fake", interval_s: float = 15.0, timeout_s: float = 5.0) -> None:
        self.name = name
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.rows = ["a"]
        self.error: BaseException | None = None
        self.wait: Callable[[], object] | None = None
        self.runs: list[float] = []
        self.at_once = 0
        self.most_at_once = 0
        self.clock: FakeClock | None = None

    async def collect(self) -> Collected:
        self.runs.append(self.clock.monotonic() if self.clock else 0.0)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.wait is not None:
                await self.wait()  # type: ignore[misc]
            if self.error is not None:
                raise self.error
            gauge = GaugeMetricFamily(f"quantum_{self.name}", "h", labels=["row"])
            for row in self.rows:
                gauge.add_metric([row], 1)
            return Collected(
                [gauge], 2 if "bad" in self.rows else 0, ["2 x bad"] if "bad" in self.rows else []
            )
        finally:
            self.at_once -= 1


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.runner = CollectorRunner(self.registry, self.clock, CollectorMetrics(self.registry))

    def add(self, *collectors: Fake) -> None:
        for collector in collectors:
            collector.clock = self.clock
            self.runner.add(collector)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def runs(self, outcome: str, collector: str = "fake") -> float | None:
        return self.value("quantum_collector_runs_total", collector=collector, outcome=outcome)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_run_is_timed_and_published(world: World) -> None:
    """Success, duration and time of the last success are gauges by collector."""
    fake = Fake()
    fake.wait = lambda: world.clock.sleep(2)
    world.add(fake)
    task = asyncio.create_task(world.runner.run_once("fake"))
    await world.clock.advance(3)
    assert (await task).outcome is Outcome.SUCCESS
    assert world.value("quantum_fake", row="a") == 1
    assert world.value("quantum_collector_duration_seconds", collector="fake") == 2
    assert world.value("quantum_collector_success", collector="fake") == 1
    assert world.value("quantum_collector_last_success_timestamp_seconds", collector="fake") == 1_700_000_002
    assert world.runs("success") == 1


async def test_series_of_the_outcomes_are_born_at_zero(world: World) -> None:
    """Every outcome stands at 0 before it happens."""
    world.add(Fake())
    assert [world.runs(outcome.value) for outcome in Outcome] == [0, 0, 0, 0]
    assert world.value("quantum_collector_refused_values_total", collector="fake") == 0


async def test_a_failure_takes_the_old_values_away(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """After a failed run the old values are gone: the snapshot ends them with markers. Logged once."""
    fake = Fake()
    world.add(fake)
    snapshotter = Snapshotter(world.registry)
    await world.runner.run_once("fake")
    snapshotter.take(1000)
    fake.error = RuntimeError("no table")
    with caplog.at_level(logging.INFO, "exporter.collectors"):
        for _ in range(3):
            await world.runner.run_once("fake")
        batches = snapshotter.take(2000)
        fake.error = None
        await world.runner.run_once("fake")
    ended = [str(labels) for batch in batches if stale_mask(batch.values).all() for labels in batch.labels]
    assert ended == ['quantum_fake{row="a"}']
    assert [record.getMessage() for record in caplog.records] == [
        "collector fake failed: no table",
        "collector fake works again",
    ]
    assert world.value("quantum_fake", row="a") == 1
    assert (world.runs("error"), world.runs("success")) == (3, 2)


async def test_vanished_rows_go(world: World) -> None:
    """What a run does not yield any more is gone from the registry."""
    fake = Fake()
    fake.rows = ["a", "b"]
    world.add(fake)
    await world.runner.run_once("fake")
    fake.rows = ["b"]
    await world.runner.run_once("fake")
    assert (world.value("quantum_fake", row="a"), world.value("quantum_fake", row="b")) == (None, 1)


async def test_a_hung_run_is_cancelled_and_counted(world: World) -> None:
    """A run that takes longer than its time-out is cancelled; the others have run meanwhile."""
    hung, fine = Fake("hung"), Fake("fine")
    hung.wait = lambda: world.clock.sleep(3600)
    world.add(hung, fine)
    task = asyncio.create_task(world.runner.run_all())
    await settle()
    assert world.value("quantum_fine", row="a") == 1
    await world.clock.advance(5)
    await task
    status = {status.name: status for status in world.runner.status()}
    assert (status["hung"].outcome, status["hung"].error) == (Outcome.TIMEOUT, "no answer within 5 s")
    assert hung.at_once == 0
    assert world.value("quantum_collector_success", collector="hung") == 0
    assert world.value("quantum_collector_success", collector="fine") == 1


async def test_never_two_runs_of_one_collector(world: World) -> None:
    """A run that cannot be cancelled is waited for: later runs are skipped and counted."""
    fake = Fake()
    gate = asyncio.Event()

    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    fake.wait = stubborn
    world.add(fake)
    first = asyncio.create_task(world.runner.run_once("fake"))
    await world.clock.advance(10)
    assert (await first).outcome is Outcome.TIMEOUT
    await world.runner.run_once("fake")
    assert (world.runs("skipped"), fake.most_at_once) == (1, 1)
    gate.set()
    await settle()
    assert (await world.runner.run_once("fake")).outcome is Outcome.SUCCESS
    assert fake.most_at_once == 1


async def test_concurrent_run_once_runs_once(world: World) -> None:
    """A forced run beside a running one does not start a second."""
    fake = Fake()
    fake.wait = lambda: world.clock.sleep(1)
    world.add(fake)
    both = asyncio.gather(world.runner.run_once("fake"), world.runner.run_once("fake"))
    await world.clock.advance(2)
    await both
    assert (len(fake.runs), world.runs("skipped")) == (1, 1)


async def test_intervals_keep_their_phase(world: World) -> None:
    """Each collector has its own interval; a run that takes longer leaves slots out instead of piling up."""
    quick, slow = Fake("quick", interval_s=10), Fake("slow", interval_s=10, timeout_s=60)
    slow.wait = lambda: world.clock.sleep(12)
    world.add(quick, slow)
    task = asyncio.create_task(world.runner.run())
    await world.clock.advance(45)
    assert quick.runs == [0, 10, 20, 30, 40]
    assert slow.runs == [0, 20, 40]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.at_once == 0


async def test_cancelling_run_once_ends_the_collector(world: World) -> None:
    """A cancelled run leaves no task behind."""
    fake = Fake()
    fake.wait = lambda: world.clock.sleep(60)
    world.add(fake)
    task = asyncio.create_task(world.runner.run_once("fake"))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.at_once == 0


async def test_refused_values_are_counted_and_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Refused values are counted at each run and logged when they change."""
    fake = Fake()
    fake.rows = ["bad"]
    world.add(fake)
    for _ in range(3):
        await world.runner.run_once("fake")
    assert world.value("quantum_collector_refused_values_total", collector="fake") == 6
    assert [record.getMessage() for record in caplog.records] == ["collector fake: 2 x bad"]
    assert world.runner.status()[0].faults == ["2 x bad"]


async def test_two_collectors_may_share_a_family(world: World) -> None:
    """Parts of one family from two collectors are one family on the page."""
    one, two = Fake("one"), Fake("two")
    two.rows = ["b"]
    world.add(one, two)

    async def same() -> Collected:
        gauge = GaugeMetricFamily("quantum_one", "h", labels=["row"])
        gauge.add_metric(["b"], 1)
        return Collected([gauge])

    two.collect = same  # type: ignore[method-assign]
    await world.runner.run_all()
    families = [family for family in world.runner.collect() if family.name == "quantum_one"]
    assert [[sample.labels["row"] for sample in family.samples] for family in families] == [["a", "b"]]


async def test_names_are_unique(world: World) -> None:
    """Two collectors cannot have one name."""
    world.add(Fake())
    with pytest.raises(ValueError, match='a collector named "fake" is there already'):
        world.add(Fake())


async def test_removed_collectors_leave_nothing(world: World) -> None:
    """After a removal neither families nor the collector's own series are there."""
    world.add(Fake())
    await world.runner.run_once("fake")
    await world.runner.remove("fake")
    names = [sample.labels for family in world.registry.collect() for sample in family.samples]
    assert names == []


async def test_one_cause_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Collectors that fail for the same reason make one line, a changing text none, the end one more."""
    fakes = [Fake(name) for name in ("one", "two", "three")]
    world.add(*fakes)
    with caplog.at_level(logging.INFO, "exporter.collectors"):
        for text in ("the database is away", "cannot connect"):
            for fake in fakes:
                fake.error = RuntimeError(text)
            await world.runner.run_all()
        for fake in fakes:
            fake.error = None
        await world.runner.run_all()
    assert [record.getMessage() for record in caplog.records] == [
        "collector one failed: the database is away",
        "collector one works again",
    ]
