"""The embedded engine as the query function of rules: expressions are planned once and kept."""

from __future__ import annotations

from exporter.promql.engine import Engine, Prepared
from exporter.promql.values import Value

_KEPT = 10_000


class EngineQuery:
    """(expression, Unix ms) -> value. Keeps up to 10,000 planned expressions, the oldest given up first.

    Expressions of rules stay; those that templates and probes put together at run time come and go.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prepared: dict[str, Prepared] = {}

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
        return self._engine.query(prepared, ts_ms).value
