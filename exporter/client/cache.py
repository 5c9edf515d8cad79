"""Answers kept for a while: expiry, stale use, size. PURE: the time is an argument.

An entry is fresh for the caller's `ttl_s`, then stale; whether a stale answer may be used is the caller's
decision (`Freshness`). Failures that a second try cannot change are entries too. The least recently used
entry goes first when the bound is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from exporter.errors import ApiError
from exporter.providers.spec import CachePolicy

Value = TypeVar("Value")


class Freshness(Enum):
    """What an entry is good for at a time."""

    FRESH = "fresh"
    REVALIDATE = "revalidate"  # serve it now and refresh it in the background
    STALE = "stale"  # serve it only where a refresh fails
    EXPIRED = "expired"


class Entry(Generic[Value]):
    """One kept answer (`value`) or failure (`error`, no value); times on the monotonic clock, in seconds."""

    __slots__ = ("error", "keep_until", "stored_at", "ttl_s", "value")

    def __init__(
        self, value: Value | None, error: ApiError | None, stored_at: float, ttl_s: float, keep_until: float
    ) -> None:
        self.value = value
        self.error = error
        self.stored_at = stored_at
        self.ttl_s = ttl_s
        self.keep_until = keep_until

    def freshness(self, policy: CachePolicy, now: float) -> Freshness:
        """What the entry is good for under a policy; a failure is fresh or expired, never stale."""
        age = now - self.stored_at
        if self.error is not None:
            return Freshness.FRESH if age < policy.negative_s else Freshness.EXPIRED
        if age < policy.ttl_s:
            return Freshness.FRESH
        if age < policy.ttl_s + policy.swr_s:
            return Freshness.REVALIDATE
        return Freshness.STALE if age < policy.ttl_s + policy.stale_s else Freshness.EXPIRED


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Entries held and the mean time in seconds for which they are fresh."""

    entries: int
    mean_ttl_s: float


class Cache(Generic[Value]):
    """At most `max_entries` answers, least recently used out first."""

    __slots__ = ("_entries", "evicted", "max_entries")

    def __init__(self, max_entries: int = 4096) -> None:
        if max_entries < 1:
            raise ValueError("a cache holds at least one entry")
        self.max_entries = max_entries
        self.evicted = 0
        # A dict keeps insertion order; an entry that is used moves to the end.
        self._entries: dict[Hashable, Entry[Value]] = {}

    def get(self, key: Hashable) -> Entry[Value] | None:
        """The entry of a key, fresh or not; counts as a use."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._entries[key] = entry
        return entry

    def put(self, key: Hashable, value: Value, policy: CachePolicy, now: float) -> Entry[Value] | None:
        """Keep an answer; None where the policy keeps nothing."""
        keep_s = policy.ttl_s + max(policy.swr_s, policy.stale_s)
        if keep_s <= 0:
            return None
        return self._store(key, Entry(value, None, now, policy.ttl_s, now + keep_s), now)

    def put_error(self, key: Hashable, error: ApiError, policy: CachePolicy, now: float) -> None:
        """Remember a failure; an answer that is still usable is not replaced by it."""
        if policy.negative_s <= 0:
            return
        held = self._entries.get(key)
        if held is not None and held.error is None and held.keep_until > now:
            return
        self._store(key, Entry(None, error, now, policy.negative_s, now + policy.negative_s), now)

    def invalidate(self, matches: Callable[[Hashable], bool]) -> int:
        """Drop the entries whose key matches; returns how many."""
        gone = [key for key in self._entries if matches(key)]
        for key in gone:
            del self._entries[key]
        return len(gone)

    def expire(self, now: float) -> int:
        """Drop what nobody may use any more; returns how many."""
        gone = [key for key, entry in self._entries.items() if entry.keep_until <= now]
        for key in gone:
            del self._entries[key]
        return len(gone)

    def size(self) -> CacheSize:
        """Entries and their mean fresh time."""
        count = len(self._entries)
        total = sum(entry.ttl_s for entry in self._entries.values())
        return CacheSize(count, total / count if count else 0.0)

    def __len__(self) -> int:
        return len(self._entries)

    def _store(self, key: Hashable, entry: Entry[Value], now: float) -> Entry[Value]:
        self._entries.pop(key, None)
        if len(self._entries) >= self.max_entries and not self.expire(now):
            del self._entries[next(iter(self._entries))]
            self.evicted += 1
        self._entries[key] = entry
        return entry
