"""`make run` without internet, an installed wheel elsewhere, and the faults that keep it from starting."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.program import ROOT, Program, wait_for
from tests.acceptance.test_demo import TWELVE

pytestmark = [pytest.mark.acceptance]

# What `make run` does where nothing outside can be reached: the providers' addresses refuse.
OFFLINE = """\
global: {{scrape_interval: 2s, evaluation_interval: 2s}}
storage: {{data_dir: {data}}}
collect:
  providers:
    coingecko: {{base_url: "http://127.0.0.1:9"}}
    kraken: {{base_url: "http://127.0.0.1:9"}}
    blockchain: {{base_url: "http://127.0.0.1:9"}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="quantum-run-") as name:
        yield Path(name)


def test_without_internet_the_providers_fail_and_the_exporter_does_not(folder: Path) -> None:
    """AllApisFailing fires, everything else goes on, and SIGTERM leaves nothing behind."""
    program = Program("run", folder, OFFLINE.format(data=folder / "data"))
    try:
        wait_for("ready", program.ready, 90)
        (alert,) = wait_for("AllApisFailing", lambda: program.alerts("AllApisFailing"), 120)
        wait_for("firing", lambda: program.alerts("AllApisFailing")[0]["state"] == "firing", 120)
        assert alert["labels"]["severity"] == "critical"
        assert program.value("quantum_database_up") == 1
        assert {row["metric"]["provider"] for row in program.query("quantum_provider_up == 0")} == {
            "coingecko",
            "kraken",
            "blockchain",
        }
        groups = program.get("/api/v1/rules", type="alert")["data"]["groups"]
        found = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        assert {found[name] for name in TWELVE} == {"ok"}
        assert "no API key (OPENAI_API_KEY)" in program.log()
        family = program.family()
    finally:
        took = program.stop()
    _, alive = psutil.wait_procs(family, timeout=2)
    assert not alive
    assert took < 5


def test_a_wheel_installed_elsewhere_works_the_same(folder: Path) -> None:
    """Rules, SQL and dashboards travel in it."""

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    shipped = run(
        python,
        "-c",
        "from exporter.assets import asset_dir\n"
        "from exporter.config.load import load_config\n"
        "config = load_config(None, {})\n"
        "print(len(config.rule_files), len(config.sql_files))\n"
        "print(len(list(asset_dir('sql').glob('0*.sql'))))\n"
        "print(len(list((asset_dir('grafana') / 'dashboards').glob('*.json'))))\n"
        "print(config.rule_files[0])",
    ).split()
    assert int(shipped[0]) >= 4
    assert int(shipped[1]) == 1
    assert int(shipped[2]) >= 10
    assert int(shipped[3]) >= 3
    assert str(folder) in shipped[4]
    run(folder / "venv" / "bin" / "quantum-exporter", "check", "rules", shipped[4])


def refused(folder: Path, *arguments: str, **environ: str) -> str:
    """The one error of a start that is refused; checks code 2, no traceback, no server left."""
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "run", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not [
        process for process in psutil.process_iter(["cwd"]) if str(folder) in (process.info["cwd"] or "")
    ]
    return done.stderr.strip()


def test_a_port_in_use_is_one_clear_error(folder: Path) -> None:
    """It names the address and starts nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        error = refused(folder, "--web.listen-address", address)
    assert f"cannot listen on {address}: another program uses this port" in error
    assert not (folder / "data" / "postgres").exists()


def test_an_unreachable_database_is_one_clear_error(folder: Path) -> None:
    """It names the setting and the cause."""
    error = refused(
        folder, "--web.listen-address", "127.0.0.1:0", DATABASE_URL="postgresql://nobody@127.0.0.1:9/none"
    )
    assert "database.url" in error
    assert "the connection was refused" in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scrape: 1s", 'config.yml:1:1: unknown key "scrape"'),
        ("database: {url: '${NOT_SET}'}", "config.yml:1:17: the environment variable NOT_SET is not set"),
        ("rule_files: [rules.yml]", 'rules.yml:2:42: unknown key "expression" in a rule'),
    ],
)
def test_faults_in_files_have_their_place(folder: Path, text: str, message: str) -> None:
    """file:line:column, before anything is started."""
    (folder / "rules.yml").write_text("groups:\n- {name: g, rules: [{alert: A, expr: up, expression: up}]}\n")
    (folder / "config.yml").write_text(text)
    error = refused(folder, "--config.file", "config.yml", "--web.listen-address", "127.0.0.1:0")
    assert message in error, error
