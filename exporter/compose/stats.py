"""The API client's statistics in the words of the dashboard document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.client import ApiClient


@dataclass(frozen=True, slots=True)
class DashboardStats:
    """Implements `web.dashboard.ClientStats` over the client."""

    client: ApiClient

    def cache_stats(self) -> Mapping[str, Any]:
        """hitRate in percent, totalEntries, avgTTL in seconds."""
        stats = self.client.cache_stats()
        return {
            "hitRate": round(100 * stats.hit_ratio, 2),
            "totalEntries": stats.entries,
            "avgTTL": round(stats.mean_ttl_s, 2),
        }

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
