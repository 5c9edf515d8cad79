"""The API client's statistics as JSON documents, in the words of the dashboard document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.client import ApiClient, CacheStats, ProviderStats


@dataclass(frozen=True, slots=True)
class DashboardStats:
    """Implements `web.dashboard.ClientStats` over the client."""

    client: ApiClient

    def cache_stats(self) -> Mapping[str, Any]:
        """hitRate in percent, totalEntries, avgTTL in seconds."""
        document = cache_document(self.client.cache_stats())
        return {key: document[key] for key in ("hitRate", "totalEntries", "avgTTL")}

    def rate_limit_stats(self) -> Mapping[str, Mapping[str, Any]]:
        """By provider its most used window: current, max, utilizationPercent."""
        found: dict[str, Mapping[str, Any]] = {}
        for name, stats in self.client.rate_limit_stats().items():
            if stats.windows:
                tightest = max(stats.windows, key=lambda window: window.utilization)
                found[name] = {
                    "current": tightest.used,
                    "max": tightest.limit,
                    "utilizationPercent": round(100 * tightest.utilization, 2),
                }
        return found


def cache_document(stats: CacheStats) -> Mapping[str, Any]:
    """`GET /api/quantum/cache-stats`: hitRate in percent, avgTTL in seconds, results since the start."""
    return {
        "hitRate": round(100 * stats.hit_ratio, 2),
        "totalEntries": stats.entries,
        "avgTTL": round(stats.mean_ttl_s, 2),
        "hits": stats.hits,
        "misses": stats.misses,
        "stale": stats.stale,
        "coalesced": stats.coalesced,
    }


def rate_limit_document(stats: Mapping[str, ProviderStats]) -> Mapping[str, Any]:
    """`GET /api/quantum/rate-limits`: by provider its windows, queue, breaker, pause, stopped endpoints.

    `exhaustionSeconds` is null where the rate of the last hour keeps within the limit; `paused.seconds` where
    only someone can end the pause.
    """
    return {
        name: {
            "windows": [
                {
                    "window": window.window,
                    "limit": window.limit,
                    "used": window.used,
                    "utilizationPercent": round(100 * window.utilization, 2),
                    "resetSeconds": _finite(max(0.0, window.reset_s)),
                    "exhaustionSeconds": _finite(window.exhaustion_s),
                }
                for window in provider.windows
            ],
            "queueLength": provider.queue_length,
            "breaker": provider.breaker.name.lower(),
            "paused": (
                {"seconds": _finite(provider.paused_for_s), "reason": provider.paused_reason}
                if provider.paused_for_s > 0
                else None
            ),
            "stoppedEndpoints": dict(provider.stopped),
        }
        for name, provider in stats.items()
    }


def _finite(seconds: float) -> float | None:
    return round(seconds, 1) if math.isfinite(seconds) else None
