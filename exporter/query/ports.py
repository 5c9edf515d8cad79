"""What the query service needs from the rest of the program."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from exporter.model.labels import LabelSet, Matcher
from exporter.model.rollups import Remembered, Rollup


class SampleHistory(Protocol):
    """The long memory. All raise StorageError where it does not answer."""

    async def remembered(
        self,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        rollups: Collection[Rollup],
        *,
        max_samples: int | None = None,
    ) -> Remembered:
        """Samples in a closed range, series in label order, and rollups of where they are gone.

        Raises: QueryError (LIMIT) beyond `max_samples`.
        """

    async def series_between(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> Sequence[LabelSet]:
        """The series with a sample in a closed range."""
