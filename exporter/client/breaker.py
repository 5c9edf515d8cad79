"""A circuit breaker: closed, open, half-open. PURE: the time is an argument.

Closed, calls pass; `threshold` failures in a row open it. Open, calls are refused for `open_s`. Then it is
half-open: one call at a time is let through as a probe; its success closes the breaker, its failure opens it
for twice as long, up to `max_open_s`. A call that says nothing about the provider (cancelled, refused for its
rate) changes nothing.
"""

from __future__ import annotations

from enum import IntEnum

from exporter.errors import ApiErrorKind

_FAILURES = frozenset({ApiErrorKind.NETWORK, ApiErrorKind.TIMEOUT, ApiErrorKind.DECODE})


class BreakerState(IntEnum):
    """Ordered by severity; the number is the value of the gauge."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


def counts_as_failure(kind: ApiErrorKind, status: int | None) -> bool:
    """Whether a failure says that the provider is ill: network, timeout, garbage or a status from 500 on."""
    return kind in _FAILURES or (kind is ApiErrorKind.HTTP and (status is None or status >= 500))


class Breaker:
    """One breaker. Each permit of `allow()` is followed by exactly one of success, failure, nothing.

    A permit from before the last change of state says nothing any more: what was allowed while the breaker
    was closed cannot end the probe of a half-open one.
    """

    __slots__ = (
        "_era",
        "_failures",
        "_open_for_s",
        "_open_until",
        "_probing",
        "_state",
        "max_open_s",
        "open_s",
        "threshold",
    )

    def __init__(self, threshold: int = 5, open_s: float = 30.0, max_open_s: float = 300.0) -> None:
        self.threshold = threshold
        self.open_s = open_s
        self.max_open_s = max_open_s
        self._state = BreakerState.CLOSED
        self._era = 0
        self._failures = 0
        self._open_for_s = open_s
        self._open_until = 0.0
        self._probing = False

    def state(self, now: float) -> BreakerState:
        """The state at a time; an open breaker becomes half-open by time alone."""
        if self._state is BreakerState.OPEN and now >= self._open_until:
            return BreakerState.HALF_OPEN
        return self._state

    def allow(self, now: float) -> int | None:
        """A permit where a call may pass, else None; a half-open breaker has one permit, the probe."""
        if self._state is BreakerState.CLOSED:
            return self._era
        if self.state(now) is BreakerState.OPEN or self._probing:
            return None
        if self._state is BreakerState.OPEN:
            self._enter(BreakerState.HALF_OPEN)
        self._probing = True
        return self._era

    def wait_s(self, now: float) -> float:
        """Seconds until a probe may pass; 0 where it is not open."""
        return max(0.0, self._open_until - now) if self._state is BreakerState.OPEN else 0.0

    def success(self, permit: int) -> None:
        """A permitted call succeeded."""
        if permit != self._era:
            return
        self._failures = 0
        if self._state is BreakerState.HALF_OPEN:
            self._open_for_s = self.open_s
            self._enter(BreakerState.CLOSED)

    def failure(self, permit: int, now: float) -> None:
        """A permitted call failed in a way that counts."""
        if permit != self._era:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._open_for_s = min(self.max_open_s, self._open_for_s * 2)
        else:
            self._failures += 1
            if self._failures < self.threshold:
                return
        self._open_until = now + self._open_for_s
        self._enter(BreakerState.OPEN)

    def nothing(self, permit: int) -> None:
        """A permitted call ended without telling anything."""
        if permit == self._era:
            self._probing = False

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._era += 1
        self._failures = 0
        self._probing = False
