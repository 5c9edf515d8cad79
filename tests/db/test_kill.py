"""kill -9 of the exporter's process in the middle of its work."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.postgres import PostgresServer

# puts batches of 100 series from a first to a last number, one second apart, then drains for ever
EXPORTER = """
import asyncio, pathlib, sys
import numpy as np
from prometheus_client import CollectorRegistry
from exporter.clock import SystemClock
from exporter.db import batch
from exporter.db.metrics import WriteMetrics
from exporter.db.pool import Database
from exporter.db.sample_codec import SampleCodec
from exporter.db.spool import Spool
from exporter.db.writer import SampleWriter
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch

async def main(url, folder, first, last):
    clock = SystemClock()
    spool = Spool(pathlib.Path(folder), SampleCodec(), clock, segment_bytes=100_000)
    writer = SampleWriter(Database(url, clock), spool, WriteMetrics(CollectorRegistry()), clock)
    labels = tuple(LabelSet.of({"__name__": "m", "n": str(n)}) for n in range(100))
    task = asyncio.create_task(writer.run())
    for at in range(first, last):
        writer.put(SampleBatch(1_772_366_400_000 + 1000 * at, labels, np.full(100, float(at))))
    while spool.rows < 100 * (last - first) and first < last:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    while not spool.is_empty:
        await asyncio.sleep(0.001)
    print("drained", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def _start(url: str, folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", EXPORTER, url, str(folder), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _wait(exporter: subprocess.Popen[str], word: str) -> None:
    assert exporter.stdout is not None
    assert exporter.stdout.readline().strip() == word


def _kill(exporter: subprocess.Popen[str]) -> None:
    exporter.kill()
    exporter.wait()
    assert exporter.stdout is not None
    exporter.stdout.close()


def test_killed_during_the_outage_and_during_the_drain(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """After an outage, kill -9 with a full spool, and kill -9 amid the drain: each sample is there once."""
    name = own_postgres.create_database(own_postgres.migrated_template())
    url = own_postgres.url(name)
    own_postgres.stop()
    exporter = _start(url, tmp_path, 0, 3000)
    _wait(exporter, "ready")
    _kill(exporter)

    own_postgres.start()
    exporter = _start(url, tmp_path, 0, 0)
    _wait(exporter, "ready")
    until = time.monotonic() + 20
    while own_postgres.psql("select count(*) from quantum_samples", name) == "0":
        assert time.monotonic() < until
    _kill(exporter)
    assert list(tmp_path.glob("*.spool")), "killed too late to test anything"

    exporter = _start(url, tmp_path, 0, 0)
    _wait(exporter, "ready")
    _wait(exporter, "drained")
    _kill(exporter)
    counted = own_postgres.psql(
        "select count(*), count(distinct (series_id, ts)), sum(value)::bigint from quantum_samples", name
    )
    assert counted == f"300000|300000|{100 * sum(range(3000))}"
