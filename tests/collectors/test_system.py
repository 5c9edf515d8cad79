"""The machine's and the process' metrics, and the event loop's lag."""

from __future__ import annotations

import asyncio
import threading

import pytest

from exporter.collectors.base import CollectorError
from exporter.collectors.system import LoopLag, SystemCollector
from tests.helpers.clock import FakeClock, settle


async def collected() -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for family in (await SystemCollector(lag=lambda: 0.25).collect()).families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.value)
    return found


async def test_the_core_names_are_there() -> None:
    """The rules' and dashboards' names exist with plausible values."""
    found = await collected()
    for name in (
        "quantum_system_memory_total_bytes",
        "quantum_system_memory_available_bytes",
        "quantum_system_memory_used_bytes",
        "quantum_system_disk_total_bytes",
        "quantum_system_cpus",
        "quantum_process_resident_memory_bytes",
        "quantum_process_threads",
        "quantum_process_open_fds",
    ):
        assert found[name][0] > 0, name
    for name in (
        "quantum_system_load1",
        "quantum_system_swap_total_bytes",
        "quantum_process_cpu_seconds_total",
    ):
        assert found[name][0] >= 0, name
    for name in ("quantum_system_memory_usage_ratio", "quantum_system_disk_usage_ratio"):
        assert all(0 <= value <= 1 for value in found[name]), name
    assert found["quantum_event_loop_lag_seconds"] == [0.25]


async def test_cpu_usage_is_a_share() -> None:
    """CPU usage looks back to the last run and lies between 0 and 1."""
    collector = SystemCollector()
    end = asyncio.get_running_loop().time() + 0.1
    while asyncio.get_running_loop().time() < end:
        pass
    families = {family.name: family for family in (await collector.collect()).families}
    assert 0 < families["quantum_system_cpu_usage_ratio"].samples[0].value <= 1


async def test_a_hung_reading_is_not_joined_by_a_second() -> None:
    """While psutil hangs in its thread a further run fails at once."""
    collector = SystemCollector()
    gate, entered = threading.Event(), threading.Event()
    plain = collector._own_process

    def hangs() -> object:
        entered.set()
        gate.wait(5)
        return plain()

    collector._own_process = hangs  # type: ignore[method-assign,assignment]
    first = asyncio.create_task(collector.collect())
    await asyncio.to_thread(entered.wait, 5)
    with pytest.raises(CollectorError, match="psutil hangs"):
        await collector.collect()
    gate.set()
    await first
    await collector.collect()


async def test_loop_lag_is_the_longest_since_the_last_look() -> None:
    """A timer that fires late shows by how much, once."""

    class LateClock(FakeClock):
        late = 0.0

        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds + self.late)

    clock = LateClock()
    lag = LoopLag(clock)
    task = asyncio.create_task(lag.run())
    await settle()
    clock.late = 2.0
    await clock.advance(0.5)
    await clock.advance(2.5)
    clock.late = 0.0
    await clock.advance(5)
    assert lag.take() == pytest.approx(2.0)
    assert lag.take() == 0.0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
