"""All limits of one provider at once: what is in force, what is used, when the next call may go. PURE."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from exporter.client.window import Pace, SendWindow, margin_s
from exporter.model.quota import Windows
from exporter.providers.spec import LimitSpec

_PACE_BURST = 3
_RATE_SPAN_S = 3600.0


@dataclass(frozen=True, slots=True)
class WindowStats:
    """One limit now. `reset_s`: until its oldest call leaves; `exhaustion_s`: until it is used up at the rate
    of the last hour, infinity where that rate keeps within it."""

    window: str
    limit: int
    used: int
    reset_s: float
    exhaustion_s: float

    @property
    def utilization(self) -> float:
        """Used share of the limit, 0..1."""
        return self.used / self.limit


class _Limit:
    __slots__ = ("log", "pace", "spec", "told")

    def __init__(self, spec: LimitSpec, in_force: int) -> None:
        self.spec = spec
        self.told: int | None = None
        self.log = SendWindow(in_force, spec.period_s)
        self.pace = _pace(spec, in_force)


class ProviderLimits:
    """The windows of one provider. A call needs a slot in each of them."""

    def __init__(self, specs: Iterable[LimitSpec]) -> None:
        self._limits = [_Limit(spec, in_force) for spec in specs if (in_force := spec.in_force()) is not None]
        # Whether a limit outlives a reboot, so that its sends must be on the disk before they go out.
        self.is_long = any(limit.spec.period_s >= _RATE_SPAN_S for limit in self._limits)

    @property
    def horizon_s(self) -> float:
        """How far back sends matter: the longest window."""
        return max((limit.spec.period_s + 1.0 for limit in self._limits), default=0.0)

    def windows(self, *, paced: bool = False) -> Windows:
        """Every window as (period with margin in seconds, limit in force); `paced`: quotas' pace too."""
        found = [
            (limit.spec.period_s + margin_s(limit.spec.period_s), limit.log.limit) for limit in self._limits
        ]
        if paced:
            paces = [limit.pace for limit in self._limits if limit.pace is not None]
            found += [(pace.gap_s * pace.burst, pace.burst) for pace in paces]
        return tuple(found)

    @property
    def margin_s(self) -> float:
        """The least by which a window is lengthened."""
        return min((margin_s(limit.spec.period_s) for limit in self._limits), default=math.inf)

    @property
    def gap_s(self) -> float:
        """Time between two calls that a paced quota leaves; 0 where nothing is paced."""
        return max((limit.pace.gap_s for limit in self._limits if limit.pace is not None), default=0.0)

    def free_at(self, now: float, *, paced: bool = True) -> float:
        """When the next call may go; infinity while that depends on calls that are being connected."""
        at = now
        for limit in self._limits:
            free = limit.log.free_at(now)
            if free > at:
                at = free
            if paced and limit.pace is not None and (due := limit.pace.free_at(now)) > at:
                at = due
        return at

    def grant(self, now: float) -> None:
        """Take a slot in every window."""
        for limit in self._limits:
            limit.log.grant()
            if limit.pace is not None:
                limit.pace.grant(now)

    def sent(self, at: float) -> None:
        """The granted call went out."""
        for limit in self._limits:
            limit.log.sent(at)

    def release(self) -> None:
        """The granted call never went out."""
        for limit in self._limits:
            limit.log.release()
            if limit.pace is not None:
                limit.pace.release()

    def restore(self, times: Iterable[float]) -> None:
        """Count sends of an earlier process; times ascending, on this process's monotonic clock."""
        for at in times:
            for limit in self._limits:
                limit.log.assume((at,))
                if limit.pace is not None:
                    limit.pace.grant(at)

    def tell(self, window: str, *, limit: int | None = None, used: int | None = None, now: float) -> None:
        """What the provider itself says about a window: its limit, and how much of it is used.

        Calls that it has counted and we have not are another user's of the same key. When they were made is
        unknown: a quota's are spread over the window, as if made evenly; others count as made now.
        """
        for entry in self._limits:
            if entry.spec.window != window:
                continue
            if limit is not None and limit >= 1 and limit != entry.told:
                entry.told = limit
                in_force = entry.spec.in_force(limit) or limit
                entry.log.limit = in_force
                if entry.pace is not None:
                    entry.pace.set_gap(_gap_s(entry.spec, in_force), now)
            if used is not None:
                unseen = min(used, entry.log.limit) - entry.log.used(now)
                step = entry.spec.period_s / (unseen + 1) if entry.spec.paced and unseen > 0 else 0.0
                entry.log.assume(now - step * (unseen - at) for at in range(unseen))

    def stats(self, now: float) -> tuple[WindowStats, ...]:
        """Every window as it stands."""
        found = []
        for limit in self._limits:
            used = limit.log.used(now)
            span_s = min(_RATE_SPAN_S, limit.spec.period_s)
            rate = limit.log.since(now - span_s) / span_s
            lasting = rate * limit.spec.period_s <= limit.log.limit
            found.append(
                WindowStats(
                    window=limit.spec.window,
                    limit=limit.log.limit,
                    used=used,
                    reset_s=limit.log.free_again_at(now) - now,
                    exhaustion_s=math.inf if lasting else max(0, limit.log.limit - used) / rate,
                )
            )
        return tuple(found)


def _pace(spec: LimitSpec, in_force: int) -> Pace | None:
    if not spec.paced:
        return None
    return Pace(_gap_s(spec, in_force), max(1, min(_PACE_BURST, in_force // 10)))


def _gap_s(spec: LimitSpec, in_force: int) -> float:
    return (spec.period_s + margin_s(spec.period_s)) / in_force
