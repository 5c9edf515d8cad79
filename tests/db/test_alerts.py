"""The alert store on a real Postgres."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from exporter.clock import SystemClock
from exporter.db.alerts import PostgresAlertStore
from exporter.db.pool import Database
from exporter.errors import StorageError
from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.notify.ports import HistoryFilter
from exporter.notify.records import Changes, Episode, Notification, NotifiedAlert, Silence, Status
from exporter.rules.cooldown import EpisodeNote, Flight, Gate
from tests.helpers.postgres import PostgresServer

T0 = 1_700_000_000_000
LABELS = LabelSet.of({"alertname": "Down", "severity": "critical", "provider": "kraken"})


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, SystemClock())
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> PostgresAlertStore:
    return PostgresAlertStore(database)


def episode(name: str = "e1", **values: object) -> Episode:
    base = Episode(
        id=name,
        rule_key="f.yml;g;Down{}",
        labels=LABELS,
        annotations={"summary": "kraken is down", "description": "no answer"},
        value=0.5,
        peak=0.25,
        triggered_at_ms=T0,
    )
    return replace(base, **values)  # type: ignore[arg-type]


def notification(name: str = "n1", episode_id: str = "e1", **values: object) -> Notification:
    alert = NotifiedAlert(episode_id, "firing", LABELS, {"summary": "s"}, "00ff", T0, value=float("nan"))
    base = Notification(name, "ops", "ops", "firing", (alert,), slots=(("ops\x1fk", "s1"),), created_at_ms=T0)
    return replace(base, **values)  # type: ignore[arg-type]


def everything() -> Changes:
    gate = Gate("ops\x1fk", 60_000, T0, 2, T0, {"e1": EpisodeNote(1, 1)}, (Flight("s1", ("e1",), 2),))
    silence = Silence("s", (Matcher("a", MatchOp.REGEX, "b.*"),), T0, 4_000_000_000_000, "ann", "works", T0)
    return Changes(
        episodes={"e1": episode()},
        gates={gate.key: gate},
        notifications={"n1": notification()},
        instances={("f.yml;g;Down{}", "00ff"): json.dumps({"labels": {"a": "b\x00c"}})},
        silences={"s": silence},
    )


async def test_what_is_committed_is_loaded(store: PostgresAlertStore) -> None:
    """Every kind of record survives, NaN, NUL and all."""
    await store.commit(everything())
    loaded = await store.load()
    assert json.loads(loaded.to_json()) == json.loads(everything().to_json())


async def test_a_commit_can_be_repeated(store: PostgresAlertStore, migrated_url: str) -> None:
    """The same rows twice are the same rows; one row for each episode."""
    for _ in range(3):
        await store.commit(everything())
    connection = await asyncpg.connect(migrated_url)
    try:
        assert await connection.fetchval("select count(*) from system_alerts") == 1
        row = await connection.fetchrow("select * from system_alerts")
    finally:
        await connection.close()
    assert (row["severity"], row["type"], row["title"]) == ("CRITICAL", "Down", "Down: kraken is down")
    assert row["message"] == "no answer"
    assert row["resolved_at"] is None
    assert json.loads(row["labels"])["provider"] == "kraken"


async def test_rows_are_deleted(store: PostgresAlertStore) -> None:
    """None deletes a gate and an instance; a delivered notification is not loaded again."""
    await store.commit(everything())
    await store.commit(
        Changes(
            episodes={"e1": episode(active=False, resolved_at_ms=T0 + 60_000, resolved_by="evaluator")},
            gates={"ops\x1fk": None},
            instances={("f.yml;g;Down{}", "00ff"): None},
            notifications={"n1": notification(state=Status.DELIVERED, finished_at_ms=T0 + 5, attempts=1)},
        )
    )
    loaded = await store.load()
    assert (loaded.gates, loaded.instances, loaded.notifications, loaded.episodes) == ({}, {}, {}, {})


async def test_one_query_says_who_acted_and_what_was_sent(store: PostgresAlertStore) -> None:
    """History has the acts, the duration and each notification."""
    closed = episode(
        active=False, resolved_at_ms=T0 + 90_000, resolved_by="ann", resolution_notes="restarted",
        acked_by="bob", acked_at_ms=T0 + 1000, notifications=2, suppressed=1, resolve_reason="by hand",
    )  # fmt: skip
    await store.commit(
        Changes(
            episodes={"e1": closed, "e2": episode("e2", triggered_at_ms=T0 + 1)},
            notifications={
                "n1": notification(state=Status.DELIVERED, finished_at_ms=T0 + 9, attempts=3),
                "n2": notification("n2", "e1", status="resolved", state=Status.DEAD, error="HTTP 400"),
            },
        )
    )
    newest, oldest = await store.history(HistoryFilter())
    assert (newest["episode_id"], oldest["episode_id"]) == ("e2", "e1")
    assert oldest["fired_seconds"] == 90.0
    assert (oldest["resolved_by"], oldest["acked_by"], oldest["resolution_notes"]) == (
        "ann",
        "bob",
        "restarted",
    )
    assert [(one["status"], one["state"], one["attempts"]) for one in oldest["notifications"]] == [
        ("firing", "delivered", 3),
        ("resolved", "dead", 0),
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (HistoryFilter(alertname="Down"), 2),
        (HistoryFilter(alertname="Other"), 0),
        (HistoryFilter(severity="critical"), 2),
        (HistoryFilter(state="firing"), 1),
        (HistoryFilter(state="resolved"), 1),
        (HistoryFilter(by="ann"), 1),
        (HistoryFilter(receiver="ops"), 1),
        (HistoryFilter(labels={"provider": "kraken"}), 2),
        (HistoryFilter(labels={"provider": "x"}), 0),
        (HistoryFilter(start_ms=T0 + 200_000), 1),
        (HistoryFilter(end_ms=T0), 1),
        (HistoryFilter(limit=1), 1),
        (HistoryFilter(offset=2), 0),
    ],
)
async def test_history_filters(store: PostgresAlertStore, wanted: HistoryFilter, found: int) -> None:
    """Each filter alone."""
    await store.commit(
        Changes(
            episodes={
                "e1": episode(active=False, resolved_at_ms=T0 + 90_000, resolved_by="ann"),
                "e2": episode("e2", triggered_at_ms=T0 + 100_000),
            },
            notifications={"n1": notification()},
        )
    )
    assert len(await store.history(wanted)) == found


async def test_hostile_text_is_stored(store: PostgresAlertStore) -> None:
    """NUL, lone surrogates, a megabyte, no severity: a row all the same."""
    labels = LabelSet.of({"alertname": "A" * 300 + "\x00", "x": "\u202e"})
    nasty = episode(
        labels=labels, annotations={"summary": "\x00\ud800" * 10 + "x" * 1_000_000}, resolved_by="\x00"
    )
    await store.commit(Changes(episodes={"e1": nasty}))
    loaded = (await store.load()).episodes["e1"]
    assert loaded == nasty
    (row,) = await store.history(HistoryFilter())
    assert row["severity"] == "info"
    assert len(row["title"]) <= 255


async def test_ten_thousand_rows_are_one_commit(store: PostgresAlertStore) -> None:
    """Many instances at once are arrays, not round trips."""
    many = Changes(
        episodes={f"e{n}": episode(f"e{n}") for n in range(10_000)},
        instances={("r", f"{n:016x}"): f"{n}" for n in range(10_000)},
    )
    await store.commit(many)
    loaded = await store.load()
    assert (len(loaded.episodes), len(loaded.instances)) == (10_000, 10_000)


async def test_prune_deletes_what_ended_before(store: PostgresAlertStore) -> None:
    """What is active or queued stays, however old."""
    await store.commit(
        Changes(
            episodes={
                "e1": episode(active=False, resolved_at_ms=T0 + 1),
                "e2": episode("e2"),
            },
            notifications={
                "n1": notification(state=Status.DELIVERED, finished_at_ms=T0 + 1),
                "n2": notification("n2"),
            },
        )
    )
    assert await store.prune(T0 + 2) == 2
    loaded = await store.load()
    assert (list(loaded.episodes), list(loaded.notifications)) == (["e2"], ["n2"])


async def test_migration_keeps_a_platform_table_as_it_is(
    postgres_server: PostgresServer, database_url: str
) -> None:
    """A system_alerts of the platform gains the columns; its rows stay, and history shows them."""
    from exporter.assets import asset_dir
    from exporter.db.migrate import migrate_up

    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "create table system_alerts (id uuid primary key default gen_random_uuid(),"
        " severity varchar(20) not null, type varchar(100) not null,"
        " title varchar(255) not null, message text not null, context jsonb,"
        " triggered_at timestamptz not null default now(), resolved_at timestamptz, resolved_by varchar(255),"
        " resolution_notes text, created_at timestamptz not null default now());"
        "insert into system_alerts (severity, type, title, message) values ('INFO', 'Old', 't', 'm')"
    )
    await connection.close()
    await migrate_up(database_url, asset_dir("sql"))
    await migrate_up(database_url, asset_dir("sql"))
    database = Database(database_url, SystemClock())
    store = PostgresAlertStore(database)
    try:
        await store.commit(everything())
        assert sorted(row["alertname"] for row in await store.history(HistoryFilter())) == ["Down", "Old"]
        assert list((await store.load()).episodes) == ["e1"]
    finally:
        await database.close()


async def test_an_unreachable_database_is_a_storage_error() -> None:
    """Every method says so in our words."""
    database = Database("postgresql://nobody@127.0.0.1:1/none", SystemClock())
    store = PostgresAlertStore(database)
    try:
        for call in (
            store.load(),
            store.commit(everything()),
            store.history(HistoryFilter()),
            store.prune(T0),
        ):
            with pytest.raises(StorageError):
                await call
    finally:
        await database.close()
