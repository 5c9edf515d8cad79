"""docs/metrics.md says of every metric what the code says (QE_UPDATE=1 writes it)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from exporter.dashboards import render, shipped
from exporter.dashboards.queries import panel_queries
from tests.helpers.metrics import Declared, declared_metrics, family_of

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
_START = "<!-- metrics: written by tests/test_metrics_reference.py from the code -->"
_END = "<!-- end of metrics -->"
_SERIES = re.compile(r"\bquantum_[a-z0-9_]+\b")

# the first section one of whose prefixes fits
SECTIONS = {
    "Upstream APIs": ("quantum_api_", "quantum_rate_limit_", "quantum_provider_", "quantum_ai_"),
    "Market": ("quantum_btc_", "quantum_bitcoin_", "quantum_market_"),
    "Trading platform": (
        "quantum_trades_",
        "quantum_anomalies_",
        "quantum_users_",
        "quantum_data_quality_",
        "quantum_prediction_",
        "quantum_system_suspended",
    ),
    "Database": ("quantum_database_", "quantum_db_", "quantum_postgres_"),
    "Machine": ("quantum_system_",),
    "Samples and events": (
        "quantum_snapshot",
        "quantum_head_",
        "quantum_samples_",
        "quantum_events_",
        "quantum_spool_",
        "quantum_writer_",
        "quantum_persistence_",
        "quantum_retention_",
    ),
    "Rules and alerts": ("quantum_rule_", "quantum_alert", "quantum_notif", "quantum_heartbeat"),
    "The program": ("quantum_",),
}


def section_of(name: str) -> str:
    return next(title for title, prefixes in SECTIONS.items() if name.startswith(prefixes))


def dashboards_of(families: dict[str, Declared]) -> dict[str, list[str]]:
    """Metric to the titles of the dashboards that show it."""
    found: dict[str, set[str]] = {}
    for dashboard in shipped().values():
        title = dashboard.title.removeprefix("Quantum / ")
        for query in panel_queries(render(dashboard)):
            for series in () if query.is_sql else _SERIES.findall(query.text):
                family = family_of(series, families)
                if family is not None:
                    found.setdefault(family, set()).add(title)
    return {name: sorted(titles) for name, titles in found.items()}


def reference() -> str:
    """The generated part of the page."""
    families = declared_metrics()
    shown = dashboards_of(families)
    out = []
    for title in SECTIONS:
        rows = [item for item in families.values() if section_of(item.name) == title]
        out += [
            f"## {title}",
            "",
            "| metric | type | labels | meaning | dashboards |",
            "| --- | --- | --- | --- | --- |",
        ]
        for item in rows:
            labels = ", ".join(f"`{label}`" for label in item.labels)
            places = ", ".join(shown.get(item.name, ()))
            out.append(f"| `{item.name}` | {item.kind} | {labels} | {item.help} | {places} |")
        out.append("")
    return "\n".join(out)


def test_reference_is_current() -> None:
    """Every metric stands in the reference with its type, labels and meaning; no other does."""
    text = PAGE.read_text()
    head, rest = text.split(_START)
    table, tail = rest.split(_END)
    wanted = f"\n{reference()}"
    if os.environ.get("QE_UPDATE") == "1":
        PAGE.write_text(f"{head}{_START}{wanted}{_END}{tail}")
    else:
        assert table == wanted, "run QE_UPDATE=1 pytest tests/test_metrics_reference.py"


def test_names_follow_prometheus() -> None:
    """Counters end in _total, nothing else does; names carry base units; every metric has a meaning."""
    for item in declared_metrics().values():
        assert item.name.startswith("quantum_"), item
        assert item.name.endswith("_total") == (item.kind == "counter"), item
        assert not re.search(r"_(ms|milliseconds|minutes|hours|percent|kb|mb)(_|$)", item.name), item
        assert item.help.endswith("."), item
        assert len(item.help) > 5, item
