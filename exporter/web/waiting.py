"""The alert service of a replica that does not notify, where the one that does cannot be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from exporter.errors import StorageError
from exporter.model.labels import LabelSet, Matcher
from exporter.rules.model import AlertingRule

History = Callable[..., Awaitable[Sequence[Mapping[str, Any]]]]


class Waiting:
    """History from the tables, and a refusal of all else; `why` says who notifies."""

    def __init__(self, history: History, why: Callable[[], str]) -> None:
        self._history = history
        self._why = why

    async def find(self, **wanted: Any) -> Sequence[Mapping[str, Any]]:
        """Episodes that fit the filters. Raises: StorageError while the database is away."""
        return await self._history(**wanted)

    def standing(self, rule: AlertingRule, labels: LabelSet, at_ms: int) -> dict[str, Any]:
        """No destination is told anything by this replica."""
        return {"quiet": self._why(), "destinations": []}

    def alert(self, episode_id: str) -> None:
        """Nothing is told of it by this replica."""

    async def alerts(self, matchers: Sequence[Matcher] = ()) -> list[dict[str, Any]]:
        """Raises: StorageError, as all that follow."""
        raise self._refused()

    async def alerts_v2(self, matchers: Sequence[Matcher] = ()) -> list[dict[str, Any]]:
        """Raises."""
        raise self._refused()

    async def acknowledge(self, alert_id: str, by: str, notes: str = "") -> dict[str, Any]:
        """Raises."""
        raise self._refused()

    async def resolve(self, alert_id: str, by: str, notes: str = "") -> dict[str, Any]:
        """Raises."""
        raise self._refused()

    def silences(self, matchers: Sequence[Matcher] = ()) -> list[dict[str, Any]]:
        """Raises."""
        raise self._refused()

    def silence(self, silence_id: str) -> dict[str, Any]:
        """Raises."""
        raise self._refused()

    async def set_silence(self, document: object) -> str:
        """Raises."""
        raise self._refused()

    async def expire_silence(self, silence_id: str) -> None:
        """Raises."""
        raise self._refused()

    def _refused(self) -> StorageError:
        return StorageError(f"this replica does not notify now: {self._why()}")
