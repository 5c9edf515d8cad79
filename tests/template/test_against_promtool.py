"""Prometheus' own template engine, through promtool, against ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.errors import QueryError, TemplateError
from exporter.template import Template, TemplateContext, expand_annotation
from exporter.template.quoting import unquote
from tests.helpers.peers import peer
from tests.template.corpus import BAD, BAD_MULTILINE, GOOD, MULTILINE, SERIES

_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')
_PROBLEM = re.compile(r'annotation "(a\d+)": (template: .*?)(?=\n\S+: group|\n\s*\n|\Z)', re.S)
_LABELS = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ADDRESS = re.compile(r"0xc[0-9a-f]+")
NAME = "__alert_A"


def _promtool(arguments: list[str], folder: Path) -> str:
    run = subprocess.run(
        [peer("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return run.stdout + run.stderr


def _expected(templates: list[str], folder: Path) -> list[str]:
    """What `promtool test rules` makes of each template, as an annotation of one alert."""
    annotations = {f"a{at:04d}": text for at, text in enumerate(templates)}
    rules = {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "m", "annotations": annotations}]}]}
    test = {
        "rule_files": ["rules.yml"],
        "tests": [
            {
                "interval": "1m",
                "external_labels": {"region": "eu"},
                "external_url": "http://mon.example.org/path",
                "input_series": [{"series": name, "values": f"{value}x1"} for name, value in SERIES.items()],
                "alert_rule_test": [{"alertname": "A", "eval_time": "0m", "exp_alerts": []}],
            }
        ],
    }
    (folder / "rules.yml").write_text(yaml.safe_dump(rules, allow_unicode=True, width=10_000))
    (folder / "test.yml").write_text(yaml.safe_dump(test, allow_unicode=True))
    output = _promtool(["test", "rules", "test.yml"], folder)
    found = dict(_PAIR.findall(output.partition("Annotations:")[2]))
    assert found, output[:2000]
    return [unquote(found[name]) if name in found else "" for name in annotations]


def _query(text: str) -> list[tuple[dict[str, str], float]]:
    """Stands for the engine: just the queries of the corpus."""
    rows = [_row(name, value) for name, value in SERIES.items() if name.startswith("q{")]
    match = re.fullmatch(r"vector\((.*)\)", text)
    if match:
        return [({}, float(match.group(1)))]
    table: dict[str, list[tuple[dict[str, str], float]]] = {
        "sort(q)": sorted(rows, key=lambda row: row[1]),
        "q{job='a'}": [row for row in rows if row[0]["job"] == "a"],
        "sort_desc(q)": sorted(rows, key=lambda row: -row[1]),
        "sum(q)": [({}, sum(value for _, value in rows))],
        "scalar(vector(5))": [({}, 5.0)],
        "nothing": [],
    }
    if text in table:
        return table[text]
    raise QueryError("1:5: parse error: unclosed left parenthesis")


def _row(series: str, value: float) -> tuple[dict[str, str], float]:
    labels = {name: unquote(f'"{text}"') for name, text in _LABELS.findall(series)}
    return {"__name__": series.partition("{")[0], **labels}, value


def _context() -> TemplateContext:
    name = next(iter(SERIES))
    labels, value = _row(name, SERIES[name])
    return TemplateContext(labels, value, {"region": "eu"}, "http://mon.example.org/path", _query, 0)


# promtool runs without the server's own URL, so that its two functions panic there
_ONLY_OURS = {"{{ externalURL }}": "http://mon.example.org/path", "{{ pathPrefix }}": "/path"}


def test_expansion_is_what_promtool_gives(tmp_path: Path) -> None:
    """Text and error text of every template are those of Prometheus."""
    templates = [text for text in GOOD + MULTILINE if text not in _ONLY_OURS]
    templates = [text for text in templates if _parses(text)]
    assert len(templates) >= 200
    wrong = []
    for text, theirs in zip(templates, _expected(templates, tmp_path), strict=True):
        ours, _ = expand_annotation(text, _context(), NAME)
        if _ADDRESS.sub("0xc", ours) != _ADDRESS.sub("0xc", theirs):
            wrong.append(f"{text!r}\n  prometheus: {theirs!r}\n  ours:       {ours!r}")
    assert not wrong, f"{len(wrong)} differ\n" + "\n".join(wrong)


def _parses(text: str) -> bool:
    try:
        Template.parse(text, NAME)
    except TemplateError:
        return False
    return True


def test_parse_errors_are_those_of_promtool(tmp_path: Path) -> None:
    """What does not parse is refused, with Prometheus' message; what parses there parses here."""
    templates = BAD + BAD_MULTILINE + [text for text in GOOD if not _parses(text)]
    annotations = {f"a{at:04d}": text for at, text in enumerate(templates)}
    rules = {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "m", "annotations": annotations}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules, allow_unicode=True, width=10_000))
    output = _promtool(["check", "rules", "rules.yml"], tmp_path)
    theirs = {name: text.strip() for name, text in _PROBLEM.findall(output)}
    assert len(theirs) > 60, output[:2000]
    wrong = []
    for name, text in annotations.items():
        try:
            Template.parse(text, NAME)
            ours = "(parses)"
        except TemplateError as error:
            ours = error.detail
        if ours != theirs.get(name, "(parses)"):
            wrong.append(f"{text!r}\n  prometheus: {theirs.get(name, '(parses)')}\n  ours:       {ours}")
    assert not wrong, f"{len(wrong)} differ\n" + "\n".join(wrong)


@pytest.mark.parametrize(("text", "wanted"), _ONLY_OURS.items())
def test_functions_that_promtool_cannot_run(text: str, wanted: str) -> None:
    """The server's own URL and its path."""
    assert expand_annotation(text, _context(), NAME) == (wanted, None)
