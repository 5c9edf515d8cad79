"""OpenAI, for monitoring only: models and their ends, token use, costs; used-up credit is not a rate."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from exporter.providers.failures import (
    Failure,
    RawAnswer,
    billing,
    classify_status,
    code_in,
    go_duration_s,
    message_in,
    rate_limited,
    retry_after_s,
)
from exporter.providers.paths import find, iso_ms, items, number, optional_number, text
from exporter.providers.results import Cost, Model, Models, Result, TokenUsage
from exporter.providers.spec import Reader

NAME = "openai"
DECLARATION = """
base_url: https://api.openai.com/v1
auth: {header: Authorization, prefix: "Bearer ", required: true, env: OPENAI_API_KEY}
limits:
  minute: {ceiling: 1000, safe: 60, plan: true}
headers:
  window: minute
  limit: x-ratelimit-limit-requests
  remaining: x-ratelimit-remaining-requests
  reset: x-ratelimit-reset-requests
  reset_waits: false
interval: 60s
endpoints:
  models: {path: /models, poll: true, reader: models}
  completion: {path: /chat/completions, method: POST, reader: usage}
  costs: {path: /organization/costs, reader: costs}
"""


def read_models(data: object, params: Mapping[str, str]) -> Result:
    """The models of the key, with announced ends.

    Raises: SchemaError where the list or an id is missing.
    """
    del params
    return Models(
        tuple(
            Model(text(data, ("data", at, "id")), iso_ms(data, ("data", at, "shutdown_date")))
            for at in range(len(items(data, "data")))
        )
    )


def read_usage(data: object, params: Mapping[str, str]) -> Result:
    """Tokens of one completion."""
    del params
    usage = ("usage",)
    find(data, usage)
    reasoning = optional_number(data, (*usage, "completion_tokens_details", "reasoning_tokens"))
    cached = optional_number(data, (*usage, "prompt_tokens_details", "cached_tokens"))
    return TokenUsage(
        model=text(data, "model"),
        prompt=int(number(data, (*usage, "prompt_tokens"))),
        completion=int(number(data, (*usage, "completion_tokens"))),
        total=int(number(data, (*usage, "total_tokens"))),
        reasoning=int(reasoning or 0),
        cached=int(cached or 0),
    )


def read_costs(data: object, params: Mapping[str, str]) -> Result:
    """The sum over all buckets of an administrator's cost report."""
    del params
    total = 0.0
    for bucket in range(len(items(data, "data"))):
        for entry in range(len(items(data, ("data", bucket, "results")))):
            total += number(data, ("data", bucket, "results", entry, "amount", "value"))
    return Cost(total)


READERS: Mapping[str, Reader] = MappingProxyType(
    {"models": read_models, "usage": read_usage, "costs": read_costs}
)


def classify(answer: RawAnswer) -> Failure | None:
    """A 429 of code insufficient_quota is a bill; any other 429 is a rate."""
    code = code_in(answer.data, ("error", "code"), ("error", "type"))
    kind = code_in(answer.data, ("error", "type"))
    message = f"HTTP {answer.status}: {message_in(answer.data) or code}"
    if "insufficient_quota" in (code, kind) or code in ("billing_hard_limit_reached", "billing_not_active"):
        return billing(message)
    if answer.status == 429:
        wait_s = retry_after_s(answer)
        given_ms = answer.headers.get("retry-after-ms", "")
        if wait_s is None and given_ms.isdigit():
            wait_s = int(given_ms) / 1000
        if wait_s is None:
            wait_s = go_duration_s(answer.headers.get("x-ratelimit-reset-requests", ""))
        return rate_limited(message, wait_s)
    return classify_status(answer)
