"""The probe behind quantum_database_up: an answer in time or 0, whatever the database does."""

from __future__ import annotations

import asyncio

import pytest

from exporter.collectors import postgres
from exporter.collectors.postgres import DatabaseProbe
from tests.helpers.clock import FakeClock


class Hanging:
    """A database whose probe ends when the test says."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.probes = 0
        self.answer: bool | Exception = True

    async def probe(self, timeout_s: float = 5.0) -> bool:
        self.probes += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def acquire(self) -> object:
        raise AssertionError("nothing but probes is asked")


async def up(probe: DatabaseProbe) -> float:
    collected = await probe.collect()
    return float(collected.families[0].samples[0].value)


@pytest.mark.parametrize(("answer", "value"), [(True, 1.0), (False, 0.0), (RuntimeError("odd"), 0.0)])
async def test_up_is_the_answer(answer: bool | Exception, value: float) -> None:
    """1 for an answer, 0 for none and for any exception."""
    database = Hanging()
    database.answer = answer
    database.gate.set()
    assert await up(DatabaseProbe(database, FakeClock())) == value


async def test_a_hanging_probe_is_0_in_time_and_not_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that does not end gives 0 at the time-out, is left alone, and its late answer is not lost."""
    monkeypatch.setattr(postgres, "PROBE_TIMEOUT_S", 0.0)
    database = Hanging()
    probe = DatabaseProbe(database, FakeClock())
    assert [await up(probe), await up(probe)] == [0.0, 0.0]
    assert database.probes == 1
    database.gate.set()
    assert [await up(probe), await up(probe)] == [1.0, 1.0]
    assert database.probes == 2
