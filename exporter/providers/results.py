"""Typed answers of the providers: quotes, on-chain numbers, sentiment, models, token use, key information."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Quote:
    """The market of one asset in US dollars.

    `updated_ms` is when the provider took the price (Unix milliseconds); None where it does not say.
    """

    symbol: str
    price_usd: float
    market_cap_usd: float | None = None
    volume_24h_usd: float | None = None
    updated_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Quotes:
    """Quotes by the id they were asked with (`bitcoin`, `1`, `XBTUSD`); an unknown id is absent."""

    by_id: Mapping[str, Quote]

    def symbol(self, symbol: str) -> Quote | None:
        """The first quote of that asset, such as BTC."""
        return next((quote for quote in self.by_id.values() if quote.symbol == symbol), None)


@dataclass(frozen=True, slots=True)
class OnChain:
    """State of the Bitcoin network over the last 24 hours, in base units."""

    hash_rate_hashes_per_second: float
    difficulty: float
    block_height: int
    block_interval_seconds: float
    transactions_24h: int
    supply_btc: float
    fees_24h_btc: float
    miners_revenue_24h_usd: float
    transfer_volume_24h_usd: float
    trade_volume_24h_usd: float
    price_usd: float
    updated_ms: int

    @property
    def market_cap_usd(self) -> float:
        """Price times the coins in existence."""
        return self.price_usd * self.supply_btc


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one chart: Unix milliseconds and values, oldest first."""

    name: str
    unit: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Sentiment:
    """What people say about one asset. Ratios are 0..1; what the answer lacks is None."""

    symbol: str
    sentiment_ratio: float | None
    galaxy_score: float | None
    alt_rank: int | None
    social_dominance_ratio: float | None
    social_volume_24h: float | None
    quote: Quote | None
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Model:
    """One model of an AI provider; `shutdown_ms` is its announced end, None where there is none."""

    id: str
    shutdown_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Models:
    """The models that the key may use. `complete` is False where the answer had a further page."""

    models: tuple[Model, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one completion; `reasoning` is part of `completion`, `cached` part of `prompt`."""

    model: str
    prompt: int
    completion: int
    total: int
    reasoning: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What was billed in a time span, in US dollars."""

    amount_usd: float


@dataclass(frozen=True, slots=True)
class LimitInfo:
    """What a provider says about one limit of the key; None where it does not say."""

    window: str
    limit: int | None
    used: int | None


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The limits of the key that is in use, as its key-information endpoint tells them."""

    limits: tuple[LimitInfo, ...]
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a provider says that it works; `text` in its own words."""

    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Declared:
    """Values of a user's declaration: metric name -> value."""

    values: Mapping[str, float] = field(default_factory=dict)


Result = Quotes | OnChain | Series | Sentiment | Models | TokenUsage | Cost | KeyInfo | Status | Declared
