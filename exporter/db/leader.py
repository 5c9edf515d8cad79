"""The one session that holds the leader's lock, and through which the leader writes.

Fencing by construction: the advisory lock belongs to the session that commits the alert state. A leader that
was paused, or whose connection was lost, has lost the session with the lock, and with it the transaction it
was in; what it wants to commit then fails. The server ends a session that was silent for the lease
(idle_session_timeout, also inside a transaction), so that nobody waits for a leader that hangs.

A leader counts on the lock until the lease has passed since it *sent* what was last answered: the server's
count begins later, so that the old leader is sure to have stopped before a new one can begin.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from exporter.clock import Clock
from exporter.db.pool import Purpose, translated
from exporter.errors import StorageError, WriteError

_LOCK_KEY = 0x7175_616E_6C65_6164
CONNECT_S = 2.0  # for a new connection to a busy server
_SEEN_S = 60  # a replica that was not seen for so long is asked no more

_SEE = """
insert into quantum_replicas (id, name, url) values ($1, $2, $3)
on conflict (id) do update set name = excluded.name, url = excluded.url, seen_at = now()
"""
_FORGET = "delete from quantum_replicas where seen_at < now() - interval '1 day'"
_OTHERS = """
select id, name, url from quantum_replicas
where id <> $1 and seen_at > now() - make_interval(secs => $2) order by id
"""
_OFFICE = "select term, id, name, url from quantum_leader"
_TAKE = """
insert into quantum_leader as old (term, id, name, url) values (1, $1, $2, $3)
on conflict (only_row) do update set
    term = old.term + (old.id <> excluded.id)::int, id = excluded.id, name = excluded.name,
    url = excluded.url, since = now()
returning term, id, name, url
"""


@dataclass(frozen=True, slots=True)
class Replica:
    """One exporter: an id that outlives restarts, a name for people, the URL where others reach it."""

    id: str
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Office:
    """Who took the lock last, in which term; term 0 where nobody ever did."""

    term: int = 0
    holder: Replica = Replica("", "", "")


class LeaderSession:
    """See the module. `refresh` at a third of the lease or more often; one call at a time.

    `on_loss` is called when the session is lost, from wherever that was noticed. `is_shutting_down` says that
    the server waits for its sessions to end: then ours does.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        me: Replica,
        *,
        lease_s: float,
        on_loss: Callable[[], None] = lambda: None,
        is_shutting_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self._url = url
        self._clock = clock
        self.me = me
        self.lease_s = lease_s
        self.on_loss = on_loss
        self._is_shutting_down = is_shutting_down
        self.office = Office()
        self.others: tuple[Replica, ...] = ()
        self.last_error = ""
        self._connection: Any = None
        self._has_lock = False
        self._writes = False
        self._turn = asyncio.Lock()
        self._confirmed_s = float("-inf")
        self._seen_s = float("-inf")

    def __repr__(self) -> str:
        state = "leads" if self.leads else "connected" if self.connected else f"cut off: {self.last_error}"
        return f"<LeaderSession {self.me.name}: {state}>"

    @property
    def connected(self) -> bool:
        """Whether the database answered within the lease."""
        return self._connection is not None and self._clock.monotonic() < self._confirmed_s + self.lease_s

    @property
    def has_lock(self) -> bool:
        """Whether the session that holds the lock was not seen lost."""
        return self._connection is not None and self._has_lock

    @property
    def in_office(self) -> bool:
        """Whether `acquire` writes: the lock is ours and our name was entered."""
        return self.has_lock and self._writes

    @property
    def leads(self) -> bool:
        """Whether the lock is certainly ours at this moment."""
        return self.has_lock and self.connected

    async def refresh(self) -> None:
        """Connect where there is no session, show that we live, learn who leads and who else is there.

        Raises: StorageError, and the session is lost, where the database does not answer within half the
            lease, or two seconds for a new session.
        """
        async with self._using() as connection:
            if self._is_shutting_down():
                raise StorageError("the database is shutting down")
            now_s = self._clock.monotonic()
            if now_s - self._seen_s >= min(self.lease_s, _SEEN_S / 4):
                await connection.execute(_SEE, self.me.id, self.me.name, self.me.url)
                await connection.execute(_FORGET)
                self._seen_s = now_s
            row = await connection.fetchrow(_OFFICE)
            self.office = _office(row)
            rows = await connection.fetch(_OTHERS, self.me.id, float(_SEEN_S))
            self.others = tuple(Replica(row["id"], row["name"], row["url"]) for row in rows)

    async def try_lock(self) -> bool:
        """Take the lock if it is free; what `office` says then is who held it before.

        Raises: StorageError.
        """
        async with self._using() as connection:
            if not self._has_lock:
                taken = await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK_KEY)
                if taken:
                    self.office = _office(await connection.fetchrow(_OFFICE))
                self._has_lock = bool(taken)
            return self._has_lock

    async def take_office(self) -> None:
        """Enter our name; the term grows where it was another's. From here on `acquire` writes.

        Raises: StorageError.
        """
        async with self._using() as connection:
            if not self._has_lock:
                raise StorageError("the leader's lock was lost")
            self.office = _office(await connection.fetchrow(_TAKE, self.me.id, self.me.name, self.me.url))
            self._writes = True

    @contextlib.asynccontextmanager
    async def acquire(self, purpose: Purpose = Purpose.WRITE) -> AsyncIterator[Any]:
        """The leader's connection for the length of the block.

        Raises: WriteError for WRITE, StorageError for the rest: the lock is not ours, or a statement failed.
        """
        error_type = WriteError if purpose is Purpose.WRITE else StorageError
        async with self._turn:
            connection = self._connection
            if connection is None or not self._writes:
                raise error_type(self.last_error or f"{self.office.holder.name or 'nobody'} leads")
            sent_s = self._clock.monotonic()
            try:
                with translated(error_type):
                    yield connection
            except BaseException as error:
                # what failed on a session that lives is answered by the next `refresh`; until then nobody
                # counts on the lock
                self._confirmed_s = float("-inf")
                if not isinstance(error, Exception) or connection.is_closed():
                    self._lose(str(error) or type(error).__name__)
                else:
                    self.on_loss()
                raise
            self._confirmed_s = sent_s

    async def close(self) -> None:
        """Give the lock up at once, and our row."""
        if self._connection is None:
            return
        try:
            async with self._using(1.0) as connection:
                await connection.execute("delete from quantum_replicas where id = $1", self.me.id)
                await connection.close(timeout=1.0)
        except StorageError:
            pass
        self._drop("closed")

    @contextlib.asynccontextmanager
    async def _using(self, timeout_s: float | None = None) -> AsyncIterator[Any]:
        """The session for our own statements; lost where they are not answered in time."""
        async with self._turn:
            if timeout_s is None:  # who holds the lock has to know within the lease that it does not answer
                timeout_s = self.lease_s / 2 if self._has_lock else max(self.lease_s / 2, CONNECT_S)
            sent_s = self._clock.monotonic()
            try:
                with translated():
                    async with asyncio.timeout(timeout_s):
                        if self._connection is None:
                            sent_s = self._clock.monotonic()
                            await self._connect(timeout_s)
                        yield self._connection
            except StorageError as error:
                self._lose(str(error))
                raise
            except BaseException:
                self._lose("interrupted")
                raise
            self._confirmed_s, self.last_error = sent_s, ""

    async def _connect(self, timeout_s: float) -> None:
        lease_ms = str(round(self.lease_s * 1000))
        try:
            self._connection = await asyncpg.connect(
                self._url,
                timeout=timeout_s,
                server_settings={
                    "application_name": "quantum-exporter leader",
                    "statement_timeout": "30000",
                    "idle_session_timeout": lease_ms,
                    "idle_in_transaction_session_timeout": lease_ms,
                    "timezone": "UTC",
                },
            )
        except ValueError as error:
            raise StorageError(f"database.url: {error}") from error
        self._seen_s = float("-inf")

    def _lose(self, error: str) -> None:
        if self._connection is not None:
            self._drop(error)
            self.on_loss()
        self.last_error = error

    def _drop(self, error: str) -> None:
        connection, self._connection = self._connection, None
        self._has_lock = self._writes = False
        self._confirmed_s, self.last_error = float("-inf"), error
        if connection is not None:
            connection.terminate()


def _office(row: Any) -> Office:
    return Office(row["term"], Replica(row["id"], row["name"], row["url"])) if row else Office()
