"""What a query may use: samples held at once, time, and the caller's patience."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from exporter.errors import QueryError, QueryErrorKind

PLACE = "expression evaluation"


class Cancel(Protocol):
    """Says that nobody waits for the answer any more; a `threading.Event` fits."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Budget:
    """Counts the samples that live values hold, and stops the query where a limit is passed.

    Raises (from its methods): QueryError of kind LIMIT, TIMEOUT or CANCELED, worded as Prometheus does.
    """

    __slots__ = ("_cancel", "_deadline_s", "_monotonic", "held", "max_samples", "peak")

    def __init__(
        self,
        max_samples: int,
        deadline_s: float | None = None,
        monotonic: Callable[[], float] | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        self.max_samples = max_samples
        self.held = 0
        self.peak = 0
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._cancel = cancel

    def check(self) -> None:
        """Stop where time is up or nobody waits."""
        if self._cancel is not None and self._cancel.is_set():
            raise QueryError(f"query was canceled in {PLACE}", QueryErrorKind.CANCELED)
        if self._deadline_s is None or self._monotonic is None:
            return
        if self._monotonic() >= self._deadline_s:
            raise QueryError(f"query timed out in {PLACE}", QueryErrorKind.TIMEOUT)

    def need(self, samples: int) -> None:
        """Stop where that many more samples would be too many, before memory is taken for them."""
        if self.held + samples > self.max_samples:
            raise QueryError(
                "query processing would load too many samples into memory in query execution",
                QueryErrorKind.LIMIT,
            )
        if self.held + samples > self.peak:
            self.peak = self.held + samples

    def hold(self, samples: int) -> None:
        """Count samples as held until `release`."""
        self.need(samples)
        self.held += samples

    def release(self, samples: int) -> None:
        """Count samples as let go."""
        self.held -= samples
