"""Turns of the notifier: what a replica shows, answers and keeps that notified and does so no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from exporter.clock import SystemClock
from exporter.compose.notifying import Notifying
from exporter.config.load import load_config
from exporter.db.leader import LeaderSession, Replica
from exporter.db.pool import Database
from exporter.errors import StorageError
from tests.helpers.flapping import until
from tests.notify.stage import Stage, config, rule
from tests.notify.test_webhook import server

HOOK = "route: {{receiver: ops}}\nreceivers: [{{name: ops, webhook_configs: [{{url: '{url}'}}]}}]"


class One:
    """A notifier that may send when its session leads."""

    def __init__(self, name: str, folder: Path, url: str, hook: str, stage: Stage) -> None:
        clock = SystemClock()
        loaded = load_config(None, {})
        self.registry = CollectorRegistry()
        self.database = Database(url, clock)
        self.session = LeaderSession(url, clock, Replica(name, name, ""), lease_s=10)
        self.notifying = Notifying(
            replace(
                loaded,
                notification=config(HOOK.format(url=hook)),
                storage=replace(loaded.storage, data_dir=folder / name),
            ),
            self.database,
            self.session,
            registry=self.registry,
            clock=clock,
            external_url="",
            groups=[stage.group],
            was_away=True,
            permitted=lambda: self.session.leads,
            why_not=lambda: "another notifies",
        )
        self._task = asyncio.create_task(self.notifying.run())

    async def lead(self) -> None:
        await self.session.refresh()
        assert await self.session.try_lock()
        await self.session.take_office()
        await self.notifying.take_up(None)

    async def stop(self) -> None:
        await self.notifying.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.session.close()
        await self.database.close()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def two(folder: Path, url: str, status: list[int]) -> AsyncIterator[tuple[One, One, list[str]]]:
    """Two notifiers and the ids that their receiver got; it answers with the status that stands there."""
    got: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        got.append(request.headers["Idempotency-Key"])
        return web.Response(status=status[0])

    async with server(handler) as hook:
        stage = Stage([rule(cooldown=30)])
        found = [One(name, folder, url, f"{hook}/", stage) for name in ("a", "b")]
        yield found[0], found[1], got
        for one in found:
            await one.stop()


async def test_between_turns_nothing_is_shown_or_sent(migrated_url: str, tmp_path: Path) -> None:
    """A receiver that was down, a queue, firing alerts: no alert of a replica that follows may stand on what
    it knew as the leader. History is answered, the rest refused with the reason."""
    async with two(tmp_path, migrated_url, [503]) as (a, _, got):
        stage = Stage([rule(cooldown=30)])
        await a.lead()
        await a.notifying.handle(stage.evaluate(1_700_000_000_000, ["x"]))

        async def failed() -> bool:
            return a.metric("quantum_notification_receiver_up", receiver="ops") == 0

        await until(failed, 20, "the receiver is down")
        firing = {"alertname": "Down", "severity": "warning", "state": "firing"}
        assert a.metric("quantum_alerts", **firing) == 1
        await a.notifying.stand_down()
        tries = len(got)
        assert a.metric("quantum_notification_receiver_up", receiver="ops") == 1
        assert a.metric("quantum_notification_queue_length", receiver="ops") == 0
        assert a.metric("quantum_alerts", **firing) is None
        await a.notifying.handle(stage.evaluate(1_700_000_015_000, ["x", "y"]))
        assert len(await a.notifying.service.find()) == 1
        with pytest.raises(StorageError, match="another notifies"):
            await a.notifying.service.alerts()
        assert len(got) == tries


async def test_what_waits_is_sent_by_the_next_leader_under_its_id(migrated_url: str, tmp_path: Path) -> None:
    """The queue is the database's: the notification that one could not deliver is delivered by the other."""
    status = [503]
    async with two(tmp_path, migrated_url, status) as (a, b, got):
        await a.lead()
        await a.notifying.handle(Stage([rule(cooldown=30)]).evaluate(1_700_000_000_000, ["x"]))

        async def tried() -> bool:
            return bool(got)

        await until(tried, 20, "a try was made")
        await a.notifying.stand_down()
        await a.session.close()
        status[0] = 200
        await b.lead()

        async def delivered() -> bool:
            (episode,) = await b.notifying.service.find()
            return bool(episode["notification_count"] == 1)

        await until(delivered, 20, "it was delivered")
        assert len(set(got)) == 1
        assert b.metric("quantum_notifications_total", receiver="ops", outcome="delivered") == 1


async def test_what_could_not_be_recorded_is_handed_in(migrated_url: str, tmp_path: Path) -> None:
    """Told while the database was away, and another has notified since: the row is there, closed, and the
    cooldown holds."""
    async with two(tmp_path, migrated_url, [200]) as (a, b, got):
        a.notifying._permitted = lambda: True  # as when no other replica is to be heard
        await a.notifying.take_up(None)
        await a.notifying.handle(Stage([rule(cooldown=30)]).evaluate(1_700_000_000_000, ["x"]))

        async def told() -> bool:
            return a.metric("quantum_notifications_total", receiver="ops", outcome="delivered") == 1

        await until(told, 20, "it was told")
        await a.notifying.stand_down()
        assert await a.notifying.hand_in() > 0
        assert await a.notifying.hand_in() == 0
        (episode,) = await b.notifying.service.find()
        assert (episode["active"], episode["resolve_reason"]) == (False, "taken over")
        assert [one["id"] for one in episode["notifications"]] == got
        await b.lead()
        await b.notifying.handle(Stage([rule(cooldown=30)]).evaluate(1_700_000_015_000, ["x"]))

        async def held_back() -> bool:
            return b.metric("quantum_notifications_suppressed_total", receiver="ops") == 1

        await until(held_back, 20, "the cooldown holds")
        assert len(got) == 1
