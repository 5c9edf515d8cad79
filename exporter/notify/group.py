"""Waiting groups: when a route with group_wait or group_interval lets its firing instances out. Pure.

The first notification of a group leaves `group_wait` after its oldest instance fired, later ones no sooner
than `group_interval` after the one before. Resolved notifications do not wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Group:
    next_ms: int
    members: set[str] = field(default_factory=set)
    open_at_ms: int = -1  # the moment for which it is open
    last_ms: int = 0  # when it was open last, as far as a restart knows


class WaitingGroups:
    """The groups that have firing members, by any text as key."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._of: dict[str, set[str]] = {}

    def opens_at(
        self, key: str, episode: str, fired_at_ms: int, wait_ms: int, interval_ms: int, now_ms: int
    ) -> int:
        """0 if the episode may leave now, else when its group opens."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(fired_at_ms + wait_ms)
        group.members.add(episode)
        self._of.setdefault(episode, set()).add(key)
        if group.open_at_ms == now_ms:
            return 0
        if now_ms < group.next_ms:
            return group.next_ms
        group.open_at_ms, group.next_ms = now_ms, now_ms + interval_ms
        return 0

    def resume(
        self, key: str, episode: str, fired_at_ms: int, notified_at_ms: int, wait_ms: int, interval_ms: int
    ) -> None:
        """After a restart: an episode fired before it, and was last notified then (0 for never)."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(fired_at_ms + wait_ms)
        group.members.add(episode)
        self._of.setdefault(episode, set()).add(key)
        if notified_at_ms:
            group.last_ms = max(group.last_ms, notified_at_ms)
            group.next_ms = group.last_ms + interval_ms
        elif not group.last_ms:
            group.next_ms = min(group.next_ms, fired_at_ms + wait_ms)

    def next_ms(self, key: str) -> int:
        """When a group opens; 0 for one that is not known."""
        return self._groups[key].next_ms if key in self._groups else 0

    def leave(self, episode: str) -> None:
        """The episode is over; a group without members is forgotten."""
        for key in self._of.pop(episode, ()):
            group = self._groups.get(key)
            if group is not None:
                group.members.discard(episode)
                if not group.members:
                    del self._groups[key]
