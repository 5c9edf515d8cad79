"""The program as a user starts it: a process, its HTTP answers, its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], Any], timeout_s: float, every_s: float = 0.5) -> Any:
    """The first true answer of a check; fails with `what` after the time: real time passes here."""
    end = time.monotonic() + timeout_s
    last: Any = None
    while time.monotonic() < end:
        try:
            last = check()
        except (OSError, AssertionError, KeyError, ValueError, subprocess.SubprocessError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every_s)
    raise AssertionError(f"{what}: not within {timeout_s:g} s, last seen: {last!r}")


class Program:
    """One running `quantum-exporter`, started through make."""

    def __init__(
        self, target: str, folder: Path, config: str = "", extra: str = "", variables: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.log_path = folder / "program.log"
        arguments = f"--web.listen-address 127.0.0.1:{self.port} {extra}"
        if config:
            path = folder / "config.yml"
            path.write_text(config)
            arguments += f" --config.file {path}"
        self._log = self.log_path.open("wb")
        environ = {
            key: value for key, value in os.environ.items() if not key.endswith(("_API_KEY", "DATABASE_URL"))
        }
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            ["make", "--no-print-directory", target, f"ARGS={arguments}", *variables],
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )

    def log(self) -> str:
        """What it printed so far."""
        return self.log_path.read_text(errors="replace")

    def get(self, path: str, **params: str) -> Any:
        """JSON of a GET."""
        return json.loads(self.get_text(path, **params))

    def get_text(self, path: str, **params: str) -> str:
        """Body of a GET."""
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        with urllib.request.urlopen(f"{self.base}{path}{query}", timeout=10) as answer:
            return str(answer.read().decode())

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """JSON of a POST (None for an empty answer)."""
        return post(f"{self.base}{path}", body, headers)

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Result of an instant query."""
        found = self.get("/api/v1/query", query=expr)
        return list(found["data"]["result"])

    def value(self, expr: str) -> float:
        """The one value of an instant query."""
        (row,) = self.query(expr)
        return float(row["value"][1])

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Active instances of one alert."""
        return [a for a in self.get("/api/v1/alerts")["data"]["alerts"] if a["labels"]["alertname"] == name]

    def ready(self) -> bool:
        """Whether /-/ready answers 200; an exit of the program fails at once."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the program ended with {self.process.returncode}:\n{self.log()}")
        return "Ready" in self.get_text("/-/ready")

    def exporter(self) -> psutil.Process:
        """The exporter's own process, below make."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, IndexError):  # a child of the server may just have ended
                command = child.cmdline()
                if "python" in command[0] and command[1].endswith("quantum-exporter"):
                    return child
        raise RuntimeError("the exporter's process is not there")

    def family(self) -> list[psutil.Process]:
        """Every process below it, embedded Postgres included."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, timeout_s: float = 20.0) -> float:
        """SIGTERM to the exporter; how long it took to go, in seconds."""
        if self.process.poll() is not None:
            self._log.close()
            return 0.0
        began = time.monotonic()
        try:
            self.exporter().send_signal(signal.SIGTERM)
        except (RuntimeError, psutil.Error):
            self.process.terminate()
        try:
            self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self._log.close()
        return time.monotonic() - began


def database_url(program: Program) -> str:
    """The database's address, from the lines that the program prints at the start."""
    (line,) = [line for line in program.log().splitlines() if line.strip().startswith("database")]
    return line.split()[1]


def simulator_url(program: Program) -> str:
    """The simulator's address, from the same lines."""
    (line,) = [line for line in program.log().splitlines() if line.strip().startswith("simulator")]
    return line.split()[1]


def post(url: str, body: Any = None, headers: dict[str, str] | None = None, method: str = "POST") -> Any:
    """JSON of a POST to any URL."""
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, headers={"Content-Type": "application/json", **(headers or {})}, method=method
    )
    with urllib.request.urlopen(request, timeout=15) as answer:
        text = answer.read().decode()
    return json.loads(text) if text.strip().startswith(("{", "[")) else None
