"""Faults on request: which provider misbehaves, how, how often and until when."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum


class FaultKind(Enum):
    """What goes wrong. Market faults change the answer's values, all others replace the answer."""

    STATUS_500 = "status_500"
    RATE_LIMIT_429 = "rate_limit_429"
    QUOTA = "quota"
    BILLING = "billing"
    AUTH = "auth"
    TIMEOUT = "timeout"
    LATENCY = "latency"
    MALFORMED = "malformed"
    DRIFT = "drift"
    HTML = "html"
    RESET = "reset"
    ENDLESS = "endless"
    GZIP_BOMB = "gzip_bomb"
    FREEZE = "freeze"  # the market stands still, and so does its time
    SKEW = "skew"  # the price is 10 % too high


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `provider` is a name or `*`; `ratio` the share of calls it hits; `until_ms` None: no end."""

    provider: str
    kind: FaultKind
    ratio: float = 1.0
    latency_ms: int = 0
    wait_s: int = 30
    until_ms: int | None = None
    since_ms: int = 0

    def to_json(self) -> dict[str, object]:
        """As the control endpoint shows it."""
        return {
            "provider": self.provider,
            "kind": self.kind.value,
            "ratio": self.ratio,
            "latency_ms": self.latency_ms,
            "retry_after_s": self.wait_s,
            "until_ms": self.until_ms,
        }


class Faults:
    """The faults that are on; one of each kind for a provider, the newest."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._faults: dict[tuple[str, FaultKind], Fault] = {}

    def add(self, fault: Fault) -> None:
        """Switch a fault on."""
        self._faults[fault.provider, fault.kind] = fault

    def clear(self, provider: str | None = None) -> int:
        """Switch faults off: a provider's, or all; returns how many were on."""
        gone = [key for key in self._faults if provider is None or key[0] == provider]
        for key in gone:
            del self._faults[key]
        return len(gone)

    def active(self, now_ms: int) -> list[Fault]:
        """The faults that are on now; those that have ended are forgotten."""
        ended = [
            key
            for key, fault in self._faults.items()
            if fault.until_ms is not None and fault.until_ms <= now_ms
        ]
        for key in ended:
            del self._faults[key]
        return list(self._faults.values())

    def hits(self, provider: str, now_ms: int) -> dict[FaultKind, Fault]:
        """The faults that hit this call, by kind; the dice are thrown once for each."""
        return {
            fault.kind: fault
            for fault in self.active(now_ms)
            if fault.provider in ("*", provider) and (fault.ratio >= 1.0 or self._rng.random() < fault.ratio)
        }


def parse_fault(body: object, providers: Collection[str], now_ms: int) -> Fault:
    """A fault out of the control endpoint's JSON.

    Raises: ValueError saying what is wrong and what is allowed.
    """
    if not isinstance(body, Mapping):
        raise ValueError('the body must be an object such as {"provider": "kraken", "kind": "status_500"}')
    known = ("provider", "kind", "ratio", "latency_ms", "retry_after_s", "duration_s")
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]} (allowed: {', '.join(known)})")
    provider = body.get("provider", "*")
    if provider != "*" and provider not in providers:
        raise ValueError(f"unknown provider (allowed: *, {', '.join(providers)})")
    kinds = [kind.value for kind in FaultKind]
    if body.get("kind") not in kinds:
        raise ValueError(f"unknown kind (allowed: {', '.join(kinds)})")
    duration_s = _number(body, "duration_s", 0.0, 86_400.0 * 365)
    return Fault(
        provider=str(provider),
        kind=FaultKind(body["kind"]),
        ratio=_number(body, "ratio", 1.0, 1.0),
        latency_ms=int(_number(body, "latency_ms", 0.0, 3_600_000.0)),
        wait_s=int(_number(body, "retry_after_s", 30.0, 86_400.0)),
        until_ms=now_ms + round(duration_s * 1000) if duration_s else None,
        since_ms=now_ms,
    )


def _number(body: Mapping[str, object], name: str, default: float, most: float) -> float:
    value = body.get(name, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a number from 0 to {most:g}")
    return float(value)
