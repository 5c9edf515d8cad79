"""Kraken: tickers under its own pair names, numbers as strings, errors inside HTTP 200."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from exporter.errors import ApiErrorKind
from exporter.providers.failures import Failure, RawAnswer, classify_status, plain, rate_limited
from exporter.providers.paths import SchemaError, find, kind_of, number, text
from exporter.providers.results import Quote, Quotes, Result, Status
from exporter.providers.spec import Reader

NAME = "kraken"
DECLARATION = """
base_url: https://api.kraken.com/0/public
limits:
  second: {ceiling: 15, safe: 1}
interval: 30s
assets: {BTC: XBTUSD, ETH: ETHUSD}
endpoints:
  quotes:
    path: /Ticker
    params: {pair: XBTUSD}
    data: market
    poll: true
    batch: {param: pair, max: 50}
    reader: quotes
  status: {path: /SystemStatus, reader: status}
  time: {path: /Time, reader: time}
"""
_SYMBOLS: Mapping[str, str] = MappingProxyType({"XBTUSD": "BTC", "ETHUSD": "ETH"})
_BUSY_WAIT_S = 5.0


def read_quotes(data: object, params: Mapping[str, str]) -> Result:
    """Quotes by the asked pair. The volume in dollars is the day's volume times its average price.

    Raises: SchemaError where none of the asked pairs is there, or a field of one.
    """
    result = find(data, ("result",))
    if not isinstance(result, dict):
        raise SchemaError("result", f"should be an object, not {kind_of(result)}")
    names = {_plain_pair(name): name for name in result}
    asked = [pair for pair in params.get("pair", "").split(",") if pair] or list(names)
    found: dict[str, Quote] = {}
    for pair in asked:
        name = names.get(_plain_pair(pair))
        if name is None:
            continue
        at = ("result", name)
        found[pair] = Quote(
            symbol=_SYMBOLS.get(_plain_pair(pair), pair),
            price_usd=number(data, (*at, "c", 0)),
            volume_24h_usd=number(data, (*at, "v", 1)) * number(data, (*at, "p", 1)),
        )
    if not found:
        raise SchemaError(f"result.{asked[0]}" if asked else "result", "is missing")
    return Quotes(found)


def read_status(data: object, params: Mapping[str, str]) -> Result:
    """Whether the exchange says that it is online."""
    del params
    status = text(data, ("result", "status"))
    return Status(ok=status == "online", text=status)


def read_time(data: object, params: Mapping[str, str]) -> Result:
    """That the API answers, with its Unix time."""
    del params
    return Status(ok=True, text=str(int(number(data, ("result", "unixtime")))))


READERS: Mapping[str, Reader] = MappingProxyType(
    {"quotes": read_quotes, "status": read_status, "time": read_time}
)


def classify(answer: RawAnswer) -> Failure | None:
    """The body's error list decides in any status; entries that start with W are warnings."""
    errors = answer.data.get("error") if isinstance(answer.data, dict) else None
    if not isinstance(errors, list):
        return classify_status(answer)
    message = next((plain(str(error)) for error in errors if not str(error).startswith("W")), "")
    if not message:
        return classify_status(answer)
    if message.startswith("EService:Throttled"):
        until = message.rpartition(":")[2].strip()
        wait_s = float(until) - answer.now_s if until.isdigit() else _BUSY_WAIT_S
        return rate_limited(message, min(max(wait_s, _BUSY_WAIT_S), 3600.0))
    if message.startswith(("EAPI:Rate limit", "EGeneral:Too many requests", "EGeneral:Temporary lockout")):
        # The refusal lasts while calls go on, so that a short pause is the quickest way out.
        return rate_limited(message, 900.0 if "lockout" in message else _BUSY_WAIT_S)
    if message.startswith(("EService:Unavailable", "EService:Busy", "EService:Timeout", "EGeneral:Internal")):
        return Failure(ApiErrorKind.HTTP, message, retryable=True)
    if message.startswith(("EAPI:Invalid key", "EGeneral:Permission denied")):
        return Failure(ApiErrorKind.AUTH, message)
    return Failure(ApiErrorKind.HTTP, message)


def _plain_pair(name: str) -> str:
    """XXBTZUSD and XBTUSD are the same pair: Kraken marks coins with X and currencies with Z."""
    if len(name) == 8 and name[0] in "XZ" and name[4] in "XZ":
        return name[1:4] + name[5:]
    return name
