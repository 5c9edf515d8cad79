"""GET /api/v1/alerts/why over rule loop, notifier and Postgres: the present, and the past as it was."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from exporter.clock import SystemClock
from exporter.compose.why import WhyService
from exporter.db.alerts import PostgresAlertStore
from exporter.db.pool import Database
from exporter.notify.service import AlertService
from exporter.notify.silences import rfc3339
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.schedule import slot_at_or_before
from exporter.web import encode
from exporter.web.ports import Deps
from exporter.web.why import WhyRoute
from tests.compliance.rig import START_MS, Rig, rig
from tests.notify.stage import MemoryStore, config
from tests.notify.stage import Rig as NotifyRig
from tests.web.api_server import local_queries

RULES = """
groups:
- name: g
  interval: 1m
  rules:
  - alert: High
    expr: load > 10 and on () enabled == 1
    for: 2m
    cooldown: 30m
    labels: {severity: warning}
    annotations: {summary: "load is {{ $value }}"}
  - {alert: Low, expr: load < 1, keep_firing_for: 3m}
  - {alert: Kept, expr: load > 10, missing_data: keep, labels: {severity: info}}
"""
NOTIFICATION = """
route:
  receiver: ops
  routes: [{matchers: ['severity="info"'], receiver: nobody}]
receivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}, {name: nobody}]
inhibit_rules: [{source_matchers: ['alertname="Low"'], target_matchers: ['alertname="High"'], equal: []}]
"""
# The past is judged at the group's slots, so the story begins at one.
SLOT_MS = slot_at_or_before("rules.yml;g", 60_000, START_MS)


def clock_text(minute: float) -> str:
    """A time of the story as the API writes it."""
    return rfc3339(round(SLOT_MS + 60_000 * minute))


@dataclass
class World:
    """A rule loop, a notifier behind it, and the route over both."""

    judge: Rig
    notify: NotifyRig
    url: str
    session: aiohttp.ClientSession

    async def step(self, minutes: int = 1, **series: float | None) -> None:
        for _ in range(minutes):
            await self.judge.step(**series)
            await self.notify.settle()

    async def ask(self, status: int = 200, **params: Any) -> Any:
        async with self.session.get(f"{self.url}/api/v1/alerts/why", params=params) as answer:
            document = await answer.json()
        assert answer.status == status, document
        return document["data"] if status == 200 else document["error"]

    async def one(self, **params: Any) -> Any:
        """The only instance of the only rule."""
        (rule,) = (await self.ask(**params))["rules"]
        (instance,) = rule["instances"]
        return instance

    def at(self, minute: float) -> str:
        return str(SLOT_MS / 1000 + 60 * minute)


@contextlib.asynccontextmanager
async def world(tmp_path: Path, store: Any = None) -> AsyncIterator[World]:
    async with rig(RULES, start_ms=SLOT_MS) as judge:
        notify = NotifyRig(tmp_path, [], config(NOTIFICATION), store=store)
        notify.clock = judge.clock
        await notify.start()

        async def hand_on(evaluation: GroupEvaluation) -> None:
            judge.evaluations.append(evaluation)
            await notify.dispatcher.handle(evaluation)

        judge.rules._hand_on = hand_on
        queries = local_queries(judge.storage)
        alerts = AlertService(notify.dispatcher, judge.clock)
        why = WhyService(judge.rules, queries, lambda: alerts, judge.clock)
        app = web.Application()
        WhyRoute(cast(Deps, type("D", (), {"why": why}))).add_routes(app.router)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as session:
                yield World(judge, notify, url, session)
        finally:
            await runner.cleanup()
            await notify.stop()
            queries.close()


@pytest.fixture
async def there(tmp_path: Path, migrated_url: str) -> AsyncIterator[World]:
    """The world with its history in Postgres."""
    database = Database(migrated_url, SystemClock())
    async with world(tmp_path, PostgresAlertStore(database)) as found:
        yield found
    await database.close()


async def test_what_does_not_fire(there: World) -> None:
    """The distance to the threshold, the values of both sides, the route it would take."""
    there.judge.hold(load=9, enabled=1)
    await there.judge.evaluate()
    document = await there.ask(alert="High")
    assert document["answer"] == "High does not fire for 1: 9 is below the threshold 10 (10 % away)"
    (rule,) = document["rules"]
    assert (rule["for"], rule["cooldown"], rule["missingData"]) == (120, 1800, "resolve")
    (one,) = rule["instances"]
    assert one["labels"] == {"alertname": "High", "i": "1", "severity": "warning"}
    assert (one["state"], one["returned"]) == ("inactive", False)
    assert one["comparison"] == {
        "value": "9", "op": ">", "threshold": "10", "holds": False, "distance": "-1", "relative": 0.1,
        "text": "9 is below the threshold 10 (10 % away)",
    }  # fmt: skip
    (to,) = one["destinations"]
    assert (to["receiver"], to["route"], to["armedAt"], to["suppressed"]) == ("ops", "0", None, 0)


async def test_a_missing_input_is_named(there: World) -> None:
    """The selector that returns nothing."""
    there.judge.hold(load=11)
    await there.judge.evaluate()
    document = await there.ask(alert="High")
    assert document["answer"] == (
        "High does not fire for 1: 11 is above the threshold 10 (10 % away), "
        "but `and enabled == 1` does not hold"
    )
    assert [(one["selector"], one["missing"]) for one in document["rules"][0]["inputs"]] == [
        ("load", False),
        ("enabled", True),
    ]
    there.judge.hold(load=None)
    await there.step()
    assert (await there.ask(alert="High"))["answer"] == "High does not fire: no data: no series matches load"


async def test_the_way_of_an_episode(there: World) -> None:
    """Pending with what is left of `for`, firing and sent, resolved, held back by the cooldown."""
    there.judge.hold(load=12, enabled=1)
    await there.judge.evaluate()
    await there.step()
    document = await there.ask(alert="High")
    assert document["answer"] == (
        "High is pending for 1: 12 is above the threshold 10 (20 % away); it fires in 1m if it goes on"
    )
    await there.step()
    document = await there.ask(alert="High")
    assert document["answer"] == "High fires for 1: 12 is above the threshold 10 (20 % away); sent to ops"
    one = await there.one(alert="High")
    (to,), (sent,) = one["destinations"], one["deliveries"]
    assert (to["armedAt"], to["until"]) == (clock_text(2), clock_text(32))
    assert to["nextSendAt"] == to["until"]
    assert (sent["receiver"], sent["status"], sent["answer"]) == ("ops", "firing", "taken")
    await there.step(load=1)
    await there.step(3, load=13)
    document = await there.ask(alert="High")
    assert document["answer"].endswith(f"not sent: the cooldown of ops holds it back until {clock_text(32)}")
    one = await there.one(alert="High")
    assert one["destinations"][0]["suppressed"] == 1
    assert [sent["status"] for sent in one["deliveries"]] == ["firing", "resolved"]


async def test_who_keeps_it_quiet(there: World) -> None:
    """A silence, an inhibiting alert, an acknowledgement."""
    there.judge.hold(load=12, enabled=1)
    await there.judge.evaluate()
    await there.step(2)
    alerts = AlertService(there.notify.dispatcher, there.judge.clock)
    silence = {
        "matchers": [{"name": "alertname", "value": "High", "isRegex": False, "isEqual": True}],
        "startsAt": "2023-11-14T22:00:00Z", "endsAt": "2023-11-14T23:20:00Z",
        "createdBy": "ann", "comment": "works",
    }  # fmt: skip
    silence_id = await alerts.set_silence(silence)
    assert (await there.one(alert="High"))["quiet"] == f"silenced by {silence_id}"
    await alerts.expire_silence(silence_id)
    there.judge.hold_series({'load{i="2"}': 0})
    await there.step()
    (rule,) = (await there.ask(alert="High", match='i="1"'))["rules"]
    assert rule["instances"][0]["quiet"].startswith("inhibited by {")
    there.judge.hold_series({'load{i="2"}': 5})
    await there.step(4)
    (live,) = [one for one in await alerts.alerts() if one["labels"]["alertname"] == "High"]
    await alerts.acknowledge(live["id"], "bob")
    (rule,) = (await there.ask(alert="High", match='i="1"'))["rules"]
    assert rule["instances"][0]["quiet"] == "acknowledged by bob"


async def test_what_holds_it(there: World) -> None:
    """keep_firing_for with what is left, missing_data; a receiver that sends nothing."""
    there.judge.hold(load=0, enabled=1)
    await there.judge.evaluate()
    await there.step(load=5)
    await there.step()
    one = await there.one(alert="Low")
    assert (one["state"], one["held"], one["keepFiringLeft"]) == ("firing", "keep_firing_for", 120)
    assert one["reason"] == "5 is above the threshold 1 (400 % away)"
    await there.step(load=12)
    await there.step(load=None)
    document = await there.ask(alert="Kept")
    assert document["answer"] == (
        "Kept fires for 1: it is held (no data), no data: no series matches load; "
        "no route leads to a receiver that sends"
    )


async def test_the_past_agrees_with_what_was_evaluated(there: World) -> None:
    """At each minute of a story the states of the past are those that were evaluated then."""
    story = [9, 11, 12, 13, 2, 0, 0, 5, 5, 5, 5, 12, 12, None, None, 12, 12, 12, 12]
    there.judge.hold(load=9, enabled=1)
    await there.judge.evaluate()
    for load in story:
        await there.step(load=load)
    await there.step()
    offset_ms = 30_000  # between two evaluations: the one before counts
    for evaluation in there.judge.evaluations[:-1]:
        for rule in evaluation.rules:
            wanted = {
                (one.labels.get("i"), one.state.text, encode.rfc3339(one.active_at_ms // 1000 * 1000))
                for one in rule.active
            }
            document = await there.ask(alert=rule.rule.name, at=str((evaluation.ts_ms + offset_ms) / 1000))
            (shown,) = document["rules"]
            assert not shown["now"]
            found = {
                (one["labels"]["i"], one["state"], one["activeAt"])
                for one in shown["instances"]
                if one["state"] != "inactive"
            }
            assert found == wanted, document["answer"]


async def test_the_past_has_its_cooldown_and_deliveries(there: World) -> None:
    """What was sent up to then, and until when the cooldown held."""
    there.judge.hold(load=12, enabled=1)
    await there.judge.evaluate()
    await there.step(2)  # fires at minute 2
    await there.step(load=1)
    await there.step(3, load=13)  # again at minute 6
    await there.step(60, load=1)
    one = await there.one(alert="High", at=there.at(2.5))
    assert (one["state"], len(one["deliveries"])) == ("firing", 1)
    assert one["destinations"][0]["until"] == clock_text(32)
    document = await there.ask(alert="High", at=there.at(6.5))
    assert document["answer"].startswith(
        "High fired for 1: 13 is above the threshold 10 (30 % away); not sent"
    )
    (one,) = document["rules"][0]["instances"]
    assert one["destinations"][0]["suppressed"] == 1
    one = await there.one(alert="High", at=there.at(0.5))
    assert (one["state"], one["deliveries"], one["destinations"][0]["armedAt"]) == ("pending", [], None)


async def test_without_the_database(tmp_path: Path) -> None:
    """The present is answered from memory; the answer says that deliveries are not known."""
    store = MemoryStore()
    async with world(tmp_path, store) as there:
        there.judge.hold(load=12, enabled=1)
        await there.judge.evaluate()
        await there.step(2)
        store.away = True
        document = await there.ask(alert="High")
        assert document["answer"] == "High fires for 1: 12 is above the threshold 10 (20 % away); notified"
        assert document["rules"][0]["notes"] == ["deliveries are not known: the database is away"]


async def test_refusals(there: World) -> None:
    """No name, an unknown one with the nearest, a bad time, bad matchers."""
    assert await there.ask(400) == 'invalid parameter "alert": a rule\'s name is needed'
    assert await there.ask(404, alert="Hihg") == "no alerting rule is called Hihg; did you mean High?"
    assert "cannot parse" in await there.ask(400, alert="High", at="soon")
    await there.ask(400, alert="High", match="{{")


async def test_no_data_is_the_answer_for_every_label_set(there: World) -> None:
    """Matchers that nothing measured can fit do not hide that nothing is measured."""
    await there.judge.evaluate()
    document = await there.ask(alert="Low", match='i="7"')
    assert document["answer"] == "Low does not fire: no data: no series matches load"


async def test_matchers_choose_instances(there: World) -> None:
    """Only the label sets that match, the closest first."""
    there.judge.hold_series({'load{i="1"}': 2, 'load{i="2"}': 9, 'load{i="3"}': 5})
    there.judge.hold(enabled=1)
    await there.judge.evaluate()
    (rule,) = (await there.ask(alert="High"))["rules"]
    assert [one["shown"] for one in rule["instances"]] == ["2", "3", "1"]
    (rule,) = (await there.ask(alert="High", match='i=~"1|3"'))["rules"]
    assert [one["shown"] for one in rule["instances"]] == ["3", "1"]
