"""What the polled providers said last, as gauges computed when asked.

A reading older than three intervals is not shown any more: the series of a provider that fails ends instead
of standing still. The age of the data goes on counting. PURE but for prometheus_client's families.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.providers.results import Declared, Models, OnChain, Quote, Quotes, Result, Sentiment

_SPREAD_MAX_AGE_MS = 300_000
_AGES = 3.0
_PROVIDER = ("provider",)
_MARKET = {
    "quantum_btc_price_usd": "Price of one bitcoin, as the provider says.",
    "quantum_btc_market_cap_usd": "Price of all bitcoins in existence, as the provider says.",
    "quantum_btc_volume_24h_usd": "Bitcoin traded in the last 24 hours, as the provider says.",
    "quantum_btc_price_unchanged_seconds": "Time for which the provider's price and volume have not changed.",
    "quantum_btc_price_deviation_ratio": "Distance of the price from the median of all, as a share of it.",
    "quantum_market_sentiment_ratio": "Share of positive opinions about Bitcoin, 0 to 1.",
    "quantum_market_galaxy_score": "Combined score of price and social activity, 0 to 100.",
    "quantum_market_social_dominance_ratio": "Share of Bitcoin in all social activity about coins, 0 to 1.",
    "quantum_ai_models": "Models that the key may use.",
    "quantum_provider_data_age_seconds": "Time since the provider made the data that it gave last.",
    "quantum_provider_poll_interval_seconds": "Time between two polls of the provider's data.",
    "quantum_provider_up": "Whether the last poll of the provider succeeded.",
}
_ONCHAIN: Mapping[str, tuple[str, Callable[[OnChain], float]]] = {
    "quantum_bitcoin_hash_rate_hashes_per_second": (
        "Estimated hash rate of the network.",
        lambda chain: chain.hash_rate_hashes_per_second,
    ),
    "quantum_bitcoin_difficulty": ("Mining difficulty.", lambda chain: chain.difficulty),
    "quantum_bitcoin_block_height": ("Blocks in the chain.", lambda chain: chain.block_height),
    "quantum_bitcoin_block_interval_seconds": (
        "Mean time between blocks over 24 hours.",
        lambda chain: chain.block_interval_seconds,
    ),
    "quantum_bitcoin_transactions_last_24h": (
        "Transactions of the last 24 hours.",
        lambda chain: chain.transactions_24h,
    ),
    "quantum_bitcoin_supply_btc": ("Bitcoins in existence.", lambda chain: chain.supply_btc),
    "quantum_bitcoin_fees_24h_btc": ("Fees paid in the last 24 hours.", lambda chain: chain.fees_24h_btc),
    "quantum_bitcoin_miners_revenue_24h_usd": (
        "Income of the miners in the last 24 hours.",
        lambda chain: chain.miners_revenue_24h_usd,
    ),
    "quantum_bitcoin_transfer_volume_24h_usd": (
        "Estimated value moved on the chain in the last 24 hours.",
        lambda chain: chain.transfer_volume_24h_usd,
    ),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """The last answer of one endpoint; times are Unix milliseconds, `interval_s` is between two polls."""

    result: Result
    received_ms: int
    interval_s: float

    @property
    def updated_ms(self) -> int:
        """When the provider made the data; when it came, where the provider does not say."""
        result = self.result
        if isinstance(result, OnChain | Sentiment):
            return result.updated_ms
        if isinstance(result, Quotes):
            quote = result.symbol("BTC")
            if quote is not None and quote.updated_ms is not None:
                return quote.updated_ms
        return self.received_ms


class ProviderState:
    """Readings by provider and endpoint, and whether each endpoint's last poll succeeded."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str, str], Reading] = {}
        self._ok: dict[str, dict[str, bool]] = {}
        self._price_since: dict[str, tuple[tuple[float, float | None], int]] = {}

    def succeeded(self, provider: str, endpoint: str, reading: Reading) -> None:
        """A poll brought an answer."""
        self._readings[provider, endpoint] = reading
        self._ok.setdefault(provider, {})[endpoint] = True
        quote = _quote(reading.result)
        if quote is not None:
            held = self._price_since.get(provider)
            # A quiet market may keep its price for a minute, but not its volume too.
            now = (quote.price_usd, quote.volume_24h_usd)
            if held is None or held[0] != now:
                self._price_since[provider] = (now, reading.received_ms)

    def failed(self, provider: str, endpoint: str) -> None:
        """A poll failed."""
        self._ok.setdefault(provider, {})[endpoint] = False

    def is_up(self, provider: str) -> bool | None:
        """Whether the last poll of each endpoint succeeded; None before the first."""
        known = self._ok.get(provider)
        return all(known.values()) if known else None

    def samples(self, now_ms: int) -> Iterable[tuple[str, str, float]]:
        """(metric, provider, value) of everything that is fresh enough."""
        for provider in self._ok:
            yield "quantum_provider_up", provider, float(bool(self.is_up(provider)))
        for (provider, _), reading in self._oldest():
            age_s = max(0, now_ms - reading.updated_ms) / 1000
            yield "quantum_provider_data_age_seconds", provider, age_s
            yield "quantum_provider_poll_interval_seconds", provider, reading.interval_s
        prices: dict[str, float] = {}
        for (provider, _), reading in self._readings.items():
            if now_ms - reading.received_ms > _AGES * reading.interval_s * 1000:
                continue
            quote = _quote(reading.result)
            if quote is not None:
                yield from self._of_quote(provider, quote, now_ms)
                if now_ms - reading.updated_ms <= _SPREAD_MAX_AGE_MS:
                    prices.setdefault(provider, quote.price_usd)
            yield from _of_result(provider, reading.result)
        yield from _of_spread(prices)

    def shutdowns(self) -> Iterable[tuple[str, str, float]]:
        """(provider, model, Unix seconds) of every announced end of a model."""
        for (provider, _), reading in self._readings.items():
            if isinstance(reading.result, Models):
                for model in reading.result.models:
                    if model.shutdown_ms is not None:
                        yield provider, model.id, model.shutdown_ms / 1000

    def _of_quote(self, provider: str, quote: Quote, now_ms: int) -> Iterable[tuple[str, str, float]]:
        yield "quantum_btc_price_usd", provider, quote.price_usd
        if quote.market_cap_usd is not None:
            yield "quantum_btc_market_cap_usd", provider, quote.market_cap_usd
        if quote.volume_24h_usd is not None:
            yield "quantum_btc_volume_24h_usd", provider, quote.volume_24h_usd
        if provider in self._price_since:
            since_ms = self._price_since[provider][1]
            yield "quantum_btc_price_unchanged_seconds", provider, max(0, now_ms - since_ms) / 1000

    def _oldest(self) -> Iterable[tuple[tuple[str, str], Reading]]:
        """The oldest reading of each provider."""
        found: dict[str, tuple[tuple[str, str], Reading]] = {}
        for key, reading in self._readings.items():
            held = found.get(key[0])
            if held is None or reading.updated_ms < held[1].updated_ms:
                found[key[0]] = (key, reading)
        return found.values()


class ProviderCollector(Collector):
    """The state as metric families. `declared` are metric names and helps of the user's own providers."""

    def __init__(
        self, state: ProviderState, now_ms: Callable[[], int], declared: Mapping[str, str] | None = None
    ) -> None:
        self._state = state
        self._now_ms = now_ms
        self._helps = {
            **_MARKET,
            **{name: text for name, (text, _) in _ONCHAIN.items()},
            **{name: text for name, text in (declared or {}).items() if name not in _MARKET},
        }

    def describe(self) -> Sequence[Metric]:
        """The empty families."""
        return list(self._families().values())

    def collect(self) -> Sequence[Metric]:
        """The families as they stand now."""
        families = self._families()
        spread = families["quantum_btc_price_spread_ratio"]
        seen: set[tuple[str, str]] = set()
        for name, provider, value in self._state.samples(self._now_ms()):
            if (name, provider) in seen:
                continue  # two endpoints that declare one metric: the first counts
            seen.add((name, provider))
            if name == spread.name:
                spread.add_metric((), value)
            else:
                families[name].add_metric((provider,), value)
        for provider, model, at in self._state.shutdowns():
            families["quantum_ai_model_shutdown_timestamp_seconds"].add_metric((provider, model), at)
        return list(families.values())

    def _families(self) -> dict[str, GaugeMetricFamily]:
        families = {
            name: GaugeMetricFamily(name, text, labels=_PROVIDER) for name, text in self._helps.items()
        }
        families["quantum_btc_price_spread_ratio"] = GaugeMetricFamily(
            "quantum_btc_price_spread_ratio",
            "Highest less lowest of the providers' fresh prices, as a share of their median.",
            labels=(),
        )
        families["quantum_ai_model_shutdown_timestamp_seconds"] = GaugeMetricFamily(
            "quantum_ai_model_shutdown_timestamp_seconds",
            "When a model will be shut down, as announced.",
            labels=("provider", "model"),
        )
        return families


def _quote(result: Result) -> Quote | None:
    if isinstance(result, Quotes):
        return result.symbol("BTC")
    return result.quote if isinstance(result, Sentiment) else None


def _of_result(provider: str, result: Result) -> Iterable[tuple[str, str, float]]:
    if isinstance(result, OnChain):
        for name, (_, value) in _ONCHAIN.items():
            yield name, provider, value(result)
        yield "quantum_btc_market_cap_usd", provider, result.market_cap_usd
        yield "quantum_btc_volume_24h_usd", provider, result.trade_volume_24h_usd
    elif isinstance(result, Sentiment):
        if result.sentiment_ratio is not None:
            yield "quantum_market_sentiment_ratio", provider, result.sentiment_ratio
        if result.galaxy_score is not None:
            yield "quantum_market_galaxy_score", provider, result.galaxy_score
        if result.social_dominance_ratio is not None:
            yield "quantum_market_social_dominance_ratio", provider, result.social_dominance_ratio
    elif isinstance(result, Models):
        yield "quantum_ai_models", provider, float(len(result.models))
    elif isinstance(result, Declared):
        for name, number in result.values.items():
            yield name, provider, number


def _of_spread(prices: Mapping[str, float]) -> Iterable[tuple[str, str, float]]:
    """Spread and deviations; both need two providers."""
    median = statistics.median(prices.values()) if len(prices) >= 2 else 0.0
    if median <= 0:
        return
    yield "quantum_btc_price_spread_ratio", "", (max(prices.values()) - min(prices.values())) / median
    for provider, price in prices.items():
        yield "quantum_btc_price_deviation_ratio", provider, abs(price - median) / median
