"""What observation needs from the rest of the program."""

from __future__ import annotations

from typing import Protocol


class CallMetrics(Protocol):
    """Prometheus instruments of API calls; `exporter.observe.metrics.ApiMetrics` or the API client's own."""

    @property
    def duration(self) -> Instrument:
        """Histogram of seconds by provider, endpoint, method, outcome."""

    @property
    def requests(self) -> Instrument:
        """Counter by provider, endpoint, method, outcome."""


class Instrument(Protocol):
    """A labelled prometheus_client instrument."""

    def labels(self, *values: object) -> object:
        """The child of one label set."""


class EventHistory(Protocol):
    """Answers questions about stored events. Raises: StorageError where it cannot."""

    async def average_response_time_ms(
        self, endpoint: str | None, start_ms: int, end_ms: int
    ) -> float | None:
        """Mean time of the API calls of a period (all endpoints for None), None where there were none."""

    async def error_rate(self, start_ms: int, end_ms: int) -> float | None:
        """Share of the API calls and queries of a period that failed, 0..1, None where there were none."""
