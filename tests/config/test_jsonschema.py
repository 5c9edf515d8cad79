"""The JSON Schemas of docs/schema say what the readers take."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from exporter.config.jsonschema import config_schema
from exporter.rules.jsonschema import rules_schema
from tests.helpers.peers import shared

ROOT = Path(__file__).parents[2]
SCHEMAS = {"rules": rules_schema, "config": config_schema}
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


def faults(kind: str, document: Any) -> list[str]:
    errors = Draft7Validator(SCHEMAS[kind]()).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in errors]


def kind_of(document: Any) -> str | None:
    """Which schema an example belongs to; None for other formats (rule tests, collectors, web config)."""
    keys = set(document) if isinstance(document, dict) else set()
    if keys == {"groups"}:
        return "rules"
    return "config" if keys and keys <= set(config_schema()["properties"]) else None


def examples() -> list[Any]:
    found = []
    for page in PAGES:
        for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)):
            document = yaml.safe_load(text)
            kind = kind_of(document)
            if kind and not text.startswith("# alertmanager.yml"):
                found.append(pytest.param(kind, document, id=f"{page.name}-{number}"))
    return found


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_the_stored_schema_is_current(kind: str) -> None:
    """docs/schema holds what the code gives (QE_UPDATE=1 writes it), and it is a valid schema."""
    path = ROOT / f"docs/schema/{kind}.schema.json"
    schema = SCHEMAS[kind]()
    Draft7Validator.check_schema(schema)
    text = json.dumps(schema, indent=2) + "\n"
    if os.environ.get("QE_UPDATE") == "1":
        path.write_text(text)
    assert path.read_text() == text, "run QE_UPDATE=1 pytest tests/config/test_jsonschema.py"


@pytest.mark.parametrize(("kind", "document"), examples())
def test_the_examples_of_the_documentation_fit(kind: str, document: Any) -> None:
    """Every example of a rule file or of the configuration is valid."""
    assert faults(kind, document) == []


def test_the_shipped_rules_fit() -> None:
    """Every rule file that is shipped is valid."""
    for path in sorted((ROOT / "rules").glob("*.yml")):
        assert faults("rules", yaml.safe_load(path.read_text())) == [], path.name


def test_public_rule_files_fit() -> None:
    """Rule files that others wrote for Prometheus are valid."""
    for path in sorted(shared("data/rules-community").rglob("*.y*ml")):
        assert faults("rules", yaml.safe_load(path.read_text())) == [], path.name


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("rules", "groups: [{name: g, rules: [{alert: A, expr: x, fro: 5m}]}]"),
        ("rules", "groups: [{name: g, rules: [{alert: A, expr: x, for: 5 minutes}]}]"),
        ("rules", "groups: [{name: g, rules: [{alert: A, record: b, expr: x}]}]"),
        ("rules", "groups: [{name: g, rules: [{record: b, expr: x, for: 5m}]}]"),
        ("rules", "groups: [{name: g, rules: [{alert: A}]}]"),
        ("rules", "groups: [{name: g, rules: [{alert: A, expr: x, missing_data: ignore}]}]"),
        ("rules", "groups: [{rules: []}]"),
        ("config", "gloabl: {}"),
        ("config", "global: {scrape_interval: often}"),
        ("config", "query: {max_samples: many}"),
        ("config", "collect: {providers: {mine: {interval: 5m}}}"),
        ("config", "collect: {providers: {kraken: {limits: {fortnight: 3}}}}"),
        ("config", "route: {receiver: log, routes: [{reciever: a}]}"),
        ("config", "receivers: [{name: a, webhook_configs: [{uri: b}]}]"),
        ("config", "alerting: {alertmanagers: [{scheme: ftp, static_configs: [{targets: [a]}]}]}"),
    ],
)
def test_what_the_readers_refuse_is_marked(kind: str, text: str) -> None:
    """A misspelt key, a wrong word, a bad duration or a missing key does not fit."""
    assert faults(kind, yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "database: {url: '${DATABASE_URL:-}'}",
        "query: {max_samples: '${MOST:-5}', url: null}",
        "collect: {system: {}, postgres: false, providers: {kraken: {enabled: '${ON}', interval: 90s}}}",
        "global: {external_labels: {region: eu}}",
        "storage: {spool_max_bytes: 2147483648, data_dir: data}",
    ],
)
def test_what_the_readers_take_fits(text: str) -> None:
    """Variables stand for any scalar, null for what may be absent."""
    assert faults("config", yaml.safe_load(text)) == []
