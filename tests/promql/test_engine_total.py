"""Any query gives a result or a QueryError: no other exception, no endless loop, at any depth."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings

from exporter.errors import QueryError
from exporter.promql.cursor import MAX_DEPTH
from exporter.promql.engine import Engine
from exporter.promql.parse import parse_expr
from exporter.promql.printer import to_pretty, to_text
from exporter.promql.tree_json import to_json
from exporter.storage import MemoryStorage
from tests.promql.trees import METRICS, query

START_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine over a few series with the names that random queries use."""
    storage = MemoryStorage()
    for number, name in enumerate(METRICS):
        for job in ("a", "b"):
            for tick in range(40):
                labels = {"__name__": name, "job": job, "instance": str(number), "by": "c", "le": str(number)}
                storage.append(labels, START_MS + tick * 15_000, float(tick % 7 * number))
    return Engine(storage)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(text=query)
def test_random_queries_end(engine: Engine, text: str) -> None:
    """Random well-typed queries of every function and operator are answered or refused."""
    at = START_MS + 600_000
    for ask in (
        lambda: engine.query(text, at),
        lambda: engine.query_range(text, at - 120_000, at, 30_000),
    ):
        try:
            ask().to_json()
        except QueryError:
            continue


DEEP = {
    "parentheses": "(" * (MAX_DEPTH - 1) + "up" + ")" * (MAX_DEPTH - 1),
    "chain": " + ".join(["up"] * MAX_DEPTH),
    "power": " ^ ".join(["1"] * MAX_DEPTH),
    "or": " or ".join(["up"] * MAX_DEPTH),
    "signs": "-" * (MAX_DEPTH - 2) + "up",
    "calls": "abs(" * (MAX_DEPTH - 2) + "up" + ")" * (MAX_DEPTH - 2),
    "aggregations": "sum by (job) (" * (MAX_DEPTH - 2) + "up" + ")" * (MAX_DEPTH - 2),
    "scalars": "vector(scalar(" * (MAX_DEPTH // 2 - 1) + "up" + "))" * (MAX_DEPTH // 2 - 1),
    "durations": "up[" + "(" * (MAX_DEPTH - 4) + "5m" + ")" * (MAX_DEPTH - 4) + "]",
}


@pytest.mark.parametrize("name", DEEP)
def test_the_deepest_trees_can_be_walked(engine: Engine, name: str) -> None:
    """A tree as high as the parser lets through is printed, and evaluated or refused: the stack holds."""
    expr = parse_expr(DEEP[name])
    assert to_text(expr)
    assert to_pretty(expr)
    assert to_json(expr)["type"]
    refused = refusal(engine, DEEP[name])
    assert refused in ("", "expression is nested too deeply")
    assert not refused or name in ("calls", "scalars")


def refusal(engine: Engine, text: str) -> str:
    """Why the engine refuses a query; empty where it answers."""
    try:
        engine.query(text, START_MS + 600_000).to_json()
    except QueryError as error:
        return str(error)
    return ""


def test_nested_subqueries_end(engine: Engine) -> None:
    """Subqueries in subqueries are answered or refused, in time."""
    text = "up"
    for _ in range(6):
        text = f"max_over_time(({text})[1h:1s])"
    start = time.perf_counter()
    assert "too many samples" in (refusal(engine, text) or "too many samples")
    assert time.perf_counter() - start < 20
