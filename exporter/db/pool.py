"""Connections to Postgres: few, lazily made, bounded in waiting, made again after an outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from enum import Enum
from typing import Any

import asyncpg

from exporter.clock import Clock
from exporter.errors import ExporterError, StorageError, WriteError

_CONNECT_TIMEOUT_S = 5.0
_BACKOFF_FIRST_S = 0.25
_BACKOFF_MAX_S = 5.0  # under the probe's interval, so that each probe really tries
_STATEMENT_TIMEOUT_S = 30.0


class Purpose(Enum):
    """Who asks for a connection: how long it may wait, and how long one statement may run, in seconds."""

    WRITE = ("write", 5.0, 30.0)  # samples, events, alert state
    READ = ("read", 10.0, 30.0)  # history, dashboards, SQL collectors
    PROBE = ("probe", 5.0, 5.0)
    MAINTAIN = ("maintain", 30.0, 600.0)  # migrations, retention, cleanup

    def __init__(self, label: str, acquire_timeout_s: float, statement_timeout_s: float) -> None:
        self.label = label
        self.acquire_timeout_s = acquire_timeout_s
        self.statement_timeout_s = statement_timeout_s


@contextlib.contextmanager
def translated(error_type: type[ExporterError] = StorageError, doing: str = "") -> Iterator[None]:
    """Turn asyncpg's, the network's and time-out exceptions into one of ours, with the cause attached.

    Raises: `error_type`.
    """
    try:
        yield
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # a connection that was lost while it was being given back
        OSError,
        TimeoutError,
    ) as error:
        text = str(error) or type(error).__name__
        raise error_type(f"{doing}: {text}" if doing else text) from error


class Database:
    """One database, reached through at most `max_connections` connections of one event loop.

    Nothing is connected until the first `acquire`. After a failed connection attempts are spaced (0.25 s,
    doubled up to 5 s): an `acquire` between them fails at once, so that an outage costs nobody a wait.
    jsonb values travel as text, as asyncpg does by default.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        max_connections: int = 5,
        application_name: str = "quantum-exporter",
    ) -> None:
        self.url = url
        self._clock = clock
        self._max = max(2, max_connections)
        self._application_name = application_name
        self._pool: Any = None
        self._creating = asyncio.Lock()
        # reads may not take the connection that samples need
        self._readers = asyncio.Semaphore(max(1, self._max - 2))
        self._up = False
        self._failures = 0
        self._next_try_s = 0.0
        self._last_error = ""
        self._closed = False
        self._shutting_down = False

    def __repr__(self) -> str:
        state = "up" if self._up else f"down ({self._last_error})" if self._last_error else "not connected"
        return f"<Database {state}>"

    @property
    def is_up(self) -> bool:
        """Whether the last attempt to use a connection found the server answering."""
        return self._up

    @property
    def is_shutting_down(self) -> bool:
        """Whether the last probe found a server that takes no new connections: it waits for the old ones."""
        return self._shutting_down

    @property
    def last_error(self) -> str:
        """Why the database is away; empty while it is up."""
        return self._last_error

    @contextlib.asynccontextmanager
    async def acquire(self, purpose: Purpose = Purpose.READ) -> AsyncIterator[Any]:
        """A connection (asyncpg.Connection) for the length of the block.

        Raises: WriteError for WRITE, StorageError for the rest: no connection in time, the server away, or a
            statement in the block failed (the cause is asyncpg's exception).
        """
        error_type = WriteError if purpose is Purpose.WRITE else StorageError
        gate: Any = self._readers if purpose is Purpose.READ else contextlib.nullcontext()
        try:
            async with asyncio.timeout(purpose.acquire_timeout_s):
                await gate.__aenter__()
        except TimeoutError as error:
            raise error_type(f"no free connection within {purpose.acquire_timeout_s:g} s") from error
        try:
            connection = await self._connect(purpose, error_type)
            try:
                with translated(error_type):
                    if purpose.statement_timeout_s != _STATEMENT_TIMEOUT_S:
                        await connection.execute(
                            f"set statement_timeout = {round(purpose.statement_timeout_s * 1000)}"
                        )
                    yield connection
            except StorageError as error:
                if _is_closed(connection):
                    self._went_away(error)
                raise
            finally:
                await self._release(connection)
        finally:
            await gate.__aexit__(None, None, None)

    async def probe(self, timeout_s: float = 5.0) -> bool:
        """Whether the database takes a new connection and answers a query within the time-out. Never raises.

        A server that is shutting down still serves the connections it has, and waits for them: then ours
        are closed, so that it can end. One that has no free connection is up, if ours still answer.
        """
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    await self._probe_anew(timeout_s)
                except asyncpg.TooManyConnectionsError:
                    async with self.acquire(Purpose.PROBE) as connection:
                        await connection.fetchval("select 1")
        except (StorageError, TimeoutError) as error:
            self._went_away(error)
            return False
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            self._went_away(error)
            self._shutting_down = isinstance(error, asyncpg.CannotConnectNowError)
            if self._shutting_down and self._pool is not None:
                pool, self._pool = self._pool, None
                pool.terminate()
            return False
        self._up, self._failures, self._next_try_s, self._last_error = True, 0, 0.0, ""
        self._shutting_down = False
        return True

    async def _probe_anew(self, timeout_s: float) -> None:
        connection = await asyncpg.connect(
            self.url,
            timeout=timeout_s,
            server_settings={"application_name": f"{self._application_name} probe"},
        )
        try:
            await connection.fetchval("select 1")
        finally:
            connection.terminate()

    async def close(self, timeout_s: float = 2.0) -> None:
        """Close all connections, by force those that are still in use after the time-out."""
        self._closed = True
        pool, self._pool, self._up = self._pool, None, False
        if pool is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    async def _connect(self, purpose: Purpose, error_type: type[StorageError]) -> Any:
        if self._closed:
            raise error_type("the database connections are closed")
        if self._clock.monotonic() < self._next_try_s:
            raise error_type(f"the database is away: {self._last_error}")
        try:
            with translated(error_type, "cannot connect"):
                pool = await self._ensure_pool()
                connection = await pool.acquire(timeout=purpose.acquire_timeout_s)
        except StorageError as error:
            if isinstance(error.__cause__, ValueError):  # a URL that asyncpg cannot read
                raise error_type(f"database.url: {error.__cause__}") from error
            # a busy pool is not an outage: its connections are all alive
            if isinstance(error.__cause__, TimeoutError) and self._pool_is_busy():
                raise
            self._went_away(error)
            raise
        except ValueError as error:
            raise error_type(f"database.url: {error}") from error
        self._up, self._failures, self._last_error = True, 0, ""
        return connection

    async def _ensure_pool(self) -> Any:
        async with self._creating:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self.url,
                    min_size=0,
                    max_size=self._max,
                    timeout=_CONNECT_TIMEOUT_S,
                    command_timeout=None,
                    max_inactive_connection_lifetime=300.0,
                    server_settings={
                        "application_name": self._application_name,
                        "statement_timeout": str(round(_STATEMENT_TIMEOUT_S * 1000)),
                        "timezone": "UTC",
                        "jit": "off",  # compiling a short query takes longer than it runs
                    },
                )
        return self._pool

    def _pool_is_busy(self) -> bool:
        return (
            self._pool is not None and self._pool.get_size() >= self._max and self._pool.get_idle_size() == 0
        )

    async def _release(self, connection: Any) -> None:
        if self._pool is not None:
            # what cannot be reset in time is closed by asyncpg
            with contextlib.suppress(TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._pool.release(connection, timeout=2.0)

    def _went_away(self, error: BaseException) -> None:
        self._up = False
        self._last_error = _reason(error).removeprefix("the database is away: ")
        now = self._clock.monotonic()
        if now >= self._next_try_s:
            self._next_try_s = now + min(_BACKOFF_FIRST_S * 2**self._failures, _BACKOFF_MAX_S)
            self._failures = min(self._failures + 1, 10)


def _reason(error: BaseException) -> str:
    """The error in words; a refused connection without its number."""
    cause = error.__cause__ or error
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused: is the server running, and is the address right?"
    return str(error) or type(error).__name__


def _is_closed(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # given back to the pool by itself when the server went away
        return True
