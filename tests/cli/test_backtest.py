"""`quantum-exporter backtest` as a user meets it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from exporter.cli import main, replaying
from tests.cli.history import END_S, START_S, write_history


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_history(tmp_path)
    return tmp_path


def arguments(folder: Path, *more: str, rules: str = "rules.yml") -> list[str]:
    return [
        "backtest",
        *("--rules", str(folder / rules)),
        *("--source", f"openmetrics:{folder / 'history.txt'}"),
        *("--from", str(START_S), "--to", str(END_S)),
        *more,
    ]


def test_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A timeline, a summary and the newest episodes."""
    assert main(arguments(folder, "--episodes", "2")) == 0
    out = capsys.readouterr().out
    assert "High" in out
    assert "the last 2 of 6" in out
    assert "recovered" in out
    assert "never" in out
    assert any(char in out for char in "▁▂▃▄▅▆▇█")  # how full depends on the width of the terminal


def test_silence_for_want_of_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An alert whose metric was never stored shows as such, in the table, the picture and JSON."""
    (folder / "blind.yml").write_text(
        "groups: [{name: g, rules: [{alert: Blind, expr: gone > 1}, {alert: Never, expr: up > 1}]}]"
    )
    assert main(arguments(folder, rules="blind.yml")) == 0
    out = capsys.readouterr().out
    assert "  no data\n" in out
    assert "  never\n" in out
    assert out.endswith("no data for Blind: no stored series of gone\n")
    assert main(arguments(folder, "-o", "svg", rules="blind.yml")) == 0
    assert ">no data</text>" in capsys.readouterr().out
    assert main(arguments(folder, "-o", "json", rules="blind.yml")) == 0
    assert [one["missing"] for one in json.loads(capsys.readouterr().out)["alerts"]] == [["gone"], []]


def test_a_comparison_draws_what_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Below the lane of an alert stands the one after, where the other rules change it."""
    assert main(arguments(folder, "--compare", str(folder / "other.yml"))) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("  ")[0].strip() or line[2:].split(" ")[0] for line in lines[1:5]]
    assert names == ["High", "after", "Down", "Never"]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Episodes with times, labels, peak and reason; notifications with and without the cooldown."""
    assert main(arguments(folder, "-o", "json")) == 0
    alerts = {one["alert"]: one for one in json.loads(capsys.readouterr().out)["alerts"]}
    high = alerts["High"]
    assert len(high["episodes"]) == 6
    first = high["episodes"][0]
    assert first["labels"] == {"a": "1", "severity": "warning"}
    assert first["peak"] == 0.9
    assert first["resolveReason"] == "recovered"
    assert high["episodes"][-1]["end"] is None
    assert high["notifications"] == {
        "withCooldown": 6, "withoutCooldown": 6, "resolved": 5, "heldBack": 0
    }  # fmt: skip
    assert len(alerts["Down"]["episodes"]) == 1
    assert alerts["Never"]["episodes"] == []


def test_workers_give_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules divided among processes do what they do in one."""
    main(arguments(folder, "-o", "json"))
    alone = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(replaying, "_WORTH_A_WORKER", 0)
    assert main(arguments(folder, "-o", "json")) == 0
    assert json.loads(capsys.readouterr().out) == alone


def test_svg_and_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A well-formed picture with a lane for each alert, on standard output or in a file."""
    assert main(arguments(folder, "-o", "svg", "--file", str(folder / "a.svg"))) == 0
    assert capsys.readouterr().out == ""
    root = ET.fromstring((folder / "a.svg").read_text())
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"High", "Down", "Never", "never"} <= set(texts)


def test_png(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A PNG where Pillow is there, else what to install."""
    code = main(arguments(folder, "-o", "png", "--file", str(folder / "a.png")))
    if importlib.util.find_spec("PIL") is None:
        assert code == 2
        assert "quantum-exporter[pictures]" in capsys.readouterr().err
    else:
        assert code == 0
        assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")


def test_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What other rules would have changed: episodes gone and new, counts before and after."""
    other = str(folder / "other.yml")
    assert main(arguments(folder, "--compare", other)) == 0
    assert "6 → 0" in capsys.readouterr().out
    assert main(arguments(folder, "--compare", other, "-o", "json")) == 0
    document = json.loads(capsys.readouterr().out)
    high = next(one for one in document["differences"] if one["alert"] == "High")
    assert (len(high["gone"]), len(high["added"])) == (6, 0)
    assert main(arguments(folder, "--compare", other, "-o", "svg")) == 0
    assert "  after" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--from", "yesterdayish"], "is not a time"),
        (["--from", "2030-01-01"], "is not before"),
        (["--source", "parquet:x"], "allowed: postgres, openmetrics:FILE"),
        (["--source", "openmetrics:/nowhere"], "cannot read /nowhere"),
        (["--interval", "5"], "--interval"),
        (["--rules", "/nowhere.yml"], "/nowhere.yml"),
    ],
)
def test_wrong_use(folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str) -> None:
    """Wrong use ends with 2 and says what would be right."""
    assert main(arguments(folder, *more)) == 2
    assert words in capsys.readouterr().err


def test_a_failing_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluations that fail are reported with the rule's place, and end with 1."""
    (folder / "bad.yml").write_text(
        "groups: [{name: g, rules: [{alert: A, expr: 'up * on () group_left () level * on () level > 0'}]}]"
    )
    assert main(arguments(folder, "-o", "json", rules="bad.yml")) == 1
    assert "bad.yml:1: A:" in capsys.readouterr().err


def test_no_bar_in_a_pipe(folder: Path) -> None:
    """In a pipe there is no progress bar."""
    command = [sys.executable, "-m", "exporter", *arguments(folder, "-o", "json")]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
