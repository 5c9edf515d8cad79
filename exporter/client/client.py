"""The upstream client: cache -> single-flight -> retry [ breaker -> slot -> transport ].

A hit or a follower takes no slot of a limit; every attempt takes one. Answers are shared between callers and
must not be changed by them.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from prometheus_client import Counter
from prometheus_client.registry import CollectorRegistry

from exporter.client.batch import Batcher
from exporter.client.cache import Cache, Entry, Freshness
from exporter.client.gate import Gate, Priority
from exporter.client.journal import NoJournal, QuotaJournal, SharedQuota
from exporter.client.limits import ProviderLimits
from exporter.client.metrics import CacheCounters, ClientMetrics, ClientStateCollector, ProviderStats
from exporter.client.retry import RetryPolicy
from exporter.client.singleflight import SingleFlight
from exporter.client.transport import AiohttpTransport, Transport
from exporter.client.upstream import Answer, Call, Upstream
from exporter.clock import Clock, SystemClock
from exporter.config.providers import ProviderConfig
from exporter.errors import ApiError, ApiErrorKind
from exporter.model.events import EventSink
from exporter.providers.results import KeyInfo, Quote, Quotes, Result, TokenUsage
from exporter.providers.spec import CachePolicy, Endpoint

_log = logging.getLogger(__name__)
_MAX_LABELS = 100
_OTHER = "(other)"
_FINAL = frozenset({ApiErrorKind.SCHEMA, ApiErrorKind.HTTP})
Params = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ApiResult:
    """An answer and where it comes from.

    `data` is the decoded JSON, `result` the typed answer where the endpoint has a reader; `age_s` the time
    since it came; `stale` whether it is older than its time; `source` one of upstream, cache, stale.
    """

    data: object
    result: Result | None
    age_s: float
    stale: bool
    source: str


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The cache since the start; stale and coalesced answers count as hits, as no call was made."""

    entries: int
    hits: int
    misses: int
    stale: int
    coalesced: int
    mean_ttl_s: float

    @property
    def hit_ratio(self) -> float:
        """Share of requests that made no upstream call of their own, 0..1; 0 without requests."""
        served = self.hits + self.stale + self.coalesced
        return served / (served + self.misses) if served + self.misses else 0.0


class ApiClient:
    """Calls to declared providers, cached, merged, limited, retried and measured.

    Args: `registry` (or ready `metrics`) takes the metrics; `events` one event for each upstream call;
    `journal` remembers sends over a restart; `shared` is a quota shared with other processes; `rng` makes the
    jitter. Use it as `async with ApiClient(...) as client`, or call `start` and `close`.
    """

    def __init__(
        self,
        providers: Mapping[str, ProviderConfig] | Iterable[ProviderConfig],
        *,
        clock: Clock | None = None,
        registry: CollectorRegistry | None = None,
        metrics: ClientMetrics | None = None,
        events: EventSink | None = None,
        transport: Transport | None = None,
        journal: QuotaJournal | None = None,
        shared: SharedQuota | None = None,
        rng: random.Random | None = None,
        retry: RetryPolicy | None = None,
        max_entries: int = 4096,
        max_queue: int = 1000,
    ) -> None:
        configs = providers.values() if isinstance(providers, Mapping) else providers
        self._clock = clock or SystemClock()
        self._monotonic = self._clock.monotonic
        self.metrics = metrics or ClientMetrics(registry or CollectorRegistry())
        self._transport = transport or AiohttpTransport()
        self._journal = journal or NoJournal()
        self._cache: Cache[Answer] = Cache(max_entries)
        self._flights: SingleFlight[Answer] = SingleFlight()
        self._batchers: dict[tuple[str, str], Batcher[Quote]] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._counters: dict[str, CacheCounters] = {}
        self._totals = [0, 0, 0, 0]  # hit, miss, stale, coalesced
        self._uncounted = CacheCounters(Counter("uncounted", "-", ("provider", "result"), registry=None), "")
        self._labels: dict[str, set[str]] = {}
        self._policy = CachePolicy(0.0, 0.0, 0.0, 0.0)
        for config in configs:
            if not config.enabled:
                continue
            name = config.name
            gate = Gate(
                name,
                ProviderLimits(config.spec.limits),
                self._clock,
                self._journal,
                shared=shared,
                scope=_scope(config),
                max_queue=max_queue,
                observe_wait=self.metrics.wait.labels(name).observe,
            )
            self._upstreams[name] = Upstream(
                config,
                gate,
                self._transport,
                self._clock,
                self.metrics,
                events,
                rng or random.Random(),
                retry or RetryPolicy(),
            )
            endpoints = config.spec.endpoints.values()
            self._counters[name] = CacheCounters(self.metrics.cache_requests, name)
            self._labels[name] = {endpoint.path for endpoint in endpoints}
            self.metrics.prepare(name, ((endpoint.path, endpoint.method) for endpoint in endpoints))
        self._collector = ClientStateCollector(self.rate_limit_stats)
        self.metrics.registry.register(self._collector)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Count the sends of earlier processes.

        Raises: StorageError where the journal cannot be read.
        """
        now_ms, now = self._clock.now_ms(), self._monotonic()
        for name, upstream in self._upstreams.items():
            limits = upstream.gate.limits
            since_ms = now_ms - round(limits.horizon_s * 1000)
            # A send in the future (the clock was set back) counts as made now.
            limits.restore(
                now - max(0.0, (now_ms - at_ms) / 1000) for at_ms in self._journal.load(name, since_ms)
            )

    async def close(self) -> None:
        """Cancel what is in flight; close connections and files. The metrics go from the registry."""
        for batcher in self._batchers.values():
            await batcher.close()
        await self._flights.close()
        for upstream in self._upstreams.values():
            await upstream.close()
        await self._transport.close()
        self._journal.close()
        try:
            self.metrics.registry.unregister(self._collector)
        except KeyError:
            return  # closed twice

    @property
    def providers(self) -> tuple[str, ...]:
        """The enabled providers."""
        return tuple(self._upstreams)

    async def get_json(
        self,
        provider: str,
        path: str,
        *,
        params: Params | None = None,
        ttl: float | None = None,
        stale_s: float = 0.0,
        deadline_s: float = 30.0,
        priority: Priority = Priority.NORMAL,
    ) -> object:
        """The decoded JSON of a GET, at most `ttl` seconds old (None: the declared time of the path, else 0).

        `stale_s`: how much older it may be where the provider fails or its limit says wait. `deadline_s`:
        the longest time until an answer or an error, waiting and retries included.

        Raises: ApiError.
        """
        # The hit comes first and alone: it must cost next to nothing.
        key = (provider, path, _frozen(params))
        entry = self._cache.get(key)
        if entry is not None and entry.value is not None:
            fresh_s = entry.ttl_s if ttl is None else ttl
            if self._monotonic() - entry.stored_at < fresh_s:
                self._totals[0] += 1
                self._counters[provider].hit.inc()
                return entry.value.data
        upstream = self._upstream(provider)
        declared = upstream.unread.get(path)
        if ttl is not None:
            policy = self._policy
            if policy.ttl_s != ttl or policy.stale_s != stale_s:  # nearly always as at the call before
                policy = self._policy = CachePolicy(ttl, 0.0, stale_s, min(ttl, 30.0))
        elif declared is not None:
            # No age is told here, so that nothing older than its time is served unasked.
            policy = CachePolicy(declared.policy.ttl_s, 0.0, stale_s, declared.policy.negative_s)
        else:
            policy = CachePolicy(0.0, 0.0, stale_s)
        label = self._label(provider, path)
        call = Call("GET", path, key[2], label, declared, priority, self._monotonic() + deadline_s)
        return (await self._get(upstream, key, call, policy, policy, stale_s > 0)).data

    async def call(
        self,
        provider: str,
        endpoint: str,
        *,
        params: Params | None = None,
        max_age_s: float | None = None,
        allow_stale: bool = True,
        counted: bool = True,
        deadline_s: float = 30.0,
        priority: Priority = Priority.NORMAL,
    ) -> ApiResult:
        """The typed answer of a declared endpoint, from the cache where its time allows.

        `max_age_s` replaces the endpoint's time. `allow_stale`: an older answer is served while it is
        refreshed, where the provider fails, or where its limit says wait; its age is told. `counted`: False
        for who asks in order to renew, so that the cache's figures tell of those whom it serves.

        Raises: ApiError; KeyError for an endpoint that is not declared.
        """
        upstream = self._upstream(provider)
        spec = upstream.config.spec.endpoints[endpoint]
        merged = _frozen({**spec.params, **(params or {})})
        policy = keep = spec.policy
        if max_age_s is not None:
            negative_s = min(policy.negative_s, max_age_s)
            policy = replace(policy, ttl_s=max_age_s, swr_s=0.0, negative_s=negative_s)
            keep = replace(keep, ttl_s=max(keep.ttl_s, max_age_s))
        if not allow_stale:
            policy = replace(policy, swr_s=0.0)
        key = (provider, endpoint, merged, "")
        deadline = self._monotonic() + deadline_s
        call = Call(spec.method, spec.path, merged, spec.path, spec, priority, deadline)
        looked_up = counted and spec.policy.ttl_s > 0  # what is never kept cannot be missed
        return await self._get(upstream, key, call, policy, keep, allow_stale, counted=looked_up)

    async def first_of(
        self, chain: Sequence[tuple[str, str]], *, max_age_s: float | None = None, deadline_s: float = 30.0
    ) -> tuple[str, ApiResult]:
        """The first (provider, endpoint) of a chain that answers, and which provider it was.

        A fresh answer of a later provider is preferred to a stale one of an earlier.

        Raises: ApiError of the last provider where all fail.
        """
        failed: ApiError | None = None
        for allow_stale in (False, True):
            for provider, endpoint in chain:
                if provider not in self._upstreams:
                    continue
                try:
                    return provider, await self.call(
                        provider,
                        endpoint,
                        max_age_s=max_age_s,
                        allow_stale=allow_stale,
                        deadline_s=deadline_s,
                    )
                except ApiError as error:
                    failed = error
        raise failed or ApiError("no provider of the chain is enabled", ApiErrorKind.AUTH)

    async def quote(self, provider: str, symbol: str, *, endpoint: str = "quotes") -> Quote | None:
        """The quote of one asset; concurrent requests for several assets go out as one call.

        Raises: ApiError; KeyError for an asset or endpoint that is not declared.
        """
        upstream = self._upstream(provider)
        asset_id = upstream.config.spec.assets[symbol]
        spec = upstream.config.spec.endpoints[endpoint]
        batcher = self._batchers.get((provider, endpoint))
        if batcher is None:
            batcher = Batcher(
                self._quotes_of(provider, spec), self._clock, max_ids=spec.batch.max_ids if spec.batch else 1
            )
            self._batchers[provider, endpoint] = batcher
        return await batcher.get(asset_id)

    async def post_json(
        self,
        provider: str,
        path: str,
        json: object,
        *,
        deadline_s: float = 60.0,
        priority: Priority = Priority.NORMAL,
    ) -> ApiResult:
        """A POST, never cached or merged, repeated only where it was refused unread. Counts tokens.

        Raises: ApiError.
        """
        upstream = self._upstream(provider)
        declared = upstream.config.spec.endpoint_for(path)
        label = self._label(provider, path)
        deadline = self._monotonic() + deadline_s
        answer = await upstream.call(Call("POST", path, (), label, declared, priority, deadline, json))
        usage = answer.result
        if isinstance(usage, TokenUsage):
            self.metrics.tokens.labels(provider, "prompt").inc(usage.prompt)
            self.metrics.tokens.labels(provider, "completion").inc(usage.completion)
        return ApiResult(answer.data, answer.result, 0.0, False, "upstream")

    async def learn_limits(self) -> Mapping[str, KeyInfo]:
        """Ask the key-information endpoints and take over what they say; a failure changes nothing."""
        found = {}
        for name, upstream in self._upstreams.items():
            spec = next((e for e in upstream.config.spec.endpoints.values() if e.key_info), None)
            if spec is None or not upstream.config.api_key:
                continue
            try:
                answer = await self.call(name, spec.name, allow_stale=False, priority=Priority.HIGH)
            except ApiError as error:
                _log.info("%s does not tell its limits: %s", name, error)
                continue
            if isinstance(answer.result, KeyInfo):
                upstream.learn(answer.result)
                found[name] = answer.result
        return found

    def invalidate(self, provider: str | None = None, path: str | None = None) -> int:
        """Forget cached answers: all, a provider's, or those of a path or endpoint name; tells how many."""

        def matches(key: Hashable) -> bool:
            return isinstance(key, tuple) and provider in (None, key[0]) and path in (None, key[1])

        count = self._cache.invalidate(matches)
        self.metrics.cache_entries.set(len(self._cache))
        return count

    def resume(self, provider: str) -> None:
        """Call a provider again that was stopped for its bill, plan or key."""
        self._upstream(provider).resume()

    def cache_stats(self) -> CacheStats:
        """Results since the start, and what is held now."""
        self._cache.expire(self._monotonic())
        size = self._cache.size()
        self.metrics.cache_entries.set(size.entries)
        hit, miss, stale, coalesced = self._totals
        return CacheStats(size.entries, hit, miss, stale, coalesced, size.mean_ttl_s)

    def rate_limit_stats(self) -> Mapping[str, ProviderStats]:
        """Limits, queue and breaker of every enabled provider."""
        return {name: upstream.stats() for name, upstream in self._upstreams.items()}

    def min_interval_s(self, provider: str) -> float:
        """The least time between two calls that the provider's paced quota leaves; 0 without one."""
        return self._upstream(provider).gate.limits.gap_s

    async def _get(
        self,
        upstream: Upstream,
        key: Hashable,
        call: Call,
        policy: CachePolicy,
        keep: CachePolicy,
        allow_stale: bool,
        *,
        counted: bool = True,
    ) -> ApiResult:
        now = self._monotonic()
        counters, totals = self._counters[upstream.config.name], self._totals
        if not counted:
            counters, totals = self._uncounted, [0, 0, 0, 0]
        entry = self._cache.get(key)
        freshness = Freshness.EXPIRED if entry is None else entry.freshness(policy, now)
        if entry is not None and freshness is Freshness.FRESH:
            totals[0] += 1
            counters.hit.inc()
            if entry.error is not None:
                raise entry.error.with_traceback(None)
            return _from(entry, now, stale=False)
        if entry is not None and freshness is Freshness.REVALIDATE:
            totals[2] += 1
            counters.stale.inc()
            self._flights.start(
                key, self._fetcher(upstream, key, call._replace(priority=Priority.LOW), policy)
            )
            return _from(entry, now, stale=True)
        follows = key in self._flights
        if follows:
            totals[3] += 1
            counters.coalesced.inc()
        else:
            totals[1] += 1
            counters.miss.inc()
        try:
            answer = await self._fly(upstream, key, call, keep, follows)
        except ApiError:
            if allow_stale and entry is not None and freshness is Freshness.STALE:
                totals[2] += 1
                counters.stale.inc()
                return _from(entry, self._monotonic(), stale=True)
            raise
        return ApiResult(answer.data, answer.result, 0.0, False, "upstream")

    async def _fly(
        self, upstream: Upstream, key: Hashable, call: Call, policy: CachePolicy, follows: bool
    ) -> Answer:
        """Share a call in flight; one that gave up before our own deadline is started anew."""
        while True:
            try:
                return await self._flights.run(
                    key,
                    self._fetcher(upstream, key, call, policy),
                    deadline=call.deadline,
                    timer=lambda: self._clock.sleep(call.deadline - self._monotonic()),
                )
            except TimeoutError:
                raise ApiError(
                    f"{call.label}: no answer before the deadline",
                    ApiErrorKind.DEADLINE,
                    provider=upstream.config.name,
                ) from None
            except ApiError as error:
                early = error.kind is ApiErrorKind.DEADLINE
                if not (follows and early and self._monotonic() < call.deadline):
                    raise error.with_traceback(None) from None
                follows = key in self._flights

    def _fetcher(
        self, upstream: Upstream, key: Hashable, call: Call, policy: CachePolicy
    ) -> Callable[[], Awaitable[Answer]]:
        async def fetch() -> Answer:
            try:
                answer = await upstream.call(call)
            except ApiError as error:
                if error.kind in _FINAL and error.retry_after_s is None:
                    self._cache.put_error(key, error, policy, self._monotonic())
                raise
            if self._cache.put(key, answer, policy, self._monotonic()) is not None:
                self.metrics.cache_entries.set(len(self._cache))
            return answer

        return fetch

    def _quotes_of(
        self, provider: str, spec: Endpoint
    ) -> Callable[[Sequence[str]], Awaitable[Mapping[str, Quote]]]:
        async def fetch(ids: Sequence[str]) -> Mapping[str, Quote]:
            params = {spec.batch.param: ",".join(sorted(ids))} if spec.batch is not None else {}
            answer = await self.call(provider, spec.name, params=params)
            return answer.result.by_id if isinstance(answer.result, Quotes) else {}

        return fetch

    def _upstream(self, provider: str) -> Upstream:
        upstream = self._upstreams.get(provider)
        if upstream is None:
            raise ApiError(
                f"{provider}: not an enabled provider ({', '.join(self._upstreams) or 'none is'})",
                ApiErrorKind.AUTH,
                provider=provider,
            )
        return upstream

    def _label(self, provider: str, path: str) -> str:
        """The path as label; beyond a hundred paths of one provider they share one label."""
        known = self._labels[provider]
        if path in known:
            return path
        if len(known) >= _MAX_LABELS:
            return _OTHER
        known.add(path)
        return path


def _scope(config: ProviderConfig) -> str:
    """Who shares a limit: the users of one key, or of one address where there is no key."""
    if not config.api_key:
        return config.name
    return f"{config.name}:{hashlib.blake2b(config.api_key.encode(), digest_size=8).hexdigest()}"


def _frozen(params: Params | None) -> tuple[tuple[str, str], ...]:
    """Parameters in one order, as text: equal requests have equal keys."""
    if not params:
        return ()
    return tuple(
        sorted([(name, value if type(value) is str else _text(value)) for name, value in params.items()])
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(_text(item) for item in value)
    return str(value)


def _from(entry: Entry[Answer], now: float, *, stale: bool) -> ApiResult:
    answer = entry.value
    if answer is None:
        raise AssertionError("a failure has no answer")
    return ApiResult(answer.data, answer.result, now - entry.stored_at, stale, "stale" if stale else "cache")
