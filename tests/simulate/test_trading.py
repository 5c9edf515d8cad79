"""The simulated trading database: the same by seed, moving, calm unless a scenario is on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.collectors.base import CollectorRunner, Outcome
from exporter.collectors.metrics import CollectorMetrics
from exporter.collectors.sql import SqlCollector
from exporter.collectors.sqlconfig import read_sql_file
from exporter.db.pool import Database
from exporter.simulate.trading import Scenario, SimulationError, TradingSimulator
from exporter.simulate.trading_plan import COLUMNS, DAY, HOUR, MINUTE, TradingPlan
from tests.helpers.clock import FakeClock
from tests.helpers.platform import platform_template, platform_url

__all__ = ["platform_template", "platform_url"]

NOW = 1_700_000_000_000


class World:
    """A simulated database on a clock that is moved by hand, with the shipped SQL collectors."""

    def __init__(self, url: str) -> None:
        self.clock = FakeClock(int(time.time() * 1000))
        self.database = Database(url, SystemClock())
        self.simulator = TradingSimulator(self.database, self.clock)
        self.registry = CollectorRegistry()
        self.runner = CollectorRunner(self.registry, SystemClock(), CollectorMetrics(self.registry))
        path = asset_dir("sql") / "queries.yml"
        for spec in read_sql_file(path.read_text(), str(path)).collectors:
            self.runner.add(SqlCollector(spec, self.database, SystemClock()))

    async def measure(self) -> None:
        for status in await self.runner.run_all():
            assert (status.outcome, status.faults) == (Outcome.SUCCESS, []), status

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(name, labels)
        assert found is not None, name
        return found

    def firing(self) -> set[str]:
        """The alerts whose conditions hold, as the shipped rules word them."""
        conditions = {
            "SystemSuspended": self.value("quantum_system_suspended") > 0,
            "FatalAnomaly": self.value("quantum_anomalies_recent", severity="FATAL") > 0,
            "DataQualityLow": self.value("quantum_data_quality_ratio") < 0.7,
            "AccuracyDrop": self.value("quantum_prediction_accuracy_ratio") < 0.6,
            "AnomalySpike": self.value("quantum_anomalies_last_hour")
            > 1.5 * self.value("quantum_anomalies_previous_hour"),
            "UserEngagementDrop": self.value("quantum_users_active_last_24h")
            < 0.75 * self.value("quantum_users_active_previous_24h"),
        }
        return {name for name, holds in conditions.items() if holds}

    async def fetch(self, query: str) -> list[Mapping[str, object]]:
        async with self.database.acquire() as connection:
            found: list[Mapping[str, object]] = await connection.fetch(query)
            return found


@pytest.fixture
async def world(platform_url: str) -> AsyncIterator[World]:
    made = World(platform_url)
    yield made
    await made.database.close()


def all_rows(plan: TradingPlan, edges: list[int]) -> dict[str, list[object]]:
    rows: dict[str, list[object]] = {
        "trades": [],
        "snapshots": [],
        "anomalies": [],
        "accuracy": [],
        "api": [],
    }
    for after, until in pairwise(edges):
        rows["trades"] += plan.trades(after, until)
        rows["snapshots"] += plan.snapshot_rows(after, until)
        rows["anomalies"] += plan.anomaly_rows(after, until)
        rows["accuracy"] += plan.accuracy_rows(after, until)
        rows["api"] += plan.api_rows(after, until)
    return rows


def test_many_small_steps_make_the_same_history_as_one() -> None:
    """Rows depend on seed and time only, not on the length of the steps."""
    whole = all_rows(TradingPlan(1), [NOW, NOW + 5 * HOUR])
    edges = [NOW, NOW + 1, NOW + 7 * MINUTE, NOW + 8 * MINUTE, NOW + 2 * HOUR, NOW + 5 * HOUR]
    assert all_rows(TradingPlan(1), edges) == whole
    assert all_rows(TradingPlan(2), edges) != whole


def test_any_hour_has_much_the_same_number_of_anomalies() -> None:
    """Without a scenario no hour has 1.5 times the anomalies of the hour before."""
    plan = TradingPlan(3)
    counts = [len(plan.anomaly_rows(NOW + at * MINUTE, NOW + at * MINUTE + HOUR)) for at in range(0, 600, 7)]
    assert min(counts) >= 11
    assert max(counts) <= 13


def test_enough_users_come_back_each_day() -> None:
    """Without a scenario no day has under 75 % of the users of the day before."""
    plan = TradingPlan(4)
    users = [
        len({trade.user for trade in plan.trades(NOW + at * HOUR, NOW + at * HOUR + DAY)}) for at in range(72)
    ]
    assert min(users) > 0.85 * max(users)


async def test_seeding_is_plausible(world: World) -> None:
    """Some thousand rows; all tables and statuses filled; no alert's condition holds."""
    written = await world.simulator.start()
    assert 5_000 < written < 20_000
    for table in COLUMNS:
        assert (await world.fetch(f"select count(*) as n from {table}"))[0]["n"] > 100  # type: ignore[operator]
    statuses = {row["status"] for row in await world.fetch("select distinct status from btc_trades")}
    assert statuses == {"ACTIVE", "HIT", "NOT_HIT", "INVALIDATED", "EXPIRED"}
    await world.measure()
    assert world.firing() == set()
    assert 0.8 < world.value("quantum_data_quality_ratio") < 1
    assert world.value("quantum_trades_active") > 50


async def test_steps_go_on_where_the_history_ends(world: World) -> None:
    """Each step adds what happened since, ends the trades that are due, and never writes a row twice."""
    await world.simulator.start()
    active = await world.fetch("select id from btc_trades where status = 'ACTIVE'")
    changed = 0
    for _ in range(30):
        await world.clock.advance(120)
        changed += await world.simulator.step()
    assert changed > 40
    assert await world.simulator.step() == 0
    begin = world.clock.now_ms() / 1000 - 3600
    late = await world.fetch(
        f"select count(*) as n from btc_trades where generated_at > to_timestamp({begin})"
    )
    assert 8 <= late[0]["n"] <= 12  # type: ignore[operator]
    still = await world.fetch("select id from btc_trades where status = 'ACTIVE'")
    assert {row["id"] for row in active} - {row["id"] for row in still}
    overdue = await world.fetch(
        f"select count(*) as n from btc_trades where status = 'ACTIVE'"
        f" and expires_at < to_timestamp({world.clock.now_ms() / 1000})"
    )
    assert overdue[0]["n"] == 0


async def test_a_restart_fills_the_gap(world: World) -> None:
    """A simulator started on its own data goes on from there: no gap, no repeat, overdue trades ended."""
    await world.simulator.start()
    await world.clock.advance(3 * 3600)
    again = TradingSimulator(world.database, world.clock)
    written = await again.start()
    assert 150 < written < 300
    gaps = await world.fetch(
        "select max(gap) as gap from (select"
        " detected_at - lag(detected_at) over (order by detected_at) as gap"
        " from quantum_anomaly_logs) as gaps"
    )
    assert gaps[0]["gap"].total_seconds() < 600  # type: ignore[attr-defined]
    overdue = await world.fetch(
        f"select count(*) as n from btc_trades where status = 'ACTIVE'"
        f" and expires_at < to_timestamp({world.clock.now_ms() / 1000})"
    )
    assert overdue[0]["n"] == 0
    assert await again.start() == 0


@pytest.mark.parametrize(
    ("scenario", "alert", "ages_out"),
    [
        (Scenario.FATAL_ANOMALY, "FatalAnomaly", True),
        (Scenario.SUSPEND, "SystemSuspended", True),
        (Scenario.ACCURACY_DROP, "AccuracyDrop", False),
        (Scenario.QUALITY_DROP, "DataQualityLow", False),
        (Scenario.ENGAGEMENT_DROP, "UserEngagementDrop", False),
        (Scenario.ANOMALY_SPIKE, "AnomalySpike", False),
    ],
)
async def test_each_scenario_fires_its_alert_alone(
    world: World, scenario: Scenario, alert: str, ages_out: bool
) -> None:
    """A switch makes the condition of its own alert hold, at once, and releases it."""
    await world.simulator.start()
    switch = world.simulator.controls()[scenario.value]
    await switch(True)
    await switch(True)
    assert world.simulator.active == {scenario.value}
    await world.measure()
    assert world.firing() == {alert}
    await world.simulator.step()
    await switch(False)
    assert world.simulator.active == frozenset()
    if ages_out:  # the row stays: it leaves the 5 minutes by itself
        await world.fetch("update quantum_anomaly_logs set detected_at = detected_at - interval '6 minutes'")
    await world.measure()
    assert world.firing() == set()


async def test_scenarios_last_as_long_as_they_are_on(world: World) -> None:
    """While its scenario is on, an anomaly that an alert looks for is there in any 5 minutes."""
    await world.simulator.start()
    await world.simulator.switch(Scenario.FATAL_ANOMALY, True)
    query = "select count(*) from quantum_anomaly_logs where severity = 'FATAL' and detected_at > $1"
    for _ in range(60):
        await world.clock.advance(30)
        await world.simulator.step()
        begin = datetime.fromtimestamp(world.clock.now_ms() / 1000 - 300, UTC)
        async with world.database.acquire() as connection:
            assert await connection.fetchval(query, begin) in (1, 2)


async def test_new_trades_keep_to_the_scenario(world: World) -> None:
    """While engagement is dropped the new trades belong to the users who stay."""
    await world.simulator.start()
    await world.simulator.switch(Scenario.ENGAGEMENT_DROP, True)
    await world.simulator.switch(Scenario.QUALITY_DROP, True)
    await world.clock.advance(6 * 3600)
    await world.simulator.step()
    users = await world.fetch(
        "select count(distinct user_id) as n from btc_trades where generated_at > now()"
    )
    assert 20 < users[0]["n"] <= 50  # type: ignore[operator]
    quality = await world.fetch(
        "select distinct data_quality_score as q from btc_hourly_snapshots where snapshot_at > now()"
    )
    assert [row["q"] for row in quality] == [45]


async def test_a_database_with_users_of_its_own_is_left_alone(world: World) -> None:
    """Simulated rows never go into somebody's real tables."""
    await world.fetch("insert into users (id) values (gen_random_uuid())")
    with pytest.raises(SimulationError, match="the database holds 1 users of its own"):
        await world.simulator.start()
    assert (await world.fetch("select count(*) as n from btc_trades"))[0]["n"] == 0


async def test_missing_tables_are_told(database_url: str) -> None:
    """Without the platform's tables the simulator says which are missing."""
    database = Database(database_url, SystemClock())
    with pytest.raises(SimulationError, match="the database lacks the tables users, btc_trades"):
        await TradingSimulator(database, FakeClock()).start()
    await database.close()
