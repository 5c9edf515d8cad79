from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exporter.client.breaker import Breaker, BreakerState, counts_as_failure
from exporter.errors import ApiErrorKind


def _fail(breaker: Breaker, now: float, times: int) -> None:
    for _ in range(times):
        permit = breaker.allow(now)
        assert permit is not None
        breaker.failure(permit, now)


@pytest.mark.parametrize(("failures", "state"), [(4, BreakerState.CLOSED), (5, BreakerState.OPEN)])
def test_failures_in_a_row_open_it(failures: int, state: BreakerState) -> None:
    """Below the threshold it stays closed, at the threshold it opens."""
    breaker = Breaker(threshold=5)
    _fail(breaker, 0.0, failures)
    assert breaker.state(0.0) is state


def test_a_success_in_between_starts_the_count_anew() -> None:
    """Only failures in a row count."""
    breaker = Breaker(threshold=2)
    _fail(breaker, 0.0, 1)
    permit = breaker.allow(0.0)
    assert permit is not None
    breaker.success(permit)
    _fail(breaker, 0.0, 1)
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_one_probe_closes_it_or_opens_it_for_longer() -> None:
    """After the open time one call passes; its failure doubles the time, its success closes the breaker."""
    breaker = Breaker(threshold=1, open_s=30.0, max_open_s=300.0)
    _fail(breaker, 0.0, 1)
    assert breaker.allow(29.9) is None
    probe = breaker.allow(30.0)
    assert probe is not None
    assert breaker.allow(30.0) is None
    breaker.failure(probe, 31.0)
    assert breaker.wait_s(31.0) == 60.0
    probe = breaker.allow(91.0)
    assert probe is not None
    breaker.success(probe)
    assert breaker.state(91.0) is BreakerState.CLOSED
    _fail(breaker, 100.0, 1)
    assert breaker.wait_s(100.0) == 30.0


def test_the_open_time_is_bounded() -> None:
    """Doubling ends at the bound."""
    breaker = Breaker(threshold=1, open_s=100.0, max_open_s=300.0)
    now = 0.0
    for _ in range(5):
        permit = breaker.allow(now)
        assert permit is not None
        breaker.failure(permit, now)
        now += breaker.wait_s(now)
    permit = breaker.allow(now)
    assert permit is not None
    breaker.failure(permit, now)
    assert breaker.wait_s(now) == 300.0


def test_a_cancelled_probe_gives_its_turn_back() -> None:
    """A probe that ended without telling anything lets the next one pass."""
    breaker = Breaker(threshold=1, open_s=1.0)
    _fail(breaker, 0.0, 1)
    probe = breaker.allow(1.0)
    assert probe is not None
    breaker.nothing(probe)
    assert breaker.allow(1.0) is not None


@pytest.mark.parametrize(
    ("kind", "status", "counts"),
    [
        (ApiErrorKind.NETWORK, None, True),
        (ApiErrorKind.TIMEOUT, None, True),
        (ApiErrorKind.DECODE, 200, True),
        (ApiErrorKind.HTTP, 503, True),
        (ApiErrorKind.HTTP, 404, False),
        (ApiErrorKind.RATE_LIMITED, 429, False),
        (ApiErrorKind.QUOTA, 429, False),
        (ApiErrorKind.AUTH, 401, False),
        (ApiErrorKind.SCHEMA, 200, False),
    ],
)
def test_only_an_ill_provider_counts(kind: ApiErrorKind, status: int | None, counts: bool) -> None:
    """A refusal for rate, quota, key or a wrong request says that the provider works."""
    assert counts_as_failure(kind, status) is counts


class BreakerMachine(RuleBasedStateMachine):
    """Calls that overlap and end in any order, checked against the specification written as plain state."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(threshold=3, open_s=10.0, max_open_s=40.0)
        self.now = 0.0
        self.calls: list[tuple[int, str]] = []  # permit, state when allowed
        self.opened_at: float | None = None
        self.row = 0

    @rule(seconds=st.floats(0.0, 15.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        state = self.breaker.state(self.now)
        probing = any(permit == self.probe for permit, _ in self.calls) if self.probe is not None else False
        permit = self.breaker.allow(self.now)
        if state is BreakerState.CLOSED:
            assert permit is not None
        elif state is BreakerState.OPEN:
            assert permit is None
        else:
            assert (permit is None) == probing
            if permit is not None:
                self.probe = permit
        if permit is not None:
            self.calls.append((permit, state.name))

    probe: int | None = None

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), end=st.sampled_from(["success", "failure", "nothing"]))
    def finish(self, data: st.DataObject, end: str) -> None:
        permit, began = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        before = self.breaker.state(self.now)
        if end == "success":
            self.breaker.success(permit)
        elif end == "failure":
            self.breaker.failure(permit, self.now)
        else:
            self.breaker.nothing(permit)
        after = self.breaker.state(self.now)
        if before is BreakerState.HALF_OPEN and began == "CLOSED":
            assert after is BreakerState.HALF_OPEN
        if before is BreakerState.HALF_OPEN and began == "HALF_OPEN" and permit == self.probe:
            expected = {"success": BreakerState.CLOSED, "failure": BreakerState.OPEN}
            assert after is expected.get(end, BreakerState.HALF_OPEN)
        if before is BreakerState.OPEN:
            assert after is BreakerState.OPEN

    @invariant()
    def waits_are_bounded(self) -> None:
        assert 0.0 <= self.breaker.wait_s(self.now) <= 40.0
        if self.breaker.state(self.now) is BreakerState.OPEN:
            assert self.breaker.wait_s(self.now) > 0.0


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=40)
