"""Evaluation slots of a rule group: aligned to the interval, shifted by a hash of the group's key.

A restart lands on the same slots, and groups of one interval do not all run at once.
"""

from __future__ import annotations

import hashlib


def slot_offset_ms(group_key: str, interval_ms: int) -> int:
    """How far a group's slots stand after the multiples of its interval, 0 <= offset < interval_ms."""
    return int.from_bytes(hashlib.sha256(group_key.encode()).digest()[:8], "big") % interval_ms


def slot_at_or_before(group_key: str, interval_ms: int, now_ms: int) -> int:
    """The group's newest slot that is not after `now_ms` (Unix milliseconds)."""
    offset_ms = slot_offset_ms(group_key, interval_ms)
    return (now_ms - offset_ms) // interval_ms * interval_ms + offset_ms


def next_slot(group_key: str, interval_ms: int, now_ms: int) -> int:
    """The group's first slot after `now_ms`."""
    return slot_at_or_before(group_key, interval_ms, now_ms) + interval_ms


def following_slot(group_key: str, interval_ms: int, last_ms: int, now_ms: int) -> tuple[int, int]:
    """The slot to wait for after the one at `last_ms`, and how many were missed meanwhile.

    Called when the evaluation of `last_ms` has ended: a slot counts as missed once the next one after it has
    come too; the newest slot that is due is still run, late rather than never. A clock set back by more than
    an interval starts the slots anew. Source: Prometheus' group loop.
    """
    if last_ms - now_ms > interval_ms:
        return next_slot(group_key, interval_ms, now_ms), 0
    missed = max(0, (now_ms - last_ms) // interval_ms - 1)
    return last_ms + (missed + 1) * interval_ms, missed
