"""Decisions that leave together become notifications; queued ones are found by episode and slot. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from exporter.config.receivers import MAX_ALERTS_PER_NOTIFICATION
from exporter.model.labels import LabelSet
from exporter.notify.records import Notification, NotifiedAlert
from exporter.notify.route import Destination
from exporter.rules.model import digest

Slot = tuple[str, str]  # gate key, slot id


@dataclass(slots=True)
class Unit:
    """Alerts of one destination and one status that leave in one notification."""

    destination: Destination
    status: str
    group_key: str
    group_labels: LabelSet
    entries: list[tuple[Slot, NotifiedAlert]] = field(default_factory=list)

    def notifications(self, now_ms: int, first_seq: int) -> Iterator[Notification]:
        """Its notifications, numbered from `first_seq` on: cut between slots, since a slot leaves whole; a
        larger slot is truncated."""
        numbers = itertools.count(first_seq)
        by_slot: dict[Slot, list[NotifiedAlert]] = {}
        for slot, alert in self.entries:
            by_slot.setdefault(slot, []).append(alert)
        slots: list[Slot] = []
        alerts: list[NotifiedAlert] = []
        for slot, found in by_slot.items():
            if alerts and len(alerts) + len(found) > MAX_ALERTS_PER_NOTIFICATION:
                yield self._notification(slots, alerts, now_ms, next(numbers))
                slots, alerts = [], []
            slots.append(slot)
            alerts.extend(found)
        if alerts:
            yield self._notification(slots, alerts, now_ms, next(numbers))

    def _notification(
        self, slots: Sequence[Slot], alerts: Sequence[NotifiedAlert], now_ms: int, seq: int
    ) -> Notification:
        return Notification(
            id=digest("|".join(sorted(slot for _, slot in slots))),
            destination=self.destination.key,
            receiver=self.destination.receiver,
            status=self.status,
            alerts=tuple(alerts[:MAX_ALERTS_PER_NOTIFICATION]),
            slots=tuple(slots),
            group_key=self.group_key,
            group_labels=self.group_labels,
            truncated=max(0, len(alerts) - MAX_ALERTS_PER_NOTIFICATION),
            created_at_ms=now_ms,
            seq=seq,
        )


class QueuedNotifications:
    """The notifications that are neither delivered nor dead, in the order in which they were decided."""

    def __init__(self) -> None:
        self._by_id: dict[str, Notification] = {}
        self._of: Counter[str] = Counter()
        self._by_slot: dict[Slot, str] = {}
        self.last_seq = 0

    def __iter__(self) -> Iterator[Notification]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, notification_id: str) -> Notification | None:
        """A queued notification."""
        return self._by_id.get(notification_id)

    def add(self, notification: Notification) -> None:
        """Queue one; an id that is queued already stays as it was."""
        if notification.id in self._by_id:
            return
        self.last_seq = max(self.last_seq, notification.seq)
        self._by_id[notification.id] = notification
        self._of.update(set(notification.episode_ids))
        self._by_slot.update(dict.fromkeys(notification.slots, notification.id))

    def update(self, notification: Notification) -> None:
        """Replace one by its newer state."""
        self._by_id[notification.id] = notification

    def finish(self, notification_id: str) -> Notification | None:
        """Take one out."""
        notification = self._by_id.pop(notification_id, None)
        if notification is not None:
            for episode_id in set(notification.episode_ids):
                self._of[episode_id] -= 1
                if not self._of[episode_id]:
                    del self._of[episode_id]
            for slot in notification.slots:
                self._by_slot.pop(slot, None)
        return notification

    def tells_of(self, episode_id: str) -> bool:
        """Whether a queued notification tells of an episode."""
        return episode_id in self._of

    def of_slot(self, slot: Slot) -> Notification | None:
        """The queued notification that stands for a slot."""
        return self._by_id.get(self._by_slot.get(slot, ""))


def in_order(notifications: Iterable[Notification]) -> list[Notification]:
    """Notifications as they were decided."""
    return sorted(notifications, key=lambda one: (one.created_at_ms, one.seq))
