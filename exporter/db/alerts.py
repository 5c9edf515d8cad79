"""Alert state, episodes, notifications and silences in Postgres: the notifier's store.

A commit is one transaction, whole rows upserted by key, so that writing the same changes twice does no harm.
`record` columns hold what is read back; the other columns are for people and SQL. Rows are sent as arrays,
100 of them for a round trip.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from exporter.db.pool import Purpose
from exporter.errors import StorageError
from exporter.notify.episodes import EVALUATOR
from exporter.notify.message import episode_message, episode_title
from exporter.notify.records import (
    Changes,
    Episode,
    Notification,
    RowTexts,
    Silence,
    Status,
    fingerprint,
    row_id,
)
from exporter.notify.steps import Steps, sliced
from exporter.rules.cooldown import Gate
from exporter.rules.cooldown import from_record as gate_from_record
from exporter.rules.model import digest

TAKEN_OVER = "taken over"  # how an episode ended whose replica lost the lead before it could record it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECENT_LIMIT = 20_000

_EPISODES = """
insert into system_alerts as old (
    id, episode_id, severity, type, title, message, context, triggered_at, resolved_at, resolved_by,
    resolution_notes, fingerprint, rule_key, labels, resolve_reason, active, acked_at, acked_by, ack_notes,
    notification_count, suppressed_count, notified_at, value, peak, record)
select * from unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::timestamptz[],
    $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::jsonb[], $15::text[],
    $16::boolean[], $17::timestamptz[], $18::text[], $19::text[], $20::int[], $21::int[], $22::timestamptz[],
    $23::float8[], $24::float8[], $25::json[])
on conflict (id) do update set
    title = excluded.title, message = excluded.message, context = excluded.context,
    resolved_at = excluded.resolved_at, resolved_by = excluded.resolved_by,
    resolution_notes = excluded.resolution_notes, resolve_reason = excluded.resolve_reason,
    active = excluded.active, acked_at = excluded.acked_at, acked_by = excluded.acked_by,
    ack_notes = excluded.ack_notes, notification_count = excluded.notification_count,
    suppressed_count = excluded.suppressed_count, notified_at = excluded.notified_at,
    value = excluded.value, peak = excluded.peak, record = excluded.record
"""
_GATES = """
insert into quantum_alert_cooldowns (id, receiver, armed_at, ends_at, suppressed, record)
select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::int[], $6::json[])
on conflict (id) do update set
    armed_at = excluded.armed_at, ends_at = excluded.ends_at, suppressed = excluded.suppressed,
    record = excluded.record, updated_at = now()
"""
_NOTIFICATIONS = """
insert into quantum_alert_notifications as old (
    id, receiver, destination, status, state, episode_ids, created_at, finished_at, attempts, via, error,
    record)
select id, receiver, destination, status, state, string_to_array(episodes, ','), created_at, finished_at,
       attempts, via, error, record
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
            $8::timestamptz[], $9::int[], $10::text[], $11::text[], $12::json[])
    as one (id, receiver, destination, status, state, episodes, created_at, finished_at, attempts, via, error,
            record)
on conflict (id) do update set
    state = excluded.state, finished_at = excluded.finished_at, attempts = excluded.attempts,
    via = excluded.via, error = excluded.error, record = excluded.record
"""
_DELETE_GATES = "delete from quantum_alert_cooldowns where id = any($1::text[])"
_INSTANCES = """
insert into quantum_alert_instances (rule_key, fingerprint, record)
select * from unnest($1::text[], $2::text[], $3::json[])
on conflict (rule_key, fingerprint) do update set record = excluded.record, updated_at = now()
"""
_DELETE_INSTANCES = """
delete from quantum_alert_instances old using unnest($1::text[], $2::text[]) as gone (rule_key, fingerprint)
where old.rule_key = gone.rule_key and old.fingerprint = gone.fingerprint
"""
_SILENCES = """
insert into quantum_alert_silences (id, starts_at, ends_at, created_by, comment, record)
select * from unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::json[])
on conflict (id) do update set
    starts_at = excluded.starts_at, ends_at = excluded.ends_at, created_by = excluded.created_by,
    comment = excluded.comment, record = excluded.record
"""
# who acted on what, when, how long it fired, how many messages went out: one query
_HISTORY = """
select a.id::text as id, a.episode_id, a.type as alertname, lower(a.severity) as severity, a.title, a.message,
       a.labels, a.fingerprint, a.triggered_at, a.resolved_at, a.resolved_by, a.resolve_reason,
       a.resolution_notes, a.active, a.acked_at, a.acked_by, a.ack_notes, a.value, a.peak,
       a.notification_count, a.suppressed_count, a.notified_at,
       extract(epoch from coalesce(a.resolved_at, now()) - a.triggered_at)::float8 as fired_seconds,
       coalesce((
           select jsonb_agg(jsonb_build_object(
               'id', n.id, 'receiver', n.receiver, 'via', n.via, 'status', n.status, 'state', n.state,
               'createdAt', n.created_at, 'finishedAt', n.finished_at, 'attempts', n.attempts,
               'error', n.error) order by n.created_at, n.id)
           from quantum_alert_notifications n
           where n.episode_ids @> array[a.episode_id]), '[]') as notifications
from system_alerts a
where ($1 = '' or a.type = $1) and ($2 = '' or lower(a.severity) = lower($2))
  and ($3 = '' or (a.resolved_at is null) = ($3 = 'firing'))
  and ($4 = '' or exists (select from quantum_alert_notifications n
                          where n.episode_ids @> array[a.episode_id] and (n.receiver = $4 or n.via = $4)))
  and ($5 = '' or a.resolved_by = $5 or a.acked_by = $5)
  and ($6::timestamptz is null or coalesce(a.resolved_at, 'infinity') >= $6)
  and ($7::timestamptz is null or a.triggered_at <= $7)
  and ($8::jsonb is null or a.labels @> $8)
order by a.triggered_at desc, a.id
limit $9 offset $10
"""


class _Database(Protocol):
    def acquire(self, purpose: Purpose = ...) -> AbstractAsyncContextManager[Any]: ...


class _Filter(Protocol):
    """The fields of the notifier's HistoryFilter."""

    @property
    def alertname(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def receiver(self) -> str: ...
    @property
    def by(self) -> str: ...
    @property
    def start_ms(self) -> int | None: ...
    @property
    def end_ms(self) -> int | None: ...
    @property
    def labels(self) -> Mapping[str, str] | None: ...
    @property
    def limit(self) -> int: ...
    @property
    def offset(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StoredState:
    """The stored state as it was read, in rows; read often, and turned into records when it is needed."""

    instances: Sequence[Any]
    gates: Sequence[Any]
    queued: Sequence[Any]
    silences: Sequence[Any]
    episodes: Sequence[Any]

    def changes(self) -> Changes:
        """As records. Raises: StorageError for rows that nobody of ours wrote."""
        try:
            gates = [gate_from_record(json.loads(row["record"])) for row in self.gates]
            notifications = [Notification.from_record(json.loads(row["record"])) for row in self.queued]
            silences = [Silence.from_record(json.loads(row["record"])) for row in self.silences]
            episodes = [Episode.from_record(json.loads(row["record"])) for row in self.episodes]
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"stored alert state cannot be read: {error}") from error
        return Changes(
            episodes={one.id: one for one in episodes},
            gates={one.key: one for one in gates},
            notifications={one.id: one for one in notifications},
            instances={(row["rule_key"], row["fingerprint"]): row["record"] for row in self.instances},
            silences={one.id: one for one in silences},
        )


class PostgresAlertStore:
    """The notifier's records in the tables of 008.

    `leader` is where the state is read and written: the leader's session, which writes for nobody else; the
    same database unless told otherwise. History is open to all.
    """

    def __init__(self, database: _Database, leader: _Database | None = None) -> None:
        self._database = database
        self._leader = leader or database

    async def load(self) -> Changes:
        """What a restart needs: everything alive, and the episodes of the last day.

        Raises: StorageError.
        """
        async with self._leader.acquire(Purpose.READ) as connection:
            state = await _read(connection)
        return await asyncio.to_thread(state.changes)

    async def look(self) -> StoredState:
        """The same for one who does not lead, as it is now. Raises: StorageError."""
        async with self._database.acquire(Purpose.READ) as connection:
            return await _read(connection)

    async def commit(self, changes: Changes) -> None:
        """Write all rows in one transaction.

        Raises: WriteError, and then nothing is written.
        """
        statements = await _statements(changes)
        async with self._leader.acquire(Purpose.WRITE) as connection:
            await _or_abort(connection, _execute(connection, statements))

    async def add(self, changes: Changes) -> None:
        """Add what the tables lack and leave what they have: the records of one who notified while it could
        not write, and whose place another has taken. What it held as firing is closed, what it had not sent
        is left to the other.

        Raises: WriteError, and then nothing is written.
        """
        made = await _statements(_history_of(changes))
        statements = [(_keeping(sql), columns) for sql, columns in made]
        async with self._database.acquire(Purpose.WRITE) as connection:
            await _or_abort(connection, _execute(connection, statements))

    async def history(self, wanted: _Filter) -> Sequence[Mapping[str, Any]]:
        """Episodes, newest first, each with its notifications.

        Raises: StorageError.
        """
        labels = json.dumps(dict(wanted.labels)) if wanted.labels else None
        async with self._database.acquire(Purpose.READ) as connection:
            rows = await connection.fetch(
                _HISTORY,
                wanted.alertname,
                wanted.severity,
                wanted.state,
                wanted.receiver,
                wanted.by,
                _time(wanted.start_ms),
                _time(wanted.end_ms),
                labels,
                wanted.limit,
                wanted.offset,
            )
        return [_history_row(row) for row in rows]

    async def prune(self, before_ms: int) -> int:
        """Delete the episodes, notifications and silences that ended before a time; returns how many rows.

        Raises: WriteError.
        """
        before = _time(before_ms)
        gone = 0
        async with self._database.acquire(Purpose.WRITE) as connection:
            for statement in (
                "delete from quantum_alert_notifications where state <> 'queued' and finished_at < $1",
                "delete from system_alerts where not active and resolved_at < $1",
                "delete from quantum_alert_silences where ends_at < $1",
            ):
                status = await connection.execute(statement, before)
                gone += int(status.rpartition(" ")[2])
        return gone


async def _read(connection: Any) -> StoredState:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        instances = await connection.fetch(
            "select rule_key, fingerprint, record from quantum_alert_instances"
        )
        gates = await connection.fetch("select record from quantum_alert_cooldowns")
        queued = await connection.fetch(
            "select record from quantum_alert_notifications where state = 'queued' order by created_at"
        )
        silences = await connection.fetch(
            "select record from quantum_alert_silences where ends_at > now() - interval '5 days'"
        )
        episodes = await connection.fetch(
            "select record from system_alerts"
            " where record is not null and (active or episode_id = any($1))"
            " union all (select record from system_alerts where record is not null and not active"
            " and triggered_at > now() - interval '1 day' order by triggered_at desc limit $2)",
            list({one for row in queued for one in _episode_ids(row)}),
            _RECENT_LIMIT,
        )
    return StoredState(instances, gates, queued, silences, episodes)


async def _execute(connection: Any, statements: Sequence[_Statement]) -> None:
    async with connection.transaction():
        for sql, columns in statements:
            await connection.execute(sql, *columns)


async def _or_abort(connection: Any, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; a cancellation breaks the connection off, since a rollback would wait for a server that
    does not answer."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        connection.terminate()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: the cancellation is what goes on
        raise


def _history_of(changes: Changes) -> Changes:
    """What is added of another's records: episodes that were told, closed; what was sent or given up; what
    that armed. What was not sent nobody knows of, and the other tells it."""
    return Changes(
        episodes={
            key: replace(
                one,
                active=False,
                resolved_at_ms=one.resolved_at_ms or max(one.triggered_at_ms, one.notified_at_ms),
                resolved_by=one.resolved_by or EVALUATOR,
                resolve_reason=one.resolve_reason or TAKEN_OVER,
            )
            for key, one in changes.episodes.items()
            if one.notifications
        },
        gates={
            key: replace(gate, flights=(), episodes={})
            for key, gate in changes.gates.items()
            if gate is not None and gate.armed_at_ms
        },
        notifications={
            key: one for key, one in changes.notifications.items() if one.state is not Status.QUEUED
        },
        silences=dict(changes.silences),
    )


def _keeping(sql: str) -> str:
    """The upsert as an insert that leaves the rows alone that are there."""
    return f"{sql.partition('do update')[0]}do nothing"


def _episode_row(episode: Episode, record: str) -> tuple[Any, ...]:
    context = {
        "annotations": dict(episode.annotations),
        "resolved_value": None if episode.resolved_value is None else repr(episode.resolved_value),
    }
    return (
        row_id(episode.id),
        _clean(episode.id),
        _severity(episode.severity),
        _clean(episode.alertname)[:100],
        _clean(episode_title(episode))[:255],
        _clean(episode_message(episode)),
        _jsonb(context),
        _time(episode.triggered_at_ms),
        _time(episode.resolved_at_ms),
        _clean(episode.resolved_by)[:255] or None,
        _clean(episode.resolution_notes) or None,
        fingerprint(episode.labels),
        _clean(episode.rule_key),
        _jsonb(episode.labels.as_dict()),
        episode.resolve_reason or None,
        episode.active,
        _time(episode.acked_at_ms),
        _clean(episode.acked_by) or None,
        _clean(episode.ack_notes) or None,
        episode.notifications,
        episode.suppressed,
        _time(episode.notified_at_ms),
        episode.value,
        episode.peak,
        record,
    )


def _notification_row(one: Notification, record: str) -> tuple[Any, ...]:
    return (
        one.id,
        _clean(one.receiver),
        _clean(one.destination),
        one.status,
        one.state.value,
        ",".join(dict.fromkeys(one.episode_ids)),
        _time(one.created_at_ms),
        _time(one.finished_at_ms),
        one.attempts,
        _clean(one.via) or None,
        _clean(one.error) or None,
        record,
    )


def _silence_row(silence: Silence, record: str) -> tuple[Any, ...]:
    return (
        silence.id,
        _time(silence.starts_at_ms) or _EPOCH,
        _time(silence.ends_at_ms) or _EPOCH,
        _clean(silence.created_by),
        _clean(silence.comment),
        record,
    )


_Statement = tuple[str, list[list[Any]]]


async def _statements(changes: Changes) -> list[_Statement]:
    """What a commit executes; others run while many rows are made."""
    found: list[_Statement] = []
    for _ in _make_statements(changes, found):
        await asyncio.sleep(0)
    return found


def _make_statements(changes: Changes, found: list[_Statement]) -> Steps[None]:
    """Add the statements of a commit, each of so few rows that turning them into the server's format holds
    nobody up."""
    texts = yield from changes.text_steps()
    for sql, rows in _rows(changes, texts):
        for some in sliced(rows):
            found.append((sql, [list(column) for column in zip(*some, strict=True)]))
            yield


def _rows(changes: Changes, texts: RowTexts) -> Iterator[tuple[str, Iterable[Sequence[Any]]]]:
    """The rows of a commit; tables and rows always in one order, so that two writers cannot deadlock."""
    episodes, gates, sent = changes.episodes, changes.gates, changes.notifications
    instances, silences = changes.instances, changes.silences
    yield _EPISODES, (_episode_row(episodes[key], texts.episodes[key]) for key in sorted(episodes))
    kept = sorted(key for key, gate in gates.items() if gate is not None)
    yield _GATES, (_gate_row(gate, texts.gates[key]) for key in kept if (gate := gates[key]))
    yield _DELETE_GATES, ((digest(key),) for key in sorted(gates.keys() - kept))
    yield _NOTIFICATIONS, (_notification_row(sent[key], texts.notifications[key]) for key in sorted(sent))
    held = sorted(key for key, text in instances.items() if text is not None)
    yield _INSTANCES, ((_clean(rule), mark, instances[rule, mark]) for rule, mark in held)
    yield _DELETE_INSTANCES, ((_clean(rule), mark) for rule, mark in sorted(instances.keys() - held))
    yield _SILENCES, (_silence_row(silences[key], texts.silences[key]) for key in sorted(silences))


def _gate_row(gate: Gate, record: str) -> tuple[Any, ...]:
    return (
        digest(gate.key),
        _clean(gate.key.partition("\x1f")[0]),
        _time(gate.armed_at_ms),
        _time(gate.until_ms),
        gate.suppressed,
        record,
    )


def _history_row(row: Any) -> dict[str, Any]:
    found = {
        name: (value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value)
        for name, value in row.items()
    }
    for name in ("labels", "notifications"):
        found[name] = json.loads(found[name]) if found[name] else {}
    for name in ("value", "peak"):
        found[name] = None if found[name] is None else repr(found[name]).removesuffix(".0")
    return found


def _episode_ids(row: Any) -> Sequence[str]:
    return [str(alert["episode_id"]) for alert in json.loads(row["record"])["alerts"]]


def _severity(text: str) -> str:
    """CRITICAL, WARNING, INFO; another severity as it is written, in capitals; INFO without one."""
    return _clean(text).upper()[:20] or "INFO"


def _time(ts_ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(ts_ms / 1000, UTC) if ts_ms else None


def _clean(text: str) -> str:
    """Text that Postgres takes: no NUL, no lone surrogate."""
    if text.isascii() and "\x00" not in text:  # nearly always
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _jsonb(value: object) -> str:
    """JSON that jsonb takes: no escaped NUL, no lone surrogate."""
    text = json.dumps(value)
    if "\\u0000" not in text and "\\ud" not in text:  # nearly always
        return text
    return json.dumps(_cleaned(value), ensure_ascii=False)


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, Mapping):
        return {_clean(str(name)): _cleaned(inner) for name, inner in value.items()}
    return value
