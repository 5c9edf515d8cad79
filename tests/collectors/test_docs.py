"""docs/sql-collectors.md: its example parses, every key and every metric is there."""

from __future__ import annotations

import re
from pathlib import Path

from exporter.assets import asset_dir
from exporter.collectors import sqlconfig
from exporter.collectors.sqlconfig import read_sql_file

DOC = (Path(__file__).parents[2] / "docs" / "sql-collectors.md").read_text()


def test_the_example_parses() -> None:
    """The YAML of the page is a good file."""
    (example,) = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)
    read = read_sql_file(example, expand=lambda _: "postgresql://x/y")
    assert [metric.name for metric in read.collectors[0].metrics] == ["shop_orders", "shop_turnover_euros"]


def test_every_key_has_its_row() -> None:
    """The two tables list exactly the keys that are read."""
    sections = dict(re.findall(r"## (Keys of[^\n]*)\n(.*?)(?=\n## )", DOC, re.DOTALL))
    for title, keys in (
        ("Keys of a collector", sqlconfig._COLLECTOR_KEYS),
        ("Keys of a metric", sqlconfig._METRIC_KEYS),
    ):
        assert set(re.findall(r"^\| `(\w+)` \|", sections[title], re.MULTILINE)) == set(keys)


def test_every_shipped_metric_is_named() -> None:
    """Each metric of sql/queries.yml stands on the page."""
    path = asset_dir("sql") / "queries.yml"
    for spec in read_sql_file(path.read_text(), str(path)).collectors:
        for metric in spec.metrics:
            assert metric.name in DOC, metric.name
