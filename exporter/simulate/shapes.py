"""Answers of the seven providers in shape, with made-up values around one market.

Each function gives the JSON of one path; `refusal` gives the error body that the provider sends with its
status. Values that do not come from the market stand still or drift slowly with the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from exporter.simulate.prices import MarketPoint

Query = Mapping[str, str]
_SUPPLY_BTC = 19_950_000.0
_COINS = {"1": ("Bitcoin", "BTC", "bitcoin", 1.0), "1027": ("Ethereum", "ETH", "ethereum", 0.042)}
_PAIRS = {"XBTUSD": ("XXBTZUSD", 1.0), "ETHUSD": ("XETHZUSD", 0.042)}


@dataclass(frozen=True, slots=True)
class Moment:
    """The market as one provider sees it, and the time (Unix milliseconds)."""

    now_ms: int
    market: MarketPoint
    updated_ms: int

    @property
    def price(self) -> float:
        """Bitcoin in US dollars."""
        return self.market.price_usd

    @property
    def volume_usd(self) -> float:
        """Volume of 24 hours over all exchanges, in US dollars."""
        return self.market.volume_24h_btc * self.price * 20.0


def coinmarketcap(path: str, query: Query, now: Moment) -> object | None:
    """Quotes as a list with lists of quotes (v3), as a map (v2), and the key's plan."""
    status = {
        "timestamp": _iso(now.now_ms),
        "error_code": 0,
        "error_message": None,
        "elapsed": 7,
        "credit_count": 1,
    }
    if path == "/v1/key/info":
        plan = {"rate_limit_minute": 300, "credit_limit_monthly": 500_000}
        usage = {
            "current_minute": {"requests_made": 0, "requests_left": 300},
            "current_month": {"credits_used": 1200, "credits_left": 498_800},
        }
        return {"data": {"plan": plan, "usage": usage}, "status": {**status, "credit_count": 0}}
    if path not in ("/v3/cryptocurrency/quotes/latest", "/v2/cryptocurrency/quotes/latest"):
        return None
    as_list = path.startswith("/v3")
    coins = []
    for coin_id in query.get("id", "1").split(","):
        if coin_id not in _COINS:
            continue
        name, symbol, slug, share = _COINS[coin_id]
        quote = {
            "price": now.price * share,
            "volume_24h": now.volume_usd * share,
            "percent_change_24h": 1.25,
            "market_cap": now.price * share * _SUPPLY_BTC,
            "last_updated": _iso(now.updated_ms),
        }
        coins.append(
            {
                "id": int(coin_id),
                "name": name,
                "symbol": symbol,
                "slug": slug,
                "circulating_supply": _SUPPLY_BTC,
                "last_updated": _iso(now.updated_ms),
                "quote": [{"id": 2781, "symbol": "USD", **quote}] if as_list else {"USD": quote},
            }
        )
    return {"status": status, "data": coins if as_list else {str(coin["id"]): coin for coin in coins}}


def coingecko(path: str, query: Query, now: Moment) -> object | None:
    """Prices by id, the key's plan, a ping."""
    if path == "/ping":
        return {"gecko_says": "(V3) simulated"}
    if path == "/key":
        return {
            "plan": "Simulated",
            "rate_limit_request_per_minute": 50,
            "monthly_call_credit": 500_000,
            "current_total_monthly_calls": 1200,
            "current_remaining_monthly_calls": 498_800,
        }
    if path != "/simple/price":
        return None
    shares = {slug: share for _, _, slug, share in _COINS.values()}
    return {
        coin: {
            "usd": round(now.price * shares[coin], 2),
            "usd_market_cap": now.price * shares[coin] * _SUPPLY_BTC,
            "usd_24h_vol": now.volume_usd * shares[coin],
            "usd_24h_change": 1.25,
            "last_updated_at": now.updated_ms // 1000,
        }
        for coin in query.get("ids", "").split(",")
        if coin in shares
    }


def kraken(path: str, query: Query, now: Moment) -> object | None:
    """Tickers under the exchange's own pair names, numbers as strings; the system's state."""
    if path == "/SystemStatus":
        return {"error": [], "result": {"status": "online", "timestamp": _iso(now.now_ms)}}
    if path == "/Time":
        return {"error": [], "result": {"unixtime": now.now_ms // 1000, "rfc1123": ""}}
    if path != "/Ticker":
        return None
    result = {}
    for pair in query.get("pair", ",".join(_PAIRS)).split(","):
        if pair not in _PAIRS:
            return {"error": ["EQuery:Unknown asset pair"]}
        name, share = _PAIRS[pair]
        price, volume = now.price * share, now.market.volume_24h_btc / 10.0
        result[name] = {
            "a": [f"{price * 1.0001:.5f}", "1", "1.000"],
            "b": [f"{price * 0.9999:.5f}", "1", "1.000"],
            "c": [f"{price:.5f}", "0.00150000"],
            "v": [f"{volume / 2:.8f}", f"{volume:.8f}"],
            "p": [f"{price * 0.999:.5f}", f"{price * 0.998:.5f}"],
            "t": [21_000, 42_000],
            "l": [f"{price * 0.98:.5f}", f"{price * 0.98:.5f}"],
            "h": [f"{price * 1.02:.5f}", f"{price * 1.02:.5f}"],
            "o": f"{price * 0.995:.5f}",
        }
    return {"error": [], "result": result}


def blockchain(path: str, query: Query, now: Moment) -> object | None:
    """Network statistics in the provider's units, a ticker of currencies, charts."""
    del query
    height = 920_000 + now.now_ms // 600_000 % 100_000
    if path == "/stats":
        return {
            "market_price_usd": round(now.price, 2),
            "hash_rate": 1.05e12,
            "total_fees_btc": 450_000_000,
            "n_btc_mined": 45_000_000_000,
            "n_tx": 410_000 + now.now_ms // 60_000 % 1000,
            "n_blocks_mined": 144,
            "minutes_between_blocks": 9.8,
            "totalbc": round(_SUPPLY_BTC * 1e8),
            "n_blocks_total": height,
            "estimated_transaction_volume_usd": now.volume_usd / 4,
            "miners_revenue_usd": round(454.5 * now.price, 2),
            "nextretarget": height + 1000,
            "difficulty": 1.4e14,
            "trade_volume_btc": now.market.volume_24h_btc,
            "trade_volume_usd": now.volume_usd,
            "timestamp": now.updated_ms,
        }
    if path == "/ticker":
        rates = (("USD", 1.0), ("EUR", 0.87), ("JPY", 154.0), ("ARS", 1.4e3))
        return {
            name: {
                "15m": now.price * rate, "last": now.price * rate, "buy": now.price * rate,
                "sell": now.price * rate, "symbol": name,
            }
            for name, rate in rates
        }  # fmt: skip
    if path.startswith("/charts/"):
        name = path.removeprefix("/charts/")
        start = now.now_ms // 1000 // 600 * 600
        points = [{"x": start - 600 * back, "y": 8.0e7 + 1e5 * back} for back in range(143, -1, -1)]
        return {"status": "ok", "name": name, "unit": "Bytes", "period": "minute", "values": points}
    return None


def lunarcrush(path: str, query: Query, now: Moment) -> object | None:
    """The list of coins, one coin, a topic; `generated` is the age of the data."""
    config = {"generated": now.updated_ms // 1000, "symbol": "BTC", "name": "Bitcoin", "topic": "bitcoin"}
    coin = {
        "id": 1,
        "symbol": "BTC",
        "name": "Bitcoin",
        "price": now.price,
        "volume_24h": now.volume_usd,
        "market_cap": now.price * _SUPPLY_BTC,
        "market_cap_rank": 1,
        "galaxy_score": 55.0 + now.now_ms // 600_000 % 15,
        "alt_rank": 120,
        "volatility": 0.0091,
    }
    if path == "/coins/list/v2":
        social = {
            "sentiment": 60 + now.now_ms // 900_000 % 25, "social_volume_24h": 150_000,
            "interactions_24h": 80_000_000, "social_dominance": 24.5,
            "last_updated_price": now.updated_ms // 1000,
        }  # fmt: skip
        return {
            "config": {**config, "limit": int(query.get("limit", "10")), "page": 0},
            "data": [{**coin, **social}],
        }
    if path.startswith("/coins/") and path.endswith("/v1"):
        return {"config": config, "data": coin}
    if path.startswith("/topic/"):
        data = {
            "topic": "bitcoin", "title": "Bitcoin", "topic_rank": 40, "num_posts": 250_000,
            "types_interactions": {"tweet": 6.0e7, "news": 3.0e5},
            "types_sentiment": {"tweet": 74, "news": 70}, "interactions_24h": 8.0e7,
        }  # fmt: skip
        return {"config": config, "data": data}
    return None


def openai(path: str, query: Query, now: Moment) -> object | None:
    """Models, one of them with an announced end; a completion; costs."""
    del query
    if path == "/models":
        created = 1_700_000_000
        ends = (("sim-large", None), ("sim-small", None), ("sim-old", "2027-03-31"))
        data = [
            {"id": name, "object": "model", "created": created, "owned_by": "simulator", "shutdown_date": end}
            for name, end in ends
        ]
        return {"object": "list", "data": data}
    if path == "/chat/completions":
        usage = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
        return {"id": "sim", "object": "chat.completion", "model": "sim-small", "choices": [], "usage": usage}
    if path == "/organization/costs":
        bucket = {
            "start_time": now.now_ms // 1000,
            "results": [{"amount": {"value": 1.25, "currency": "usd"}}],
        }
        return {"object": "page", "data": [bucket], "has_more": False}
    return None


def gemini(path: str, query: Query, now: Moment) -> object | None:
    """Models."""
    del query, now
    if path != "/models":
        return None
    names = ("sim-flash", "sim-pro")
    return {
        "models": [
            {"name": f"models/{name}", "version": "001", "displayName": name, "inputTokenLimit": 1_048_576,
             "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent"]}
            for name in names
        ]
    }  # fmt: skip


ANSWERS: Mapping[str, Callable[[str, Query, Moment], object | None]] = MappingProxyType(
    {
        "coinmarketcap": coinmarketcap,
        "coingecko": coingecko,
        "kraken": kraken,
        "blockchain": blockchain,
        "lunarcrush": lunarcrush,
        "openai": openai,
        "gemini": gemini,
    }
)
DRIFTING_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "coinmarketcap": ("price",),
        "coingecko": ("usd",),
        "kraken": ("c",),
        "blockchain": ("difficulty", "last"),
        "lunarcrush": ("galaxy_score",),
        "openai": ("id",),
        "gemini": ("name",),
    }
)
"""The fields that a drifted answer has under another name."""


def refusal(provider: str, why: str, wait_s: int, now_ms: int) -> tuple[int, object]:
    """Status and body with which a provider refuses: `rate`, `quota`, `billing` or `auth`."""
    if provider == "coinmarketcap":
        status, code, text = {
            "rate": (429, 1008, "You've used up this minute's calls of your key."),
            "quota": (429, 1010, "You've used up this month's credits of your key."),
            "billing": (402, 1003, "This key's plan needs a payment."),
            "auth": (401, 1001, "This key is not valid."),
        }[why]
        return status, {
            "status": {
                "timestamp": _iso(now_ms),
                "error_code": code,
                "error_message": text,
                "credit_count": 0,
            }
        }
    if provider == "coingecko":
        status, number, text = {
            "rate": (429, 429, "You've gone over the rate limit of your plan."),
            "quota": (429, 429, "You've gone over the rate limit of your plan."),
            "billing": (401, 10005, "This endpoint is for a higher plan."),
            "auth": (401, 10002, "An API key is missing."),
        }[why]
        return status, {"status": {"error_code": number, "error_message": text}}
    if provider == "kraken":
        text = {"rate": "EAPI:Rate limit exceeded", "quota": "EGeneral:Temporary lockout"}.get(
            why, "EAPI:Invalid key"
        )
        return 200, {"error": [text], "result": None}
    if provider == "openai":
        status, kind, text = {
            "rate": (429, "rate_limit_exceeded", "Too many requests a minute."),
            "quota": (429, "insufficient_quota", "The credit is used up; see plan and billing."),
            "billing": (429, "insufficient_quota", "The credit is used up; see plan and billing."),
            "auth": (401, "invalid_api_key", "The key is wrong."),
        }[why]
        return status, {"error": {"message": text, "type": kind, "param": None, "code": kind}}
    if provider == "gemini":
        return _gemini_refusal(why, wait_s)
    if provider == "lunarcrush":
        status, text = {
            "rate": (429, "Too many requests in a minute"),
            "quota": (429, "The daily limit of requests is reached"),
            "billing": (402, "This needs a subscription plan"),
            "auth": (401, "The key is unknown"),
        }[why]
        return status, {"error": text}
    return {"rate": 429, "quota": 429, "billing": 402, "auth": 401}[why], None


def _gemini_refusal(why: str, wait_s: int) -> tuple[int, object]:
    if why == "auth":
        detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        error = {
            "code": 400,
            "message": "The key is not valid.",
            "status": "INVALID_ARGUMENT",
            "details": [detail],
        }
        return 400, {"error": error}
    quota_id = {"rate": "RequestsPerMinutePerProject", "quota": "RequestsPerDayPerProject"}.get(
        why, "Requests"
    )
    message = "The quota of the model is used up" + (", limit: 0" if why == "billing" else "")
    details: list[object] = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait_s}s"},
    ]
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}
    return 429, {"error": error}


def drifted(body: object, provider: str) -> object:
    """The same answer after a careless release: a field has another name."""
    fields = DRIFTING_FIELDS[provider]
    if isinstance(body, dict):
        return {
            (f"{key}_v2" if key in fields else key): drifted(value, provider) for key, value in body.items()
        }
    return [drifted(item, provider) for item in body] if isinstance(body, list) else body


def _iso(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
