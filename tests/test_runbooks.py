"""A runbook for each shipped alert, all of one form, and their index (QE_UPDATE=1 writes it)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from exporter.assets import asset_dir
from exporter.model.durations import format_duration, parse_duration
from exporter.rules.format import read_rule_files
from exporter.rules.model import AlertingRule

FOLDER = Path(__file__).parents[1] / "docs" / "runbooks"
_START = "<!-- alerts: written by tests/test_runbooks.py from rules/ -->"
_END = "<!-- end of alerts -->"
HEADINGS = ["What it means", "How to look", "What to do", "When it is false"]
_SEVERITIES = ("critical", "warning", "info")


def shipped_alerts() -> dict[str, AlertingRule]:
    files = sorted(asset_dir("rules").glob("*.yml"))
    groups = read_rule_files([(str(path), path.read_text()) for path in files])
    return {rule.name: rule for group in groups for rule in group.rules if isinstance(rule, AlertingRule)}


ALERTS = shipped_alerts()
each = pytest.mark.parametrize("name", ALERTS)


def head_of(name: str) -> tuple[str, str, str]:
    """Severity, cooldown and condition, from the line below the title."""
    line = (FOLDER / f"{name}.md").read_text().splitlines()[2]
    severity, cooldown, condition = line.split(" · ", 2)
    return severity, cooldown.removeprefix("cooldown "), condition


@each
def test_every_runbook_has_the_same_form(name: str) -> None:
    """What it means, how to look (with something to run), what to do, when it is false."""
    text = (FOLDER / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.M)[:4] == HEADINGS
    look = text.split("## How to look")[1].split("## What to do")[0]
    assert re.search(r"^```(console|promql|sql)$", look, re.M)


@each
def test_the_head_is_that_of_the_rule(name: str) -> None:
    """Severity and cooldown are the rule's."""
    severity, cooldown, _ = head_of(name)
    rule = ALERTS[name]
    assert (severity, parse_duration(cooldown)) == (rule.severity, rule.cooldown_ms)


def test_no_runbook_is_left_over() -> None:
    """Each page belongs to an alert."""
    assert {path.stem for path in FOLDER.glob("*.md")} == {"index", *ALERTS}


def index() -> str:
    """The generated part of the index."""
    out = ["| alert | severity | for | cooldown | fires when |", "| --- | --- | --- | --- | --- |"]
    for name in sorted(ALERTS, key=lambda name: (_SEVERITIES.index(ALERTS[name].severity), name)):
        rule = ALERTS[name]
        times = f"{format_duration(rule.for_ms)} | {format_duration(rule.cooldown_ms)}"
        out.append(f"| [{name}]({name}.md) | {rule.severity} | {times} | {head_of(name)[2]} |")
    return "\n".join(out)


def test_the_index_is_current() -> None:
    """It has every alert, the worst first."""
    path = FOLDER / "index.md"
    text = path.read_text()
    head, rest = text.split(_START)
    table, tail = rest.split(_END)
    wanted = f"\n{index()}\n"
    if os.environ.get("QE_UPDATE") == "1":
        path.write_text(f"{head}{_START}{wanted}{_END}{tail}")
    else:
        assert table == wanted, "run QE_UPDATE=1 pytest tests/test_runbooks.py"
