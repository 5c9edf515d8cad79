"""What the notifier needs from others: a store of its records, and something that delivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.notify.records import Changes, Notification


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which episodes are asked for, newest first; '' and None do not filter. Times in Unix milliseconds.

    `state` is firing (the condition holds) or resolved; `labels` must all be equal.
    """

    alertname: str = ""
    severity: str = ""
    state: str = ""
    receiver: str = ""
    by: str = ""  # who acknowledged or resolved
    start_ms: int | None = None
    end_ms: int | None = None
    labels: Mapping[str, str] | None = None
    limit: int = 100
    offset: int = 0


class AlertStore(Protocol):
    """Durable records. Every method raises StorageError where the store is away or refuses."""

    async def load(self) -> Changes:
        """What a restart needs: instances, gates, queued notifications, silences, and the episodes that are
        active, have queued notifications, or ended within the last day."""

    async def commit(self, changes: Changes) -> None:
        """Write all rows in one transaction. Writing the same rows again changes nothing."""

    async def history(self, wanted: HistoryFilter) -> Sequence[Mapping[str, Any]]:
        """One JSON-able mapping for each episode, with how long it fired and what was sent."""


class Notifier(Protocol):
    """Delivers to one destination: renders and posts, nothing else."""

    async def send(self, notification: Notification) -> None:
        """One try.

        Raises: DeliveryError, which says whether a later try may succeed, and never holds a secret.
        """

    async def close(self) -> None:
        """Free what it holds."""
