"""`quantum-exporter draw` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from exporter.cli import main


def texts(path: Path) -> list[str]:
    root = ElementTree.fromstring(path.read_text())
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_each_dashboard_becomes_a_file(
    migrated_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped six, each with its title; SQL is answered, PromQL has nobody to ask."""
    folder = tmp_path / "new" / "folder"
    command = ["draw", "--database", migrated_url, "--format", "svg", "--folder", str(folder), "-o", "json"]
    assert main(command) == 0
    written = json.loads(capsys.readouterr().out)["pictures"]
    assert [Path(one["file"]).stem for one in written] == [
        "alerts", "database", "exporter", "overview", "trading", "upstream-apis",
    ]  # fmt: skip
    for one in written:
        path = Path(one["file"])
        assert path.stat().st_size == one["bytes"]
        assert texts(path)[0].startswith("Quantum / ")


def test_ones_own_dashboard(migrated_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of Grafana's own, with SQL over time and a panel type that is not drawn."""
    source = {"type": "grafana-postgresql-datasource"}
    sql = "select generate_series(now() - interval '50 min', now(), '10 min') as time, 4.5 as value"
    target = {"refId": "A", "rawSql": sql, "format": "time_series", "datasource": source}
    panels = [
        {
            "type": "timeseries",
            "title": "Mine",
            "targets": [target],
            "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8},
        },
        {"type": "piechart", "title": "Cake", "targets": [], "gridPos": {"x": 12, "y": 0, "w": 12, "h": 8}},
    ]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"uid": "m", "title": "Mine", "panels": panels}))
    command = ["draw", "--database", migrated_url, "--format", "svg", "--folder", str(tmp_path), str(path)]
    assert main(command) == 0
    assert "mine.svg" in capsys.readouterr().out
    found = texts(tmp_path / "mine.svg")
    assert "4.5" in found
    assert "a panel of the type piechart is not drawn" in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--width", "10"), "--width must be 600 to 4000"),
        (("--period", "long"), "--period"),
        (("--database", "postgresql://127.0.0.1:9/x"), "the database does not answer"),
        (("no.json",), "no.json"),
    ],
)
def test_wrong_use(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear error, exit code 2."""
    assert main(["draw", *words]) == 2
    assert message in capsys.readouterr().err
