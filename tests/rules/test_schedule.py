from __future__ import annotations

from exporter.rules.schedule import following_slot, next_slot, slot_at_or_before, slot_offset_ms


def test_slots_are_aligned_and_the_same_after_a_restart() -> None:
    """A slot is the interval's multiple plus the group's offset, whatever the time of asking."""
    for now_ms in (0, 1, 59_999, 60_000, 1_700_000_123_456):
        slot_ms = next_slot("f;g", 60_000, now_ms)
        assert now_ms < slot_ms <= now_ms + 60_000
        assert slot_ms % 60_000 == slot_offset_ms("f;g", 60_000)
        assert slot_at_or_before("f;g", 60_000, slot_ms) == slot_ms


def test_groups_are_spread_over_the_interval() -> None:
    """Offsets of many groups fall into every quarter of the interval."""
    quarters = {slot_offset_ms(f"f;g{number}", 60_000) // 15_000 for number in range(100)}
    assert quarters == {0, 1, 2, 3}


def test_missed_slots_are_counted_and_the_newest_is_run() -> None:
    """An evaluation that ends inside its interval misses none; one that takes 3.5 intervals misses two."""
    assert following_slot("k", 10, 100, 105) == (110, 0)
    assert following_slot("k", 10, 100, 110) == (110, 0)
    assert following_slot("k", 10, 100, 119) == (110, 0)
    assert following_slot("k", 10, 100, 120) == (120, 1)
    assert following_slot("k", 10, 100, 135) == (130, 2)


def test_a_clock_set_back_starts_the_slots_anew() -> None:
    """After a jump back by more than an interval the next slot follows the new time."""
    assert following_slot("k", 10, 100, 95) == (110, 0)
    slot_ms, missed = following_slot("k", 10, 1000, 95)
    assert (95 < slot_ms <= 105, missed) == (True, 0)
