"""Flapping: how often an alert instance changed its state lately. Pure."""

from __future__ import annotations

from exporter.config.receivers import FlappingConfig

_KEPT = 1000  # changes remembered for one instance; far beyond any sensible bound


class FlapCounter:
    """The times at which instances fired or resolved; an instance is any hashable text."""

    def __init__(self) -> None:
        self._times: dict[str, tuple[int, ...]] = {}
        self._noticed: set[tuple[str, str]] = set()

    def changed(self, instance: str, at_ms: int) -> None:
        """Note one change of state."""
        self._times[instance] = (*self._times.get(instance, ()), at_ms)[-_KEPT:]

    def count(self, instance: str, window_ms: int, now_ms: int) -> int:
        """How many changes lie in the window that ends now (its start exclusive)."""
        times = self._times.get(instance)
        return sum(now_ms - window_ms < at <= now_ms for at in times) if times else 0

    def flapping(self, instance: str, bound: FlappingConfig, now_ms: int) -> int:
        """The count where it reaches the bound, else 0."""
        times = self._times.get(instance)
        if times is None or len(times) < bound.transitions:
            return 0
        found = self.count(instance, bound.window_ms, now_ms)
        return found if found >= bound.transitions else 0

    def notice(self, listener: str, instance: str, bound: FlappingConfig, now_ms: int) -> int:
        """The count, once for each time that the instance begins to flap and for each listener; else 0."""
        found = self.flapping(instance, bound, now_ms)
        if not found:
            self._noticed.discard((listener, instance))
            return 0
        if (listener, instance) in self._noticed:
            return 0
        self._noticed.add((listener, instance))
        return found

    def noticed(self, listener: str, instance: str, bound: FlappingConfig, now_ms: int) -> bool:
        """Whether the instance flaps and the listener was told."""
        return (listener, instance) in self._noticed and self.flapping(instance, bound, now_ms) > 0

    def forget(self, before_ms: int) -> None:
        """Drop the changes before a time."""
        for instance in list(self._times):
            times = self._times[instance]
            if times[-1] < before_ms:
                del self._times[instance]
            elif times[0] < before_ms:
                self._times[instance] = tuple(at for at in times if at >= before_ms)
