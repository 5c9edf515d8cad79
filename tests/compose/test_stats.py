from __future__ import annotations

import json

import pytest

from exporter.client import ApiClient
from exporter.compose.stats import DashboardStats, cache_document, rate_limit_document
from exporter.errors import ApiError
from tests.client.doubles import StrictTransport, answer, config
from tests.helpers.clock import FakeClock


async def test_cache_and_limits_are_told_as_json() -> None:
    """Hits, misses and ratio; limit, use, reset and end of each window; null where there is no end."""
    clock = FakeClock()
    transport = StrictTransport(clock)
    async with ApiClient([config("{minute: 10, day: 40}")], clock=clock, transport=transport) as client:
        for _ in range(4):
            await client.get_json("test", "/x", ttl=30)
        cache = cache_document(client.cache_stats())
        assert cache == {
            "hitRate": 75.0,
            "totalEntries": 1,
            "avgTTL": 30.0,
            "hits": 3,
            "misses": 1,
            "stale": 0,
            "coalesced": 0,
        }
        assert DashboardStats(client).cache_stats() == {"hitRate": 75.0, "totalEntries": 1, "avgTTL": 30.0}
        limits = rate_limit_document(client.rate_limit_stats())["test"]
        assert limits == {
            "windows": [
                {
                    "window": "minute",
                    "limit": 10,
                    "used": 1,
                    "utilizationPercent": 10.0,
                    "resetSeconds": 60.3,
                    "exhaustionSeconds": None,
                },
                {
                    "window": "day",
                    "limit": 40,
                    "used": 1,
                    "utilizationPercent": 2.5,
                    "resetSeconds": 86401.0,
                    "exhaustionSeconds": None,
                },
            ],
            "queueLength": 0,
            "breaker": "closed",
            "paused": None,
            "stoppedEndpoints": {},
        }
        transport.replies.append(answer({"error": "pay"}, 402))
        with pytest.raises(ApiError):
            await client.get_json("test", "/y", deadline_s=1e5)
        stopped = rate_limit_document(client.rate_limit_stats())["test"]
        assert stopped["paused"] == {"seconds": None, "reason": "HTTP 402: pay"}
        json.dumps(stopped, allow_nan=False)
