"""The same migrations, views and functions on every other server that is at hand: Debian's PostgreSQL.

`POSTGRES_BIN_DIRS` names the program folders of further ones, separated by colons.
"""

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
from exporter.collectors.base import CollectorRunner
from exporter.collectors.metrics import CollectorMetrics
from exporter.collectors.postgres import postgres_specs
from exporter.collectors.sql import SqlCollector
from exporter.collectors.sqlconfig import read_sql_file
from exporter.db.copier import SampleCopier
from exporter.db.history import History
from exporter.db.metrics import PackingMetrics, RetentionMetrics
from exporter.db.migrate import migrate_up
from exporter.db.os_account import server_account
from exporter.db.packing import Packing
from exporter.db.pool import Database
from exporter.db.retention import Retention
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from tests.helpers.peers import REQUIRE_PEERS

NOON = 1_772_366_400_000


SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) + [
    Path(name) for name in os.environ.get("POSTGRES_BIN_DIRS", "").split(":") if name
]


@pytest.fixture(params=SERVERS or [None], ids=lambda programs: str(programs))
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of each version in a temporary directory."""
    programs: Path | None = request.param
    if programs is None:
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
        str(programs / "initdb"),
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
    command = [str(programs / "postgres"), "-D", data, "-k", str(folder), "-h", "", "-F"]
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


async def test_everything_works_on_other_versions(server_url: str) -> None:
    """Migrations, functions, views, collectors, writing, packing, reading and retention."""
    await migrate_up(server_url, asset_dir("sql"))
    assert await migrate_up(server_url, asset_dir("sql")) == ()
    connection = await asyncpg.connect(server_url)
    for source in (
        "v_system_health_dashboard",
        "v_active_trades_with_snapshot",
        "v_trade_performance_summary",
        "v_api_reliability_summary",
        "analyze_query_performance()",
        "optimize_tables()",
    ):
        await connection.fetch(f"select * from {source}")
    database = Database(server_url, SystemClock())
    registry = CollectorRegistry()
    runner = CollectorRunner(registry, SystemClock(), CollectorMetrics(registry))
    path = asset_dir("sql") / "queries.yml"
    for spec in (*postgres_specs(), *read_sql_file(path.read_text(), str(path)).collectors):
        runner.add(SqlCollector(spec, database, SystemClock()))
    for status in await runner.run_all():
        assert (status.error, status.faults) == ("", []), status
    labels = (LabelSet.of({"__name__": "m", "a": "b"}),)
    for ts_ms in (NOON, NOON, NOON + 1):
        await SampleCopier(database).write([SampleBatch(ts_ms, labels, np.array([1.5]))])
    for _ in range(2):
        block = await History(database).read([], NOON, NOON + 1)
        assert (block.ts_ms.tolist(), block.values.tolist()) == ([NOON, NOON + 1], [1.5, 1.5])
        assert await connection.fetchval("select sum(value) from quantum_metrics") == 3.0
        report = await Packing(database, PackingMetrics(CollectorRegistry()), SystemClock()).pack()
    assert report.left == ()
    assert await connection.fetchval("select sum(count) from quantum_metrics_5m") == 2
    retention = Retention(database, RetentionMetrics(CollectorRegistry()), SystemClock())
    assert (await retention.apply()).dropped == ("quantum_chunks_20260301",)
    assert (await History(database).read([], NOON, NOON + 300_000)).values.tolist() == [1.5]
    assert {row["removed"] for row in await connection.fetch("select * from cleanup_old_data(1)")} >= {0}
    await connection.close()
    await database.close()
