from __future__ import annotations

import pytest

from exporter.client.smoothing import smoother
from exporter.providers.spec import LimitSpec


async def test_a_burst_starts_together_and_then_the_bucket_drains_faster_than_the_limit() -> None:
    """Of 60 a minute with a burst of 5: five at once, then 1.1 a second, so that the limit's log binds."""
    bucket = smoother(5, (LimitSpec("minute", 60), LimitSpec("day", 100)))
    assert bucket is not None
    for _ in range(5):
        assert bucket.has_capacity()
        await bucket.acquire()
    assert not bucket.has_capacity()
    assert bucket.max_rate / bucket.time_period == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("burst", "limits"), [(0, (LimitSpec("minute", 60),)), (5, ()), (5, (LimitSpec("day", 100),))]
)
def test_nothing_to_smooth(burst: int, limits: tuple[LimitSpec, ...]) -> None:
    """No burst, no limit, or only a paced quota: no bucket."""
    assert smoother(burst, limits) is None
