from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from exporter.clock import SystemClock
from exporter.db.cluster import Cluster, running_url
from exporter.db.embedded import EmbeddedPostgres
from exporter.errors import StorageError


class QuickClock(SystemClock):
    """Real time, but no wait is longer than 50 ms."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.05))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory of our own: pytest closes its common one to other accounts whenever a run begins."""
    folder = Path(tempfile.mkdtemp(prefix="qe-embedded-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path, QuickClock(), restart_after_s=0.3)
    await server.start()
    yield server
    await server.stop()


def _start(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(command, **options)


async def _value(url: str, sql: str = "select 1") -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _until(condition: object, seconds: float = 20.0) -> None:
    clock = SystemClock()
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "waited in vain"
        await clock.sleep(0.02)


async def test_starts_answers_and_stops_quickly(tmp_path: Path) -> None:
    """A new data directory becomes a running server that is not root's; stopping it leaves no process."""
    server = EmbeddedPostgres(tmp_path, SystemClock())
    url = await server.start()
    assert await _value(url, "select current_database()") == "quantum"
    assert running_url(tmp_path) == url
    pid = server.pid
    assert pid is not None
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert family[0].uids().effective != 0
    started = time.monotonic()
    await server.stop()
    assert time.monotonic() - started < 5
    assert not [process for process in family if process.is_running()]
    assert server.pid is None
    assert running_url(tmp_path) is None


def test_a_stop_during_a_start_leaves_no_server(tmp_path: Path) -> None:
    """A start under way in another thread gives up when the server is stopped, and starts no other."""
    cluster = Cluster(tmp_path)
    cluster.prepare()
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(cluster.launch)
        while cluster.pid is None:
            time.sleep(0.001)
        cluster.stop()
        with pytest.raises(StorageError, match="being stopped"):
            start.result(20)
    assert cluster.pid is None
    assert running_url(tmp_path) is None


async def test_only_its_owner_can_reach_the_socket(embedded: EmbeddedPostgres, tmp_path: Path) -> None:
    """There is no network listener, and the socket's directory is closed to others."""
    assert await _value(embedded.url, "show listen_addresses") == ""
    assert os.stat(f"{tmp_path}/postgres.sock").st_mode & 0o777 == 0o700  # noqa: PTH116


async def test_second_exporter_on_the_same_directory_is_refused(
    embedded: EmbeddedPostgres, tmp_path: Path
) -> None:
    """One data directory belongs to one exporter."""
    with pytest.raises(StorageError, match="in use by another exporter"):
        await EmbeddedPostgres(tmp_path, SystemClock()).start()
    assert await _value(embedded.url) == 1


async def test_survives_its_own_kill(embedded: EmbeddedPostgres) -> None:
    """A killed server comes back by itself after the delay, with what was committed."""
    connection = await asyncpg.connect(embedded.url)
    await connection.execute("create table kept (value int); insert into kept values (42)")
    await connection.close()
    first = embedded.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await _until(lambda: embedded.pid not in (None, first))
    assert await _answers(embedded.url, "select value from kept") == 42


async def _answers(url: str, sql: str) -> object:
    until = time.monotonic() + 20
    while True:
        try:
            return await _value(url, sql)
        except (OSError, asyncpg.PostgresError):
            assert time.monotonic() < until
            await SystemClock().sleep(0.05)


async def test_takes_over_a_server_that_somebody_else_started(tmp_path: Path) -> None:
    """Within the restart delay a server started by hand is accepted instead of fought."""
    server = EmbeddedPostgres(tmp_path, QuickClock(), restart_after_s=600)
    url = await server.start()
    try:
        pid = server.pid
        assert pid is not None
        command = psutil.Process(pid).cmdline()
        owner = psutil.Process(pid).uids().effective
        os.kill(pid, signal.SIGINT)
        await _until(lambda: server.pid is None)
        as_owner = {"user": owner, "group": owner} if os.geteuid() == 0 else {}
        with (tmp_path / "by-hand.log").open("wb") as log:
            by_hand = _start(command, stderr=log, stdout=log, **as_owner)
        await _until(lambda: server.pid == by_hand.pid)
        assert await _answers(url, "select 1") == 1
    finally:
        await server.stop()
    assert by_hand.wait(5) == 0


async def test_next_start_reuses_the_server_of_a_killed_exporter(tmp_path: Path) -> None:
    """After kill -9 of the exporter its server runs on; the next exporter takes it over and stops it."""
    script = (
        "import sys, time, pathlib; from exporter.db.cluster import Cluster\n"
        "cluster = Cluster(pathlib.Path(sys.argv[1])); cluster.prepare(); cluster.launch()\n"
        "print(cluster.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with _start(command, stdout=subprocess.PIPE, text=True) as exporter:
        assert exporter.stdout is not None
        pid = int(exporter.stdout.readline())
        exporter.kill()
    server = EmbeddedPostgres(tmp_path, SystemClock())
    url = await server.start()
    assert server.pid == pid
    assert await _value(url) == 1
    await server.stop()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_stale_pid_file_of_another_program_does_not_keep_it_down(tmp_path: Path) -> None:
    """A postmaster.pid left by a crash, its number now another program's, is not believed."""
    cluster = Cluster(tmp_path)
    cluster.prepare()
    (cluster.pgdata / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster.pgdata}\n0\n5432\n\n\n\n")
    cluster.launch()
    assert cluster.pid not in (None, os.getpid())
    cluster.stop()


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    """Files of another Postgres version are named, with the way out, and not touched."""
    cluster = Cluster(tmp_path)
    cluster.prepare()
    (cluster.pgdata / "PG_VERSION").write_text("12\n")
    with pytest.raises(StorageError, match=r"was written by Postgres 12.*database\.url"):
        cluster.prepare()
    cluster.release()


def test_long_paths_put_the_socket_into_the_temporary_directory(tmp_path: Path) -> None:
    """A data directory whose path is too long for a Unix socket works all the same."""
    cluster = Cluster(tmp_path / ("deep" * 20) / ("er" * 20))
    cluster.prepare()
    cluster.launch()
    assert "deepdeep" not in cluster.url
    cluster.stop()
