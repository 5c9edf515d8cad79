"""At most n sends in any window, from a log of send times. PURE: the time is an argument.

A token or leaky bucket does not do this: aiolimiter's AsyncLimiter(M, T) lets 665, 99 and 29 calls into the
first window of a limit of 333, 50 and 15; AsyncLimiter(1, T/M) breaks the limit as soon as the network delays
one call more than the next; AsyncLimiter(1, T/(M-1)) holds but reaches only 0.93 of 15/s. A log holds
exactly:
the call after n others waits until the first of them is one window old. The provider counts arrivals, not
departures, so that the window is lengthened by `margin_s`, the most by which two delays may differ.

A slot passes through: granted (time unknown, blocks), then sent (in the log) or released (never sent).
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable


def margin_s(period_s: float) -> float:
    """Default margin: half a percent of the window, at least 50 ms, at most 1 s."""
    return min(1.0, max(0.05, 0.005 * period_s))


class SendWindow:
    """The log of one limit: at most `limit` sends within `period_s`, anywhere on the time axis."""

    __slots__ = ("_open", "_sent", "_span_s", "limit", "period_s")

    def __init__(self, limit: int, period_s: float, margin: float | None = None) -> None:
        if limit < 1 or period_s <= 0:
            raise ValueError("a limit is at least one call in a window longer than 0 s")
        self.limit = limit
        self.period_s = period_s
        self._span_s = period_s + (margin_s(period_s) if margin is None else margin)
        self._sent: deque[float] = deque()  # ascending
        self._open = 0

    def free_at(self, now: float) -> float:
        """When the next call may be granted: `now`, later, or infinity while it depends on open slots."""
        sent = self._sent
        while sent and sent[0] + self._span_s <= now:
            sent.popleft()
        blocking = len(sent) + self._open - self.limit
        if blocking < 0:
            return now
        return sent[blocking] + self._span_s if blocking < len(sent) else math.inf

    def grant(self) -> None:
        """Take a slot whose send time is not known yet."""
        self._open += 1

    def sent(self, at: float) -> None:
        """A granted call went out at that time."""
        self._open -= 1
        self.assume((at,))

    def release(self) -> None:
        """A granted call never went out."""
        self._open -= 1

    def assume(self, times: Iterable[float]) -> None:
        """Count sends that were made elsewhere: before a restart, or by another user of the key."""
        for at in times:
            if self._sent and at < self._sent[-1]:
                insort(self._sent, at)
            else:
                self._sent.append(at)

    def used(self, now: float) -> int:
        """Calls that count against the limit now, open ones among them."""
        return self._open + len(self._sent) - bisect_right(self._sent, now - self.period_s)

    def since(self, start: float) -> int:
        """Calls sent after a time; only the last window is remembered."""
        return len(self._sent) - bisect_right(self._sent, start)

    def free_again_at(self, now: float) -> float:
        """When the oldest call that counts leaves the window; `now` where none does."""
        oldest = next((at for at in self._sent if at + self._span_s > now), None)
        return now if oldest is None else oldest + self._span_s

    def __repr__(self) -> str:
        return (
            f"<SendWindow {len(self._sent)} sent, {self._open} open of {self.limit} in {self.period_s:g} s>"
        )


class Pace:
    """Spreads a quota over its window: one call every `gap_s`, with a few at once after a pause.

    Formula (generic cell rate algorithm): each grant moves the theoretical time by the gap; a call is due
    when the theoretical time is less than `burst - 1` gaps ahead.
    """

    __slots__ = ("_ahead", "burst", "gap_s")

    def __init__(self, gap_s: float, burst: int = 3) -> None:
        self.gap_s = gap_s
        self.burst = burst
        self._ahead = -math.inf

    def free_at(self, now: float) -> float:
        """When the next call is due; `now` or later."""
        return max(now, self._ahead - (self.burst - 1) * self.gap_s)

    def grant(self, now: float) -> None:
        """A call takes its turn."""
        self._ahead = max(self._ahead, now) + self.gap_s

    def release(self) -> None:
        """The last turn was not used."""
        self._ahead -= self.gap_s

    def set_gap(self, gap_s: float, now: float) -> None:
        """Change the gap; turns taken ahead count as taken at the new one."""
        if self._ahead > now:
            self._ahead = now + (self._ahead - now) * gap_s / self.gap_s
        self.gap_s = gap_s
