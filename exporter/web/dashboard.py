"""The platform's dashboard document: one JSON answer from the head, the alerts and the client's counters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.clock import Clock
from exporter.errors import QueryError
from exporter.promql.values import InstantVector
from exporter.rules.instance import AlertInstance, AlertState
from exporter.web.encode import rfc3339
from exporter.web.ports import QueryService, RuleService

_DURATION = "quantum_api_request_duration_seconds"
_DB_DURATION = "quantum_db_query_duration_seconds"
# name in the document -> expression; each yields at most one value
_NUMBERS = {
    "activeConnections": "sum(quantum_postgres_connections)",
    "cpuUsage": "100 * quantum_system_cpu_usage_ratio",
    "memoryUsage": "100 * quantum_system_memory_usage_ratio",
    "avgAPIResponseTime": f"1000 * sum(rate({_DURATION}_sum[1h])) / sum(rate({_DURATION}_count[1h]))",
    "avgDatabaseQueryTime": f"1000 * sum(rate({_DB_DURATION}_sum[1h])) / sum(rate({_DB_DURATION}_count[1h]))",
    "errorRate": '100 * sum(increase(quantum_api_requests_total{outcome!="success"}[1h]) or vector(0))'
    " / sum(increase(quantum_api_requests_total[1h]))",
    "requestsPerMinute": "60 * sum(rate(quantum_api_requests_total[5m]))",
    "active": "quantum_trades_active",
    "generated24h": "quantum_trades_generated_24h",
    "accuracy": "100 * quantum_prediction_accuracy_ratio",
    "avgConfidence": "100 * quantum_trades_confidence_ratio",
    "databaseUp": "quantum_database_up",
}
_RELIABILITY = (
    'sum by (provider) (100 * increase(quantum_api_requests_total{outcome="success"}[1h]))'
    " / sum by (provider) (increase(quantum_api_requests_total[1h]))"
)
_RECENT = 10
HEARTBEAT = "heartbeat"  # the label `role` of an alert that fires as long as all is well


class ClientStats(Protocol):
    """What the API client says of itself."""

    def cache_stats(self) -> Mapping[str, Any]:
        """hitRate (percent), totalEntries, avgTTL (seconds)."""

    def rate_limit_stats(self) -> Mapping[str, Mapping[str, Any]]:
        """By provider: current, max, utilizationPercent."""


@dataclass(frozen=True, slots=True)
class DashboardDocument:
    """Builds the document of GET /api/quantum/monitoring-dashboard."""

    queries: QueryService
    rules: RuleService
    client: ClientStats
    clock: Clock
    started_ms: int

    async def build(self) -> dict[str, Any]:
        """The document now; what is not known yet is null."""
        now_ms = self.clock.now_ms()
        numbers = {name: await self._number(text, now_ms) for name, text in _NUMBERS.items()}
        firing = sorted(
            (
                instance
                for view in self.rules.groups()
                for rule in (view.evaluation.rules if view.evaluation else ())
                for instance in rule.active
                if instance.state is AlertState.FIRING and instance.labels.get("role") != HEARTBEAT
            ),
            key=lambda instance: -instance.fired_at_ms,
        )
        counts = {
            severity: sum(instance.severity == severity for instance in firing)
            for severity in ("critical", "warning", "info")
        }
        return {
            "systemHealth": {
                "status": _status(counts, numbers["databaseUp"]),
                "uptime": (now_ms - self.started_ms) // 1000,
                **{name: numbers[name] for name in ("activeConnections", "cpuUsage", "memoryUsage")},
            },
            "performance": {
                name: numbers[name]
                for name in ("avgAPIResponseTime", "avgDatabaseQueryTime", "errorRate", "requestsPerMinute")
            },
            "alerts": {**counts, "recentAlerts": [_alert(instance) for instance in firing[:_RECENT]]},
            "trades": {
                name: numbers[name] for name in ("active", "generated24h", "accuracy", "avgConfidence")
            },
            "apiReliability": await self._by_provider(now_ms),
            "cache": dict(self.client.cache_stats()),
            "rateLimits": {name: dict(stats) for name, stats in self.client.rate_limit_stats().items()},
        }

    async def _number(self, text: str, now_ms: int) -> float | None:
        rows = await self._rows(text, now_ms)
        return rows[0][1] if rows else None

    async def _by_provider(self, now_ms: int) -> dict[str, float]:
        return {labels.get("provider", ""): value for labels, value in await self._rows(_RELIABILITY, now_ms)}

    async def _rows(self, text: str, now_ms: int) -> Sequence[tuple[Mapping[str, str], float]]:
        try:
            result = await self.queries.instant(text, now_ms)
        except QueryError:
            return ()  # the embedded engine knows these expressions; a remote one may be away
        value = result.value
        if not isinstance(value, InstantVector):
            return ()
        pairs = zip(value.labels, value.values.tolist(), strict=True)
        return [(labels.as_dict(), round(number, 4)) for labels, number in pairs if math.isfinite(number)]


def _status(counts: Mapping[str, int], database_up: float | None) -> str:
    if counts["critical"] or database_up == 0:
        return "CRITICAL"
    return "DEGRADED" if counts["warning"] else "HEALTHY"


def _alert(instance: AlertInstance) -> dict[str, Any]:
    return {
        "severity": instance.severity.upper(),
        "type": instance.labels.get("alertname"),
        "title": instance.annotations.get("summary", instance.labels.get("alertname")),
        "message": instance.annotations.get("description", ""),
        "triggeredAt": rfc3339(instance.fired_at_ms),
        "labels": instance.labels,
    }
