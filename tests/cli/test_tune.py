"""`quantum-exporter tune` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.cli import main
from tests.cli.history import END_S, START_S, write_history


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_history(tmp_path)
    return tmp_path


def arguments(folder: Path, alert: str, *more: str) -> list[str]:
    return [
        *("tune", alert, "--rules", str(folder / "rules.yml")),
        *("--source", f"openmetrics:{folder / 'history.txt'}"),
        *("--from", str(START_S), "--to", str(END_S)),
        *more,
    ]


def test_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The distribution, the variants and the advice."""
    assert main(arguments(folder, "High", "--pages-per-week", "50")) == 0
    out = capsys.readouterr().out
    for words in ("level > 0.5", "of the values are at most", "now", "0.25 (0.5x)", "cooldown", "Advice: > "):
        assert words in out


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole result, the current settings marked."""
    assert main(arguments(folder, "High", "-o", "json", "--pages-per-week", "0")) == 0
    found = json.loads(capsys.readouterr().out)
    current = [one for one in found["thresholds"] if one["is_current"]]
    assert [(one["label"], one["episodes"]) for one in current] == [("1x", 6)]
    assert found["advice"]["threshold"] == 0.9
    assert found["advice"]["per_week"] == 0
    assert [one["label"] for one in found["fors"]] == ["1m", "1m30s", "2m", "3m", "4m"]


def test_a_rule_that_reads_a_recorded_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rules that an alert stands on are replayed with it."""
    assert main(arguments(folder, "Never", "-o", "json", "--pages-per-week", "1000")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["distribution"]["high"] == 0.9


@pytest.mark.parametrize(
    ("alert", "words"),
    [("Lost", "no alert is named Lost (there are: Down, High, Never)"), ("Down", "is not a threshold rule")],
)
def test_wrong_use(folder: Path, capsys: pytest.CaptureFixture[str], alert: str, words: str) -> None:
    """An alert that is not there, or has no threshold, is refused with what is."""
    assert main(arguments(folder, alert)) == 2
    assert words in capsys.readouterr().err
