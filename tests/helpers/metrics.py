"""The metrics that the code exposes, read from the source: name, kind, help."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
_NAME = re.compile(r"quantum_[a-z0-9_]+")
_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_info", "_created")
# said with an f-string: the same counters for samples and for events
_WRITERS = ("persisted_total", "spooled_total", "dropped_total")


@dataclass(frozen=True)
class Declared:
    """One family as the code declares it."""

    name: str
    kind: str  # counter, gauge, histogram, info
    help: str
    file: str


def declared_metrics() -> dict[str, Declared]:
    """Every metric family by the name under which it is exposed (counters with _total)."""
    found = {item.name: item for item in (*_from_code(), *_from_sql(), *_from_writers())}
    return dict(sorted(found.items()))


def family_of(series: str, families: dict[str, Declared]) -> str | None:
    """The family that a series name belongs to; None where there is none."""
    if series in families:
        return series
    for suffix in _SUFFIXES:
        base = series.removesuffix(suffix)
        if base != series and base in families and families[base].kind == "histogram":
            return base
    return None


def _from_code() -> Iterator[Declared]:
    for path in sorted((ROOT / "exporter").rglob("*.py")):
        if "_data" in path.parts or "dashboards" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) >= 2:
                item = _declaration(node, path.relative_to(ROOT).as_posix())
                if item is not None:
                    yield item


def _declaration(node: ast.Call, file: str) -> Declared | None:
    first, second = node.args[0], node.args[1]
    if not (
        isinstance(first, ast.Constant) and isinstance(first.value, str) and _NAME.fullmatch(first.value)
    ):
        return None
    text = second.value if isinstance(second, ast.Constant) and isinstance(second.value, str) else ""
    callee = ast.unparse(node.func).lower()
    kind = next((kind for kind in ("counter", "histogram", "info", "gauge") if kind in callee), "")
    if not kind:
        if not text:
            return None
        kind = "counter" if first.value.endswith("_total") else "gauge"
    name = first.value
    if kind == "counter" and not name.endswith("_total"):
        name += "_total"
    if kind == "info" and not name.endswith("_info"):
        name += "_info"
    return Declared(name, kind, text, file)


def _from_sql() -> Iterator[Declared]:
    document = yaml.safe_load((ROOT / "sql" / "queries.yml").read_text())
    for collector in document["collectors"]:
        for metric in collector["metrics"]:
            yield Declared(metric["name"], metric["type"], metric["help"], "sql/queries.yml")


def _from_writers() -> Iterator[Declared]:
    file = "exporter/db/metrics.py"
    for what in ("samples", "events"):
        for name in _WRITERS:
            yield Declared(
                f"quantum_{what}_{name}", "counter", f"{what.capitalize()}, by where they went.", file
            )
    for prefix, writer in (
        ("quantum_spool", "quantum_writer"),
        ("quantum_events_spool", "quantum_events_writer"),
    ):
        yield Declared(f"{prefix}_bytes", "gauge", "Size of the spool.", file)
        yield Declared(f"{prefix}_batches", "gauge", "Batches in the spool.", file)
        yield Declared(f"{writer}_lag_seconds", "gauge", "Age of the oldest not yet in Postgres.", file)
        yield Declared(f"{writer}_write_seconds", "histogram", "Time of one write to Postgres.", file)
