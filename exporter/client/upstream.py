"""Calls to one provider: retry [ breaker -> slot -> transport ], each attempt measured.

An attempt ends as an `Answer` or as a `Failure`; what follows from a failure (pause, stop, retry) is decided
here from its fields, never from its text. Keys are taken out of every message.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from aiolimiter import AsyncLimiter

from exporter.client.breaker import Breaker, counts_as_failure
from exporter.client.gate import Gate, Lease, Pause, Priority
from exporter.client.hedge import Hedger, Latencies
from exporter.client.metrics import ClientMetrics, ProviderStats
from exporter.client.retry import RetryBudget, RetryPolicy
from exporter.client.smoothing import smoother
from exporter.client.transport import HttpAnswer, HttpRequest, Transport, TransportError
from exporter.clock import Clock
from exporter.config.providers import ProviderConfig
from exporter.errors import ApiError, ApiErrorKind
from exporter.model.events import EventSink, MetricEvent
from exporter.providers.failures import Failure, RawAnswer, Scope
from exporter.providers.paths import SchemaError
from exporter.providers.resets import next_reset_ms
from exporter.providers.results import KeyInfo, Result
from exporter.providers.spec import Endpoint, LimitHeaders

_log = logging.getLogger(__name__)
_MAX_HOPS = 3
_MIN_PAUSE_S = 1.0
_BIG_BODY_BYTES = 256 * 1024
_REASONS = {ApiErrorKind.AUTH, ApiErrorKind.BILLING, ApiErrorKind.QUOTA}


class Call(NamedTuple):  # these two cost a third of what a dataclass does, and are made at every call
    """One request to a provider. `endpoint` is None for an undeclared path; `label` is its metric label."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...]
    label: str
    endpoint: Endpoint | None
    priority: Priority
    deadline: float
    json: object = None


class Answer(NamedTuple):
    """What came: decoded JSON, and the typed result where the endpoint has a reader."""

    data: object
    result: Result | None


_Outcome = tuple[Answer | Failure, int | None]


class Upstream:
    """One provider with its limits, breaker and budget."""

    def __init__(
        self,
        config: ProviderConfig,
        gate: Gate,
        transport: Transport,
        clock: Clock,
        metrics: ClientMetrics,
        events: EventSink | None,
        rng: random.Random,
        retry: RetryPolicy,
    ) -> None:
        self.config = config
        self.gate = gate
        self.breaker = Breaker()
        self._name = config.name
        self._spec = config.spec
        self._transport = transport
        self._clock = clock
        self._monotonic = clock.monotonic
        self._metrics = metrics
        self._events = events
        self._rng = rng
        self._retry = retry
        self._budget = RetryBudget()
        self._smoother: AsyncLimiter | None = smoother(config.smoothing, config.spec.limits)
        # Endpoints by path without their readers: with other parameters an answer may have another shape.
        self.unread = {
            endpoint.path: replace(endpoint, read=None) for endpoint in config.spec.endpoints.values()
        }
        self._hedges = config.hedge is not None or any(e.hedge for e in config.spec.endpoints.values())
        self._hedger: Hedger[_Outcome] = Hedger(clock, self._may_hedge)
        self._latencies: dict[str, Latencies] = {}  # by label: of a bounded number
        self._stopped: dict[str, Failure] = {}  # endpoint label -> why it is called no more
        self._headers: Mapping[str, str] = {}
        if config.api_key and config.spec.auth.header:
            self._headers = {config.spec.auth.header: config.spec.auth.prefix + config.api_key}

    async def call(self, call: Call) -> Answer:
        """The answer of the provider, after retries where they may help.

        Raises: ApiError; its kind says why.
        """
        self._budget.call()
        last: Failure | None = None
        attempt = 0
        while True:
            attempt += 1
            try:
                outcome = await self._attempt(call, attempt)
            except ApiError:
                if last is None:
                    raise
                # No slot for a retry: what failed is the reason, not the slot.
                raise self._error(call, last) from None
            if isinstance(outcome, Answer):
                return outcome
            if last is not None and outcome.kind is ApiErrorKind.BREAKER_OPEN:
                raise self._error(call, last)  # its own failures opened the breaker: tell those
            last = outcome
            delay_s = self._delay_s(call, outcome, attempt)
            if delay_s is None:
                raise self._error(call, outcome)
            await self._clock.sleep(delay_s)
            self._metrics.retries.labels(self._name).inc()

    async def close(self) -> None:
        """End what still runs."""
        await self._hedger.close()
        await self.gate.close()

    def resume(self) -> None:
        """Call again after a stop or a pause: the bill is paid, the key replaced."""
        self._stopped.clear()
        self.gate.resume()

    def stats(self) -> ProviderStats:
        """Limits, queue, pause and breaker as they stand."""
        now = self._monotonic()
        pause = self.gate.pause
        return ProviderStats(
            provider=self._name,
            windows=self.gate.limits.stats(now),
            queue_length=self.gate.queue_length,
            breaker=self.breaker.state(now),
            paused_for_s=max(0.0, pause.until - now) if pause is not None else 0.0,
            paused_reason=pause.reason if pause is not None and pause.until > now else "",
            stopped={label: failure.message for label, failure in self._stopped.items()},
        )

    def learn(self, info: KeyInfo) -> None:
        """Take over what the key-information endpoint says."""
        now = self._monotonic()
        for limit in info.limits:
            self.gate.limits.tell(limit.window, limit=limit.limit, used=limit.used, now=now)

    def _delay_s(self, call: Call, failure: Failure, attempt: int) -> float | None:
        delay_s = self._retry.delay_s(failure, attempt, self._rng, idempotent=call.method == "GET")
        if delay_s is None or self._monotonic() + delay_s >= call.deadline:
            return None
        return delay_s if self._budget.take() else None

    async def _attempt(self, call: Call, attempt: int) -> Answer | Failure:
        stopped = self._stopped.get(call.label)
        if stopped is not None:
            return stopped
        permit = self.breaker.allow(self._monotonic())
        if permit is None:
            wait_s = self.breaker.wait_s(self._monotonic())
            return Failure(
                ApiErrorKind.BREAKER_OPEN, "calls are held back after failures in a row", wait_s=wait_s
            )
        told = False
        try:
            delay_s = self._hedge_delay_s(call) if self._hedges else None
            if delay_s is None:
                outcome, status = await self._exchange(call, attempt)
            else:
                outcome, status = await self._hedged(call, attempt, delay_s)
            told = True
        finally:
            if not told:
                self.breaker.nothing(permit)
        if isinstance(outcome, Answer):
            self.breaker.success(permit)
        elif counts_as_failure(outcome.kind, status):
            self.breaker.failure(permit, self._monotonic())
        elif status is not None:
            self.breaker.success(permit)  # it answers, even if not what we want
        else:
            self.breaker.nothing(permit)
        if isinstance(outcome, Failure):
            self._follow(call, outcome)
        return outcome

    def _hedge_delay_s(self, call: Call) -> float | None:
        """When a second call goes out beside this one; None for never."""
        hedge = call.endpoint.hedge if call.endpoint is not None else None
        hedge = hedge or self.config.hedge
        if hedge is None or call.method != "GET":
            return None
        if hedge.after_s is not None:
            return hedge.after_s
        latencies = self._latencies.get(call.label)
        return None if latencies is None else latencies.p99()

    async def _hedged(self, call: Call, attempt: int, delay_s: float) -> _Outcome:
        return await self._hedger.run(
            lambda sent: self._exchange(call, attempt, sent),
            delay_s,
            lambda outcome: isinstance(outcome[0], Answer),
        )

    def _may_hedge(self) -> bool:
        """A second call takes a slot that nobody waits for, and counts as a retry in the budget."""
        if not self.gate.is_free() or not self._budget.take():
            return False
        self._metrics.hedges.labels(self._name).inc()
        return True

    async def _exchange(self, call: Call, attempt: int, sent: Callable[[], None] | None = None) -> _Outcome:
        """One attempt: a call on the wire, and one more for each redirect within the host."""
        url = self._url(call)
        params = call.params
        for _ in range(_MAX_HOPS):
            if self._smoother is not None:
                await self._smoother.acquire()
            wire = _Slot(self.gate, call.priority, call.deadline, sent)
            if not wire.take_now():
                await wire.take()
            started = self._monotonic()
            outcome: Answer | Failure
            status: int | None = None
            try:
                raw = await self._transport.send(self._request(call, url, params), wire)
                status = raw.status
                target = _redirect(url, raw)
                if target is not None:
                    outcome = Failure(ApiErrorKind.HTTP, f"HTTP {status}: redirected to another host")
                    if _origin(target) == _origin(url):
                        outcome = Failure(ApiErrorKind.HTTP, f"HTTP {status}: redirected too often")
                else:
                    outcome = await self._judge(call, raw)
            except TransportError as error:
                outcome = Failure(error.kind, str(error), error.retryable)
            finally:
                wire.end()
            if isinstance(outcome, Failure):
                outcome = replace(outcome, message=self._redacted(outcome.message))
            self._measure(call, attempt, outcome, status, self._monotonic() - started)
            if status is None or target is None or _origin(target) != _origin(url) or call.method != "GET":
                break
            url, params = target, ()
        return outcome, status

    async def _judge(self, call: Call, raw: HttpAnswer) -> Answer | Failure:
        """Decode, classify, read; obey the limit headers."""
        data: object = None
        broken = ""
        try:
            if len(raw.body) > _BIG_BODY_BYTES:
                data = await asyncio.to_thread(json.loads, raw.body)
            elif raw.body:
                data = json.loads(_decoded(raw.body))
        except RecursionError:
            broken = "nested too deeply"
        except ValueError:
            broken = "an HTML page" if raw.body.lstrip()[:1] == b"<" else "not JSON"
        text = "" if data is not None else raw.body[:400].decode("utf-8", "replace")
        answer = RawAnswer(raw.status, raw.headers, data, text, self._clock.now_ms() / 1000)
        self._obey_headers(raw.headers, answer.now_s)
        failure = self._spec.classify(answer)
        if failure is not None:
            return failure
        if broken or not raw.body:
            what = broken or "empty"
            return Failure(ApiErrorKind.DECODE, f"the answer is {what}", retryable=True)
        if call.endpoint is None or call.endpoint.read is None:
            return Answer(data, None)
        try:
            return Answer(data, call.endpoint.read(data, dict(call.params)))
        except SchemaError as error:
            return Failure(ApiErrorKind.SCHEMA, str(error))

    def _follow(self, call: Call, failure: Failure) -> None:
        """What a failure means for the calls after it."""
        if failure.kind is ApiErrorKind.BREAKER_OPEN or failure.scope is Scope.CALL:
            return
        if failure.scope is Scope.ENDPOINT:
            if call.label not in self._stopped:
                self._stopped[call.label] = failure
                _log.warning("%s %s is stopped: %s", self._name, call.label, failure.message)
            return
        now = self._monotonic()
        if failure.stops:
            until = math.inf
        else:
            until = now + max(failure.wait_s if failure.wait_s is not None else _MIN_PAUSE_S, _MIN_PAUSE_S)
            if failure.reset is not None and failure.wait_s is None:
                now_ms = self._clock.now_ms()
                until = now + (next_reset_ms(failure.reset, now_ms) - now_ms) / 1000 + _MIN_PAUSE_S
        held = self.gate.pause
        if failure.kind in _REASONS and (held is None or held.kind is not failure.kind or held.until <= now):
            end = "until someone resumes it" if until == math.inf else f"for {until - now:.0f} s"
            _log.warning("%s is paused %s: %s", self._name, end, failure.message)
        self.gate.pause_until(Pause(until, failure.kind, failure.message))

    def _obey_headers(self, headers: Mapping[str, str], now_s: float) -> None:
        """Lower a limit, count other users of the key, and wait for a reset that the headers tell."""
        declared = self._spec.headers
        rules = declared or _COMMON_HEADERS
        if rules.limit not in headers and rules.remaining not in headers:
            return
        limit, left = _whole(headers.get(rules.limit, "")), _whole(headers.get(rules.remaining, ""))
        now = self._monotonic()
        if declared is not None:
            used = None if limit is None or left is None else max(0, limit - left)
            self.gate.limits.tell(rules.window, limit=limit, used=used, now=now)
        if left == 0 and rules.reset and rules.reset_waits:
            reset_s = _whole(headers.get(rules.reset, ""))
            if reset_s is not None:
                wait_s = reset_s - now_s if reset_s > 1_000_000_000 else reset_s
                if 0 < wait_s <= 3600:
                    self.gate.pause_until(
                        Pause(
                            now + wait_s,
                            ApiErrorKind.RATE_LIMITED,
                            "the provider's headers say that no call is left",
                        )
                    )

    def _request(self, call: Call, url: str, params: tuple[tuple[str, str], ...]) -> HttpRequest:
        left_s = call.deadline - self._monotonic()
        timeout_s = max(0.001, min(self.config.timeout_ms / 1000, left_s))
        return HttpRequest(call.method, url, params, self._headers, timeout_s, call.json)

    def _url(self, call: Call) -> str:
        base = call.endpoint.base_url if call.endpoint is not None else ""
        return (base or self._spec.base_url) + call.path

    def _measure(
        self, call: Call, attempt: int, outcome: Answer | Failure, status: int | None, seconds: float
    ) -> None:
        kind = outcome.kind if isinstance(outcome, Failure) else None
        self._metrics.observe(self._name, call.label, call.method, kind, seconds)
        if self._hedges and kind is None:
            self._latencies.setdefault(call.label, Latencies()).add(seconds)
        if self._events is not None:
            context = {
                "provider": self._name,
                "endpoint": call.label,
                "method": call.method,
                "status": status,
                "success": kind is None,
                "attempts": attempt,
                "cache": "miss",
                "error": f"{outcome.kind.value}: {outcome.message}" if isinstance(outcome, Failure) else None,
            }
            self._events.put(
                MetricEvent("api_response", call.label, seconds * 1000.0, "ms", self._clock.now_ms(), context)
            )

    def _error(self, call: Call, failure: Failure) -> ApiError:
        kind, reason = failure.kind, failure.message
        if kind is ApiErrorKind.TIMEOUT and self._monotonic() >= call.deadline:
            kind, reason = ApiErrorKind.DEADLINE, "no answer before the deadline"
        message = f"{self._name} {call.label}: {reason}"
        return ApiError(message, kind, provider=self._name, retry_after_s=failure.wait_s)

    def _redacted(self, message: str) -> str:
        key = self.config.api_key
        return message.replace(key, "<key>") if len(key) >= 4 else message


_COMMON_HEADERS = LimitHeaders("", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


class _Slot:
    """The slot of one request on the wire, and a further one for each repeat that aiohttp makes by itself."""

    __slots__ = ("_deadline", "_gate", "_lease", "_out", "_priority")

    def __init__(
        self, gate: Gate, priority: Priority, deadline: float, out: Callable[[], None] | None = None
    ) -> None:
        self._gate = gate
        self._out = out
        self._priority = priority
        self._deadline = deadline
        self._lease: Lease | None = None

    def take_now(self) -> bool:
        self._lease = self._gate.acquire_now(self._priority)
        return self._lease is not None

    async def take(self) -> None:
        self._lease = await self._gate.acquire(self._priority, self._deadline)

    async def sent(self) -> None:
        if self._lease is None:
            await self.take()
        lease = self._lease
        if lease is not None:
            if lease.shared is not None:
                await self._gate.renew(lease, self._priority, self._deadline)
            self._lease = None
            lease.sent()
            if self._out is not None:
                self._out()

    def end(self) -> None:
        """A slot whose request never went out is given back."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def _redirect(url: str, raw: HttpAnswer) -> str | None:
    """Where a redirect leads; None where the answer is none."""
    if not 300 <= raw.status < 400:
        return None
    location = raw.headers.get("location", "")
    return urljoin(url, location) if location else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _decoded(body: bytes) -> str | bytes:
    """UTF-8 text, as nearly all answers are; what is not, `json` finds out by its first bytes."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def _whole(given: str) -> int | None:
    text = given.strip().partition(",")[0].partition(";")[0]
    return int(text) if text.isdigit() and len(text) < 15 else None
