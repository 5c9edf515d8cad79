"""What the client tells about itself: calls, cache, retries, limits, queue, breaker.

`ClientMetrics` counts as things happen. `ClientStateCollector` reads limits, queue and breaker when asked, as
they change with time alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from exporter.client.breaker import BreakerState
from exporter.client.limits import WindowStats
from exporter.errors import ApiErrorKind
from exporter.instruments import ApiMetrics

_WAIT_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
CACHE_RESULTS = ("hit", "miss", "stale", "coalesced")
SUCCESS = "success"
# How a call that was made can fail. Their counters exist before the first failure, so that `increase()` sees
# it and a ratio of failures is 0, not nothing, until then.
FAILURES = (
    ApiErrorKind.NETWORK,
    ApiErrorKind.TIMEOUT,
    ApiErrorKind.HTTP,
    ApiErrorKind.DECODE,
    ApiErrorKind.SCHEMA,
    ApiErrorKind.RATE_LIMITED,
    ApiErrorKind.QUOTA,
    ApiErrorKind.BILLING,
    ApiErrorKind.AUTH,
)


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """State of one provider's limits. `paused_for_s` is infinite where only `resume` ends the pause;
    `stopped` are endpoints that the plan excludes, with the provider's words."""

    provider: str
    windows: tuple[WindowStats, ...]
    queue_length: int
    breaker: BreakerState
    paused_for_s: float
    paused_reason: str
    stopped: Mapping[str, str] = field(default_factory=dict)


class CacheCounters:
    """Bound counters of one provider's cache results."""

    __slots__ = ("coalesced", "hit", "miss", "stale")

    def __init__(self, family: Counter, provider: str) -> None:
        self.hit = family.labels(provider, "hit")
        self.miss = family.labels(provider, "miss")
        self.stale = family.labels(provider, "stale")
        self.coalesced = family.labels(provider, "coalesced")


class ClientMetrics:
    """The families, on a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        # Looking a label set up costs 2 us, twice a call.
        self._bound: dict[tuple[str, str, str, ApiErrorKind | None], tuple[Histogram, Counter]] = {}
        calls = ApiMetrics(registry)
        self.duration, self.requests = calls.duration, calls.requests
        self.cache_requests = Counter(
            "quantum_api_cache_requests",
            "Requests by what the cache gave: hit, miss, stale, or coalesced with a call in flight.",
            ("provider", "result"),
            registry=registry,
        )
        self.cache_entries = Gauge(
            "quantum_api_cache_entries", "Answers and failures in the cache.", registry=registry
        )
        self.retries = Counter(
            "quantum_api_retries",
            "Upstream calls that repeat a failure.",
            ("provider",),
            registry=registry,
        )
        self.hedges = Counter(
            "quantum_api_hedges",
            "Second calls made beside a slow one.",
            ("provider",),
            registry=registry,
        )
        self.wait = Histogram(
            "quantum_rate_limit_wait_seconds",
            "Time a call waited for a slot of its provider's limits.",
            ("provider",),
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self.tokens = Counter(
            "quantum_api_tokens", "Tokens of AI completions.", ("provider", "kind"), registry=registry
        )

    def prepare(self, provider: str, endpoints: Iterable[tuple[str, str]]) -> None:
        """Label sets of a provider at zero: its (path, method) pairs, its cache results, its retries."""
        for endpoint, method in endpoints:
            self.duration.labels(provider, endpoint, method, SUCCESS)
            for outcome in (SUCCESS, *(kind.value for kind in FAILURES)):
                self.requests.labels(provider, endpoint, method, outcome)
        for result in CACHE_RESULTS:
            self.cache_requests.labels(provider, result)
        self.retries.labels(provider)
        self.hedges.labels(provider)
        self.wait.labels(provider)

    def observe(
        self, provider: str, endpoint: str, method: str, kind: ApiErrorKind | None, seconds: float
    ) -> None:
        """One upstream call has ended; `kind` is None where it succeeded."""
        key = (provider, endpoint, method, kind)
        bound = self._bound.get(key)
        if bound is None:
            labels = (provider, endpoint, method, SUCCESS if kind is None else kind.value)
            bound = (self.duration.labels(*labels), self.requests.labels(*labels))
            self._bound[key] = bound
        bound[0].observe(seconds)
        bound[1].inc()


class ClientStateCollector(Collector):
    """Gauges of limits, queues and breakers, computed at each collection."""

    def __init__(self, read: Callable[[], Mapping[str, ProviderStats]]) -> None:
        self._read = read

    def describe(self) -> Sequence[Metric]:
        """The empty families: registering must not read anything."""
        return self._families({})

    def collect(self) -> Sequence[Metric]:
        """The families as they stand now."""
        return self._families(self._read())

    def _families(self, stats: Mapping[str, ProviderStats]) -> Sequence[Metric]:
        window = ("provider", "window")
        limit = GaugeMetricFamily(
            "quantum_rate_limit_limit", "Calls that the limit in force allows in a window.", labels=window
        )
        used = GaugeMetricFamily(
            "quantum_rate_limit_used", "Calls that count against the limit now.", labels=window
        )
        reset = GaugeMetricFamily(
            "quantum_rate_limit_reset_seconds", "Time until the oldest call leaves the window.", labels=window
        )
        exhaustion = GaugeMetricFamily(
            "quantum_rate_limit_exhaustion_seconds",
            "Time until the limit is used up at the last hour's rate; +Inf where that keeps within it.",
            labels=window,
        )
        queue = GaugeMetricFamily(
            "quantum_rate_limit_queue_length", "Calls that wait for a slot.", labels=("provider",)
        )
        paused = GaugeMetricFamily(
            "quantum_api_paused_seconds",
            "Time for which calls are held back at the provider's word; +Inf until someone resumes them.",
            labels=("provider",),
        )
        stopped = GaugeMetricFamily(
            "quantum_api_stopped_endpoints",
            "Endpoints that are called no more because the plan excludes them.",
            labels=("provider",),
        )
        breaker = GaugeMetricFamily(
            "quantum_api_breaker_state",
            "Circuit breaker: 0 closed, 1 half-open, 2 open.",
            labels=("provider",),
        )
        for name, provider in stats.items():
            for entry in provider.windows:
                limit.add_metric((name, entry.window), entry.limit)
                used.add_metric((name, entry.window), entry.used)
                reset.add_metric((name, entry.window), max(0.0, entry.reset_s))
                exhaustion.add_metric((name, entry.window), entry.exhaustion_s)
            queue.add_metric((name,), provider.queue_length)
            paused.add_metric((name,), provider.paused_for_s)
            stopped.add_metric((name,), len(provider.stopped))
            breaker.add_metric((name,), int(provider.breaker))
        return (limit, used, reset, exhaustion, queue, paused, stopped, breaker)
