"""Every command in README.md and docs/ is run, page by page, as a reader would: against one demo.

The demo stands in a folder that looks like a checkout, with the configuration that the tutorial writes.
Addresses in commands are those of the documentation; here the ports are free ones. A new command in a
document is a new test; one that cannot be run stands in SKIPPED with its reason. The tests go in the order of
the file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.db.cluster import programs_dir
from tests.acceptance.program import ROOT, Program, free_port, wait_for
from tests.acceptance.test_demo import database_url, simulator_url
from tests.helpers.documents import Block, Command, all_blocks, all_commands

pytestmark = [pytest.mark.acceptance]

# Beginning of a command -> why nothing runs it here.
SKIPPED = {
    "make demo": "the fixture starts the demo",
    "make run": "tests/acceptance/test_run.py starts it",
    "git clone": "this is the clone",
    "cd quantum-exporter": "this is the clone",
    "docker ": "needs Docker; tests/test_compose.py reads what it would read",
    "kubectl ": "needs a cluster; tests/test_kubernetes.py reads what it would read",
    "mimirtool ": "needs a Mimir; promtool has read the same files",
    "promtool tsdb dump-openmetrics": "needs a Prometheus' data, and a newer promtool than Debian's",
    "python -m exporter.dashboards": "writes into the checkout; tests/test_dashboards.py compares",
    "pip install": "this is an installation",
    "pytest ": "a run of the tests inside a test",
}
# Commands that go on until they are stopped: what they print when they are there.
SERVERS = {"quantum-exporter receive": "receives at", "python3 -m http.server": "Serving HTTP"}
# Commands that are right only after some time: how long, in seconds.
PATIENCE = {"quantum-exporter check dashboards": 240.0}

FIRST_PAGES = ("README.md", "docs/tutorial.md")
COMMANDS = all_commands()
BLOCKS = all_blocks()


def block_of(page: str, title: str) -> str:
    (found,) = (block.text for block in BLOCKS if (block.page, block.title) == (page, title))
    return found


def skipped(command: Command) -> bool:
    return any(command.text.startswith(start) for start in SKIPPED)


def those(*, first: bool) -> Any:
    chosen = [one for one in COMMANDS if (one.page in FIRST_PAGES) == first and not skipped(one)]
    return pytest.mark.parametrize("command", chosen, ids=[f"{one.place}-{one.text[:40]}" for one in chosen])


def queries(language: str) -> Any:
    chosen = [block for block in BLOCKS if block.language == language]
    return pytest.mark.parametrize("block", chosen, ids=[block.place for block in chosen])


class Checkout:
    """A folder like a checkout, the demo that runs in it, and a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "quantum-exporter"
        self.folder.mkdir()
        for name in ("rules", "sql", "compose", "kubernetes"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "docker-compose.yml", self.folder)
        self._page = ""
        self._receiver_port = free_port()
        self._enter(FIRST_PAGES[1])  # its files, the configuration among them
        self._write_own_files()
        config = block_of(FIRST_PAGES[1], "config.yml").replace(":9099/", f":{self._receiver_port}/")
        config += (
            f"rule_files: ['{self.folder}/rules/*.yml']\nstorage: {{data_dir: '{self.folder}/data'}}\n"
            "collect: {providers: {kraken: {interval: 5s}}}\n"
            "global: {scrape_interval: 5s, evaluation_interval: 5s}\n"
        )
        self._bin = folder / "bin"
        self._write_programs()
        self.received = folder / "received.txt"
        self._receiver = self._start("quantum-exporter receive", self.received)
        self.demo = Program("demo", folder, config)
        wait_for("the demo", self.demo.ready, 120)
        self._write_programs()

    def _write_own_files(self) -> None:
        """What some readers have: changed rules, a dashboard of their own, a dump of a Prometheus."""
        (self.folder / "new").mkdir()
        shutil.copy(ROOT / "grafana" / "dashboards" / "exporter.json", self.folder / "mine.json")
        shutil.copy(self.folder / "rules" / "apis.yml", self.folder / "new" / "apis.yml")
        begin = int(time.time()) - 3600
        samples = "".join(f'up{{job="node"}} 1 {begin + 15 * step}\n' for step in range(40))
        (self.folder / "dump.txt").write_text(f"# TYPE up gauge\n{samples}# EOF\n")

    def _write_programs(self) -> None:
        """`quantum-exporter`, with the demo's address for what asks a running exporter."""
        base = self.demo.base if hasattr(self, "demo") else ""
        self._bin.mkdir(exist_ok=True)
        script = self._bin / "quantum-exporter"
        script.write_text(
            "#!/bin/sh\n"
            'case "$1" in\n'
            f'  alerts|why) exec {sys.executable} -m exporter "$@" --url {base} ;;\n'
            f'  receive) exec {sys.executable} -m exporter "$@" --listen-address'
            f" 127.0.0.1:${{RECEIVE_PORT}} ;;\n"
            f'  *) exec {sys.executable} -m exporter "$@" ;;\n'
            "esac\n"
        )
        script.chmod(0o755)

    def _environment(self) -> dict[str, str]:
        programs = (self._bin, Path(sys.executable).parent, programs_dir())
        found = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
        found["PATH"] = ":".join(map(str, programs)) + f":{found['PATH']}"
        found["PYTHONPATH"] = str(ROOT)
        found["RECEIVE_PORT"] = str(self._receiver_port)
        found["ALERT_URLS"] = f"json://127.0.0.1:{self._receiver_port}"
        if hasattr(self, "demo"):
            found["DATABASE_URL"] = database_url(self.demo)
        return found

    def _enter(self, page: str) -> None:
        """The files that a page tells to write."""
        if page != self._page:
            self._page = page
            for block in BLOCKS:
                if block.title and block.page == page:
                    path = self.folder / block.title
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text)

    def _start(self, text: str, output: Path) -> subprocess.Popen[bytes]:
        with output.open("wb") as file:
            return subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.folder, env=self._environment(), stdout=file, stderr=file, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _here(self, text: str) -> str:
        """The command with the ports of this run, and with an alert's id for ID."""
        text = text.replace("127.0.0.1:9464", f"127.0.0.1:{self.demo.port}")
        text = text.replace("http://127.0.0.1:9465", simulator_url(self.demo))
        text = re.sub(r"\b8001\b", str(free_port()), text)
        if re.search(r"\bID\b", text):
            (watchdog,) = wait_for("Watchdog", lambda: self._episodes("Watchdog"), 60)
            text = re.sub(r"\bID\b", watchdog, text)
        return text

    def _episodes(self, name: str) -> list[str]:
        alerts = self.demo.get("/api/v1/alerts/outlook")["data"]["alerts"]
        return [alert["id"] for alert in alerts if alert["labels"]["alertname"] == name]

    def run(self, command: Command) -> None:
        """Run it to its end and compare the exit code; a server must be there, and is stopped."""
        self._enter(command.page)
        text = self._here(command.text)
        if server := next((start for start in SERVERS if command.text.startswith(start)), None):
            self._serve(text, SERVERS[server])
            return
        patience = next((s for start, s in PATIENCE.items() if command.text.startswith(start)), 0.0)
        end = time.monotonic() + patience
        while True:
            done = subprocess.run(
                ["bash", "-c", text], cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            if done.returncode == command.exit_code or time.monotonic() > end:
                break
            self.demo.get_text("/metrics")  # as a Prometheus would; some panels tell of it
            time.sleep(10)
        assert done.returncode == command.exit_code, f"{text}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        if text.startswith("curl "):
            assert not re.match(r'\{"status": ?"error"|4\d\d: |5\d\d: ', done.stdout), done.stdout

    def _serve(self, text: str, ready: str) -> None:
        output = self.folder.parent / "server.txt"
        if "receive" in text:
            text = f"RECEIVE_PORT={free_port()} {text}"
        process = self._start(f"env {text}", output)
        try:
            wait_for(ready, lambda: process.poll() is None and ready in output.read_text(), 90)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)

    def close(self) -> None:
        self.demo.stop()
        self._receiver.terminate()
        self._receiver.wait(10)


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    # not under pytest's own folder, which it closes to other accounts: root's Postgres runs as another one
    with tempfile.TemporaryDirectory(prefix="quantum-docs-") as name:
        Path(name).chmod(0o755)
        found = Checkout(Path(name))
        yield found
        found.close()
        print(found.demo.log()[-5000:])


def test_each_reason_for_skipping_is_needed() -> None:
    """What the documents no longer say is no longer skipped."""
    for table in (SKIPPED, SERVERS, PATIENCE):
        for start in table:
            assert any(command.text.startswith(start) for command in COMMANDS), start


@those(first=True)
def test_first_steps(checkout: Checkout, command: Command) -> None:
    """README and tutorial, in their order: each command ends as it should."""
    checkout.run(command)


def test_the_alert_of_the_tutorial_arrives(checkout: Checkout) -> None:
    """The reader's own rule has fired, and its message is with the receiver."""
    received = checkout.received.read_text
    wait_for("firing", lambda: "[FIRING warning] KrakenDown: kraken does not answer" in received(), 90)


@those(first=False)
def test_each_command(checkout: Checkout, command: Command) -> None:
    """Each command of the other pages ends as it should."""
    checkout.run(command)


@queries("promql")
def test_each_expression_is_answered(checkout: Checkout, block: Block) -> None:
    """PromQL examples are questions that the demo answers without an error."""
    assert checkout.demo.get("/api/v1/query", query=block.text)["status"] == "success"


@queries("sql")
async def test_each_statement_runs(checkout: Checkout, block: Block) -> None:
    """SQL examples run on the demo's database, in a transaction that is undone."""
    connection = await asyncpg.connect(database_url(checkout.demo))
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(block.text)
        await transaction.rollback()
    finally:
        await connection.close()


def test_the_end_of_the_alert_is_told(checkout: Checkout) -> None:
    """Once the simulator's fault is over, the resolved message arrives."""
    received = checkout.received.read_text
    wait_for("resolved", lambda: "[RESOLVED warning] KrakenDown: kraken does not answer" in received(), 240)
    assert received().count("[FIRING warning] KrakenDown") == 1, "a second one inside the cooldown"
