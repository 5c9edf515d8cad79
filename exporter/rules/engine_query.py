"""The embedded engine as the query function of rules: expressions are planned once, equal parts shared."""

from __future__ import annotations

from exporter.promql.engine import Engine, Prepared
from exporter.promql.memo import EvaluationMemo
from exporter.promql.values import Value

_KEPT = 10_000


class EngineQueries:
    """Gives each evaluation its own query function over one engine.

    Keeps up to 10,000 planned expressions, the oldest given up first: those of rules stay, those that
    templates put together at run time come and go.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prepared: dict[str, Prepared] = {}

    def __call__(self) -> EngineQuery:
        """A query function for one evaluation of a group."""
        return EngineQuery(self._engine, self._prepared)


class EngineQuery:
    """(expression, Unix ms) -> value, for one evaluation in one thread.

    Equal sub-expressions at one time are evaluated once, until `forget` is called because samples were
    written that a later rule may read.
    """

    def __init__(self, engine: Engine, prepared: dict[str, Prepared]) -> None:
        self._engine = engine
        self._prepared = prepared
        self._memo = EvaluationMemo()

    def __call__(self, text: str, ts_ms: int) -> Value:
        """The value of an expression at a time.

        Raises: QueryError.
        """
        prepared = self._prepared.get(text)
        if prepared is None:
            prepared = self._engine.prepare(text)
            if len(self._prepared) >= _KEPT:
                self._prepared.pop(next(iter(self._prepared)), None)
            self._prepared[text] = prepared
        return self._engine.query(prepared, ts_ms, memo=self._memo).value

    def forget(self) -> None:
        """Read anew what is asked next."""
        self._memo = EvaluationMemo()
