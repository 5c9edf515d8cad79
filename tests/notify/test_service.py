"""What people ask of the notifier, and the command line that asks it over HTTP."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from exporter.cli import main
from exporter.cli.alerts import add_parser
from exporter.config.matchers import parse_matchers
from exporter.errors import DeliveryError, NotFoundError, StorageError
from exporter.notify.ports import HistoryFilter
from exporter.notify.records import row_id
from exporter.notify.service import AlertService
from exporter.notify.silences import SilenceError, parse_rfc3339, rfc3339
from exporter.web.alerts import AlertRoutes
from tests.helpers.clock import FakeClock, settle
from tests.helpers.peers import peer
from tests.notify.stage import Rig, rule, running


def service(rig: Rig) -> AlertService:
    return AlertService(rig.dispatcher, rig.clock)


def silence(rig: Rig, minutes: float = 60, **values: Any) -> dict[str, Any]:
    now = rig.clock.now_ms()
    return {
        "matchers": [{"name": "instance", "value": "a", "isRegex": False}],
        "startsAt": rfc3339(now),
        "endsAt": rfc3339(now + round(minutes * 60_000)),
        "createdBy": "ann",
        "comment": "works",
        **values,
    }


async def test_the_list_says_when_it_is_sent_next_or_why_not(tmp_path: Path) -> None:
    """Cooldown, once per episode, on its way, pending: each in words."""
    async with running(tmp_path, [rule("Once"), rule("Again", cooldown=30)]) as rig:
        rig.ops.answers = [None, DeliveryError("HTTP 503", retryable=True)]
        await rig.fire()
        await rig.dispatcher.handle(rig.stage.evaluate(rig.clock.now_ms(), {"Once": ["a"], "Again": ["a"]}))
        await rig.settle()
        found = {one["labels"]["alertname"]: one for one in await service(rig).alerts()}
        assert (found["Once"]["nextSendAt"], found["Once"]["why"]) == (None, "once per episode")
        assert found["Again"]["nextSendAt"] == rfc3339(rig.clock.now_ms() + 30 * 60_000)
        assert found["Again"]["outlook"][0]["receiver"] == "ops"
        await rig.dispatcher.handle(
            rig.stage.evaluate(rig.clock.now_ms(), {"Once": ["a", "b"], "Again": ["a"]})
        )
        await rig.settle()
        (b,) = await service(rig).alerts(parse_matchers("instance=b"))
        assert b["why"] == "on its way, 1 tries failed: HTTP 503"


async def test_thousands_of_alerts_are_listed_in_steps(tmp_path: Path) -> None:
    """Others run in between, and alerts that resolve meanwhile do no harm."""
    async with running(tmp_path, [rule()]) as rig:
        await rig.fire(*(f"a{number}" for number in range(1000)))
        listing = asyncio.create_task(service(rig).alerts())
        shown = asyncio.create_task(service(rig).alerts_v2())
        await settle(3)
        assert not listing.done()
        await rig.dispatcher.handle(rig.stage.evaluate(rig.clock.now_ms(), ["a0"]))
        assert len(await listing) == 1000
        assert len(await shown) <= 1000
        assert [one["labels"]["instance"] for one in await service(rig).alerts()] == ["a0"]


async def test_acknowledge_and_resolve(tmp_path: Path) -> None:
    """By the episode's id or its row's; with a name; an unknown one is not found."""
    async with running(tmp_path, [rule(cooldown=1)]) as rig:
        await rig.fire("a", "b")
        alerts = {one["labels"]["instance"]: one["id"] for one in await service(rig).alerts()}
        done = await service(rig).acknowledge(str(row_id(alerts["a"])), " ann ", "mine")
        assert (done["acknowledgedBy"], done["acknowledgeNotes"]) == ("ann", "mine")
        done = await service(rig).resolve(alerts["b"], "bob", "known")
        assert done["resolvedBy"] == "bob"
        await rig.minutes(5)
        assert sorted(rig.ops.said) == ["firing a b", "resolved b"]
        stored = rig.tables.rows.episodes
        assert (stored[alerts["a"]].acked_by, stored[alerts["b"]].resolution_notes) == ("ann", "known")
        for wrong in ("nobody", ""):
            with pytest.raises(NotFoundError):
                await service(rig).acknowledge(wrong, "ann")
        with pytest.raises(ValueError, match="who acts"):
            await service(rig).resolve(alerts["a"], " ")
        rows = await service(rig).history(HistoryFilter())
        assert len(rows) == 2
        rig.tables.away = True
        with pytest.raises(StorageError):
            await service(rig).find(limit=5)


async def test_a_silence_keeps_quiet_until_it_ends(tmp_path: Path) -> None:
    """What still fires then is told; a restart in between keeps the silence."""
    async with running(tmp_path, [rule()]) as rig:
        name = await service(rig).set_silence(silence(rig, 10))
        await rig.fire("a", "b")
        assert rig.ops.said == ["firing b"]
        assert (await service(rig).alerts(parse_matchers("instance=a")))[0]["silencedBy"] == [name]
        assert (await service(rig).alerts_v2(parse_matchers("instance=a")))[0]["status"][
            "state"
        ] == "suppressed"
        await rig.restart()
        await rig.fire("a", "b")
        await rig.minutes(10)
        assert service(rig).silence(name)["status"]["state"] == "expired"
        await rig.fire("a", "b")
        assert rig.ops.said == ["firing b", "firing a"]


async def test_gauges_tell_what_is_quiet_and_which_silence_matches_nothing(tmp_path: Path) -> None:
    """Every quarter of a minute: quiet alerts by reason, silences by state, and the idle ones."""
    async with running(tmp_path, [rule()]) as rig:
        await service(rig).set_silence(silence(rig, 10))  # of instance a
        await rig.fire("b", "c")
        acked = (await service(rig).alerts(parse_matchers("instance=b")))[0]["id"]
        await service(rig).acknowledge(acked, "ann")

        async def shown() -> dict[str, float]:
            await rig.minutes(0.25)
            gauges = [("quantum_silences", "state", one) for one in ("active", "idle", "expired")]
            gauges += [("quantum_alerts_quiet", "reason", one) for one in ("acknowledged", "silenced")]
            return {one: rig.metric(name, **{label: one}) for name, label, one in gauges}

        quiet = {"active": 1, "idle": 1, "expired": 0, "acknowledged": 1, "silenced": 0}
        assert await shown() == quiet
        await rig.fire("a", "b", "c")
        assert await shown() == {**quiet, "idle": 0, "silenced": 1}
        await rig.minutes(10)
        assert await shown() == {**quiet, "active": 0, "idle": 0, "expired": 1}


async def test_silences_change_as_in_alertmanager(tmp_path: Path) -> None:
    """A new end keeps the id; other matchers or an expired one make a new silence; expiring ends it now."""
    async with running(tmp_path, [rule()]) as rig:
        alerts = service(rig)
        first = await alerts.set_silence(silence(rig))
        await rig.minutes(1)
        assert await alerts.set_silence(silence(rig, 120, id=first)) == first
        other = [{"name": "instance", "value": "b|c", "isRegex": True}]
        second = await alerts.set_silence(silence(rig, matchers=other, id=first))
        assert second != first
        assert [one["status"]["state"] for one in alerts.silences()] == ["active", "expired"]
        assert [one["id"] for one in alerts.silences(parse_matchers('instance="b|c"'))] == [second]
        await alerts.expire_silence(second)
        with pytest.raises(SilenceError, match="already expired"):
            await alerts.expire_silence(second)
        third = await alerts.set_silence(silence(rig, matchers=other, id=second))
        assert third not in (first, second)
        for call in (alerts.expire_silence("x"), alerts.set_silence(silence(rig, id="x"))):
            with pytest.raises(NotFoundError):
                await call


@pytest.mark.parametrize(
    "change",
    [
        {"matchers": []},
        {"matchers": [{"name": "a", "value": "", "isRegex": False}]},
        {"matchers": [{"name": "a", "value": "(", "isRegex": True}]},
        {"matchers": [{"name": "", "value": "x", "isRegex": False}]},
        {"matchers": "x"},
        {"matchers": [{"name": "a", "value": "b", "isRegex": 1}]},
        {"startsAt": "tomorrow"},
        {"endsAt": "2000-01-01T00:00:00Z"},
        {"createdBy": 5},
        {"id": 5},
    ],
)
async def test_bad_silences_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """With a reason, and nothing is stored."""
    async with running(tmp_path, [rule()]) as rig:
        with pytest.raises(SilenceError):
            await service(rig).set_silence(silence(rig) | change)
        assert service(rig).silences() == []


@pytest.mark.parametrize(
    ("text", "ts_ms"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01t00:00:00.5z", 500),
        ("1970-01-01T01:00:00.123456789+01:00", 123),
        ("2023-11-14T22:13:20.000Z", 1_700_000_000_000),
    ],
)
def test_rfc3339(text: str, ts_ms: int) -> None:
    """Fractions of any length, zones, lower case."""
    assert parse_rfc3339(text, "t") == ts_ms


# the command line


class RealClockRig(Rig):
    """A rig on the machine's clock: the command line writes the time itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        import time

        self.clock = FakeClock(time.time_ns() // 1_000_000)


@contextlib.asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[Rig, str]]:
    """A rig behind the alert endpoints."""
    rig = RealClockRig(tmp_path, [rule(cooldown=30)])
    await rig.start()
    app = web.Application()
    status = SimpleNamespace(config_yaml=lambda: "", started_ms=0)
    AlertRoutes(SimpleNamespace(alerts=lambda: service(rig), status=status)).add_routes(app.router)  # type: ignore[arg-type]
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield rig, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await rig.stop()


async def command(url: str, *args: str) -> int:
    return await asyncio.to_thread(main, ["alerts", *args, "--url", url])


async def test_the_command_line_does_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """List, acknowledge, silence, expire, resolve; tables and JSON."""
    async with served(tmp_path) as (rig, url):
        assert await command(url, "list") == 0
        assert capsys.readouterr().out == "nothing is pending or firing\n"
        await rig.fire("a", "b")
        assert await command(url, "list", "--output", "json", "instance=a") == 0
        (alert,) = json.loads(capsys.readouterr().out)
        assert await command(url, "ack", alert["id"], "--by", "ann", "--notes", "mine") == 0
        assert capsys.readouterr().out == f"{alert['id']} acknowledged by ann\n"
        assert await command(url, "list") == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown[0].split() == [
            "id",
            "alert",
            "severity",
            "state",
            "labels",
            "value",
            "since",
            "sent",
            "next",
            "send",
        ]
        assert any("acknowledged by ann" in line for line in shown)
        assert await command(url, "silence", "add", "instance=b", "-d", "2h", "-c", "works", "-a", "bob") == 0
        name = capsys.readouterr().out.strip()
        assert await command(url, "silence", "list") == 0
        assert 'instance="b"' in capsys.readouterr().out
        assert await command(url, "silence", "expire", name) == 0
        assert await command(url, "silence", "list") == 0
        assert capsys.readouterr().out == "no silences\n"
        await service(rig).set_silence(silence(rig, 10))
        assert await command(url, "silence", "list") == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head.split() == ["id", "matchers", "state", "alerts", "ends", "by", "comment"]
        assert row.split()[1:4] == ['instance="a"', "active", "1"]
        assert await command(url, "resolve", alert["id"], "--by", "ann") == 0
        assert capsys.readouterr().out.endswith("resolved by ann\n")


async def test_refusals_are_one_line_and_exit_code_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown ids, an exporter that is not there; wrong use is 2."""
    async with served(tmp_path) as (_, url):
        assert await command(url, "ack", "nothing") == 1
        assert capsys.readouterr().err == "quantum-exporter: error: no alert nothing is firing\n"
        assert await command(url, "silence", "expire", "x") == 1
        assert "silence x not found" in capsys.readouterr().err
        for wrong in (("list", "a=~("), ("history", "--since", "soon"), ("history", "--label", "a!=b")):
            assert await command(url, *wrong) == 2
    assert await command(url, "list") == 1
    assert "is the exporter running?" in capsys.readouterr().err
    assert await command("ftp://x", "list") == 2


@pytest.mark.peer
async def test_amtool_can_be_pointed_here(tmp_path: Path) -> None:
    """amtool adds, shows and expires silences, and shows alerts."""
    program = peer("amtool")

    async def amtool(url: str, *args: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            [program, f"--alertmanager.url={url}", *args],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    async with served(tmp_path) as (rig, url):
        await rig.fire("a")
        assert "Down" in await amtool(url, "alert", "query")
        name = (
            await amtool(url, "silence", "add", "instance=a", "-a", "ann", "-c", "works", "-d", "1h")
        ).strip()
        assert name in await amtool(url, "silence", "query")
        await amtool(url, "silence", "expire", name)
        assert name not in await amtool(url, "silence", "query")


def test_every_action_has_help() -> None:
    """The parser says what each action does."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    assert "acknowledge" in parser.format_help()
