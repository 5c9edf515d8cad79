"""When an episode is considered anew: at a time at which something about it may change, or as soon as may be.
Pure."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable


class Agenda:
    """Times and episodes; what needs `attention` is considered at the next evaluation."""

    def __init__(self) -> None:
        self._times: list[tuple[int, str]] = []
        self._attention: set[str] = set()

    @property
    def attention(self) -> set[str]:
        """The episodes to consider at the next evaluation; a copy."""
        return set(self._attention)

    def at(self, time_ms: int, episode_id: str) -> None:
        """Consider an episode when this time has come."""
        heapq.heappush(self._times, (time_ms, episode_id))

    def attend(self, episode_ids: Iterable[str]) -> None:
        """Consider these at the next evaluation."""
        self._attention.update(episode_ids)

    def due(self, now_ms: int) -> set[str]:
        """The episodes whose time has come, taken off."""
        due: set[str] = set()
        while self._times and self._times[0][0] <= now_ms:
            due.add(heapq.heappop(self._times)[1])
        return due

    def considered(self, episode_id: str) -> None:
        """It was considered: it needs attention no more."""
        self._attention.discard(episode_id)

    def keep(self, episode_ids: Collection[str]) -> None:
        """Only these need attention still, of those that did."""
        self._attention.intersection_update(episode_ids)
