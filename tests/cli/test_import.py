"""`quantum-exporter import` into a real Postgres, and back out of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from exporter.cli import main
from exporter.clock import SystemClock
from exporter.db.metrics import PackingMetrics
from exporter.db.packing import Packing
from exporter.db.pool import Database
from tests.cli.history import END_S, START_S, write_history


@pytest.mark.postgres
def test_imported_history_is_replayed(
    tmp_path: Path, migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backtest over the database gives what one over the file gives; an import can be repeated."""
    path = write_history(tmp_path)
    for _ in range(2):
        assert main(["import", "openmetrics", str(path), "--database", migrated_url]) == 0
        assert "5760 samples of 4 series imported" in capsys.readouterr().out
    common = ["backtest", "--rules", str(tmp_path / "rules.yml"), "--from", str(START_S), "--to", str(END_S)]
    assert main([*common, "-o", "json", "--source", f"openmetrics:{path}"]) == 0
    of_file = json.loads(capsys.readouterr().out)
    assert main([*common, "-o", "json", "--database", migrated_url]) == 0
    assert json.loads(capsys.readouterr().out) == of_file
    assert sum(len(alert["episodes"]) for alert in of_file["alerts"]) == 7


@pytest.mark.postgres
def test_a_replay_of_five_minute_history_says_so(
    tmp_path: Path, migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Days whose samples are gone are replayed from the last value of each five minutes, with a warning."""

    async def age() -> None:
        database = Database(migrated_url, SystemClock())
        await Packing(database, PackingMetrics(CollectorRegistry()), SystemClock()).pack()
        async with database.acquire() as connection:
            await connection.execute("drop table quantum_chunks_20231114, quantum_chunks_20231115")
        await database.close()

    path = write_history(tmp_path)
    assert main(["import", "openmetrics", str(path), "--database", migrated_url]) == 0
    common = ["backtest", "--rules", str(tmp_path / "rules.yml"), "--from", str(START_S), "--to", str(END_S)]
    assert main([*common, "-o", "json", "--database", migrated_url]) == 0
    assert capsys.readouterr().err == ""
    asyncio.run(age())
    assert main([*common, "-o", "json", "--database", migrated_url]) == 0
    shown = capsys.readouterr()
    assert "warning: before 2023-11-15T22:10:00Z samples are gone" in shown.err
    episodes = {alert["alert"]: len(alert["episodes"]) for alert in json.loads(shown.out)["alerts"]}
    assert episodes["High"] == 6  # half an hour is long enough to be seen


@pytest.mark.postgres
def test_rules_are_checked_against_what_is_stored(
    tmp_path: Path, migrated_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check rules --metrics postgres` names the metrics that were never stored."""
    path = write_history(tmp_path)
    assert main(["import", "openmetrics", str(path), "--database", migrated_url]) == 0
    rules = tmp_path / "typo.yml"
    rules.write_text("groups: [{name: g, rules: [{record: a, expr: levle + level}]}]")
    assert main(["check", "rules", "--metrics", "postgres", "--database", migrated_url, str(rules)]) == 0
    shown = capsys.readouterr().out
    assert 'no series is named "levle", did you mean "level"? [metric-unknown]' in shown
    assert shown.count("metric-unknown") == 1


@pytest.mark.postgres
def test_an_old_database_is_named(
    tmp_path: Path, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its tables the database is refused, with the command to run."""
    path = write_history(tmp_path)
    assert main(["import", "openmetrics", str(path), "--database", database_url]) == 2
    assert "run quantum-exporter migrate" in capsys.readouterr().err
