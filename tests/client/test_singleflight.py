from __future__ import annotations

import asyncio

import pytest

from exporter.client.singleflight import SingleFlight
from tests.helpers.clock import settle


class Call:
    """An upstream call that ends when told to."""

    def __init__(self) -> None:
        self.count = 0
        self.cancelled = 0
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> int:
        self.count += 1
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_a_thousand_callers_make_one_call() -> None:
    """Equal concurrent requests share one call and its answer; the key is free afterwards."""
    flights: SingleFlight[int] = SingleFlight()
    call = Call()
    callers = [asyncio.create_task(flights.run("k", call)) for _ in range(1000)]
    await settle()
    call.end.set_result(7)
    assert await asyncio.gather(*callers) == [7] * 1000
    assert call.count == 1
    assert len(flights) == 0


async def test_a_failure_is_shared() -> None:
    """All callers get the failure of the one call."""
    flights: SingleFlight[int] = SingleFlight()
    call = Call()
    callers = [asyncio.create_task(flights.run("k", call)) for _ in range(100)]
    await settle()
    call.end.set_exception(ValueError("down"))
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert {str(result) for result in results} == {"down"}
    assert call.count == 1


@pytest.mark.parametrize("victim", [0, 1, 4])
async def test_a_cancelled_caller_fails_no_other(victim: int) -> None:
    """Whoever is cancelled, the first caller among them, the others get the answer."""
    flights: SingleFlight[int] = SingleFlight()
    call = Call()
    callers = [asyncio.create_task(flights.run("k", call)) for _ in range(5)]
    await settle()
    callers[victim].cancel()
    await settle()
    call.end.set_result(1)
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert sum(result == 1 for result in results) == 4
    assert isinstance(results[victim], asyncio.CancelledError)


async def test_the_last_caller_to_leave_cancels_the_call() -> None:
    """A call that nobody waits for is not finished, and the next caller starts a new one."""
    flights: SingleFlight[int] = SingleFlight()
    call = Call()
    callers = [asyncio.create_task(flights.run("k", call)) for _ in range(3)]
    await settle()
    for caller in callers:
        caller.cancel()
    await settle()
    assert call.cancelled == 1
    again = asyncio.create_task(flights.run("k", call))
    await settle()
    call.end.set_result(2)
    assert await again == 2
    assert call.count == 2


async def test_a_refresh_runs_without_a_caller_and_once() -> None:
    """A background call is not cancelled by callers that come and go; its failure is nobody's."""
    flights: SingleFlight[int] = SingleFlight()
    call = Call()
    assert flights.start("k", call)
    assert not flights.start("k", call)
    await settle()
    follower = asyncio.create_task(flights.run("k", call))
    await settle()
    follower.cancel()
    await settle()
    assert call.cancelled == 0
    call.end.set_exception(ValueError("down"))
    await settle()
    assert len(flights) == 0


async def test_close_cancels_what_is_in_flight() -> None:
    """After close nothing is left running."""
    flights: SingleFlight[int] = SingleFlight()
    call = Call()
    flights.start("k", call)
    await settle()
    await flights.close()
    assert call.cancelled == 1
    call.end.cancel()
