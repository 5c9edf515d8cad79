"""A trading database that is alive: seeded with history, moved on by steps, and disturbed on request."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from random import Random
from typing import Any, Protocol
from uuid import UUID

from exporter.clock import Clock
from exporter.errors import ExporterError, StorageError
from exporter.simulate.trading_plan import COLUMNS, DAY, HOUR, MINUTE, Row, Trade, TradingPlan, moment

_LOG = logging.getLogger(__name__)

TRADE_HISTORY = 14 * DAY
_HISTORY = {
    "btc_hourly_snapshots": 5 * DAY,
    "quantum_anomaly_logs": 7 * DAY,
    "prediction_accuracy_database": 14 * DAY,
    "api_latency_reliability_logs": 3 * DAY,
}
_LONGEST_TRADE = 8 * DAY
_NO_FATAL = 6 * HOUR  # no FATAL anomaly in the youngest history: only a scenario may fire that alert
_AGAIN = 4 * MINUTE  # an alert looks for them over 5 minutes; more would soon be a spike as well
_STAYING_USERS = 50  # of 200, while engagement is dropped
_SPIKE = 40  # beside 12 anomalies in an ordinary hour
_LOW_QUALITY = 45
_USUAL_QUALITY = 86
_LOW_ACCURACY = 46.0


class SimulationError(ExporterError):
    """The simulated data cannot be put into this database."""


class Scenario(Enum):
    """A disturbance that makes the alert of that subject fire."""

    FATAL_ANOMALY = "fatal_anomaly"
    SUSPEND = "suspend"
    ACCURACY_DROP = "accuracy_drop"
    QUALITY_DROP = "quality_drop"
    ENGAGEMENT_DROP = "engagement_drop"
    ANOMALY_SPIKE = "anomaly_spike"


class TradingDatabase(Protocol):
    """Lends connections of the database that is simulated."""

    def acquire(self) -> AbstractAsyncContextManager[Any]:
        """An asyncpg connection for the length of the block. Raises: StorageError."""


class TradingSimulator:
    """Keeps the platform's tables moving. `start` once, then `step` every few seconds, or `run`.

    The same seed and times give the same rows. Databases with users of their own are left alone.
    """

    def __init__(
        self, database: TradingDatabase, clock: Clock, *, seed: int = 1, step_s: float = 5.0
    ) -> None:
        self._database = database
        self._clock = clock
        self._step_s = step_s
        self._plan = TradingPlan(seed)
        self._rng = Random(f"{seed}:{clock.now_ms()}")  # ids of scenarios must not repeat after a restart
        self._last_ms = 0
        self._ending: list[tuple[int, UUID, str]] = []  # heap of (time, trade, status)
        self._active: set[Scenario] = set()
        self._moved_trades: list[UUID] = []
        self._spike: list[UUID] = []
        self._reported_ms = 0
        self._repeated_ms: dict[Scenario, int] = {}
        self._busy = asyncio.Lock()  # a switch and a step must not mix

    def __repr__(self) -> str:
        names = ", ".join(sorted(scenario.value for scenario in self._active)) or "calm"
        return f"TradingSimulator({names})"

    @property
    def active(self) -> frozenset[str]:
        """The names of the scenarios that are on."""
        return frozenset(scenario.value for scenario in self._active)

    def controls(self) -> Mapping[str, Callable[[bool], Awaitable[None]]]:
        """One switch for each scenario, by name: `await controls()["suspend"](True)`."""
        return {scenario.value: self._switch_of(scenario) for scenario in Scenario}

    async def start(self) -> int:
        """Fill the tables up to now: the whole history, or what is missing since the last run.

        Returns: the number of rows written. Raises: SimulationError where the tables are missing or hold
        users of their own; StorageError where the database is away.
        """
        async with self._busy, self._database.acquire() as connection:
            now_ms = self._clock.now_ms()
            last_ms = await self._last_written(connection)
            begin = {table: max(last_ms, now_ms - span) for table, span in _HISTORY.items()}
            trades_from = max(last_ms, now_ms - TRADE_HISTORY)
            # snapshots point at trades of the hours before them: with a gap some would point at nothing
            plan = self._plan
            tables = await asyncio.to_thread(self._rows, begin, trades_from, now_ms, last_ms == 0)
            running = [
                trade
                for trade in await asyncio.to_thread(
                    lambda: list(plan.trades(now_ms - _LONGEST_TRADE, now_ms))
                )
                if trade.ends_ms > now_ms
            ]
            async with connection.transaction():
                written = await self._write(connection, tables)
                if last_ms:
                    await self._end_overdue(connection, last_ms, now_ms)
            self._ending = [(trade.ends_ms, trade.id, trade.ending) for trade in running]
            heapq.heapify(self._ending)
            self._last_ms = now_ms
            return written

    async def step(self) -> int:
        """Write what happened since the last step. Returns: the number of rows written or changed."""
        async with self._busy, self._database.acquire() as connection:
            now_ms = self._clock.now_ms()
            if now_ms <= self._last_ms:
                return 0
            plan, last_ms = self._plan, self._last_ms
            trades = [self._staying(trade) for trade in plan.trades(last_ms, now_ms)]
            ended = self._due(now_ms)
            low = Scenario.QUALITY_DROP in self._active
            bad = Scenario.ACCURACY_DROP in self._active
            tables: dict[str, Sequence[Row]] = {
                "btc_trades": [plan.trade_row(trade, now_ms) for trade in trades],
                "btc_hourly_snapshots": plan.snapshot_rows(last_ms, now_ms, _LOW_QUALITY if low else None),
                "quantum_anomaly_logs": [*plan.anomaly_rows(last_ms, now_ms), *self._repeats(now_ms)],
                "prediction_accuracy_database": plan.accuracy_rows(
                    last_ms, now_ms, _LOW_ACCURACY if bad else None
                ),
                "api_latency_reliability_logs": plan.api_rows(last_ms, now_ms),
            }
            try:
                async with connection.transaction():
                    written = await self._write(connection, tables)
                    await self._end(connection, ended, now_ms)
            except BaseException:
                for item in ended:  # to be tried again
                    heapq.heappush(self._ending, item)
                raise
            for trade in trades:
                heapq.heappush(self._ending, (trade.ends_ms, trade.id, trade.ending))
            self._last_ms = now_ms
            return written + len(ended)

    async def run(self) -> None:
        """Step until cancelled; while the database is away nothing is lost, the next step makes it up."""
        away = False
        while True:
            await self._clock.sleep(self._step_s)
            try:
                await self.step()
                away = False
            except StorageError as error:
                if not away:
                    _LOG.warning("the simulated trading database cannot be written: %s", error)
                away = True

    async def switch(self, scenario: Scenario, on: bool) -> None:
        """Turn a scenario on or off; what it already is stays. Raises: StorageError."""
        async with self._busy:
            if on == (scenario in self._active):
                return
            async with self._database.acquire() as connection, connection.transaction():
                await self._apply(connection, scenario, on)
            if on:
                self._active.add(scenario)
            else:
                self._active.discard(scenario)

    def _switch_of(self, scenario: Scenario) -> Callable[[bool], Awaitable[None]]:
        async def switch(on: bool) -> None:
            await self.switch(scenario, on)

        return switch

    def _rows(
        self, begin: Mapping[str, int], trades_from: int, now_ms: int, first: bool
    ) -> dict[str, Sequence[Row]]:
        plan = self._plan
        return {
            "users": plan.user_rows(now_ms) if first else [],
            "btc_trades": [plan.trade_row(trade, now_ms) for trade in plan.trades(trades_from, now_ms)],
            "btc_hourly_snapshots": plan.snapshot_rows(begin["btc_hourly_snapshots"], now_ms),
            "quantum_anomaly_logs": plan.anomaly_rows(
                begin["quantum_anomaly_logs"], now_ms, now_ms - _NO_FATAL
            ),
            "prediction_accuracy_database": plan.accuracy_rows(begin["prediction_accuracy_database"], now_ms),
            "api_latency_reliability_logs": plan.api_rows(begin["api_latency_reliability_logs"], now_ms),
        }

    async def _last_written(self, connection: Any) -> int:
        """Up to when the tables are filled, Unix milliseconds; 0 for empty ones."""
        missing = [
            table for table in COLUMNS if await connection.fetchval("select to_regclass($1)", table) is None
        ]
        if missing:
            raise SimulationError(f"the database lacks the tables {', '.join(missing)}; run migrate up first")
        users = list(self._plan.users)
        strangers = await connection.fetchval("select count(*) from users where id <> all($1::uuid[])", users)
        if strangers:
            raise SimulationError(
                f"the database holds {strangers} users of its own; simulated trades go into an empty one only"
            )
        if not await connection.fetchval("select count(*) from users"):
            return 0
        newest = await connection.fetchval(
            """
            select greatest((select max(generated_at) from btc_trades),
                (select max(snapshot_at) from btc_hourly_snapshots),
                (select max(detected_at) from quantum_anomaly_logs),
                (select max(created_at) from prediction_accuracy_database),
                (select max(requested_at) from api_latency_reliability_logs))
            """
        )
        return round(newest.timestamp() * 1000) if newest is not None else 1

    async def _write(self, connection: Any, tables: Mapping[str, Sequence[Row]]) -> int:
        written = 0
        for table, columns in COLUMNS.items():  # in the order of the foreign keys
            rows = tables.get(table, ())
            if not rows:
                continue
            if table == "btc_hourly_snapshots":
                rows = await self._with_known_trades(connection, rows)
            await connection.copy_records_to_table(table, records=rows, columns=columns)
            written += len(rows)
        return written

    async def _with_known_trades(self, connection: Any, rows: Sequence[Row]) -> list[Row]:
        """Snapshots whose trade is not there (before the history, or in a gap) point at none."""
        wanted = list({row[1] for row in rows})
        found = await connection.fetch("select id from btc_trades where id = any($1::uuid[])", wanted)
        known = {record["id"] for record in found}
        return [row if row[1] in known else (row[0], None, *row[2:]) for row in rows]

    def _due(self, now_ms: int) -> list[tuple[int, UUID, str]]:
        due = []
        while self._ending and self._ending[0][0] <= now_ms:
            due.append(heapq.heappop(self._ending))
        return due

    async def _end(self, connection: Any, ended: Sequence[tuple[int, UUID, str]], now_ms: int) -> None:
        if ended:
            await connection.execute(
                """
                update btc_trades set status = e.status, last_validated_at = $3
                from unnest($1::uuid[], $2::text[]) as e (id, status) where btc_trades.id = e.id
                """,
                [trade for _, trade, _ in ended],
                [status for *_, status in ended],
                moment(now_ms),
            )

    async def _end_overdue(self, connection: Any, last_ms: int, now_ms: int) -> None:
        """End the trades that ended while the simulator was off."""
        plan, begin = self._plan, last_ms - _LONGEST_TRADE
        trades = await asyncio.to_thread(lambda: list(plan.trades(begin, last_ms)))
        overdue = [(t.ends_ms, t.id, t.ending) for t in trades if last_ms < t.ends_ms <= now_ms]
        await self._end(connection, overdue, now_ms)

    def _staying(self, trade: Trade) -> Trade:
        if Scenario.ENGAGEMENT_DROP not in self._active:
            return trade
        fields = {name: getattr(trade, name) for name in Trade.__slots__}
        return Trade(**{**fields, "user": trade.user % _STAYING_USERS})

    def _repeats(self, now_ms: int) -> list[Row]:
        """Fresh anomalies of the scenarios that need one in each five minutes."""
        return [
            self._anomaly(scenario, now_ms)
            for scenario in (Scenario.FATAL_ANOMALY, Scenario.SUSPEND)
            if scenario in self._active and now_ms - self._repeated_ms.get(scenario, 0) >= _AGAIN
        ]

    def _anomaly(self, scenario: Scenario, now_ms: int) -> Row:
        self._repeated_ms[scenario] = now_ms
        suspends = scenario is Scenario.SUSPEND
        kind, severity = ("manual_suspension", "WARNING") if suspends else ("multi_source_failure", "FATAL")
        return self._plan.anomaly_row(
            self._new_id(), kind, severity, now_ms, suspends=suspends, resolved=False
        )

    def _new_id(self) -> UUID:
        return UUID(int=self._rng.getrandbits(128), version=4)

    async def _apply(self, connection: Any, scenario: Scenario, on: bool) -> None:
        now_ms = self._clock.now_ms()
        if scenario in (Scenario.FATAL_ANOMALY, Scenario.SUSPEND):
            if on:
                await self._write(connection, {"quantum_anomaly_logs": [self._anomaly(scenario, now_ms)]})
        elif scenario is Scenario.ACCURACY_DROP:
            rate = _LOW_ACCURACY if on else None
            # the newest report counts: two switches within one millisecond still have an order
            self._reported_ms = max(now_ms, self._reported_ms + 1)
            row = self._plan.accuracy_row(self._new_id(), self._rng, self._reported_ms, rate)
            await self._write(connection, {"prediction_accuracy_database": [row]})
        elif scenario is Scenario.QUALITY_DROP:
            await connection.execute(
                "update btc_hourly_snapshots set data_quality_score = $1 where snapshot_at > $2",
                _LOW_QUALITY if on else _USUAL_QUALITY,
                moment(now_ms - 3 * HOUR),
            )
        elif scenario is Scenario.ENGAGEMENT_DROP:
            await self._move_trades(connection, on, now_ms)
        else:
            await self._spike_anomalies(connection, on, now_ms)

    async def _move_trades(self, connection: Any, on: bool, now_ms: int) -> None:
        """Leave a quarter of the users in the last day: the others' trades become a day older."""
        if on:
            moved = await connection.fetch(
                """
                update btc_trades set generated_at = generated_at - interval '24 hours'
                where generated_at > $1 and user_id = any($2::uuid[]) returning id
                """,
                moment(now_ms - DAY),
                list(self._plan.users[_STAYING_USERS:]),
            )
            self._moved_trades = [record["id"] for record in moved]
        else:
            await connection.execute(
                """
                update btc_trades set generated_at = generated_at + interval '24 hours'
                where id = any($1::uuid[])
                """,
                self._moved_trades,
            )

    async def _spike_anomalies(self, connection: Any, on: bool, now_ms: int) -> None:
        if on:
            self._spike = [self._new_id() for _ in range(_SPIKE)]
            rows = [
                self._plan.anomaly_row(row_id, "volume_outlier", "INFO", now_ms - at * 20 * MINUTE // _SPIKE)
                for at, row_id in enumerate(self._spike)
            ]
            await self._write(connection, {"quantum_anomaly_logs": rows})
        else:
            await connection.execute(
                "delete from quantum_anomaly_logs where id = any($1::uuid[])", self._spike
            )
