"""Reads of what the head no longer holds: which queries need them, one read for each set of matchers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from exporter.errors import StorageError
from exporter.model.found import Found
from exporter.model.labels import METRIC_NAME, LabelSet, Matcher, MatchOp
from exporter.model.rollups import Remembered
from exporter.promql.plan import Read
from exporter.query.ports import SampleHistory
from exporter.storage import MemoryStorage
from exporter.storage.join import JoinedSource, Matchers

_MARGIN_MS = 300_000  # the head's floor may rise by this while a query runs
_NAMELESS: tuple[Matcher, ...] = (Matcher(METRIC_NAME, MatchOp.NOT_EQUAL, ""),)


class OlderSamples:
    """The long memory behind the head."""

    def __init__(self, head: MemoryStorage, history: Callable[[], SampleHistory | None]) -> None:
        """`history()` is None while the program starts: then there is only the head."""
        self._head = head
        self._history = history

    def needed(self, reads: Iterable[Read]) -> list[Read]:
        """The reads that begin before the head does, ranges of the same matchers made one."""
        floor_ms = self._head.floor_ms
        wanted: dict[Matchers, Read] = {}
        for read in reads:
            if floor_ms is not None and read.start_ms >= floor_ms:
                continue
            end_ms = read.end_ms if floor_ms is None else min(read.end_ms, floor_ms + _MARGIN_MS)
            one = replace(read, end_ms=end_ms)
            known = wanted.get(read.matchers, one)
            wanted[read.matchers] = Read(
                read.matchers,
                min(known.start_ms, one.start_ms),
                max(known.end_ms, one.end_ms),
                known.rollups | one.rollups,
            )
        return list(wanted.values())

    async def source(self, reads: Sequence[Read], max_samples: int) -> tuple[JoinedSource, tuple[str, ...]]:
        """A source for these reads, and a warning where the long memory does not answer.

        Raises: QueryError (LIMIT) where more than `max_samples` would be loaded.
        """
        found: dict[Matchers, Remembered] = {}
        left = max_samples
        history = self._history()
        try:
            for read in reads if history is not None else ():
                assert history is not None
                known = await history.remembered(
                    read.matchers, read.start_ms, read.end_ms, read.rollups, max_samples=left
                )
                left -= len(known)
                found[read.matchers] = known
        except StorageError as error:
            return JoinedSource(self._head, {}), (self._warning(error),)
        return JoinedSource(self._head, found), ()

    async def series(
        self, matcher_sets: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> Found[LabelSet]:
        """The series with samples in the part of the range that the head does not hold."""
        floor_ms = self._head.floor_ms
        history = self._history()
        if history is None or (floor_ms is not None and start_ms >= floor_ms):
            return Found(())
        end_ms = end_ms if floor_ms is None else min(end_ms, floor_ms)
        found: set[LabelSet] = set()
        try:
            for matchers in matcher_sets or (_NAMELESS,):
                found.update(await history.series_between(matchers, start_ms, end_ms))
        except StorageError as error:
            return Found((), (self._warning(error),))
        return Found(tuple(found))

    def _warning(self, error: StorageError) -> str:
        floor_ms = self._head.floor_ms
        before = "" if floor_ms is None else f" before {_utc(floor_ms)}"
        return f"samples{before} are missing, the sample store cannot be read: {error}"


def _utc(ts_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ts_ms // 1000))
