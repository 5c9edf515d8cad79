"""The metrics that the code exposes, read from the source: name, kind, labels, help."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from exporter.db.metrics import WriteMetrics

ROOT = Path(__file__).parents[2]
_SUFFIXES = ("_bucket", "_count", "_sum")
_KINDS = ("counter", "histogram", "info", "gauge")
_LABEL_ARGUMENTS = ("labels", "labelnames")
_TABLE_LABELS = ("schema", "table")


@dataclass(frozen=True)
class Declared:
    """One family as the code declares it; `name` is the exposed one, a counter's with _total."""

    name: str
    kind: str  # counter, gauge, histogram or info
    labels: tuple[str, ...]
    help: str
    file: str


@cache
def declared_metrics() -> dict[str, Declared]:
    """Every metric family, by name."""
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
        if {"_data", "dashboards", "simulate"} & set(path.parts):
            continue
        tree = ast.parse(path.read_text())
        file = path.relative_to(ROOT).as_posix()
        names = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(node.args) >= 2:
                item = _call(node, file, names)
                if item is not None:
                    yield item
            elif isinstance(node, ast.Dict):
                yield from _entries(node, file)


def _call(node: ast.Call, file: str, names: dict[str, ast.expr]) -> Declared | None:
    """`Gauge("quantum_x", "Help.", labels)` and helpers of that form."""
    name, text = _text(node.args[0]), _text(node.args[1])
    if not name.startswith("quantum_") or name.endswith("_") or not text:
        return None
    callee = ast.unparse(node.func).lower()
    kind = next((kind for kind in _KINDS if kind in callee), "")
    if not kind:
        kind = "counter" if name.endswith("_total") else "gauge"
    labels = next((item.value for item in node.keywords if item.arg in _LABEL_ARGUMENTS), None)
    if (
        labels is None
        and callee.rpartition(".")[2] in ("counter", "gauge", "histogram")
        and len(node.args) > 2
    ):
        labels = node.args[2]
    found = _TABLE_LABELS if callee.startswith("_table_") else _strings(labels, names)
    return Declared(_exposed(name, kind), kind, found, text, file)


def _entries(node: ast.Dict, file: str) -> Iterator[Declared]:
    """`{"quantum_x": "Help."}`: the providers' gauges, all with the label provider."""
    for key, value in zip(node.keys, node.values, strict=True):
        name = _text(key)
        text = _text(value.elts[0]) if isinstance(value, ast.Tuple) and value.elts else _text(value)
        if name.startswith("quantum_") and text:
            yield Declared(name, "gauge", ("provider",), text, file)


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _strings(node: ast.expr | None, names: dict[str, ast.expr]) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        node = names.get(node.id)
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_text(item) for item in node.elts)
    return ()


def _exposed(name: str, kind: str) -> str:
    ending = {"counter": "_total", "info": "_info"}.get(kind, "")
    return name if name.endswith(ending) else name + ending


def _from_sql() -> Iterator[Declared]:
    document = yaml.safe_load((ROOT / "sql" / "queries.yml").read_text())
    for collector in document["collectors"]:
        for metric in collector["metrics"]:
            labels = (*metric.get("labels", ()), *metric.get("static_labels", {}))
            yield Declared(metric["name"], metric["type"], labels, metric["help"], "sql/queries.yml")


def _from_writers() -> Iterator[Declared]:
    """The writers' names are put together at run time, so that they are made and asked."""
    for what in ("samples", "events"):
        for metric in vars(WriteMetrics(CollectorRegistry(), what)).values():
            if isinstance(metric, Counter | Gauge | Histogram | Info):
                (family,) = metric.describe()
                labels = tuple(metric._labelnames)
                item = Declared(
                    family.name, family.type, labels, family.documentation, "exporter/db/metrics.py"
                )
                yield replace(item, name=_exposed(item.name, item.kind))
