"""The same migrations, views and functions on the other server that is at hand: Debian's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from exporter.assets import asset_dir
from exporter.clock import SystemClock
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.metrics import RetentionMetrics
from exporter.db.migrate import migrate_up
from exporter.db.os_account import server_account
from exporter.db.pool import Database
from exporter.db.retention import Retention
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from tests.helpers.peers import REQUIRE_PEERS

NOON = 1_772_366_400_000


@pytest.fixture
def debian_url() -> Iterator[str]:
    """A server of Debian's newest installed version in a temporary directory."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        reason = "Debian's PostgreSQL server is not installed (package postgresql)"
        if REQUIRE_PEERS:
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="qe-debian-"))
    account = server_account()
    run_as: dict[str, Any] = {}
    if account is not None:
        os.chown(folder, account.uid, account.gid)
        run_as = {"user": account.uid, "group": account.gid, "extra_groups": []}
    data = str(folder / "data")
    initdb = [
        str(programs[-1]),
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "-N",
    ]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/", **run_as)
    command = [str(programs[-1].with_name("postgres")), "-D", data, "-k", str(folder), "-h", "", "-F"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **run_as)
    until = time.monotonic() + 20
    while "ready" not in _read(folder / "data" / "postmaster.pid"):
        assert time.monotonic() < until
        time.sleep(0.05)
    yield f"postgresql://postgres@/postgres?host={folder}"
    server.send_signal(signal.SIGINT)
    server.wait()
    shutil.rmtree(folder)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_everything_works_on_debians_postgres(debian_url: str) -> None:
    """Migrations, functions, views, writing, reading and retention."""
    await migrate_up(debian_url, asset_dir("sql"))
    assert await migrate_up(debian_url, asset_dir("sql")) == ()
    connection = await asyncpg.connect(debian_url)
    for source in (
        "v_system_health_dashboard",
        "v_active_trades_with_snapshot",
        "v_trade_performance_summary",
        "v_api_reliability_summary",
        "analyze_query_performance()",
        "optimize_tables()",
    ):
        await connection.fetch(f"select * from {source}")
    database = Database(debian_url, SystemClock())
    labels = (LabelSet.of({"__name__": "m", "a": "b"}),)
    for ts_ms in (NOON, NOON, NOON + 1):
        await SampleCopier(database).write([SampleBatch(ts_ms, labels, np.array([1.0]))])
    block = await History(database).read([], NOON, NOON + 1)
    assert block.ts_ms.tolist() == [NOON, NOON + 1]
    report = await Retention(database, RetentionMetrics(CollectorRegistry()), SystemClock()).apply()
    assert report.dropped == ("quantum_samples_20260301",)
    assert {row["removed"] for row in await connection.fetch("select * from cleanup_old_data(1)")} >= {0}
    await connection.close()
    await database.close()
