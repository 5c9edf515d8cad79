"""A strict provider behind the transport port, and the configurations that tests need."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from exporter.client.transport import HttpAnswer, HttpRequest, Wire
from exporter.config.providers import ProviderConfig
from exporter.providers.declare import read_declaration
from exporter.providers.spec import WINDOWS_S, Classifier
from tests.helpers.clock import FakeClock

Reply = Callable[[HttpRequest], HttpAnswer]


def answer(body: object = None, status: int = 200, **headers: str) -> HttpAnswer:
    """An answer with a JSON body; header names have dashes for underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status, named, json.dumps({"ok": True} if body is None else body).encode())


class StrictTransport:
    """Counts arrivals in every window after a random delay, and refuses one too many with 429.

    `replies` are used up first; then every call gets `{"ok": true}`. A reply may be an exception to raise.
    """

    def __init__(
        self,
        clock: FakeClock,
        limits: Mapping[str, int] | None = None,
        *,
        delay_s: float = 0.0,
        seed: int = 1,
        replies: list[HttpAnswer | Exception | Reply] | None = None,
    ) -> None:
        self._clock = clock
        self._rng = random.Random(seed)
        self._delay_s = delay_s
        self._windows = [(limit, WINDOWS_S[name], deque[float]()) for name, limit in (limits or {}).items()]
        self.replies = replies if replies is not None else []
        self.requests: list[HttpRequest] = []
        self.arrivals: list[float] = []
        self.refused = 0

    async def send(self, request: HttpRequest, wire: Wire) -> HttpAnswer:
        await wire.sent()
        self.requests.append(request)
        # No network answers within the same round of the event loop.
        await self._clock.sleep(self._rng.uniform(0.0, self._delay_s) if self._delay_s else 0.0)
        now = self._clock.monotonic()
        self.arrivals.append(now)
        for limit, period_s, log in self._windows:
            while log and log[0] <= now - period_s:
                log.popleft()
            if len(log) >= limit:
                self.refused += 1
                return answer({"error": "too many"}, 429, retry_after="1")
        for _, _, log in self._windows:
            log.append(now)
        if self.replies:
            reply = self.replies.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply if isinstance(reply, HttpAnswer) else reply(request)
        return answer()

    async def close(self) -> None:
        return


DECLARATION = """
base_url: http://api.test
auth: {header: x-key, env: TEST_KEY}
endpoints:
  thing:
    path: /thing
    data: market
    poll: true
    metrics: [{metric: quantum_thing, path: value, help: A thing.}]
  other: {path: /other, data: market}
  key: {path: /key, key_info: true}
"""


def config(limits: str = "{}", *, api_key: str = "", classify: Classifier | None = None) -> ProviderConfig:
    """A provider `test` with these limits (YAML)."""
    spec = read_declaration("test", DECLARATION + f"limits: {limits}\n")
    if classify is not None:
        spec = replace(spec, classify=classify)
    return ProviderConfig(spec=spec, api_key=api_key)
