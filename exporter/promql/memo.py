"""Values shared among the rules of one evaluation, and watchers of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from exporter.promql.annotations import Note
from exporter.promql.matrix import Operand
from exporter.promql.plan import Node


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A value, the notes that came with it, and where its expression stood."""

    value: Operand
    notes: tuple[Note, ...]
    start: int


class EvaluationMemo:
    """Keeps the value of every sub-expression by what it says and the time it was asked for.

    One memo serves the instant queries of one rule evaluation over one engine: rules that rate the same
    counters read them once. Throw it away afterwards: it holds the values. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Shared] = {}
        self.hits = 0

    def get(self, node: Node, ts_ms: int) -> Shared | None:
        """The value kept for an equal expression at that time."""
        found = self._known.get((node.key, ts_ms))
        if found is not None:
            self.hits += 1
        return found

    def put(self, node: Node, ts_ms: int, shared: Shared) -> None:
        """Keep a value."""
        self._known[node.key, ts_ms] = shared


class Observer(Protocol):
    """Watches the evaluation of each node."""

    def around(self, node: Node, evaluate: Callable[[], Operand]) -> Operand:
        """Evaluate the node and return its value."""
