"""What came of what the book was told: rows to record, what to send, firings held back. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from exporter.notify.records import Changes, Notification


@dataclass(slots=True)
class Outcome:
    """Gathers until it is taken; what is taken at once is recorded in one transaction."""

    changes: Changes = field(default_factory=Changes)
    notifications: list[Notification] = field(default_factory=list)
    suppressed: Counter[str] = field(default_factory=Counter)  # by destination
    flapping: Counter[str] = field(default_factory=Counter)  # notices, by destination

    def take(self) -> Outcome:
        """What has gathered; nothing is left here."""
        taken = Outcome(self.changes, self.notifications, self.suppressed, self.flapping)
        self.changes, self.notifications = Changes(), []
        self.suppressed, self.flapping = Counter(), Counter()
        return taken
