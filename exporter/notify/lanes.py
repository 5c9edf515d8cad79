"""The order of one destination's notifications: one alert instance's leave in order. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable


class OrderedQueue:
    """Ids that wait, each with keys; an id is ready when no earlier one with a common key is in the queue.

    `take` hands out a ready id; it stays in the queue until `done`, or goes back with `retry`.
    """

    def __init__(self) -> None:
        self._keys: dict[str, tuple[str, ...]] = {}  # in the order of arrival
        self._lines: dict[str, tuple[str, ...]] = {}  # short: what tells of one alert instance
        self._blocked: dict[str, int] = {}
        self._ready: deque[str] = deque()
        self._later: list[tuple[float, int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, one: object) -> bool:
        return one in self._keys

    def add(self, one: str, keys: Iterable[str], not_before: float = 0.0) -> None:
        """Put an id at the end; it is not ready before a time."""
        if one in self._keys:
            return
        self._keys[one] = tuple(dict.fromkeys(keys))
        blocked = 0
        for key in self._keys[one]:
            line = self._lines.get(key, ())
            blocked += bool(line)
            self._lines[key] = (*line, one)
        self._blocked[one] = blocked
        if not blocked:
            self._make_ready(one, not_before)

    def take(self, now: float) -> str | None:
        """The next ready id whose time has come."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready:
            one = self._ready.popleft()
            if one in self._keys:
                return one
        return None

    def next_time(self) -> float | None:
        """When the next id that waits for a time is ready; None if none does."""
        while self._later and self._later[0][2] not in self._keys:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def retry(self, one: str, not_before: float) -> None:
        """Put back an id that was taken; those behind it keep waiting."""
        if one in self._keys:
            self._make_ready(one, not_before)

    def done(self, one: str) -> None:
        """Take an id out for good; what waited for it may become ready."""
        for key in self._keys.pop(one, ()):
            line = self._lines.pop(key)
            was_first = line[0] == one
            line = tuple(other for other in line if other != one)
            if line:
                self._lines[key] = line
            if line and was_first:
                self._blocked[line[0]] -= 1
                if not self._blocked[line[0]]:
                    self._make_ready(line[0], 0.0)
        self._blocked.pop(one, None)

    def oldest(self, without: Iterable[str] = ()) -> str | None:
        """The id that came first among those not in `without`."""
        left_out = set(without)
        return next((one for one in self._keys if one not in left_out), None)

    def _make_ready(self, one: str, not_before: float) -> None:
        if not_before > 0:
            self._count += 1
            heapq.heappush(self._later, (not_before, self._count, one))
        else:
            self._ready.append(one)
