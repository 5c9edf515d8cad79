"""Label sets turned into the row numbers of `quantum_series`, each looked up once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from exporter.db.batch import RowNumbers
from exporter.errors import WriteError
from exporter.model.labels import METRIC_NAME, LabelSet

_UNSTORABLE = -1
_CHUNK = 1000  # series of one statement: some 7 ms of the event loop
_KNOWN_MAX = 2_000_000  # label sets remembered; beyond it the memory starts afresh
_PREPARED_MAX = 64  # `labels` tuples remembered
_THREAD_ABOVE = 2000  # series from which the work leaves the event loop

_FIND = "select fingerprint, id from quantum_series where fingerprint = any($1::uuid[])"
# sorted by the caller: two writers that insert the same series in one order cannot deadlock
_INSERT = """
insert into quantum_series (name, labels, fingerprint)
select name, labels::jsonb, fingerprint
from unnest($1::text[], $2::text[], $3::uuid[]) as new (name, labels, fingerprint)
on conflict (fingerprint) do nothing
returning fingerprint, id
"""


def fingerprint(labels: LabelSet) -> uuid.UUID:
    """16 bytes of BLAKE2b over the label pairs, the same in every process.

    Long enough that two label sets never share it: the database takes equal fingerprints for equal series.
    """
    text = "\xff".join(part for pair in labels for part in pair)
    return uuid.UUID(bytes=hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def is_storable(labels: LabelSet) -> bool:
    """Whether Postgres text can hold every name and value: no zero character, no lone surrogate."""
    for name, value in labels:
        if not (name.isascii() and value.isascii()):
            try:
                (name + value).encode()
            except UnicodeEncodeError:
                return False
        if "\x00" in value or "\x00" in name:
            return False
    return True


class SeriesIds:
    """Remembers the id of each label set, and for each `labels` tuple its prepared row numbers.

    `forget` when the database is not the one it was (restored, made anew): there the same ids belong to other
    series.
    """

    def __init__(self) -> None:
        self._known: dict[LabelSet, int] = {}
        # keyed by identity; the tuple is kept, so that its address cannot be used again
        self._prepared: OrderedDict[int, tuple[tuple[LabelSet, ...], RowNumbers]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Drop all that is remembered."""
        self._known.clear()
        self._prepared.clear()

    async def resolve(self, connection: Any, labels: tuple[LabelSet, ...]) -> RowNumbers:
        """The row numbers of a tuple of label sets, inserting those that the database does not have.

        Commits what it inserts, whatever becomes of the samples. Raises: WriteError where somebody else
        removes them at the same time; asyncpg's exceptions.
        """
        prepared = self._prepared.get(id(labels))
        if prepared is not None:
            self._prepared.move_to_end(id(labels))
            return prepared[1]
        large = len(labels) > _THREAD_ABOVE
        missing = await asyncio.to_thread(self._missing, labels) if large else self._missing(labels)
        for lo in range(0, len(missing), _CHUNK):
            await self._look_up(connection, missing[lo : lo + _CHUNK])
        numbers = await asyncio.to_thread(self._number, labels) if large else self._number(labels)
        self._prepared[id(labels)] = (labels, numbers)
        if len(self._prepared) > _PREPARED_MAX:
            self._prepared.popitem(last=False)
        return numbers

    def _missing(self, labels: tuple[LabelSet, ...]) -> list[tuple[uuid.UUID, LabelSet]]:
        if len(self._known) > _KNOWN_MAX:
            self.forget()
        missing = []
        for one in labels:
            if one not in self._known:
                if is_storable(one):
                    missing.append((fingerprint(one), one))
                else:
                    self._known[one] = _UNSTORABLE
        missing.sort(key=lambda pair: pair[0].bytes)
        return missing

    def _number(self, labels: tuple[LabelSet, ...]) -> RowNumbers:
        return RowNumbers.of(np.fromiter((self._known[one] for one in labels), np.int32, len(labels)))

    async def _look_up(self, connection: Any, missing: Sequence[tuple[uuid.UUID, LabelSet]]) -> None:
        """Find, then insert, then find again what another writer inserted in between."""
        wanted = dict(missing)
        for step in (self._find, self._insert, self._find):
            if not wanted:
                return
            for print_, number in await step(connection, wanted):
                self._known[wanted.pop(print_)] = number
        if wanted:
            raise WriteError("series vanish from quantum_series while they are being stored")

    @staticmethod
    async def _find(connection: Any, wanted: dict[uuid.UUID, LabelSet]) -> Any:
        return await connection.fetch(_FIND, list(wanted))

    @staticmethod
    async def _insert(connection: Any, wanted: dict[uuid.UUID, LabelSet]) -> Any:
        names = [labels.name for labels in wanted.values()]
        texts = [
            json.dumps({name: value for name, value in labels if name != METRIC_NAME})
            for labels in wanted.values()
        ]
        return await connection.fetch(_INSERT, names, texts, list(wanted))
