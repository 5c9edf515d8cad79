"""What a provider may send instead of an answer, over real HTTP: bounded, classified, counted."""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from exporter.client import ApiClient
from exporter.client.retry import RetryPolicy
from exporter.config.providers import default_providers, simulated
from exporter.errors import ApiError
from exporter.model.events import MetricEvent
from exporter.simulate.faults import Fault, FaultKind
from exporter.simulate.providers import ProviderSimulator
from tests.client.doubles import config
from tests.helpers.certificates import needs_openssl, self_signed

KEY = "k-very-secret-0123456789"
_LABELS = {"provider": "coinmarketcap", "endpoint": "/v3/cryptocurrency/quotes/latest", "method": "GET"}


class Events:
    """An event sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[MetricEvent] = []

    def put(self, event: MetricEvent) -> None:
        self.events.append(event)


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (FaultKind.MALFORMED, "decode"),
        (FaultKind.HTML, "http"),
        (FaultKind.GZIP_BOMB, "decode"),
        (FaultKind.ENDLESS, "decode"),
        (FaultKind.TIMEOUT, "timeout"),
        (FaultKind.RESET, "network"),
        (FaultKind.DRIFT, "schema"),
        (FaultKind.STATUS_500, "http"),
        (FaultKind.RATE_LIMIT_429, "rate_limited"),
        (FaultKind.QUOTA, "quota"),
        (FaultKind.BILLING, "billing"),
        (FaultKind.AUTH, "auth"),
    ],
)
async def test_each_fault_is_one_classified_call(
    kind: FaultKind, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error has its kind, the call is counted once, one event tells it, and nothing shows the key."""
    simulator = ProviderSimulator()
    known = simulated(default_providers(), await simulator.start())["coinmarketcap"]
    known = replace(known, api_key=KEY, timeout_ms=300 if kind is FaultKind.TIMEOUT else 15_000)
    simulator.faults.add(Fault("coinmarketcap", kind))
    registry, events = CollectorRegistry(), Events()
    with caplog.at_level(logging.DEBUG):
        async with ApiClient(
            [known], registry=registry, events=events, retry=RetryPolicy(attempts=1)
        ) as client:
            with pytest.raises(ApiError) as caught:
                await client.call("coinmarketcap", "quotes")
            stats = repr(client.rate_limit_stats())
            metrics = repr(list(registry.collect()))
    await simulator.stop()
    assert caught.value.kind.value == outcome
    assert registry.get_sample_value("quantum_api_requests_total", {**_LABELS, "outcome": outcome}) == 1
    assert len(events.events) == 1
    shown = [
        str(caught.value),
        repr(caught.value),
        caplog.text,
        repr(events.events),
        stats,
        metrics,
        repr(known),
    ]
    assert not any(KEY in text for text in shown)


@needs_openssl
async def test_a_certificate_that_nobody_signed_is_refused_before_the_key_is_sent(tmp_path: Path) -> None:
    """Kind network, not retried, no request read by the server."""
    cert, key = await self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    requests = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response()

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    base = config(api_key=KEY)
    url = f"https://localhost:{runner.addresses[0][1]}"
    registry = CollectorRegistry()
    async with ApiClient([replace(base, spec=replace(base.spec, base_url=url))], registry=registry) as client:
        with pytest.raises(ApiError, match=r"TLS: certificate refused") as caught:
            await client.get_json("test", "/x")
    await runner.cleanup()
    assert caught.value.kind.value == "network"
    assert requests == []
    labels = {"provider": "test", "endpoint": "/x", "method": "GET", "outcome": "network"}
    assert registry.get_sample_value("quantum_api_requests_total", labels) == 1
    assert KEY not in str(caught.value)
