"""`quantum-exporter init`: what it writes works."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.config.load import load_config
from exporter.config.reference import option_rows
from exporter.config.schema import Config
from exporter.config.starter import starter_config
from tests.helpers.peers import peer


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.yml"
    path.write_text(text)
    (tmp_path / "rules").mkdir(exist_ok=True)
    return replace(load_config(path, {}), text="", file=None)


def test_the_starter_means_the_defaults(tmp_path: Path) -> None:
    """As written it changes nothing but where rules are looked for."""
    found, built_in = load(tmp_path, starter_config()), load_config(None, {})
    for field in ("global_", "database", "storage", "query", "heartbeat", "dashboard_api", "notification"):
        assert getattr(found, field) == getattr(built_in, field), field
    assert found.collect == built_in.collect


def test_every_comment_that_is_an_option_is_valid(tmp_path: Path) -> None:
    """Without the single # each option and example is accepted; the options are still the defaults."""
    text = re.sub(r"^(\s*)#(?!#)", r"\1", starter_config(), flags=re.M).replace('["sql/*.yml"]', "[]")
    found, built_in = load(tmp_path, text), load_config(None, {})
    for field in ("global_", "database", "storage", "query", "heartbeat"):
        assert getattr(found, field) == getattr(built_in, field), field
    assert found.collect.targets[0].name == "node"
    assert {one.name for one in found.notification.receivers} == {"log", "ops", "chat"}


def test_every_option_is_in_it() -> None:
    """No option of the schema is left out, but those of single providers."""
    text = starter_config()
    for key, _, _ in option_rows():
        if not key.startswith("collect.providers."):
            assert re.search(rf"^\s*#?{re.escape(key.rpartition('.')[2])}:", text, re.M), key


def test_what_is_written_passes_its_own_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check config, check rules and test rules accept every file."""
    assert main(["init", str(tmp_path / "new"), "--output", "json"]) == 0
    files = [Path(name) for name in json.loads(capsys.readouterr().out)["files"]]
    assert all(path.exists() for path in files)
    rules = [str(path) for path in files if path.parent.name == "rules"]
    tests = [str(path) for path in files if path.parent.name == "tests"]
    assert str(tmp_path / "new/rules/mine.yml") in rules
    assert main(["check", "config", str(tmp_path / "new/config.yml")]) == 0
    assert main(["check", "rules", "--lint-fatal", *rules]) == 0
    assert main(["test", "rules", *tests]) == 0


@pytest.mark.peer
def test_promtool_runs_the_own_test(tmp_path: Path) -> None:
    """Without the keys that are ours, promtool gives the same verdict."""
    assert main(["init", str(tmp_path)]) == 0
    rule = tmp_path / "rules/mine.yml"
    rule.write_text(re.sub(r"^\s*cooldown:.*\n", "", rule.read_text(), flags=re.M))
    command = [peer("promtool"), "test", "rules", str(tmp_path / "rules/tests/mine_test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that exist stop it before anything is written; --force replaces them."""
    (tmp_path / "config.yml").write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert "config.yml already: give --force" in capsys.readouterr().err
    assert not (tmp_path / "rules").exists()
    assert (tmp_path / "config.yml").read_text() == "mine"
    assert main(["init", "--force", str(tmp_path)]) == 0
    assert (tmp_path / "config.yml").read_text() != "mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clear error, exit code 2."""
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "below")]) == 2
    assert "cannot write to" in capsys.readouterr().err
