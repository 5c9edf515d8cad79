"""A real Postgres for tests: one server for each test worker, a database of its own for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from exporter.assets import asset_dir
from exporter.db.cluster import Cluster, programs_dir

# a run of the tests that is killed must not leave its servers behind
_WATCH = """
while kill -0 $1 2>/dev/null; do sleep 2; done
kill -INT $(head -n 1 "$2/postgres/postmaster.pid") 2>/dev/null && sleep 2
rm -rf "$2"
"""
_FAST = {"fsync": "off", "full_page_writes": "off"}  # commits must survive kill -9, not a power cut


class PostgresServer:
    """An embedded Postgres in a temporary directory: start, stop, kill, start again.

    An outage in a test is `stop()` (or `kill()`) and later `start()`; the URLs stay the same.
    """

    def __init__(self) -> None:
        self.data_dir = Path(tempfile.mkdtemp(prefix="qe-pg-"))
        self._cluster = Cluster(self.data_dir, _FAST)
        self._numbers = itertools.count(1)
        self._template: str | None = None
        watch = ["sh", "-c", _WATCH, "watch", str(os.getpid()), str(self.data_dir)]
        self._watch = subprocess.Popen(watch, start_new_session=True)

    def start(self) -> None:
        self._cluster.prepare()
        self._cluster.launch()

    def stop(self) -> None:
        """A fast shutdown: every connection is closed by the server."""
        self._cluster.stop()

    def kill(self) -> None:
        """SIGKILL to the server's main process; returns when it and its children are gone."""
        pid = self._cluster.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self._cluster.pid is not None:
            time.sleep(0.01)

    def close(self) -> None:
        """Stop, and remove all files."""
        self._watch.kill()
        self._watch.wait()
        self._cluster.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    @property
    def pid(self) -> int | None:
        return self._cluster.pid

    @property
    def socket_dir(self) -> str:
        return self._cluster.url.partition("host=")[2].partition("&")[0]

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(self.socket_dir, safe='/')}&port=5432"

    def psql(self, sql: str, database: str = "postgres") -> str:
        """The unaligned output of one command, through the packaged client."""
        command = [
            str(programs_dir() / "bin" / "psql"),
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.url(database),
        ]
        done = subprocess.run([*command, "-c", sql], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create_database(self, template: str = "template0") -> str:
        """The name of a new database."""
        name = f"test_{next(self._numbers)}"
        self.psql(f"create database {name} template {template} strategy file_copy")
        return name

    def drop_database(self, name: str) -> None:
        self.psql(f"drop database if exists {name} with (force)")

    def migrated_template(self) -> str:
        """A database with every migration applied, made once: copy it with `create_database(template)`."""
        if self._template is None:
            from exporter.db.migrate import migrate_up

            name = self.create_database()
            # in a thread: the caller may be inside an event loop
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, migrate_up(self.url(name), asset_dir("sql"))).result()
            self._template = name
        return self._template

    def migrated_url(self) -> str:
        """The URL of a new database with every migration applied."""
        return self.url(self.create_database(self.migrated_template()))
