from __future__ import annotations

import random

import pytest

from exporter.client.retry import RetryBudget, RetryPolicy
from exporter.errors import ApiErrorKind
from exporter.providers.failures import Failure, Reset, Scope, auth, billing, quota, rate_limited

_NETWORK = Failure(ApiErrorKind.NETWORK, "refused", retryable=True)


@pytest.mark.parametrize(("retry", "most"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0)])
def test_delays_are_uniform_up_to_1_2_4_seconds(retry: int, most: float) -> None:
    """Full jitter: the delay before retry k is uniform in [0, 2^(k-1)] seconds, at most 4."""
    rng = random.Random(1)
    delays = [RetryPolicy(attempts=5).delay_s(_NETWORK, retry, rng) for _ in range(2000)]
    found = [delay for delay in delays if delay is not None]
    assert len(found) == 2000
    assert 0.0 <= min(found) < 0.02 * most
    assert 0.98 * most < max(found) <= most


@pytest.mark.parametrize(("attempts", "retries"), [(1, 0), (3, 2), (4, 3)])
def test_the_attempts_count_the_first_call(attempts: int, retries: int) -> None:
    """Three attempts are a call and two retries."""
    policy = RetryPolicy(attempts=attempts)
    made = [policy.delay_s(_NETWORK, retry, random.Random(1)) is not None for retry in range(1, 6)]
    assert made == [True] * retries + [False] * (5 - retries)
    assert RetryPolicy().attempts == 3


@pytest.mark.parametrize(
    "failure",
    [
        quota("day", Reset.UTC_DAY),
        billing("plan"),
        auth("key"),
        Failure(ApiErrorKind.HTTP, "HTTP 404"),
        Failure(ApiErrorKind.SCHEMA, "field"),
        Failure(ApiErrorKind.BREAKER_OPEN, "open"),
    ],
)
def test_what_a_second_try_cannot_change_is_not_retried(failure: Failure) -> None:
    """Quota, bill, key, a wrong request, a drifted answer: no retry."""
    assert RetryPolicy().delay_s(failure, 1, random.Random(1)) is None


@pytest.mark.parametrize(("wait_s", "delay_s"), [(30.0, 30.0), (60.0, 60.0), (60.1, None), (3600.0, None)])
def test_the_providers_wait_wins_up_to_a_bound(wait_s: float, delay_s: float | None) -> None:
    """Retry-After is waited for; beyond the bound the call fails at once."""
    assert RetryPolicy().delay_s(rate_limited("slow", wait_s), 1, random.Random(1)) == delay_s


def test_a_post_is_repeated_only_where_it_was_refused_unread() -> None:
    """A call that may have had its effect is not made twice."""
    rng = random.Random(1)
    assert RetryPolicy().delay_s(_NETWORK, 1, rng, idempotent=False) is None
    assert RetryPolicy().delay_s(rate_limited("slow", 1.0), 1, rng, idempotent=False) == 1.0


def test_retries_are_a_share_of_the_calls() -> None:
    """Ten saved at the start, then one retry for every five calls."""
    budget = RetryBudget(ratio=0.2, capacity=10.0)
    assert sum(budget.take() for _ in range(20)) == 10
    for _ in range(100):
        budget.call()
    taken = 0
    while budget.take():
        taken += 1
    assert taken in (9, 10)


def test_scopes_default_to_the_call() -> None:
    """A failure that says nothing else concerns its call only."""
    assert _NETWORK.scope is Scope.CALL
    assert rate_limited("x", None).scope is Scope.PROVIDER
