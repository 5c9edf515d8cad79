"""CoinGecko: quotes by declaration; error bodies in three shapes, one of them plain text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from exporter.errors import ApiErrorKind
from exporter.providers.failures import (
    Failure,
    RawAnswer,
    Scope,
    auth,
    billing,
    classify_status,
    code_in,
    message_in,
    rate_limited,
    retry_after_s,
)
from exporter.providers.paths import integer, number, text
from exporter.providers.results import KeyInfo, LimitInfo, Result, Status
from exporter.providers.spec import Reader

NAME = "coingecko"
DECLARATION = """
base_url: https://api.coingecko.com/api/v3
auth: {header: x-cg-demo-api-key, env: COINGECKO_API_KEY}
plans:
  pro: {base_url: https://pro-api.coingecko.com/api/v3, header: x-cg-pro-api-key}
limits:
  minute: {ceiling: 50, safe: 30, plan: true}
  month: {safe: 10000, plan: true, keyed_only: true}
interval: 60s
assets: {BTC: bitcoin, ETH: ethereum}
endpoints:
  quotes:
    path: /simple/price
    params:
      ids: bitcoin
      vs_currencies: usd
      include_market_cap: "true"
      include_24hr_vol: "true"
      include_24hr_change: "true"
      include_last_updated_at: "true"
    data: market
    poll: true
    batch: {param: ids, max: 250}
    quote:
      price: "{id}.usd"
      market_cap: "{id}.usd_market_cap"
      volume_24h: "{id}.usd_24h_vol"
      updated_s: "{id}.last_updated_at"
  ping: {path: /ping, reader: ping}
  key: {path: /key, key_info: true, needs_key: true, reader: key}
"""


def read_ping(data: object, params: Mapping[str, str]) -> Result:
    """That the API answers."""
    del params
    return Status(ok=True, text=text(data, "gecko_says"))


def read_key(data: object, params: Mapping[str, str]) -> Result:
    """Limits and use of a paid key."""
    del params
    return KeyInfo(
        limits=(
            LimitInfo("minute", integer(data, "rate_limit_request_per_minute"), None),
            LimitInfo(
                "month",
                integer(data, "monthly_call_credit"),
                int(number(data, "current_total_monthly_calls")),
            ),
        ),
        plan=text(data, "plan"),
    )


READERS: Mapping[str, Reader] = MappingProxyType({"ping": read_ping, "key": read_key})


def classify(answer: RawAnswer) -> Failure | None:
    """By the error code in the body where there is one: 10002 key, 10005 plan, 10010 and 10011 base."""
    if answer.status < 400 and not _is_error(answer.data):
        return classify_status(answer)
    code = code_in(answer.data, ("error", "status", "error_code"), ("status", "error_code"), ("error_code",))
    message = f"HTTP {answer.status}: {message_in(answer.data) or answer.text.strip()[:80]}"
    if code == "10005":
        return billing(message, Scope.ENDPOINT)
    if code in ("10002", "10010", "10011"):
        return auth(message)
    if answer.status == 429 or code == "429" or answer.text.strip() == "Throttled":
        return rate_limited(message, 60.0 if (wait_s := retry_after_s(answer)) is None else wait_s)
    if answer.status == 403 and (code == "1020" or answer.data is None):
        return rate_limited("HTTP 403: blocked by the content network", 600.0)
    return classify_status(answer) or Failure(ApiErrorKind.HTTP, message)


def _is_error(data: object) -> bool:
    return isinstance(data, dict) and (
        "error" in data or code_in(data, ("status", "error_code")) not in ("", "0")
    )
