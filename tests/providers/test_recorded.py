"""The readers and classifiers against recorded and documented answers of the real providers."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from exporter.errors import ApiErrorKind
from exporter.providers import builtin_providers, gemini, kraken, lunarcrush, openai
from exporter.providers.failures import Failure, RawAnswer, Reset, Scope
from exporter.providers.paths import SchemaError
from exporter.providers.results import (
    KeyInfo,
    LimitInfo,
    Models,
    OnChain,
    Quotes,
    Result,
    Sentiment,
    TokenUsage,
)
from tests.helpers.peers import shared


def _load(name: str) -> object:
    path: Path = shared(f"data/provider-responses/{name}")
    return json.loads(path.read_text("utf-8"))


def _read(provider: str, endpoint: str, name: str, **params: str) -> Result:
    spec = builtin_providers()[provider].endpoints[endpoint]
    assert spec.read is not None
    return spec.read(_load(name), {**spec.params, **params})


def _btc(result: Result) -> tuple[float, float | None, float | None, int | None]:
    assert isinstance(result, Quotes)
    quote = result.symbol("BTC")
    assert quote is not None
    return quote.price_usd, quote.market_cap_usd, quote.volume_24h_usd, quote.updated_ms


def test_coingecko_simple_price() -> None:
    """Price, market cap, volume and time by the asked id."""
    assert _btc(_read("coingecko", "quotes", "coingecko/simple_price.json")) == (
        76975.0,
        1542226908349.8406,
        29096603418.89408,
        1779092258000,
    )


def test_coingecko_prices_without_extras() -> None:
    """What was not asked for is None."""
    assert _btc(_read("coingecko", "quotes", "coingecko/simple_price_fiats.json")) == (
        63410.0,
        None,
        None,
        None,
    )


def test_coingecko_key_and_ping() -> None:
    """The plan's limits; the ping."""
    info = _read("coingecko", "key", "coingecko/key_usage.json")
    assert isinstance(info, KeyInfo)
    assert info.limits == (LimitInfo("minute", 1000, None), LimitInfo("month", 1_000_000, 104))
    assert _read("coingecko", "ping", "coingecko/ping.json")


@pytest.mark.parametrize("endpoint", ["quotes", "quotes_v2"])
def test_coinmarketcap_map_by_id(endpoint: str) -> None:
    """The shape keyed by id, with and without all fields."""
    full = _read("coinmarketcap", endpoint, "coinmarketcap/quotes_latest_v1.json")
    assert _btc(full) == (3475.55287338, 60886038568.19836, 4998928970.98657, 1549268545000)
    sparse = _read("coinmarketcap", endpoint, "coinmarketcap/quotes_latest_v2_by_id.json")
    assert _btc(sparse) == (50000.0, None, None, None)
    assert isinstance(sparse, Quotes)
    assert sparse.by_id["1027"].price_usd == 3400.0


def test_coinmarketcap_lists() -> None:
    """A list of coins, a list per symbol, and quotes as a list of currencies: all are read alike."""
    read = builtin_providers()["coinmarketcap"].endpoints["quotes"].read
    assert read is not None
    coin = _load("coinmarketcap/listing_item_btc.json")
    assert isinstance(coin, dict)
    listed = {**coin, "quote": [{"symbol": "EUR", "price": 1.0}, {"symbol": "USD", **coin["quote"]["USD"]}]}
    expected = (48827.989730634145, 917963765536.4354, 29502617632.520878, 1630167199000)
    for data in ([coin], [listed], {"1": coin}, {"BTC": [coin]}, {"1": listed}):
        assert _btc(read({"data": data}, {"convert": "USD"})) == expected


def test_kraken_ticker() -> None:
    """Asked as XBTUSD, answered as XXBTZUSD; numbers from strings; volume in dollars of 24 hours."""
    price, cap, volume, updated = _btc(_read("kraken", "quotes", "kraken/ticker_xbtusd.json"))
    assert (price, cap, updated) == (30303.2, None, None)
    assert volume == pytest.approx(4412.73601799 * 30689.13205)
    assert _read("kraken", "status", "kraken/system_status.json")
    assert _read("kraken", "time", "kraken/server_time.json")


def test_kraken_rate_limit_inside_http_200() -> None:
    """An error in the body is an error: all calls wait, then one retry helps."""
    failure = kraken.classify(RawAnswer(200, data=_load("kraken/error_rate_limit.json")))
    assert failure is not None
    assert (failure.kind, failure.retryable, failure.scope) == (
        ApiErrorKind.RATE_LIMITED,
        True,
        Scope.PROVIDER,
    )


def test_blockchain_stats_in_base_units() -> None:
    """GH/s, satoshi and minutes become hashes per second, bitcoins and seconds."""
    stats = _read("blockchain", "stats", "blockchain_com/stats.json")
    assert isinstance(stats, OnChain)
    assert stats.hash_rate_hashes_per_second == pytest.approx(1.738726436818e19)
    assert stats.difficulty == 2227847638503
    assert stats.supply_btc == pytest.approx(16_807_275.0)
    assert stats.block_interval_seconds == pytest.approx(505.8)
    assert stats.fees_24h_btc == pytest.approx(623.0992)
    assert stats.market_cap_usd == pytest.approx(11127.17 * 16_807_275.0)
    assert stats.updated_ms == 1516158433000


def test_blockchain_ticker_with_exponents() -> None:
    """The dollar out of all currencies."""
    assert _btc(_read("blockchain", "quotes", "blockchain_com/ticker.json"))[0] > 60_000


def test_blockchain_chart_whose_key_has_a_blank_is_named() -> None:
    """The recorded chart writes " y" for y: the drift names the point."""
    with pytest.raises(SchemaError, match=r'field "values\[0\]\.y" is missing'):
        _read("blockchain", "mempool", "blockchain_com/chart_total_bitcoins.json")


def test_lunarcrush_answers() -> None:
    """Sentiment of the list, scores of one coin, the mean of a topic; `generated` is the age."""
    listed = _read("lunarcrush", "sentiment", "lunarcrush/coins_list_v2.json")
    assert isinstance(listed, Sentiment)
    assert (listed.sentiment_ratio, listed.galaxy_score, listed.updated_ms) == (0.73, 39.9, 1750604580000)
    assert listed.social_dominance_ratio == pytest.approx(0.2543469)
    assert listed.quote is not None
    assert listed.quote.updated_ms == 1750604568000
    coin = _read("lunarcrush", "coin", "lunarcrush/coins_v1.json")
    assert isinstance(coin, Sentiment)
    assert (coin.symbol, coin.sentiment_ratio, coin.galaxy_score) == ("ETH", None, 65.8)
    topic = _read("lunarcrush", "topic", "lunarcrush/topic_v1.json")
    assert isinstance(topic, Sentiment)
    assert topic.sentiment_ratio == pytest.approx(6_208_283_572 / 8_399_883_200)


def test_openai_models_and_tokens() -> None:
    """Models with announced ends; token use of completions."""
    models = _read("openai", "models", "openai/models_list.json")
    assert isinstance(models, Models)
    assert [model.shutdown_ms for model in models.models] == [None, None, 1792713600000]
    for name, expected in (("chat_completion", (12, 5, 17)), ("chat_completion_2026", (8, 9, 17))):
        usage = openai.read_usage(_load(f"openai/{name}.json"), {})
        assert isinstance(usage, TokenUsage)
        assert (usage.prompt, usage.completion, usage.total) == expected


def test_gemini_models_and_tokens() -> None:
    """Models without their prefix; thoughts count as completion."""
    models = _read("gemini", "models", "gemini/models_list.json")
    assert isinstance(models, Models)
    assert [model.id for model in models.models[:2]] == ["gemini-2.5-flash", "gemini-2.5-pro"]
    usage = gemini.read_usage(_load("gemini/generate_content.json"), {})
    assert isinstance(usage, TokenUsage)
    assert (usage.prompt, usage.completion, usage.total, usage.reasoning) == (9, 43, 52, 34)


@pytest.mark.parametrize(
    ("provider", "name", "status", "kind", "wait_s", "retryable"),
    [
        ("coingecko", "coingecko/error_429.json", 429, ApiErrorKind.RATE_LIMITED, 60.0, True),
        ("coinmarketcap", "coinmarketcap/error_429.json", 429, ApiErrorKind.RATE_LIMITED, 60.0, True),
        ("coinmarketcap", "coinmarketcap/error_401.json", 401, ApiErrorKind.AUTH, 3600.0, False),
        ("openai", "openai/error_429_rate_limit.json", 429, ApiErrorKind.RATE_LIMITED, None, True),
        ("openai", "openai/error_429_insufficient_quota.json", 429, ApiErrorKind.BILLING, None, False),
        ("openai", "openai/error_404_model_not_found.json", 404, ApiErrorKind.HTTP, None, False),
        ("gemini", "gemini/error_429.json", 429, ApiErrorKind.RATE_LIMITED, 34.4, True),
        ("gemini", "gemini/error_429_full.json", 429, ApiErrorKind.RATE_LIMITED, 40.0, True),
        ("gemini", "gemini/error_403.json", 403, ApiErrorKind.AUTH, 3600.0, False),
    ],
)
def test_recorded_errors_lead_to_their_action(
    provider: str, name: str, status: int, kind: ApiErrorKind, wait_s: float | None, retryable: bool
) -> None:
    """Rate: wait and retry. Bill: stop. Key: wait an hour. A wrong request: tell."""
    failure = builtin_providers()[provider].classify(RawAnswer(status, data=_load(name)))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.wait_s, failure.retryable) == (kind, wait_s, retryable)
    assert failure.stops is (kind is ApiErrorKind.BILLING)


def test_every_recorded_answer_is_classified_without_an_error_of_our_own() -> None:
    """Any provider's classifier and readers meet any body: a failure, a result or a named drift."""
    root = shared("data/provider-responses")
    specs = builtin_providers()
    for path in sorted(root.glob("*/*.json")):
        data = json.loads(path.read_text("utf-8"))
        for spec in specs.values():
            for status in (200, 400, 401, 403, 404, 429, 500, 503):
                spec.classify(RawAnswer(status, data=data, text=path.read_text("utf-8")[:200]))
            for endpoint in spec.endpoints.values():
                assert endpoint.read is not None
                with contextlib.suppress(SchemaError):
                    endpoint.read(data, endpoint.params)


def test_good_answers_are_no_failures() -> None:
    """What is recorded as an answer is not taken for an error by its own provider."""
    names = {"blockchain_com": "blockchain"}
    for path in sorted(shared("data/provider-responses").glob("*/*.json")):
        if path.name.startswith("error_"):
            continue
        spec = builtin_providers()[names.get(path.parent.name, path.parent.name)]
        assert spec.classify(RawAnswer(200, data=json.loads(path.read_text("utf-8")))) is None, path


def test_lunarcrush_is_polled_once() -> None:
    """A hundred calls a day: one polled endpoint."""
    assert sum(endpoint.poll for endpoint in builtin_providers()[lunarcrush.NAME].endpoints.values()) == 1


def test_gemini_day_quota_waits_for_midnight_pacific() -> None:
    """The same error with a PerDay id."""
    data = _load("gemini/error_429.json")
    assert isinstance(data, dict)
    data["error"]["details"][0]["violations"][0]["quotaId"] = (
        "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
    )
    failure = gemini.classify(RawAnswer(429, data=data))
    assert failure is not None
    assert (failure.kind, failure.reset, failure.retryable) == (ApiErrorKind.QUOTA, Reset.PACIFIC_DAY, False)
