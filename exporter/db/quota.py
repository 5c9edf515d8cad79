"""A quota that several processes share: send times in `quantum_quota_sends`, judged by the database's clock.

Implements the client's port `SharedQuota`. While the database is away each process keeps to its share of the
limit (divided by the processes seen last), and what it sends then is told when the database is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from exporter.clock import Clock
from exporter.db.pool import Database, Purpose
from exporter.errors import StorageError
from exporter.model.quota import SharedSlot, Windows

_log = logging.getLogger(__name__)
_TIMEOUT_S = 2.0  # a call must not wait longer for a database that hangs
_UNTOLD = 10_000
_CLAIM: Final = """
select id, wait_s, holders
from quantum_quota_claim($1, $2, $3::float8[], $4::int[], $5, $6, to_timestamp($7::float8))
"""
_TELL: Final = """
insert into quantum_quota_sends (scope, at, holder)
select $1, coalesce(to_timestamp($4::float8), clock_timestamp()) - make_interval(secs => age), $2
from unnest($3::float8[]) as age
"""
_RELEASE: Final = "delete from quantum_quota_sends where id = $1"


@dataclass(slots=True)
class _Own:
    """One scope as this process knows it: its own sends (monotonic seconds), and with how many it shares."""

    sends: deque[float] = field(default_factory=deque)
    untold: deque[float] = field(default_factory=lambda: deque(maxlen=_UNTOLD))
    holders: int = 1


class PostgresQuota:
    """Slots of shared limits. `holder` names this process among those that share.

    `now_ms` replaces the database's clock, for tests.
    """

    def __init__(
        self, database: Database, clock: Clock, *, holder: str, now_ms: Callable[[], int] | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._holder = holder
        self._now_ms = now_ms
        self._own: dict[str, _Own] = {}
        self._away = False

    async def claim(
        self, scope: str, windows: Windows, within_s: float, replaces: SharedSlot | None = None
    ) -> SharedSlot:
        """Take the next slot that is free in every window, at most `within_s` seconds from now.

        `replaces` is an earlier slot that was not used in time and goes back. Never raises for a database
        that is away: then this process's share of the limit decides.
        """
        own = self._own.setdefault(scope, _Own())
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._database.acquire(Purpose.WRITE) as connection:
                slot = await self._ask(connection, scope, own, windows, within_s, replaces)
        except (StorageError, TimeoutError) as error:
            return self._alone(own, windows, within_s, error)
        if self._away:
            self._away = False
            _log.info("quotas are shared through the database again")
        if slot.taken:
            self._note(own, windows, self._clock.monotonic() + slot.wait_s)
        return slot

    async def release(self, scope: str, slot: SharedSlot) -> None:
        """Give back a slot whose call never went out; one that cannot be given back counts as used."""
        if slot.id is None:
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._database.acquire(Purpose.WRITE) as connection:
                await connection.execute(_RELEASE, slot.id)
        except (StorageError, TimeoutError):
            _log.debug("a slot of %s is not given back: the database is away", scope)

    async def _ask(
        self,
        connection: Any,
        scope: str,
        own: _Own,
        windows: Windows,
        within_s: float,
        replaces: SharedSlot | None,
    ) -> SharedSlot:
        now_s = None if self._now_ms is None else self._now_ms() / 1000
        if own.untold:
            now = self._clock.monotonic()
            told = list(own.untold)
            await connection.execute(_TELL, scope, self._holder, [now - at for at in told], now_s)
            for _ in told:
                own.untold.popleft()
        row = await connection.fetchrow(
            _CLAIM,
            scope,
            self._holder,
            [period for period, _ in windows],
            [limit for _, limit in windows],
            within_s,
            None if replaces is None else replaces.id,
            now_s,
        )
        own.holders = max(1, row["holders"])
        return SharedSlot(row["wait_s"], row["id"], row["id"] is not None)

    def _alone(self, own: _Own, windows: Windows, within_s: float, error: Exception) -> SharedSlot:
        """A slot by this process's own log, under its share of the limits."""
        if not self._away:
            self._away = True
            _log.warning(
                "quotas are not shared while the database is away, each process keeps to its share: %s",
                str(error) or "no answer in time",
            )
        now = due = self._clock.monotonic()
        for period_s, limit in windows:
            share = max(1, limit // own.holders)
            if len(own.sends) >= share:
                due = max(due, own.sends[-share] + period_s)
        if due - now > within_s:
            return SharedSlot(due - now, None, False)
        self._note(own, windows, due)
        own.untold.append(due)
        return SharedSlot(due - now, None, True)

    def _note(self, own: _Own, windows: Windows, at: float) -> None:
        own.sends.append(at)
        longest_s = max((period_s for period_s, _ in windows), default=0.0)
        while own.sends[0] + longest_s < self._clock.monotonic():
            own.sends.popleft()
