"""The store that always takes a commit: the tables, or the journal on disk while they are away.

While the journal holds records that the tables lack, new ones queue behind them, and all are written in one
transaction as soon as the tables answer (`settle`). What the tables took is noted in the journal too, without
waiting for the disk, so that a start without a database still knows what was sent and what is cooling down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from exporter.errors import StorageError
from exporter.notify.journal import Journal
from exporter.notify.ports import AlertStore, HistoryFilter
from exporter.notify.records import Changes

_log = logging.getLogger(__name__)
_ROWS_PER_S = 1000  # by which the time-out of a commit grows
_COMPACT_BYTES = 8 * 1024 * 1024


class JournaledStore:
    """Implements `AlertStore` over another one; a commit that neither takes stays in memory.

    `snapshot` gives the whole live state, with which a long journal is replaced; None where it is not whole
    at the moment. `fallback` is what is loaded where the tables do not answer, in the place of what the
    journal has noted: a newer copy of the tables.
    """

    def __init__(
        self,
        tables: AlertStore,
        journal: Journal,
        *,
        snapshot: Callable[[], Changes | None] | None = None,
        fallback: Changes | None = None,
        timeout_s: float = 5.0,
        compact_bytes: int = _COMPACT_BYTES,
    ) -> None:
        self._tables = tables
        self._journal = journal
        self.snapshot = snapshot
        self._fallback = fallback
        self._timeout_s = timeout_s
        self._compact_bytes = compact_bytes
        self._pending = Changes()
        self._lock = asyncio.Lock()
        self._away = False
        self._disk_failed = False
        self._noting: asyncio.Task[None] | None = None
        self._next_compact_bytes = compact_bytes

    @property
    def journaling(self) -> bool:
        """Whether records wait in the journal for the tables."""
        return bool(self._pending)

    async def load(self) -> Changes:
        """The stored state, the tables' or, where they do not answer, the journal's.

        Raises: nothing; a state that cannot be read is logged, and what can be is used.
        """
        noted, pending = await self._read_journal()
        try:
            async with asyncio.timeout(self._timeout_s * 6):
                state = await self._tables.load()
        except (StorageError, TimeoutError) as error:
            self._went_away(error)
            _log.warning("alert state is read from the journal, the database is away: %s", _text(error))
            state = noted if self._fallback is None else self._fallback
        state.merge(pending)
        self._pending = pending
        return state

    async def hand_in(self, add: Callable[[Changes], Awaitable[None]]) -> int:
        """Give what the journal kept for the tables to `add`: another has written them since, whose rows
        stand. Returns: how many rows.

        Raises: what `add` raises, and then they are kept.
        """
        async with self._lock:
            _, pending = await self._read_journal()
            if pending:
                await add(pending)
                await self._note(None, stored=True)
            return len(pending)

    async def commit(self, changes: Changes) -> None:
        """Write the changes to the tables, else to the disk, else keep them in memory for the next commit."""
        async with self._lock:
            await self._commit(changes)

    async def settle(self) -> None:
        """Write to the tables what waits in the journal, if they answer again."""
        async with self._lock:
            if self._pending:
                await self._commit(Changes())

    async def barrier(self) -> None:
        """Wait until no commit is under way."""
        async with self._lock:
            await self._noted()

    async def history(self, wanted: HistoryFilter) -> Sequence[Mapping[str, Any]]:
        """The tables' history.

        Raises: StorageError.
        """
        return await self._tables.history(wanted)

    async def close(self) -> None:
        """Close the journal."""
        await self._noted()
        await asyncio.to_thread(self._journal.close)

    async def _noted(self) -> None:
        if self._noting is not None:
            await asyncio.gather(self._noting, return_exceptions=True)
            self._noting = None

    async def _commit(self, changes: Changes) -> None:
        await self._noted()  # the journal has the order of the commits
        folding = bool(self._pending)
        together = changes
        if folding:
            if changes:  # first, so that a crash while folding cannot put older rows over newer ones
                await self._note(changes, stored=False)
            together = Changes()
            together.merge(self._pending)
            together.merge(changes)
        try:
            async with asyncio.timeout(self._timeout_s + len(together) / _ROWS_PER_S):
                await self._tables.commit(together)
        except (StorageError, TimeoutError) as error:
            self._went_away(error)
            self._pending.merge(changes)
            if changes and not folding:
                await self._note(changes, stored=False)
            return
        if self._away:
            self._away = False
            _log.info("alert state goes to the database again")
        if folding:
            self._pending = Changes()
        # what the tables have is noted while the caller goes on
        self._noting = asyncio.create_task(self._note_stored(changes, folding=folding))

    async def _note_stored(self, changes: Changes, *, folding: bool) -> None:
        if folding:
            await self._note(None, stored=True)
        elif changes:
            await self._note(changes, stored=True)
        await self._compact()

    async def _read_journal(self) -> tuple[Changes, Changes]:
        """All that the journal knows, and what of it the tables lack."""
        noted, pending = Changes(), Changes()
        try:
            records = await asyncio.to_thread(self._journal.read)
        except OSError as error:
            _log.error("the alert journal %s cannot be read: %s", self._journal.path, error)
            return noted, pending
        damaged = self._journal.damaged
        for record in records:
            if record.get("folded"):
                pending = Changes()
                continue
            try:
                changes = Changes.from_record(record["changes"])
            except (KeyError, ValueError):
                damaged += 1
                continue
            noted.merge(changes)
            if not record.get("stored"):
                pending.merge(changes)
        if damaged:
            _log.warning("the alert journal %s has %d damaged records", self._journal.path, damaged)
        return noted, pending

    async def _note(self, changes: Changes | None, *, stored: bool) -> None:
        """Add changes to the journal, synced unless the tables have them too; None notes a folding."""

        def append() -> None:
            text = '{"folded":true}' if changes is None else _record(changes, stored=stored)
            self._journal.append(text, sync=not stored or changes is None)

        try:
            await asyncio.to_thread(append)
        except OSError as error:
            if not self._disk_failed:
                _log.error("the alert journal %s cannot be written: %s", self._journal.path, error)
            self._disk_failed = True
            return
        self._disk_failed = False

    async def _compact(self) -> None:
        if self.snapshot is None or self._pending or self._journal.size_bytes < self._next_compact_bytes:
            return
        snapshot = self.snapshot()
        if snapshot is None:
            return

        def replace() -> None:
            self._journal.replace([_record(snapshot, stored=True)])

        try:
            await asyncio.to_thread(replace)
        except OSError as error:
            _log.warning("the alert journal %s cannot be shortened: %s", self._journal.path, error)
        self._next_compact_bytes = max(self._compact_bytes, 2 * self._journal.size_bytes)

    def _went_away(self, error: BaseException) -> None:
        if not self._away:
            _log.warning("alert state goes to the journal, the database is away: %s", _text(error))
        self._away = True


def _record(changes: Changes, *, stored: bool) -> str:
    return f'{{"stored":{"true" if stored else "false"},"changes":{changes.to_json()}}}'


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
