"""What the query service needs from the rest of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from exporter.model.labels import LabelSet, Matcher
from exporter.model.samples import SeriesBlock


class SampleHistory(Protocol):
    """The long memory. All raise StorageError where it does not answer."""

    async def read(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, *, max_samples: int | None = None
    ) -> SeriesBlock:
        """Samples in a closed range, series in label order.

        Raises: QueryError (LIMIT) beyond `max_samples`.
        """

    async def series_between(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> Sequence[LabelSet]:
        """The series with a sample in a closed range."""
