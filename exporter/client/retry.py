"""Whether and when a failed call is tried again. PURE: the random source is an argument."""

from __future__ import annotations

import random
from dataclasses import dataclass

from exporter.errors import ApiErrorKind
from exporter.providers.failures import Failure


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` calls, the first among them; between them 1 s, 2 s, then 4 s each, with full jitter.

    Delay before retry k (from 1): uniform in [0, min(base_s * 2^(k-1), max_delay_s)]. A wait that the
    provider asks for wins over it, up to `max_wait_s`; beyond that the call fails at once. Full jitter, so
    that callers which failed together do not return together.
    """

    attempts: int = 3
    base_s: float = 1.0
    max_delay_s: float = 4.0
    max_wait_s: float = 60.0

    def delay_s(
        self, failure: Failure, retry: int, rng: random.Random, *, idempotent: bool = True
    ) -> float | None:
        """Seconds to wait before that retry; None where none is made.

        A call that is not idempotent is repeated only where the provider refused it unread.
        """
        if retry >= self.attempts or not failure.retryable or failure.reset is not None:
            return None
        refused = failure.kind is ApiErrorKind.RATE_LIMITED
        if not idempotent and not refused:
            return None
        jitter_s = rng.uniform(0.0, min(self.max_delay_s, self.base_s * 2.0 ** (retry - 1)))
        if failure.wait_s is None:
            return jitter_s
        return None if failure.wait_s > self.max_wait_s else max(failure.wait_s, jitter_s)


class RetryBudget:
    """Retries are at most a share of the calls: in an outage they do not multiply the load.

    Every call adds `ratio`, every retry takes 1; at most `capacity` is saved up.
    """

    __slots__ = ("_saved", "capacity", "ratio")

    def __init__(self, ratio: float = 0.2, capacity: float = 10.0) -> None:
        self.ratio = ratio
        self.capacity = capacity
        self._saved = capacity

    def call(self) -> None:
        """A call is made (its retries do not count as calls)."""
        self._saved = min(self.capacity, self._saved + self.ratio)

    def take(self) -> bool:
        """Take the price of one retry; False where it is not there."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
