"""A slot of a quota that several processes share."""

from __future__ import annotations

from dataclasses import dataclass

Windows = tuple[tuple[float, int], ...]
"""Limits as (period in seconds, calls)."""


@dataclass(frozen=True, slots=True)
class SharedSlot:
    """When a call may go out: in `wait_s` seconds.

    Where it is not `taken` the wait was longer than asked for, and the slot is nobody's. `id` names it in the
    common store; None where the store was away.
    """

    wait_s: float
    id: int | None = None
    taken: bool = True
