"""Real exporters over a real Postgres whose alerts flap, and what a receiver got: for kill -9 and worse.

The world is seeded: what flaps when, and what is done to whom when. After a run `verdict` puts together what
the receiver took and what stands in the tables, and names every broken promise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from aiohttp import web

from tests.helpers.postgres import PostgresServer
from tests.helpers.proxy import CutProxy

COOLDOWN_S = {"Once": 0.0, "Cooled": 6.0, "Shared": 8.0}
NAMES = ("a", "b", "c", "d")
_RULES = """\
groups:
  - name: flapping
    rules:
      - {alert: Once, expr: flap == 1}
      - {alert: Cooled, expr: flap == 1, cooldown: 6s}
      - {alert: Shared, expr: flap == 1, cooldown: 8s, cooldown_by: []}
"""
_CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
database: {{url: "{url}"}}
storage: {{data_dir: "{folder}", head_window: 10m}}
collect:
  system: false
  postgres: false
  sql: []
  providers: {{{providers}}}
  targets: [{{job_name: flap, scrape_interval: 1s, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
rule_files: ["{rules}"]
route: {{receiver: ops}}
receivers: [{{name: ops, webhook_configs: [{{url: "http://127.0.0.1:{port}/hook"}}]}}]
"""
_PROVIDERS = ("coinmarketcap", "coingecko", "kraken", "blockchain", "lunarcrush", "openai", "gemini")


@dataclass
class Outside:
    """The target that flaps and the receiver that remembers; it fails now and then, some after it took."""

    rng: Random
    firing: set[str] = field(default_factory=set)
    took: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    faults: float = 0.1

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="".join(f'flap{{i="{one}"}} {int(one in self.firing)}\n' for one in NAMES))

    async def hook(self, request: web.Request) -> web.Response:
        body = await request.json()
        body["key"] = request.headers["Idempotency-Key"]
        dice = self.rng.random()
        if dice < self.faults / 2:
            return web.Response(status=503)
        self.took.append((time.time(), body))
        if dice < self.faults:
            return web.Response(status=503)  # it has taken it, and the answer says otherwise
        return web.Response()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        """On a free port, which is given."""
        app = web.Application()
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/hook", self.hook)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
        await runner.cleanup()


class Exporter:
    """One exporter, started again as often as it is killed."""

    def __init__(self, name: str, folder: Path, server: PostgresServer, database: str, port: int) -> None:
        self.name = name
        self.proxy = CutProxy(f"{server.socket_dir}/.s.PGSQL.5432")
        self._folder = folder / name
        self._folder.mkdir()
        rules = self._folder / "rules.yml"
        rules.write_text(_RULES)
        providers = ", ".join(f"{one}: {{enabled: false}}" for one in _PROVIDERS)
        self._config = self._folder / "config.yml"
        self._config.write_text(
            _CONFIG.format(
                url=self.proxy.url(database),
                folder=self._folder / "data",
                port=port,
                rules=rules,
                providers=providers,
            )
        )
        with contextlib.closing(_listener()) as probe:
            self.port = probe.getsockname()[1]
        self.log = self._folder / "log"
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "exporter", "run", "--config.file", str(self._config),
                "--web.listen-address", f"127.0.0.1:{self.port}",
                stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    async def ready(self, timeout_s: float = 60) -> None:
        await until(lambda: self.says("/-/ready"), timeout_s, f"{self.name} is ready")

    async def says(self, path: str) -> Any:
        """The JSON of a GET (the text where it is none); None where it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                text = await answer.text()
                if answer.status != 200:
                    return None
                return json.loads(text) if text.startswith("{") else text
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def notifies(self) -> bool:
        return bool((await self.says("/-/replica") or {}).get("notifies"))

    def send(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.send(number)
            await self.process.wait()
            self.process = None

    def close(self) -> None:
        self.proxy.close()


class World:
    """Everything of one run; `flap` in the background, `calm` at the end, then `verdict`."""

    def __init__(
        self, seed: int, outside: Outside, exporters: list[Exporter], sql: Callable[[str], str]
    ) -> None:
        self.rng = Random(seed)
        self.outside = outside
        self.exporters = exporters
        self._sql = sql
        self.flapping = asyncio.create_task(self.flap())
        self.leaderless_s: list[float] = []

    async def flap(self) -> None:
        """Each second each instance may change, until cancelled."""
        while True:
            self.outside.firing ^= {one for one in NAMES if self.rng.random() < 0.25}
            await asyncio.sleep(1)

    async def killed(self, moments: int) -> None:
        """kill -9 of the exporter at random moments after its start, some while it starts."""
        (only,) = self.exporters
        for number in range(moments):
            if self.rng.random() < 0.8:
                await only.ready()
            await asyncio.sleep(self.rng.uniform(0, 2))
            await only.end()
            await only.start()
            if number % 20 == 19:
                print(f"  {number + 1} of {moments}: {self.verdict()}", flush=True)
        await only.ready()

    async def disturbed(self, moments: int) -> None:
        """The leader of several is killed, paused or cut off from the database at random moments."""
        for number in range(moments):
            await asyncio.sleep(self.rng.uniform(0.5, 2.5))
            leader = await self.leader()
            if leader is None:
                continue
            await self.rng.choice((self._kill, self._pause, self._refuse, self._swallow, self._retire))(
                leader
            )
            if number % 20 == 19:
                print(f"  {number + 1} of {moments}: {self.verdict()}", flush=True)
        for one in self.exporters:
            await one.ready()

    async def _kill(self, leader: Exporter) -> None:
        await leader.end()
        await self._leads_again(leader)
        await leader.start()
        await leader.ready()

    async def _retire(self, leader: Exporter) -> None:
        await leader.end(signal.SIGTERM)
        await self._leads_again(leader)
        await leader.start()
        await leader.ready()

    async def _pause(self, leader: Exporter) -> None:
        leader.send(signal.SIGSTOP)
        await self._leads_again(leader)
        await asyncio.sleep(self.rng.uniform(0, 2))
        leader.send(signal.SIGCONT)

    async def _refuse(self, leader: Exporter) -> None:
        leader.proxy.refuse()
        await self._leads_again(leader)
        await asyncio.sleep(self.rng.uniform(0, 2))
        leader.proxy.restore()

    async def _swallow(self, leader: Exporter) -> None:
        leader.proxy.swallow()
        await self._leads_again(leader)
        await asyncio.sleep(self.rng.uniform(0, 2))
        leader.proxy.restore()

    async def _leads_again(self, before: Exporter) -> None:
        """Wait for another leader, and note how long that took."""
        began = time.monotonic()

        async def led() -> bool:
            return any([await one.notifies() for one in self.exporters if one is not before])

        await until(led, 30, f"another leads than {before.name}")
        self.leaderless_s.append(time.monotonic() - began)

    async def leader(self) -> Exporter | None:
        """The exporter that notifies now."""
        for one in self.exporters:
            if await one.notifies():
                return one
        return None

    async def calm(self) -> None:
        """Let everything fire until each instance was told, then nothing, until all is resolved and sent."""
        self.flapping.cancel()
        self.outside.faults = 0.0
        self.outside.firing = set(NAMES)
        began = time.time()

        async def all_told() -> bool:
            told = {
                (alert["labels"]["alertname"], alert["labels"]["i"])
                for at, body in self.outside.took
                for alert in body["alerts"]
                if at > began and body["status"] == "firing"
            }
            known = {
                tuple(row.split("|")) for row in (await asyncio.to_thread(self._sql, _FIRING)).splitlines()
            }
            return {(rule, one) for rule in COOLDOWN_S for one in NAMES} <= told | known

        await until(all_told, 90, "everything that fires was told")
        self.outside.firing = set()

        async def all_quiet() -> bool:
            return await asyncio.to_thread(self._sql, _LEFT) == "0"

        await until(all_quiet, 90, "all is resolved and sent")

    def verdict(self) -> Verdict:
        """What was promised and what came."""
        first: dict[str, tuple[float, dict[str, Any]]] = {}
        for at, body in self.outside.took:
            first.setdefault(body["key"], (at, body))
        rows = [json.loads(line) for line in self._sql(_EPISODES).splitlines()]
        stored = set(self._sql("select id from quantum_alert_notifications").splitlines())
        told: dict[str, Counter[str]] = {"firing": Counter(), "resolved": Counter()}
        sent: dict[tuple[str, ...], list[tuple[float, str]]] = defaultdict(list)
        broken: list[str] = []
        for key, (at, body) in sorted(first.items(), key=lambda pair: pair[1][0]):
            if key not in stored:
                broken.append(f"notification {key} has no row")
            gates = set()
            for alert in body["alerts"]:
                told[body["status"]][alert["episodeId"]] += 1
                rule = alert["labels"]["alertname"]
                gates.add((rule,) if rule == "Shared" else (rule, alert["labels"]["i"]))
            if body["status"] == "firing":
                for gate in gates:
                    sent[gate].append((at, key))
        known = {row["episode_id"]: row for row in rows}
        broken += [
            f"episode {episode} was told and has no row"
            for episode in (told["firing"].keys() | told["resolved"].keys()) - known.keys()
        ]
        for row in rows:
            episode, rule = row["episode_id"], row["type"]
            if not told["firing"][episode]:
                if rule == "Once" or not row["suppressed_count"]:
                    broken.append(f"episode {episode} of {rule} has no firing notification: {row}")
            elif told["resolved"][episode] != 1 and not row["active"]:
                broken.append(
                    f"episode {episode} of {rule} has {told['resolved'][episode]} resolved ones: {row}"
                )
            if rule == "Once" and told["firing"][episode] > 1:
                broken.append(f"episode {episode} of Once was told {told['firing'][episode]} times")
        for gate, times in sent.items():
            for (before, first_key), (after, key) in pairwise(times):
                if after - before < COOLDOWN_S[gate[0]]:
                    broken.append(f"{gate}: {key} came {after - before:.2f} s after {first_key}")
        return Verdict(
            broken,
            episodes=len(rows),
            notifications=len(first),
            repeated=len(self.outside.took) - len(first),
            held_back=sum(row["suppressed_count"] > 0 for row in rows),
        )


@dataclass(frozen=True)
class Verdict:
    """The broken promises, and how much there was to break."""

    broken: list[str]
    episodes: int
    notifications: int
    repeated: int
    held_back: int

    def __str__(self) -> str:
        return (
            f"{self.episodes} episodes, {self.notifications} notifications, {self.repeated} came again under "
            f"their id, {self.held_back} episodes held back by a cooldown; {len(self.broken)} broken promises"
        )


_FIRING = "select type, labels ->> 'i' from system_alerts where active and notification_count > 0"
_LEFT = """
select (select count(*) from system_alerts where active)
    + (select count(*) from quantum_alert_notifications where state = 'queued')
"""
_EPISODES = """
select json_build_object('episode_id', episode_id, 'type', type, 'labels', labels, 'active', active,
    'triggered_at', triggered_at, 'resolved_at', resolved_at, 'reason', resolve_reason,
    'suppressed_count', suppressed_count, 'notifications', notification_count)
from system_alerts order by triggered_at
"""


@contextlib.asynccontextmanager
async def world(
    seed: int, folder: Path, names: tuple[str, ...], server: PostgresServer
) -> AsyncIterator[World]:
    """Exporters of these names, all ready, over a new database."""
    database = server.create_database(server.migrated_template())
    outside = Outside(Random(seed + 1))
    async with outside.serve() as port:
        exporters = [Exporter(name, folder, server, database, port) for name in names]
        found = World(seed, outside, exporters, lambda sql: server.psql(sql, database))
        try:
            for one in exporters:
                await one.start()
            for one in exporters:
                await one.ready()
            yield found
        finally:
            found.flapping.cancel()
            await asyncio.gather(found.flapping, return_exceptions=True)
            for one in exporters:
                await one.end()
                one.close()
    server.drop_database(database)


async def until(check: Callable[[], Awaitable[Any]], timeout_s: float, what: str) -> None:
    """Wait for a real program."""
    end = time.monotonic() + timeout_s
    while not await check():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.1)


def _listener() -> Any:
    import socket

    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found
