"""One store out of two: what the long memory knows, and the head from its floor on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.model.blocks import cut, join_blocks
from exporter.model.labels import Matcher
from exporter.model.rollups import Remembered, Rollup, as_rollup
from exporter.model.samples import SeriesBlock
from exporter.promql.source import Columns, columns_of
from exporter.storage.head import MemoryStorage

Matchers = tuple[Matcher, ...]


class JoinedSource:
    """What one store would give that held the samples of both; where they are gone, their rollups.

    `history` holds, for each set of matchers, all that is known of the range the query will read, up to
    the head's floor and somewhat beyond: while a query runs, the floor may rise.
    """

    def __init__(self, head: MemoryStorage, history: Mapping[Matchers, Remembered]) -> None:
        self._head = head
        self._history = history

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesBlock:
        """Samples with start_ms <= ts <= end_ms of all series that satisfy every matcher, in label order."""
        return self._select(matchers, start_ms, end_ms, Rollup.LAST)

    def columns(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Columns:
        """As `select`; the head's columns as they lie where the history has nothing to add."""
        older = self._history.get(tuple(matchers))
        floor_ms = self._head.floor_ms
        if older is None or not len(older) or (floor_ms is not None and start_ms >= floor_ms):
            return self._head.columns(matchers, start_ms, end_ms)
        return columns_of(self.select(matchers, start_ms, end_ms))

    def rollups(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, rollup: Rollup
    ) -> Columns | None:
        """As `columns`, of one kind of rollups and samples as such; None where the range has only samples."""
        older = self._history.get(tuple(matchers))
        until_ms = None if older is None else older.rolled_until_ms
        if until_ms is None or until_ms < start_ms:
            return None
        return columns_of(self._select(matchers, start_ms, end_ms, rollup))

    def _select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, rollup: Rollup) -> SeriesBlock:
        older = self._history.get(tuple(matchers))
        floor_ms = self._head.floor_ms
        while True:
            newer = self._head.select(matchers, start_ms if floor_ms is None else floor_ms, end_ms)
            now_ms = self._head.floor_ms
            if now_ms == floor_ms:
                break
            floor_ms = now_ms  # truncated in between: what went stands in the history
        if floor_ms is not None and start_ms > floor_ms:
            newer = cut(newer, start_ms, end_ms)
        newer = as_rollup(newer, rollup)
        if older is None:
            return newer
        last_ms = end_ms if floor_ms is None else min(end_ms, floor_ms - 1)
        return join_blocks(cut(older.of(rollup), start_ms, last_ms), newer)
