"""SQL collector files: what is read, and where each fault is told."""

from __future__ import annotations

import pytest

from exporter.assets import asset_dir
from exporter.collectors.postgres import postgres_specs
from exporter.collectors.sqlconfig import SqlCollectorSpec, SqlMetric, read_sql_file
from exporter.errors import ConfigError

GOOD = """
databases:
  reporting: ${REPORTING_URL}
collectors:
  - name: orders
    query: SELECT state, n FROM shop.orders;
    interval: 1m
    timeout: 250ms
    database: reporting
    max_rows: 20
    metrics:
      - name: shop_orders
        type: gauge
        help: Orders by state.
        labels: [state]
        static_labels: {shop: main}
        value: n
"""


def test_a_full_declaration_is_read() -> None:
    """Every key has its place; durations are milliseconds; the last semicolon goes."""
    read = read_sql_file(GOOD, expand=lambda text: text.replace("${REPORTING_URL}", "postgresql://x/y"))
    assert read.databases == {"reporting": "postgresql://x/y"}
    assert read.collectors == (
        SqlCollectorSpec(
            "orders",
            "SELECT state, n FROM shop.orders",
            (SqlMetric("shop_orders", "gauge", "Orders by state.", "n", ("state",), (("shop", "main"),)),),
            60_000,
            250,
            "reporting",
            20,
        ),
    )


def test_defaults() -> None:
    """Without more: column "value", the exporter's own database, the global interval."""
    (spec,) = read_sql_file(
        "collectors: [{name: a, query: select 1 as value, metrics: [{name: m, type: gauge, help: h}]}]"
    ).collectors
    assert (spec.interval_ms, spec.timeout_ms, spec.database, spec.max_rows) == (None, 5000, "default", 1000)
    assert spec.metrics[0].value == "value"


METRIC = "metrics: [{name: m, type: gauge, help: h}]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "f.yml:1:1: the file declares no collectors"),
        ("collectors: 5", "f.yml:1:13: collectors must be a list, not a whole number"),
        ("collectors: [", "f.yml:2:1: not valid YAML"),
        ("querys: []", 'f.yml:1:1: unknown key "querys" in the file'),
        ("collectors:\n  - {query: select 1, " + METRIC + "}", 'f.yml:2:5: a collector needs "name"'),
        ("collectors:\n  - {name: a, " + METRIC + "}", 'f.yml:2:5: a collector needs "query"'),
        ("collectors:\n  - {name: a, query: ' ', " + METRIC + "}", "f.yml:2:22: query must not be empty"),
        ("collectors:\n  - {name: a b, query: q, " + METRIC + "}", 'f.yml:2:12: "a b" is no collector name'),
        ("collectors:\n  - {name: a, query: q}", "f.yml:2:5: a collector needs metrics"),
        ("collectors:\n  - {name: a, query: q, metrics: []}", "f.yml:2:34: a collector needs at least one"),
        (
            "collectors:\n  - {name: a, query: q, intervall: 5s, " + METRIC + "}",
            'f.yml:2:25: unknown key "intervall" in a collector, did you mean "interval"?',
        ),
        (
            "collectors:\n  - {name: a, query: q, interval: 5 s, " + METRIC + "}",
            "f.yml:2:35: interval: ",
        ),
        (
            "collectors:\n  - {name: a, query: q, interval: 5ms, " + METRIC + "}",
            "f.yml:2:35: interval must be at least 1000 ms",
        ),
        (
            "collectors:\n  - {name: a, query: q, database: other, " + METRIC + "}",
            'f.yml:2:35: database must not be "other" (allowed: default)',
        ),
        (
            "collectors:\n  - {name: a, query: q, max_rows: 0, " + METRIC + "}",
            "f.yml:2:35: max_rows must be 1 or more",
        ),
        (
            "collectors:\n  - {name: a, query: 'select 1; drop table x', " + METRIC + "}",
            "f.yml:2:22: a query is one statement",
        ),
        (
            "collectors:\n  - {name: a, query: q, " + METRIC + "}\n  - {name: a, query: q, " + METRIC + "}",
            'f.yml:3:12: collector "a" is declared twice, first in line 2',
        ),
        ("databases: {default: x}\ncollectors: []", 'f.yml:1:22: "default" is the exporter\'s own database'),
        ("databases: {x: ''}\ncollectors: []", "f.yml:1:16: the URL of x is empty"),
    ],
)
def test_faults_of_collectors_are_located(text: str, problem: str) -> None:
    """Each fault names file, line and column, and what is allowed."""
    with pytest.raises(ConfigError) as raised:
        read_sql_file(text, "f.yml")
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        ("{type: gauge, help: h}", 'a metric needs "name"'),
        ("{name: m, type: gauge}", 'a metric needs "help"'),
        ("{name: m, help: h}", 'a metric needs "type"'),
        ("{name: m, type: histogram, help: h}", 'type must not be "histogram" (allowed: counter, gauge)'),
        ("{name: m-x, type: gauge, help: h}", '"m-x" is no metric name'),
        ("{name: m, type: counter, help: h}", 'the counter "m" must end in _total'),
        ("{name: m_total, type: gauge, help: h}", 'the gauge "m_total" must not end in _total'),
        ("{name: m, type: gauge, help: h, labels: [a-b]}", '"a-b" is no label name'),
        ("{name: m, type: gauge, help: h, labels: [__x]}", '"__x" is no label name'),
        ("{name: m, type: gauge, help: h, labels: [a, a]}", 'label "a" is given twice'),
        ("{name: m, type: gauge, help: h, labels: [a], static_labels: {a: b}}", 'label "a" is given twice'),
        ("{name: m, type: gauge, help: h, colour: red}", 'unknown key "colour" in a metric'),
    ],
)
def test_faults_of_metrics_are_located(metric: str, problem: str) -> None:
    """Each fault of a metric is told at its place."""
    text = f"collectors:\n- name: a\n  query: q\n  metrics:\n  - {metric}"
    with pytest.raises(ConfigError) as raised:
        read_sql_file(text, "f.yml")
    assert problem in str(raised.value)
    assert str(raised.value).startswith("f.yml:5:")


def test_one_name_has_one_type() -> None:
    """Two collectors may yield one metric, of one type."""
    text = """
collectors:
- {name: a, query: q, metrics: [{name: m_total, type: counter, help: h}]}
- {name: b, query: q, metrics: [{name: m_total, type: gauge, help: h}]}
"""
    with pytest.raises(ConfigError, match='"m_total" is a counter in line 3, here a gauge'):
        read_sql_file(text)


def test_all_faults_are_told_at_once() -> None:
    """Reading goes on after a fault; the problems come in file order."""
    text = "collectors:\n- {name: a}\n- {name: b, query: q, metrics: [{name: m}], nope: 1}\n"
    with pytest.raises(ConfigError) as raised:
        read_sql_file(text, "f.yml")
    lines = [problem.line for problem in raised.value.problems]
    assert lines == sorted(lines)
    assert len(lines) == 5


def test_bad_expansion_is_located() -> None:
    """An unset variable in a URL is told at the URL."""

    def expand(text: str) -> str:
        raise ValueError("variable REPORTING_URL is not set")

    with pytest.raises(ConfigError, match=r"f\.yml:3:14: variable REPORTING_URL is not set"):
        read_sql_file(GOOD, "f.yml", expand)


@pytest.mark.parametrize(
    ("query", "table"),
    [
        ("select 1", "fallback"),
        ("select * from btc_trades", "btc_trades"),
        ('SELECT * FROM "Orders" o', "Orders"),
        ("select * from shop.orders", "shop.orders"),
        ("with recent as (select * from btc_trades) select * from recent", "btc_trades"),
        ("select extract(epoch from now()) from pg_stat_activity", "pg_stat_activity"),
        ("select * from generate_series(1, 2) g", "fallback"),
        ("select * from (values (1)) v join users u on true", "fallback"),
        ("select a is distinct from b from t", "t"),
    ],
)
def test_table_of_a_query(query: str, table: str) -> None:
    """The label `table` is the first table that the query reads, else the collector's name."""
    assert SqlCollectorSpec("fallback", query, ()).table == table


@pytest.mark.parametrize("query", ["select ';'", "select 1 -- a; b", "select /* ; */ 1", "select 1;"])
def test_semicolons_that_end_nothing_are_fine(query: str) -> None:
    """A semicolon in a string or comment, or at the end, does not make two statements."""
    text = f"collectors:\n- name: a\n  query: {query!r}\n  metrics: [{{name: m, type: gauge, help: h}}]"
    if "'" in query:
        text = text.replace(repr(query), f'"{query}"')
    assert read_sql_file(text).collectors


def test_shipped_files_are_clean_and_names_unique() -> None:
    """The shipped declarations can be read, and no two collectors share a name."""
    path = asset_dir("sql") / "queries.yml"
    specs = (*read_sql_file(path.read_text(), str(path)).collectors, *postgres_specs())
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names)
