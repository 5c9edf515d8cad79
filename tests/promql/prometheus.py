"""Debian's Prometheus as an oracle: started on a free port over imported data, asked through its API."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Any

START_TIMEOUT_S = 60


class Prometheus:
    """A running server; use as a context manager. `exposition` is OpenMetrics text with timestamps."""

    def __init__(self, prometheus: str, promtool: str, home: Path, exposition: str = "") -> None:
        self._home = home
        self._port = self.port = _free_port()
        config = home / "prometheus.yml"
        config.write_text("global: {}\n")
        data = home / "data"
        data.mkdir()
        if exposition:
            source = home / "samples.om"
            source.write_text(exposition)
            command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(source), str(data)]
            subprocess.run(command, check=True, capture_output=True)
        self._command = [
            prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=error",
        ]
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=START_TIMEOUT_S)

    def __enter__(self) -> Prometheus:
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._connection.request("GET", "/-/ready")
                response = self._connection.getresponse()
                response.read()
                if response.status == 200:
                    return self
            except OSError:
                self._connection.close()
            time.sleep(0.05)
        self.__exit__(None, None, None)
        raise RuntimeError(f"prometheus did not start: {(self._home / 'log').read_text()[-500:]}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def call(self, path: str, **parameters: str) -> dict[str, Any]:
        """One POST to the API; the decoded answer, whatever its status."""
        body = urllib.parse.urlencode(parameters)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request("POST", f"/api/v1/{path}", body, headers)
        answer: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return answer

    def format_query(self, text: str) -> str:
        """The pretty text of a query, or the parser's error."""
        answer = self.call("format_query", query=text)
        if answer["status"] == "success":
            return str(answer["data"])
        return str(answer["error"]).removeprefix('invalid parameter "query": ')


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
