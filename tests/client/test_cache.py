from __future__ import annotations

import pytest

from exporter.client.cache import Cache, Freshness
from exporter.errors import ApiError, ApiErrorKind
from exporter.providers.spec import CachePolicy

POLICY = CachePolicy(30.0, swr_s=30.0, stale_s=300.0, negative_s=10.0)


@pytest.mark.parametrize(
    ("age", "freshness"),
    [
        (0.0, Freshness.FRESH),
        (29.9, Freshness.FRESH),
        (30.0, Freshness.REVALIDATE),
        (59.9, Freshness.REVALIDATE),
        (60.0, Freshness.STALE),
        (329.9, Freshness.STALE),
        (330.0, Freshness.EXPIRED),
    ],
)
def test_an_answer_ages_in_steps(age: float, freshness: Freshness) -> None:
    """Fresh, then refreshed in the background, then used only on failure, then gone."""
    cache: Cache[str] = Cache()
    entry = cache.put("k", "v", POLICY, 100.0)
    assert entry is not None
    assert entry.freshness(POLICY, 100.0 + age) is freshness


def test_the_least_recently_used_entry_goes_first() -> None:
    """At the bound, the entry that was read longest ago is dropped and counted."""
    cache: Cache[int] = Cache(max_entries=2)
    cache.put("a", 1, POLICY, 0.0)
    cache.put("b", 2, POLICY, 0.0)
    cache.get("a")
    cache.put("c", 3, POLICY, 0.0)
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.evicted == 1


def test_expired_entries_go_before_useful_ones() -> None:
    """A full cache drops what nobody may use before what somebody may."""
    cache: Cache[int] = Cache(max_entries=2)
    cache.put("old", 1, CachePolicy(1.0), 0.0)
    cache.put("new", 2, POLICY, 0.0)
    cache.get("old")
    cache.put("next", 3, POLICY, 5.0)
    assert cache.get("new") is not None
    assert cache.evicted == 0


def test_a_failure_is_remembered_but_never_replaces_a_usable_answer() -> None:
    """Negative entries live for their time only, and not over a stale answer."""
    cache: Cache[int] = Cache()
    error = ApiError("no", ApiErrorKind.HTTP)
    cache.put_error("k", error, POLICY, 0.0)
    entry = cache.get("k")
    assert entry is not None
    assert entry.freshness(POLICY, 9.9) is Freshness.FRESH
    assert entry.freshness(POLICY, 10.0) is Freshness.EXPIRED
    cache.put("k", 1, POLICY, 0.0)
    cache.put_error("k", error, POLICY, 100.0)
    entry = cache.get("k")
    assert entry is not None
    assert entry.value == 1


def test_a_policy_of_no_time_keeps_nothing() -> None:
    """TTL 0 is no caching."""
    cache: Cache[int] = Cache()
    assert cache.put("k", 1, CachePolicy(0.0), 0.0) is None
    assert len(cache) == 0


def test_invalidation_drops_what_matches() -> None:
    """Explicit invalidation by key."""
    cache: Cache[int] = Cache()
    for key in ("a1", "a2", "b1"):
        cache.put(key, 1, POLICY, 0.0)
    assert cache.invalidate(lambda key: str(key).startswith("a")) == 2
    assert cache.size().entries == 1
    assert cache.size().mean_ttl_s == 30.0


def test_a_cache_holds_at_least_one_entry() -> None:
    """A bound of nothing is refused."""
    with pytest.raises(ValueError, match="at least one"):
        Cache(max_entries=0)
