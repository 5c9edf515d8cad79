"""The Monitor in all its forms: type-checked (`mypy --strict`), never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from exporter.monitoring import Monitor


async def fetch() -> str:
    return "x"


def plain() -> int:
    return 1


async def use(url: str) -> None:
    async with Monitor.connect(url) as monitor:
        assert_type(monitor, Monitor)
        assert_type(await monitor.api_call("/a", "GET", fetch), str)
        assert_type(await monitor.api_call("/a", "GET", plain), int)
        assert_type(await monitor.db_query("SELECT", "t", lambda: [1]), list[int])
        async with monitor.db_query("SELECT", "t"):
            pass
        with monitor.api_call("/a"):
            pass

        @monitor.api_call("/a", "GET", provider="x")
        async def price(symbol: str, *, n: int = 1) -> float:
            return 1.0

        assert_type(await price("BTC", n=2), float)

        @monitor.db_query("SELECT", "t")
        def rows(n: int) -> Iterator[int]:
            yield n

        assert_type(rows(1), Iterator[int])

        @monitor.db_query("SELECT", "t")
        async def arows(n: int) -> AsyncIterator[int]:
            yield n

        async for item in arows(3):
            assert_type(item, int)
        assert_type(await monitor.average_response_time("/a", "1h"), float | None)
