"""Keeps calls from starting all together, within what the limit allows.

The limit itself is the log of `window`: a leaky bucket cannot hold it. But the log lets a whole minute's
calls
start at once, which some content networks take for an attack. Here aiolimiter's AsyncLimiter fits: it drains
a tenth faster than the limit, so that the log stays what binds and no allowed call is lost.
"""

from __future__ import annotations

from aiolimiter import AsyncLimiter

from exporter.providers.spec import LimitSpec

_FASTER = 1.1


def smoother(burst: int, limits: tuple[LimitSpec, ...]) -> AsyncLimiter | None:
    """A bucket that lets `burst` calls start together; None without a burst or a limit to smooth.

    Rate: the lowest of the limits that are not paced anyway, times 1.1.
    """
    rates = [
        in_force / limit.period_s
        for limit in limits
        if not limit.paced and (in_force := limit.in_force()) is not None
    ]
    if burst < 1 or not rates:
        return None
    return AsyncLimiter(burst, burst / (min(rates) * _FASTER))
