"""The probe sees what a new client would see."""

from __future__ import annotations

import signal

import psutil

from exporter.clock import SystemClock
from exporter.db.pool import Database, Purpose
from tests.helpers.postgres import PostgresServer


async def test_a_smart_shutdown_counts_as_away_and_is_let_finish(own_postgres: PostgresServer) -> None:
    """SIGTERM makes a server wait for its clients: the probe reports it as away and ours let go of it."""
    database = Database(own_postgres.url("postgres"), SystemClock())
    async with database.acquire(Purpose.READ) as connection:
        pid = await connection.fetchval("select pg_backend_pid()")
        postmaster = psutil.Process(pid).parent()
    assert await database.probe()
    assert postmaster is not None
    postmaster.send_signal(signal.SIGTERM)
    while await database.probe():  # until the signal has been seen
        pass
    assert database.last_error
    psutil.wait_procs([postmaster], timeout=20)
    assert not postmaster.is_running() or postmaster.status() == psutil.STATUS_ZOMBIE
    await database.close()


async def test_a_refused_connection_is_told_in_words() -> None:
    """No error number, but what to look at."""
    database = Database("postgresql://nobody@127.0.0.1:9/none", SystemClock())
    assert not await database.probe()
    assert "connection was refused" in database.last_error
    await database.close()
