from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exporter.client.window import Pace, SendWindow, margin_s


@pytest.mark.parametrize("limit", [1, 2, 15])
def test_the_call_after_the_limit_waits_until_the_first_is_one_span_old(limit: int) -> None:
    """At N-1 and below a slot is free now; at N it is free when the oldest send leaves window and margin."""
    window = SendWindow(limit, 10.0, 0.5)
    for count in range(limit):
        assert window.free_at(count / 10) == count / 10
        window.grant()
        window.sent(count / 10)
    assert window.free_at(limit / 10) == 10.5
    assert window.free_at(10.5) == 10.5


def test_an_open_slot_blocks_until_its_send_time_is_known() -> None:
    """A granted call counts at once; the next slot depends on when it goes out."""
    window = SendWindow(1, 1.0, 0.0)
    window.grant()
    assert window.free_at(100.0) == math.inf
    window.sent(100.0)
    assert window.free_at(100.5) == 101.0


def test_a_released_slot_is_free_at_once() -> None:
    """A call that never went out does not count."""
    window = SendWindow(1, 1.0)
    window.grant()
    window.release()
    assert window.free_at(5.0) == 5.0
    assert window.used(5.0) == 0


@pytest.mark.parametrize(("limit", "period_s"), [(0, 1.0), (1, 0.0), (-1, 1.0)])
def test_a_limit_is_positive(limit: int, period_s: float) -> None:
    """A limit of no calls or no time is refused."""
    with pytest.raises(ValueError, match="at least one call"):
        SendWindow(limit, period_s)


def test_the_margin_grows_with_the_window_within_bounds() -> None:
    """50 ms for a second, 300 ms for a minute, 1 s for a day."""
    assert [margin_s(period) for period in (1.0, 60.0, 86_400.0)] == [0.05, 0.3, 1.0]


def test_sends_of_another_process_count() -> None:
    """Times that are told later are sorted in."""
    window = SendWindow(3, 60.0, 0.0)
    window.assume([10.0])
    window.assume([5.0, 7.0])
    assert window.free_at(20.0) == 65.0
    assert window.free_at(66.0) == 66.0
    assert window.free_again_at(66.0) == 67.0


def test_a_lowered_limit_holds_for_what_was_sent_before() -> None:
    """After 5 of 5, a limit of 2 waits until only one is left in the window."""
    window = SendWindow(5, 10.0, 0.0)
    for at in range(5):
        window.grant()
        window.sent(float(at))
    window.limit = 2
    assert window.free_at(5.0) == 13.0


@settings(max_examples=60)
@given(
    limit=st.integers(1, 6),
    steps=st.lists(st.tuples(st.floats(0.0, 0.8), st.floats(0.0, 0.05)), min_size=1, max_size=60),
)
def test_arrivals_never_exceed_the_limit_in_any_window(limit: int, steps: list[tuple[float, float]]) -> None:
    """However long the pauses and however the network delays each call (up to the margin), every window of
    1 s holds at most `limit` arrivals."""
    window = SendWindow(limit, 1.0, 0.05)
    now = 0.0
    arrivals: list[float] = []
    for pause, delay in steps:
        now = max(now + pause, 0.0)
        now = max(now, window.free_at(now))
        window.grant()
        window.sent(now)
        arrivals.append(now + delay)
    arrivals.sort()
    for first, after in zip(arrivals, arrivals[limit:], strict=False):
        assert after - first >= 1.0 - 1e-9


class WindowMachine(RuleBasedStateMachine):
    """Grants, sends, releases and time in any order: never more than `limit` sends in any window."""

    def __init__(self) -> None:
        super().__init__()
        self.window = SendWindow(3, 1.0, 0.1)
        self.now = 0.0
        self.open = 0
        self.sent: list[float] = []

    @rule(seconds=st.floats(0.0, 0.7))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def grant_if_free(self) -> None:
        if self.window.free_at(self.now) <= self.now:
            self.window.grant()
            self.open += 1

    @precondition(lambda self: self.open > 0)
    @rule()
    def send(self) -> None:
        self.window.sent(self.now)
        self.open -= 1
        self.sent.append(self.now)

    @precondition(lambda self: self.open > 0)
    @rule()
    def release(self) -> None:
        self.window.release()
        self.open -= 1

    @invariant()
    def limit_holds(self) -> None:
        assert self.open <= 3
        for first, after in zip(self.sent, self.sent[3:], strict=False):
            assert after - first >= 1.1 - 1e-9


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=40, stateful_step_count=40)


def test_a_pace_spreads_calls_and_allows_a_short_burst() -> None:
    """Three at once after a pause, then one every gap."""
    pace = Pace(10.0, burst=3)
    now, times = 100.0, []
    for _ in range(6):
        now = pace.free_at(now)
        pace.grant(now)
        times.append(now)
    assert times == [100.0, 100.0, 100.0, 110.0, 120.0, 130.0]


def test_a_pace_with_a_shorter_gap_forgets_the_longer_one() -> None:
    """Turns taken ahead are counted at the new gap, so that a better plan helps at once."""
    pace = Pace(100.0, burst=1)
    pace.grant(0.0)
    pace.set_gap(1.0, 0.0)
    assert pace.free_at(0.0) == 1.0
