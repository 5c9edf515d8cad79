"""The expressions of community rule files, over made-up series: our answers and Debian's Prometheus'."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.errors import QueryError
from exporter.promql.ast import Expr
from exporter.promql.engine import Engine
from exporter.promql.parse import parse_expr
from exporter.storage import MemoryStorage
from tests.helpers.peers import peer, shared
from tests.promql.community import make_series
from tests.promql.differential import START_MS, difference, exposition, fill
from tests.promql.prometheus import Prometheus

EVERY = int(os.environ.get("QE_COMMUNITY_EVERY", "6"))  # 1 asks all of them
AT_MS = START_MS + 40 * 60_000 + 777
COMMON_TIME = f"{AT_MS / 1000:.3f}"


def expressions() -> dict[str, Expr]:
    """Every expression of the shared rule files, parsed."""
    out = {}
    for path in sorted(shared("data/rules-community").rglob("*.y*ml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                out[str(rule["expr"])] = parse_expr(str(rule["expr"]))
    return out


def ask(engine: Engine, text: str) -> dict[str, Any] | str:
    """Our answer to an instant query, or the error."""
    try:
        return engine.query(text, AT_MS).to_json()
    except QueryError as error:
        return str(error)


def test_community_rules_on_nothing() -> None:
    """Every expression is answered over an empty store."""
    engine = Engine(MemoryStorage())
    for text in expressions():
        assert isinstance(ask(engine, text), dict), text


@pytest.fixture(scope="module")
def chosen() -> dict[str, Expr]:
    """The expressions to compare."""
    return dict(list(expressions().items())[::EVERY])


@pytest.fixture(scope="module")
def both(
    chosen: dict[str, Expr], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, Engine]]:
    """Both engines over the same series."""
    data = make_series(chosen.values(), 3)
    home: Path = tmp_path_factory.mktemp("community")
    with Prometheus(peer("prometheus"), peer("promtool"), home, exposition(data)) as server:
        yield server, Engine(fill(data))


@pytest.mark.peer
def test_community_rules_agree(both: tuple[Prometheus, Engine], chosen: dict[str, Expr]) -> None:
    """Same series and values for the same expression; where one fails the other does."""
    server, engine = both
    problems = []
    answered = 0
    for text in chosen:
        answer = server.call("query", query=text, time=COMMON_TIME)
        ours = ask(engine, text)
        if answer["status"] != "success" or isinstance(ours, str):
            if (answer["status"] == "success") != isinstance(ours, dict):
                problems.append(f"{text}\n  theirs {str(answer)[:300]}\n  ours {str(ours)[:300]}")
            continue
        answered += bool(answer["data"]["result"])
        if found := difference(ours, answer["data"]):
            problems.append(f"{text}\n  {found}")
    assert not problems, f"{len(problems)} of {len(chosen)} differ:\n" + "\n".join(problems[:10])
    assert answered > len(chosen) * 0.3
