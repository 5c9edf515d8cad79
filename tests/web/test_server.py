"""The server around the API: health, readiness, reload, the platform's endpoints, who may do what."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import bcrypt
import pytest

from exporter.clock import SystemClock
from exporter.errors import ConfigError, InputError, NotFoundError, StorageError
from exporter.web.auth import WebConfig
from exporter.web.negotiate import Wanted
from exporter.web.ports import Deps
from exporter.web.server import Server, create_app

ABSENT = cast(Any, None)


@dataclass
class Alerts:
    """An alert service that remembers what it was asked."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def acknowledge(self, alert_id: str, by: str, notes: str = "") -> Mapping[str, Any]:
        if alert_id == "none":
            raise NotFoundError("no alert none is firing")
        self.asked.append(("ack", alert_id, by, notes))
        return {"id": alert_id}

    async def find(self, **wanted: Any) -> Sequence[Mapping[str, Any]]:
        if wanted["alertname"] == "Away":
            raise StorageError("the database is away")
        self.asked.append(("find", wanted))
        return [{"alertname": "A"}]

    def silences(self, matchers: Sequence[Any] = ()) -> Sequence[Mapping[str, Any]]:
        return [{"id": "1", "matchers": [str(matcher) for matcher in matchers]}]


@dataclass
class World:
    missing: str = ""
    secret: str = "s3cret"
    reloads: int = 0
    refuse: str = ""
    wanted: Wanted | None = None
    alerts: Alerts = field(default_factory=Alerts)

    async def reload(self) -> None:
        if self.refuse:
            raise ConfigError(self.refuse)
        self.reloads += 1

    async def dashboard(self) -> Mapping[str, Any]:
        return {"systemHealth": {"status": "HEALTHY"}}

    async def run_checks(self) -> Mapping[str, Any]:
        return {"success": True}

    async def render(self, accept: str, encoding: str, wanted: Wanted) -> tuple[bytes, Mapping[str, str]]:
        self.wanted = wanted
        if "x" in wanted.collect:
            raise InputError('missing collector: "x"')
        return b"up 1\n", {"Content-Type": "text/plain; version=0.0.4"}

    def deps(self) -> Deps:
        return Deps(
            clock=SystemClock(),
            queries=ABSENT,
            rules=ABSENT,
            exposition=self,
            status=ABSENT,
            alerts=lambda: cast(Any, self.alerts),
            ready=lambda: self.missing,
            reload=self.reload,
            dashboard=self.dashboard,
            run_checks=self.run_checks,
            cron_secret=lambda: self.secret,
            cache_stats=lambda: {"hitRate": 75.0},
            rate_limits=lambda: {"kraken": {}},
        )


@asynccontextmanager
async def serving(
    world: World, config: WebConfig | None = None, *, loopback: bool = True
) -> AsyncIterator[aiohttp.ClientSession]:
    config = config or WebConfig()
    server = Server(create_app(world.deps(), config, loopback=loopback), "127.0.0.1", 0, config)
    base = await server.start()
    try:
        async with aiohttp.ClientSession(base) as session:
            yield session
    finally:
        await server.stop()


async def test_readiness_says_what_is_missing() -> None:
    """Healthy from the start; ready when nothing is missing any more."""
    world = World(missing="the migrations are being applied")
    async with serving(world) as session:
        assert (await session.get("/-/healthy")).status == 200
        answer = await session.get("/-/ready")
        assert (answer.status, await answer.text()) == (
            503,
            "Service Unavailable: the migrations are being applied\n",
        )
        world.missing = ""
        assert (await session.get("/-/ready")).status == 200


async def test_the_link_of_a_notification_leads_to_the_answer() -> None:
    """Prometheus' link to a graph is redirected to the query, below whatever path a proxy has put us."""
    async with serving(World()) as session:
        answer = await session.get(
            "/graph", params={"g0.expr": 'up{job="a b"} == 0', "g0.tab": "1"}, allow_redirects=False
        )
        assert answer.status == 302
        assert answer.headers["Location"] == "api/v1/query?query=up%7Bjob%3D%22a+b%22%7D+%3D%3D+0"


@pytest.mark.parametrize(
    "path",
    ["/api/quantum/monitoring-dashboard", "/api/v1/alerts/history", "/api/v1/rules", "/api/v2/silences"],
)
async def test_the_api_says_that_it_is_not_ready(path: str) -> None:
    """While the program starts, what is not there yet answers 503 with the reason, never 500."""
    async with serving(World(missing="starting")) as session:
        answer = await session.get(path)
        assert answer.status == 503
        assert (await answer.json())["error"] == "not ready: starting"
        assert (await session.post("/-/reload")).status == 503
        assert (await session.get("/-/healthy")).status == 200


async def test_a_refused_reload_answers_500_with_the_error() -> None:
    """And a good one 200."""
    world = World()
    async with serving(world) as session:
        assert (await session.post("/-/reload")).status == 200
        world.refuse = "rules.yml:3:5: unknown key"
        answer = await session.post("/-/reload")
        assert (answer.status, await answer.text()) == (
            500,
            "failed to reload config: rules.yml:3:5: unknown key\n",
        )
    assert world.reloads == 1


async def test_the_clients_statistics_are_served() -> None:
    """Cache and limits, each as one JSON document."""
    async with serving(World()) as session:
        assert await (await session.get("/api/quantum/cache-stats")).json() == {"hitRate": 75.0}
        assert await (await session.get("/api/quantum/rate-limits")).json() == {"kraken": {}}


@pytest.mark.parametrize(
    ("secret", "header", "status"),
    [
        ("s3cret", "s3cret", 200),
        ("s3cret", "wrong", 401),
        ("s3cret", None, 401),
        ("", "", 503),
        ("", None, 503),
    ],
)
async def test_cron_needs_its_secret(secret: str, header: str | None, status: int) -> None:
    """401 without the right one, 503 where none is configured."""
    headers = {} if header is None else {"x-cron-secret": header}
    async with serving(World(secret=secret)) as session:
        answer = await session.post("/api/quantum/cron-monitoring", headers=headers)
        assert answer.status == status
        assert (await answer.json())["success"] is (status == 200)


async def test_nobody_changes_state_from_afar_without_a_password() -> None:
    """On a listener that others reach: reading works, what changes state is refused, cron has its secret."""
    world = World()
    async with serving(world, loopback=False) as session:
        assert (await session.get("/metrics")).status == 200
        for path in ("/-/reload", "/api/v1/alerts/1/ack", "/api/v2/silences"):
            assert (await session.post(path, json={"by": "me"})).status == 403
        cron = await session.post("/api/quantum/cron-monitoring", headers={"x-cron-secret": "s3cret"})
        assert cron.status == 200
    assert world.reloads == 0
    assert not world.alerts.asked


async def test_users_of_the_web_config_pass_and_nobody_else() -> None:
    """Everything but health and readiness asks for the password; then state may be changed from afar."""
    config = WebConfig(
        users={"ops": bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()}, headers={"X-A": "b"}
    )
    headers = {"Authorization": "Basic " + base64.b64encode(b"ops:right").decode()}
    world = World()
    async with serving(world, config, loopback=False) as session:
        refused = await session.get("/metrics")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Basic")
        assert (await session.get("/-/ready")).status == 200
        granted = await session.post("/-/reload", headers=headers)
        assert (granted.status, granted.headers["X-A"]) == (200, "b")
    assert world.reloads == 1


async def test_pages_of_other_sites_change_nothing() -> None:
    """A browser says where a request comes from."""
    world = World()
    async with serving(world) as session:
        answer = await session.post("/-/reload", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 403
    assert world.reloads == 0


async def test_acknowledging_needs_a_name() -> None:
    """{"by": "NAME"} is wanted; an unknown alert is 404; the database away is 503."""
    world = World()
    async with serving(world) as session:
        good = await session.post("/api/v1/alerts/7/ack", json={"by": "ann", "notes": "on it"})
        assert (await good.json())["data"] == {"id": "7"}
        for body in ("", "[]", '{"by": 3}', '{"by": "a", "notes": 3}'):
            bad = await session.post("/api/v1/alerts/7/ack", data=body)
            assert (bad.status, (await bad.json())["errorType"]) == (400, "bad_data")
        unknown = await session.post("/api/v1/alerts/none/ack", json={"by": "ann"})
        assert (unknown.status, (await unknown.json())["errorType"]) == (404, "not_found")
        away = await session.get("/api/v1/alerts/history", params={"alertname": "Away"})
        assert (away.status, (await away.json())["errorType"]) == (503, "unavailable")
    assert world.alerts.asked == [("ack", "7", "ann", "on it")]


async def test_history_takes_filters() -> None:
    """Times, limit and label matchers reach the service."""
    world = World()
    async with serving(world) as session:
        params = [
            ("alertname", "A"),
            ("start", "1700000000"),
            ("limit", "5"),
            ("filter", 'provider="kraken"'),
        ]
        answer = await session.get("/api/v1/alerts/history", params=params)
        assert (await answer.json())["data"] == {"episodes": [{"alertname": "A"}]}
        assert (await session.get("/api/v1/alerts/history", params={"start": "soon"})).status == 400
        assert (await session.get("/api/v1/alerts/history", params={"filter": "{{"})).status == 400
    (_, wanted) = world.alerts.asked[0]
    assert (wanted["start_ms"], wanted["limit"], wanted["labels"]) == (
        1_700_000_000_000,
        5,
        {"provider": "kraken"},
    )


async def test_silences_answer_as_alertmanager_does() -> None:
    """A list of objects; a bad filter is a JSON string with 400."""
    async with serving(World()) as session:
        answer = await session.get("/api/v2/silences", params={"filter": 'a="b"'})
        assert await answer.json() == [{"id": "1", "matchers": ['a="b"']}]
        bad = await session.get("/api/v2/silences", params={"filter": "{{"})
        assert bad.status == 400
        assert isinstance(await bad.json(), str)


async def test_a_port_in_use_is_named() -> None:
    """One clear error, and nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Server(
            create_app(World().deps(), WebConfig(), loopback=True), "127.0.0.1", port, WebConfig()
        )
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: another program"):
            await server.start()


async def test_parameters_of_metrics() -> None:
    """name[], collect[], exclude[] and created arrive; what is refused answers 400 with the reason."""
    world = World()
    async with serving(world) as session:
        parts = "name[]=b&name[]=a&name[]=b&collect[]=c&exclude[]=d&created=true"
        assert (await session.get(f"/metrics?{parts}")).status == 200
        assert world.wanted == Wanted(("a", "b"), ("c",), ("d",), True)
        for query, reason in (
            ("collect[]=x", 'missing collector: "x"'),
            ("created=1", "allowed: true, false"),
        ):
            answer = await session.get(f"/metrics?{query}")
            assert (answer.status, reason in await answer.text()) == (400, True)
