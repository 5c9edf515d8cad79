"""Blockchain.com: network statistics in mixed units, charts, and a ticker of all currencies."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from exporter.errors import ApiErrorKind
from exporter.providers.failures import Failure, RawAnswer, Scope, classify_status
from exporter.providers.paths import integer, items, number, text
from exporter.providers.results import OnChain, Result, Series
from exporter.providers.spec import Reader

NAME = "blockchain"
DECLARATION = """
base_url: https://api.blockchain.info
limits:
  minute: {ceiling: 100, safe: 6}
interval: 60s
assets: {BTC: BTC}
endpoints:
  stats: {path: /stats, data: onchain, poll: true, reader: stats}
  quotes:
    path: /ticker
    base_url: https://blockchain.info
    data: market
    ttl: 60s
    poll: true
    quote: {price: USD.last}
  mempool:
    path: /charts/mempool-size
    params: {timespan: 1days, format: json}
    data: onchain
    reader: chart
  transfers:
    path: /charts/estimated-transaction-volume-usd
    params: {timespan: 30days, format: json}
    data: whale
    reader: chart
"""
_SATOSHI = 1e-8
_GIGA = 1e9


def read_stats(data: object, params: Mapping[str, str]) -> Result:
    """Network statistics in base units: hash rate comes in GH/s, coins in satoshi, the block time in minutes.

    Raises: SchemaError for a field that is missing or no number.
    """
    del params
    return OnChain(
        hash_rate_hashes_per_second=number(data, "hash_rate") * _GIGA,
        difficulty=number(data, "difficulty"),
        block_height=integer(data, "n_blocks_total"),
        block_interval_seconds=number(data, "minutes_between_blocks") * 60.0,
        transactions_24h=integer(data, "n_tx"),
        supply_btc=number(data, "totalbc") * _SATOSHI,
        fees_24h_btc=number(data, "total_fees_btc") * _SATOSHI,
        miners_revenue_24h_usd=number(data, "miners_revenue_usd"),
        transfer_volume_24h_usd=number(data, "estimated_transaction_volume_usd"),
        trade_volume_24h_usd=number(data, "trade_volume_usd"),
        price_usd=number(data, "market_price_usd"),
        updated_ms=integer(data, "timestamp"),
    )


def read_chart(data: object, params: Mapping[str, str]) -> Result:
    """The points of a chart.

    Raises: SchemaError where a point lacks x or y.
    """
    del params
    points = tuple(
        (integer(data, ("values", at, "x")) * 1000, number(data, ("values", at, "y")))
        for at in range(len(items(data, "values")))
    )
    return Series(name=text(data, "name"), unit=text(data, "unit"), points=points)


READERS: Mapping[str, Reader] = MappingProxyType({"stats": read_stats, "chart": read_chart})


def classify(answer: RawAnswer) -> Failure | None:
    """By status; limits are not published, so that a bare 429 or 503 pauses all calls for a minute."""
    failure = classify_status(answer)
    if failure is not None and answer.status in (429, 503) and failure.wait_s is None:
        return Failure(failure.kind, failure.message, True, 60.0, scope=Scope.PROVIDER)
    if (
        failure is None
        and isinstance(answer.data, dict)
        and answer.data.get("status") in ("error", "not-found")
    ):
        return Failure(ApiErrorKind.HTTP, f"status {answer.data['status']} in the answer")
    return failure
