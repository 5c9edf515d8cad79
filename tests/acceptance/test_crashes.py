"""The short form of benchmarks/crashes.py: whatever happens, the receiver gets what was promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.flapping import world
from tests.helpers.postgres import PostgresServer

pytestmark = [pytest.mark.acceptance]


@pytest.mark.parametrize("seed", [1])
async def test_killed_at_random_moments(own_postgres: PostgresServer, tmp_path: Path, seed: int) -> None:
    """kill -9 while alerts flap: no episode without its firing notification or its row, no second one inside
    a cooldown, one resolved for each."""
    async with world(seed, tmp_path, ("one",), own_postgres) as found:
        await found.killed(6)
        await found.calm()
        verdict = found.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.notifications > 5


@pytest.mark.parametrize("seed", [1])
async def test_of_two_replicas_the_leader_is_killed_paused_and_cut_off(
    own_postgres: PostgresServer, tmp_path: Path, seed: int
) -> None:
    """The same promises hold, the other leads each time."""
    async with world(seed, tmp_path, ("one", "two"), own_postgres) as found:
        await found.disturbed(8)
        await found.calm()
        verdict = found.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.notifications > 20
    assert len(found.leaderless_s) > 4
