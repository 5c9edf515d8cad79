"""LunarCrush: sentiment and social numbers; an unpaid plan is an error that waiting cannot cure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from exporter.errors import ApiErrorKind
from exporter.providers.failures import (
    Failure,
    RawAnswer,
    Reset,
    billing,
    classify_status,
    message_in,
    quota,
    rate_limited,
    retry_after_s,
)
from exporter.providers.paths import SchemaError, find, integer, items, number, optional_number, text
from exporter.providers.results import Quote, Result, Sentiment
from exporter.providers.spec import Reader

NAME = "lunarcrush"
DECLARATION = """
base_url: https://lunarcrush.com/api4/public
auth: {header: Authorization, prefix: "Bearer ", required: true, env: LUNARCRUSH_API_KEY}
limits:
  minute: {ceiling: 10}
  day: {ceiling: 100}
interval: 15m
assets: {BTC: BTC, ETH: ETH}
endpoints:
  sentiment:
    path: /coins/list/v2
    params: {sort: market_cap_rank, limit: "10", page: "0"}
    data: sentiment
    poll: true
    reader: list
  coin: {path: /coins/btc/v1, data: sentiment, reader: coin}
  topic: {path: /topic/bitcoin/v1, data: sentiment, reader: topic}
"""
_PLAN_WORDS = ("plan", "subscription", "balance", "upgrade", "payment", "billing", "credits")


def read_list(data: object, params: Mapping[str, str]) -> Result:
    """Sentiment of Bitcoin out of the list of coins.

    Raises: SchemaError where it is not in the list.
    """
    symbol = params.get("symbol", "BTC")
    for at, coin in enumerate(items(data, "data")):
        if isinstance(coin, dict) and coin.get("symbol") == symbol:
            return _sentiment(data, ("data", at))
    raise SchemaError(f"data[symbol={symbol}]", "is missing")


def read_coin(data: object, params: Mapping[str, str]) -> Result:
    """Scores of one coin; this answer has no sentiment."""
    del params
    return _sentiment(data, ("data",))


def read_topic(data: object, params: Mapping[str, str]) -> Result:
    """Sentiment of a topic: the mean over its networks, weighted by their interactions."""
    del params
    shares = find(data, ("data", "types_sentiment"))
    if not isinstance(shares, dict) or not shares:
        raise SchemaError("data.types_sentiment", "should be an object with an entry per network")
    weights = {kind: number(data, ("data", "types_interactions", kind)) for kind in shares}
    total = sum(weights.values())
    weighted = sum(number(data, ("data", "types_sentiment", kind)) * weights[kind] for kind in shares)
    mean = weighted / (total or 1.0)
    return Sentiment(
        symbol=text(data, ("config", "symbol")),
        sentiment_ratio=mean / 100.0,
        galaxy_score=None,
        alt_rank=None,
        social_dominance_ratio=None,
        social_volume_24h=number(data, ("data", "num_posts")),
        quote=None,
        updated_ms=_generated_ms(data),
    )


def _sentiment(data: object, at: tuple[str | int, ...]) -> Sentiment:
    sentiment = optional_number(data, (*at, "sentiment"))
    dominance = optional_number(data, (*at, "social_dominance"))
    rank = optional_number(data, (*at, "alt_rank"))
    priced = optional_number(data, (*at, "last_updated_price"))
    generated_ms = _generated_ms(data)
    symbol = text(data, (*at, "symbol"))
    return Sentiment(
        symbol=symbol,
        sentiment_ratio=None if sentiment is None else sentiment / 100.0,
        galaxy_score=number(data, (*at, "galaxy_score")),
        alt_rank=None if rank is None else int(rank),
        social_dominance_ratio=None if dominance is None else dominance / 100.0,
        social_volume_24h=optional_number(data, (*at, "social_volume_24h")),
        quote=Quote(
            symbol=symbol,
            price_usd=number(data, (*at, "price")),
            market_cap_usd=optional_number(data, (*at, "market_cap")),
            volume_24h_usd=optional_number(data, (*at, "volume_24h")),
            updated_ms=generated_ms if priced is None else round(priced * 1000),
        ),
        updated_ms=generated_ms,
    )


def _generated_ms(data: object) -> int:
    """When the provider made the answer; it may be older than the call."""
    return integer(data, ("config", "generated")) * 1000


READERS: Mapping[str, Reader] = MappingProxyType({"list": read_list, "coin": read_coin, "topic": read_topic})


def classify(answer: RawAnswer) -> Failure | None:
    """Words about plan or balance mean a bill, whatever the status; words about the day mean its quota."""
    message = message_in(answer.data) or answer.text[:200]
    lower = message.lower()
    is_error = isinstance(answer.data, dict) and isinstance(answer.data.get("error"), str)
    if answer.status >= 400 or is_error:
        daily = any(word in lower for word in ("per day", "daily", "day limit"))
        if answer.status == 429 and daily:
            return quota(f"HTTP 429: {message}", Reset.UTC_DAY, retry_after_s(answer))
        if (answer.status in (401, 402, 403, 429) or is_error) and any(word in lower for word in _PLAN_WORDS):
            return billing(f"HTTP {answer.status}: {message}")
        if answer.status == 429:
            return rate_limited(
                f"HTTP 429: {message}", 60.0 if (wait_s := retry_after_s(answer)) is None else wait_s
            )
    return classify_status(answer) or (Failure(ApiErrorKind.HTTP, message) if is_error else None)
