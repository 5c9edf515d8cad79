"""CoinMarketCap: quotes in three shapes, error codes in the body, limits from the key's plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from exporter.errors import ApiErrorKind
from exporter.providers.failures import (
    Failure,
    RawAnswer,
    Reset,
    Scope,
    auth,
    billing,
    classify_status,
    code_in,
    message_in,
    quota,
    rate_limited,
    retry_after_s,
)
from exporter.providers.paths import SchemaError, find, iso_ms, kind_of, number, optional_number, shown
from exporter.providers.results import KeyInfo, LimitInfo, Quote, Quotes, Result
from exporter.providers.spec import Reader

NAME = "coinmarketcap"
DECLARATION = """
base_url: https://pro-api.coinmarketcap.com
auth: {header: X-CMC_PRO_API_KEY, required: true, env: COINMARKETCAP_API_KEY}
limits:
  minute: {ceiling: 333, safe: 30, plan: true}
  month: {safe: 15000, plan: true}
headers: {window: minute, limit: x-ratelimit-limit, remaining: x-ratelimit-remaining}
interval: 30s
assets: {BTC: "1", ETH: "1027"}
endpoints:
  quotes:
    path: /v3/cryptocurrency/quotes/latest
    params: {id: "1", convert: USD}
    data: market
    poll: true
    batch: {param: id, max: 100}
    reader: quotes
  quotes_v2:
    path: /v2/cryptocurrency/quotes/latest
    params: {id: "1", convert: USD}
    data: market
    batch: {param: id, max: 100}
    reader: quotes
  key:
    path: /v1/key/info
    key_info: true
    needs_key: true
    reader: key
"""


Path = tuple[str | int, ...]


def read_quotes(data: object, params: Mapping[str, str]) -> Result:
    """Quotes by id. Coins come as a map by id or symbol (of coins, or of lists of them) or as a list;
    a coin's quote as a map by currency or as a list of objects with a symbol.

    Raises: SchemaError where no coin is readable.
    """
    currency = params.get("convert", "USD")
    found: dict[str, Quote] = {}
    for at in _coins(data):
        quote_at = _quote_path(data, at, currency)
        coin_id = _id(data, at)
        if coin_id in found:
            continue  # a symbol that several coins share: the first is the largest
        found[coin_id] = Quote(
            symbol=_symbol(data, at, coin_id),
            price_usd=number(data, (*quote_at, "price")),
            market_cap_usd=optional_number(data, (*quote_at, "market_cap")),
            volume_24h_usd=optional_number(data, (*quote_at, "volume_24h")),
            updated_ms=iso_ms(data, (*quote_at, "last_updated")) or iso_ms(data, (*at, "last_updated")),
        )
    if not found:
        raise SchemaError("data", "holds no coin")
    return Quotes(found)


def _coins(data: object) -> Iterator[Path]:
    """Paths of all coins, whichever shape they come in."""
    container = find(data, ("data",))
    if isinstance(container, list):
        yield from (("data", at) for at in range(len(container)))
        return
    if not isinstance(container, dict):
        raise SchemaError("data", f"should be an object or a list, not {kind_of(container)}")
    for key, value in container.items():
        if isinstance(value, list):
            yield from (("data", key, at) for at in range(len(value)))
        else:
            yield ("data", key)


def _quote_path(data: object, at: Path, currency: str) -> Path:
    quote = find(data, (*at, "quote"))
    if not isinstance(quote, list):
        find(data, (*at, "quote", currency))
        return (*at, "quote", currency)
    for index, item in enumerate(quote):
        if isinstance(item, dict) and item.get("symbol") == currency:
            return (*at, "quote", index)
    raise SchemaError(shown((*at, "quote")), f"holds no {currency}")


def _id(data: object, at: Path) -> str:
    try:
        return str(find(data, (*at, "id")))
    except SchemaError:
        if isinstance(at[-1], str):
            return at[-1]  # a map by id names the coin even where the coin does not
        raise


def _symbol(data: object, at: Path, coin_id: str) -> str:
    try:
        return str(find(data, (*at, "symbol")))
    except SchemaError:
        return coin_id


def read_key(data: object, params: Mapping[str, str]) -> Result:
    """Limits and use of the key: calls a minute, credits a month (a quote costs one credit).

    Raises: SchemaError where the plan is missing.
    """
    del params
    find(data, ("data", "plan"))
    limits = []
    for window, limit, use, left in (
        ("minute", "rate_limit_minute", "current_minute", "requests_left"),
        ("month", "credit_limit_monthly", "current_month", "credits_left"),
    ):
        most = optional_number(data, ("data", "plan", limit))
        rest = optional_number(data, ("data", "usage", use, left))
        if most is not None:
            used = None if rest is None else max(0, int(most - rest))
            limits.append(LimitInfo(window, int(most), used))
    return KeyInfo(tuple(limits))


READERS: Mapping[str, Reader] = MappingProxyType({"quotes": read_quotes, "key": read_key})


def classify(answer: RawAnswer) -> Failure | None:
    """Error codes first, in whatever status they come; 0 is success.

    Source: provider-facts, CoinMarketCap: 1001-1002 key, 1003-1004 payment, 1005-1007 plan, 1008 minute,
    1009 day, 1010 month, 1011 IP.
    """
    code = code_in(answer.data, ("status", "error_code"))
    if code in ("", "0"):
        return classify_status(answer)
    message = f"error {code}: {message_in(answer.data)}"
    wait_s = retry_after_s(answer)
    if code in ("1001", "1002"):
        return auth(message)
    if code in ("1003", "1004", "1005", "1007"):
        return billing(message)
    if code == "1006":
        return billing(message, Scope.ENDPOINT)  # the plan lacks this endpoint only
    if code == "1008":
        return rate_limited(message, 60.0 if wait_s is None else wait_s)
    if code == "1009":
        return quota(message, Reset.UTC_DAY, wait_s)
    if code == "1010":
        return quota(message, Reset.UTC_MONTH, wait_s)
    if code == "1011":
        return rate_limited(message, max(wait_s or 0.0, 600.0))  # the address is blocked: stay away longer
    by_status = classify_status(answer)
    return by_status or Failure(ApiErrorKind.HTTP, message, code in ("500", "503"))
