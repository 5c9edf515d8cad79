"""Every check at once: what POST /api/quantum/cron-monitoring runs and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.client import ApiClient
from exporter.clock import Clock
from exporter.collectors.base import CollectorRunner
from exporter.db.pool import Database
from exporter.loops.rules import RuleLoop
from exporter.loops.snapshot import SnapshotLoop
from exporter.promql.values import InstantVector
from exporter.rules.instance import TransitionKind
from exporter.web.encode import rfc3339
from exporter.web.ports import QueryService


@dataclass(frozen=True, slots=True)
class Checks:
    """Runs the collectors, takes a snapshot and judges every rule, beside the schedule."""

    collectors: CollectorRunner
    snapshot: SnapshotLoop
    rules: RuleLoop
    database: Database
    client: ApiClient
    queries: QueryService
    cleanup: Callable[[], Awaitable[Mapping[str, int]]]
    clock: Clock

    async def run(self) -> dict[str, Any]:
        """The answer's document. `alertsTriggered` counts instances that began to fire in this run."""
        started = self.clock.monotonic()
        await self.collectors.run_all()
        await self.snapshot.take()
        evaluations = await self.rules.evaluate_all()
        triggered = sum(
            transition.kind is TransitionKind.FIRING
            for evaluation in evaluations
            for rule in evaluation.rules
            for transition in rule.transitions
        )
        database_up = await self.database.probe()
        document = {
            "success": True,
            "timestamp": rfc3339(self.clock.now_ms()),
            "alertsTriggered": triggered,
            "healthChecks": {
                "database": database_up,
                "cache": self.client.cache_stats().entries > 0,
                "apis": await self._providers(),
            },
        }
        if database_up:
            document["cleanupResults"] = dict(await self.cleanup())
        document["executionTime"] = round(1000 * (self.clock.monotonic() - started))
        return document

    async def _providers(self) -> dict[str, bool]:
        result = await self.queries.instant("quantum_provider_up", self.clock.now_ms())
        if not isinstance(result.value, InstantVector):
            return {}
        pairs = zip(result.value.labels, result.value.values.tolist(), strict=True)
        return {labels.get("provider"): value == 1 for labels, value in pairs}
