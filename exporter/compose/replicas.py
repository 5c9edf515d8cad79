"""Leadership as one part: which replica notifies, when that changes, and what it then has to do.

The database's lock decides (`db.leader`). A replica that cannot reach the database asks the others over HTTP
and follows `notify.office`. One that begins to notify takes the stored state over; one that stops hands in
what it could not record. One that only follows looks at the stored state now and then, so that it knows what
was sent and what is cooling down if it has to notify without a database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge

from exporter.clock import Clock
from exporter.db.alerts import StoredState
from exporter.db.leader import CONNECT_S, LeaderSession, Replica
from exporter.errors import StorageError
from exporter.notify.office import Claim, acts
from exporter.notify.records import Changes
from exporter.notify.waiting import first_of

log = logging.getLogger(__name__)

Ask = Callable[[Replica, float], Awaitable[Claim | None]]
_STEPS = 5  # of a lease: how often the lock is confirmed or tried
_ASK_S = 1.0
_START_S = 1.0  # a predecessor that was killed is gone by then, and its lock with it
_LOOK_S = 15.0


class Turn(Protocol):
    """The part that notifies while it is this replica's turn."""

    async def take_up(self, known: Changes | None) -> None:
        """Begin: from the tables, or from `known` where they are out of reach."""

    async def stand_down(self) -> None:
        """End: nothing is sent or recorded from now on."""

    async def hand_in(self) -> int:
        """Give the tables what could not be recorded and another has not recorded since; how many rows."""

    async def look(self) -> StoredState:
        """The stored state as it is now. Raises: StorageError."""

    def wake(self) -> None:
        """Sending may be permitted again."""


class ReplicaMetrics:
    """What is seen of leadership."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.leader = Gauge(
            "quantum_leader", "1 while this replica is the one that notifies.", registry=registry
        )
        self.changes = Counter(
            "quantum_leader_changes",
            "How often this replica began (to=leader) or ceased (to=follower) to notify.",
            ["to"],
            registry=registry,
        )
        self.replicas = Gauge(
            "quantum_replicas", "Replicas of this database seen in the last minute, this one included.",
            registry=registry,
        )  # fmt: skip
        for to in ("leader", "follower"):
            self.changes.labels(to)


class Replicas:
    """See the module. `begin` once, `run` as a task, `close` at the end."""

    def __init__(
        self,
        session: LeaderSession,
        turn: Turn,
        ask: Ask,
        clock: Clock,
        metrics: ReplicaMetrics,
        *,
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self._session = session
        self._turn = turn
        self._ask = ask
        self._clock = clock
        self._metrics = metrics
        self._on_fault = on_fault
        self._notifies = False
        self._term = 0  # in which this replica notifies
        self._until_s = float("-inf")  # so long it may notify without the lock
        self._cut_since_s: float | None = None
        self._back_since_s = float("-inf")
        self._owes = True  # the journal may hold what another replica's tables lack
        self._known: StoredState | None = None
        self._known_term = 0
        self._looked_s = float("-inf")
        self._change: asyncio.Task[None] | None = None
        self._poke = asyncio.Event()
        self._said = ""
        session.on_loss = self._lost

    # -- what others ask ------------------------------------------------------------------------------

    @property
    def notifies(self) -> bool:
        """Whether it is this replica's turn."""
        return self._notifies

    def permitted(self) -> bool:
        """Whether a notification may leave at this very moment."""
        if not self._notifies:
            return False
        return self._session.leads or self._clock.monotonic() < self._until_s

    def claim(self) -> Claim:
        """What this replica tells the others."""
        session = self._session
        term = self._term if self._notifies else 0
        return Claim(session.me.id, self._cut_since_s is None, session.leads, term)

    @property
    def leader(self) -> Replica | None:
        """Who notifies in this one's place, as far as known; None where it is this one, or nobody."""
        holder = self._session.office.holder
        return holder if not self._notifies and holder.id not in ("", self._session.me.id) else None

    def describe(self) -> str:
        """Who notifies, in words."""
        if self._notifies and self._session.has_lock:
            return "this replica notifies"
        if self._notifies and self._clock.monotonic() < self._until_s:
            return "this replica notifies, from its journal: the database is out of reach"
        if self._notifies:
            return "this replica asks the others who notifies: the database is out of reach"
        leader = self.leader
        who = f"{leader.name} notifies ({leader.url})" if leader else "it is not known who notifies"
        return f"{who}, this replica follows"

    @property
    def known(self) -> Changes | None:
        """The stored state that was looked at last, None if none was."""
        return self._known.changes() if self._known is not None else None

    # -- running --------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Find out whose turn it is, and take it up if it is ours; a second at most where another leads."""
        deadline_s = self._clock.monotonic() + min(_START_S, self._session.lease_s)
        while True:
            await self._reach()
            if self._session.has_lock:
                await self._take_over()
            elif not self._session.connected:
                await self._act()
            elif self._clock.monotonic() < deadline_s:
                await self._clock.sleep(0.05)
                continue
            else:
                await self._look()
            break
        self._show()

    async def run(self) -> None:
        """Confirm, try or ask until cancelled."""
        try:
            while True:
                self._poke.clear()
                await self.step()
                await first_of(self._poke.wait(), self._clock.sleep(self._session.lease_s / _STEPS))
        finally:
            if self._change is not None:
                self._change.cancel()
                await asyncio.gather(self._change, return_exceptions=True)

    async def step(self) -> None:
        """One look at the database, or at the others, and what follows from it."""
        await self._reach()
        if self._change is None or self._change.done():
            self._change = None
            what = await self._next()
            if what is not None:
                self._change = asyncio.create_task(self._guarded(what), name="change of leadership")
        if self.permitted():
            self._turn.wake()
        self._show()

    async def settle(self) -> None:
        """Wait for a change that is under way."""
        if self._change is not None:
            await asyncio.wait([self._change])

    async def close(self) -> None:
        """Give the lock up, so that another replica follows at once."""
        await self._session.close()

    async def _reach(self) -> None:
        """Confirm the session; take the lock where it is free and we may."""
        session = self._session
        try:
            await session.refresh()
            now_s = self._clock.monotonic()
            if self._cut_since_s is not None:
                self._cut_since_s, self._back_since_s = None, now_s
            # whoever notified while the database was away goes first: it knows what it sent
            if not session.has_lock and (self._notifies or now_s - self._back_since_s >= session.lease_s):
                await session.try_lock()
        except StorageError:
            if self._cut_since_s is None:
                self._cut_since_s = self._clock.monotonic()

    async def _next(self) -> Coroutine[Any, Any, None] | None:
        session, now_s = self._session, self._clock.monotonic()
        if session.has_lock:
            if self._notifies and session.in_office:
                self._until_s = float("-inf")
                return None
            return self._take_over()
        if self._cut_since_s is None:
            if self._notifies:
                return self._stand_down()
            if self._owes and session.office.holder.id != session.me.id:
                return self._hand_in()
            return self._look() if now_s - self._looked_s >= _LOOK_S else None
        patient = now_s - self._cut_since_s < session.lease_s
        if patient and not self._notifies:
            return None
        heard = await self._heard()
        if acts(self.claim(), heard):
            if patient and len(heard) < len(session.others):
                return None  # one that does not answer at once may lead: it is asked again, for the lease
            self._allow()
            return None if self._notifies else self._act()
        return self._stand_down() if self._notifies else None

    async def _heard(self) -> list[Claim]:
        timeout_s = min(_ASK_S, self._session.lease_s / 3)
        answers = await asyncio.gather(*(self._ask(other, timeout_s) for other in self._session.others))
        return [one for one in answers if one is not None]

    def _allow(self) -> None:
        """Send without the lock until the next few looks have come to nothing."""
        self._until_s = self._clock.monotonic() + 3 * (self._session.lease_s + CONNECT_S)

    def _lost(self) -> None:
        """The session failed: look at once. Alone there is nobody to ask."""
        if self._notifies and not self._session.others:
            self._allow()
            self._turn.wake()
        self._poke.set()

    # -- changes --------------------------------------------------------------------------------------

    async def _guarded(self, change: Coroutine[Any, Any, None]) -> None:
        try:
            await change
        except StorageError as error:  # tried again at the next step
            log.debug("leadership: %s", error)
        except Exception as error:
            self._on_fault("replicas", error)

    async def _take_over(self) -> None:
        """The lock is ours: go on where we were, or from what another recorded."""
        session = self._session
        before = session.office
        ours = before.term == 0 or before.holder.id == session.me.id
        if self._notifies and not ours and before.term != self._term:
            await self._stand_down()
        if self._notifies:
            await session.take_office()
        else:
            if not ours:
                await self._hand_in()
            await session.take_office()
            await self._take_up(None)
            if not session.in_office and (session.others or not ours):  # lost meanwhile, and to another
                await self._stand_down()
                return
        self._term = session.office.term
        self._owes = False

    async def _act(self) -> None:
        """Notify without the database."""
        self._allow()
        self._term = self._known_term
        await self._take_up(self.known)

    async def _take_up(self, known: Changes | None) -> None:
        await self._turn.take_up(known)
        self._notifies = True
        self._metrics.changes.labels("leader").inc()
        if self.permitted():
            self._turn.wake()

    async def _stand_down(self) -> None:
        self._notifies, self._owes = False, True
        self._until_s = self._looked_s = float("-inf")
        self._metrics.changes.labels("follower").inc()
        await self._turn.stand_down()

    async def _hand_in(self) -> None:
        rows = await self._turn.hand_in()
        self._owes = False
        if rows:
            log.info("handed in %d rows that could not be recorded before another replica took over", rows)

    async def _look(self) -> None:
        self._known = await self._turn.look()
        self._known_term = self._session.office.term
        self._looked_s = self._clock.monotonic()

    def _show(self) -> None:
        self._metrics.leader.set(self._notifies)
        self._metrics.replicas.set(1 + len(self._session.others))
        said = self.describe()
        if self._said and said != self._said:  # how it begins is told by the first lines
            log.info("%s", said)
        self._said = said


class Asker:
    """Asks other replicas what they claim; one session, made at the first use."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, other: Replica, timeout_s: float) -> Claim | None:
        """The claim of another replica; None where it does not answer."""
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.get(
                f"{other.url}/-/replica",
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    return None
                return Claim.from_json(await answer.json(content_type=None))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
