"""What a provider is: limits, auth, cache times and endpoints as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from exporter.providers.failures import Failure, RawAnswer, classify_status
from exporter.providers.results import Result

WINDOWS_S: Mapping[str, float] = MappingProxyType(
    {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "month": 31 * 86_400.0}
)
"""Length of each window in seconds; a month is the longest one, so that the limit holds in all of them."""

Reader = Callable[[object, Mapping[str, str]], Result]
"""Decoded JSON and the parameters that were sent -> typed result; raises SchemaError."""
Classifier = Callable[[RawAnswer], Failure | None]


class DataKind(Enum):
    """What an endpoint tells; decides how long an answer is kept."""

    MARKET = "market"
    ONCHAIN = "onchain"
    WHALE = "whale"
    SENTIMENT = "sentiment"
    INDICATOR = "indicator"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Times in seconds: fresh, then served while it is refreshed, then served only when a refresh fails.

    `swr_s` and `stale_s` both count from the end of `ttl_s`. `negative_s` is how long a failure that a
    second try cannot change is remembered.
    """

    ttl_s: float
    swr_s: float = 0.0
    stale_s: float = 0.0
    negative_s: float = 0.0


POLICIES: Mapping[DataKind, CachePolicy] = MappingProxyType(
    {
        DataKind.MARKET: CachePolicy(30.0, swr_s=30.0, stale_s=300.0, negative_s=30.0),
        DataKind.ONCHAIN: CachePolicy(60.0, swr_s=60.0, stale_s=1800.0, negative_s=60.0),
        DataKind.WHALE: CachePolicy(120.0, swr_s=120.0, stale_s=1800.0, negative_s=60.0),
        DataKind.SENTIMENT: CachePolicy(300.0, swr_s=300.0, stale_s=86_400.0, negative_s=300.0),
        DataKind.INDICATOR: CachePolicy(60.0, swr_s=60.0, stale_s=600.0, negative_s=60.0),
        DataKind.NONE: CachePolicy(0.0),
    }
)


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """At most so many calls in any window of that length.

    `ceiling` is never exceeded; `safe` is assumed until better is known. With `plan` the provider's own key
    information or the configuration replaces `safe`; without it `safe` is a ceiling too. `paced` spreads the
    calls over the window. None means: this source says nothing.
    """

    window: str
    ceiling: int | None
    safe: int | None = None
    plan: bool = False
    configured: int | None = None
    keyed_only: bool = False

    @property
    def period_s(self) -> float:
        """Length of the window in seconds."""
        return WINDOWS_S[self.window]

    @property
    def paced(self) -> bool:
        """Whether calls are spread over the window: a day's or a month's quota."""
        return self.period_s >= WINDOWS_S["day"]

    def in_force(self, told: int | None = None) -> int | None:
        """The lowest limit that any source names; `told` is what the provider itself has said last."""
        known = [value for value in (self.ceiling, self.configured, told) if value is not None]
        replaced = self.plan and (told is not None or self.configured is not None)
        if self.safe is not None and not replaced:
            known.append(self.safe)
        return min(known) if known else None


@dataclass(frozen=True, slots=True)
class LimitHeaders:
    """Response headers (lower case) that tell a limit, and of which window; empty names are not read.

    `reset_waits` says whether the reset is a time to wait for (OpenAI's is the time to a full refill).
    """

    window: str
    limit: str = ""
    remaining: str = ""
    reset: str = ""
    reset_waits: bool = True


@dataclass(frozen=True, slots=True)
class AuthSpec:
    """Where the key goes: a header and what stands before the key; `env` names the usual variable."""

    header: str = ""
    prefix: str = ""
    required: bool = False
    env: str = ""


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """The parameter that takes several ids, separated by commas, and how many at most."""

    param: str
    max_ids: int


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One declared value: where it stands in the answer and the gauge that shows it."""

    metric: str
    path: str
    help: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class HedgeSpec:
    """When a second call is made beside a slow one: after that long, or (None) after the 99th percentile."""

    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call that a provider offers. `path` is the `endpoint` label; `read` gives the typed result."""

    name: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    base_url: str = ""
    method: str = "GET"
    kind: DataKind = DataKind.NONE
    policy: CachePolicy = CachePolicy(0.0)
    poll: bool = False
    key_info: bool = False
    needs_key: bool = False
    hedge: HedgeSpec | None = None
    batch: BatchSpec | None = None
    metrics: tuple[MetricSpec, ...] = ()
    read: Reader | None = None


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """Another door of the same provider for keys of a plan."""

    base_url: str
    auth_header: str


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One upstream API. `interval_s` is the least time between two polls of one endpoint."""

    name: str
    base_url: str
    auth: AuthSpec = AuthSpec()
    limits: tuple[LimitSpec, ...] = ()
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    assets: Mapping[str, str] = field(default_factory=dict)
    headers: LimitHeaders | None = None
    plans: Mapping[str, PlanSpec] = field(default_factory=dict)
    interval_s: float = 30.0
    timeout_s: float = 15.0
    classify: Classifier = classify_status

    def endpoint_for(self, path: str) -> Endpoint | None:
        """The declared endpoint of a path, if any."""
        return next((endpoint for endpoint in self.endpoints.values() if endpoint.path == path), None)
