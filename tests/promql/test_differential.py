"""Random queries on imported data: our answers against those of Debian's Prometheus 2.42.

What Prometheus 3 changed since 2.42, and how the queries keep clear of it or how it is told:

- Ranges and the lookback no longer include their left edge: no query time, range or step meets a sample.
- Counters are extrapolated to the start of the range by half a step where the first sample is far from it,
  and only then cut at the point where the counter would have been zero (2.42 cut first): rates are asked of
  counters that stay far above zero.
- Sums and averages are compensated, and standard deviations use other formulas: values are compared with a
  tolerance, and random thresholds lie where no value is near.
- Tiny falls between buckets (below one part in 10^12) no longer count as non-monotonic: as above.
- atan2 drops the metric name (pull request 12595): left out.
- New names, syntax and functions are left out. topk and bottomk are asked of values that differ: ties are
  broken by the order of series, which no document defines.
- The changes in CHANGED below are recognised by their difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from exporter.errors import QueryError
from exporter.promql.engine import Engine
from tests.helpers.peers import peer
from tests.promql.differential import Ask, QueryMaker, difference, exposition, fill, make_data
from tests.promql.prometheus import Prometheus

QUERIES = int(os.environ.get("QE_DIFFERENTIAL", "200"))
SEED = int(os.environ.get("QE_DIFFERENTIAL_SEED", "1"))
DATA = make_data(7)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Debian's Prometheus over the test data."""
    home = tmp_path_factory.mktemp("filled")
    with Prometheus(peer("prometheus"), peer("promtool"), home, exposition(DATA)) as server:
        yield server


@dataclass(frozen=True)
class Change:
    """A difference that Prometheus 3 has with 2.42: a pattern of the query and one of what differs."""

    reason: str
    query: re.Pattern[str]
    found: re.Pattern[str]


CHANGED = (
    Change(
        "left edges again: an inner subquery runs at the steps of the outer one, points on its edges",
        re.compile(r"\[\w+:\w*\].*\[\w+:\w*\]"),
        re.compile("instead of|other times|series:"),
    ),
    Change(
        "the deviation of one infinite or undefined value is NaN, no longer 0",
        re.compile("stddev|stdvar"),
        re.compile("nan instead of 0.0"),
    ),
    Change(
        "a second match of one side fails before the comparison filters it away",
        re.compile("=="),
        re.compile("ours   error: multiple matches for labels"),
    ),
    Change(
        "names are dropped at the end (promql-delayed-name-removal): at different steps of a range, a series "
        "with its name and one that lost it may become one",
        re.compile(r"\) or "),
        re.compile("series:|other times"),
    ),
    Change(
        "timestamp() of a selector fixed by @ finds what the selector finds; 2.42 may miss it",
        re.compile("timestamp.*@"),
        re.compile("instead of|other times|series:"),
    ),
    Change(
        "a compensated mean of negative zero is zero, which shows when something is divided by it",
        re.compile("/.*avg"),
        re.compile(r"-?inf instead of -?inf"),
    ),
    Change(
        "a range fixed by @ no longer moves with the steps (pull request 13559)",
        re.compile("predict_linear.*@"),
        re.compile("instead of|other times|series:"),
    ),
)


def ask_theirs(server: Prometheus, ask: Ask) -> dict[str, Any] | str:
    """Their `data` field, or the error."""
    if ask.step_ms == 0:
        answer = server.call("query", query=ask.text, time=f"{ask.start_ms / 1000:.3f}")
    else:
        answer = server.call(
            "query_range",
            query=ask.text,
            start=f"{ask.start_ms / 1000:.3f}",
            end=f"{ask.end_ms / 1000:.3f}",
            step=f"{ask.step_ms / 1000:.3f}",
        )
    return answer["data"] if answer["status"] == "success" else str(answer["error"])


def ask_ours(engine: Engine, ask: Ask) -> dict[str, Any] | str:
    """Our `data` field, or the error."""
    try:
        if ask.step_ms == 0:
            return engine.query(ask.text, ask.start_ms).to_json()
        return engine.query_range(ask.text, ask.start_ms, ask.end_ms, ask.step_ms).to_json()
    except QueryError as error:
        return f"error: {error}"


def is_known(ask: Ask, found: str) -> bool:
    """Whether this difference is one that Prometheus 3 made."""
    return any(change.query.search(ask.text) and change.found.search(found) for change in CHANGED)


@pytest.mark.peer
def test_random_queries_agree_with_prometheus(filled: Prometheus) -> None:
    """Instant and range queries give the same series, times, values and failures."""
    engine = Engine(fill(DATA))
    maker = QueryMaker(SEED, wide=True)
    problems: list[tuple[Ask, str]] = []
    answered = 0
    for _ in range(QUERIES):
        ask = maker.ask()
        theirs, ours = ask_theirs(filled, ask), ask_ours(engine, ask)
        if isinstance(theirs, str) or isinstance(ours, str):
            if not (isinstance(theirs, str) and isinstance(ours, str)):
                problems.append((ask, f"theirs {str(theirs)[:300]}\n  ours   {str(ours)[:300]}"))
            continue
        answered += bool(theirs["result"])
        if found := difference(ours, theirs):
            problems.append((ask, found))
    problems = [(ask, found) for ask, found in problems if not is_known(ask, found)]
    assert not problems, f"{len(problems)} of {QUERIES} differ:\n" + "\n".join(
        f"{ask}\n  {found}" for ask, found in problems[:20]
    )
    assert answered > QUERIES * 0.5
