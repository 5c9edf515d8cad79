"""Gemini (Google's Generative Language API): models, token use; the quota id tells minute from day."""

from __future__ import annotations

import re
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
    go_duration_s,
    message_in,
    quota,
    rate_limited,
    retry_after_s,
)
from exporter.providers.paths import find, items, number, optional_number, text
from exporter.providers.results import Model, Models, Result, TokenUsage
from exporter.providers.spec import Reader

NAME = "gemini"
DECLARATION = """
base_url: https://generativelanguage.googleapis.com/v1beta
auth: {header: x-goog-api-key, required: true, env: GEMINI_API_KEY}
limits:
  minute: {ceiling: 60}
interval: 60s
endpoints:
  models: {path: /models, params: {pageSize: "1000"}, poll: true, reader: models}
"""
_LIMIT_ZERO = re.compile(r"\blimit: 0\b")


def read_models(data: object, params: Mapping[str, str]) -> Result:
    """The models of the project; `complete` is False where a further page exists.

    Raises: SchemaError where the list or a name is missing.
    """
    del params
    names = (text(data, ("models", at, "name")) for at in range(len(items(data, "models"))))
    more = isinstance(data, dict) and bool(data.get("nextPageToken"))
    return Models(tuple(Model(name.removeprefix("models/")) for name in names), complete=not more)


def read_usage(data: object, params: Mapping[str, str]) -> Result:
    """Tokens of one generation; thoughts count as completion."""
    del params
    usage = ("usageMetadata",)
    find(data, usage)
    thoughts = int(optional_number(data, (*usage, "thoughtsTokenCount")) or 0)
    answered = int(optional_number(data, (*usage, "candidatesTokenCount")) or 0)
    return TokenUsage(
        model=text(data, "modelVersion"),
        prompt=int(number(data, (*usage, "promptTokenCount"))),
        completion=answered + thoughts,
        total=int(number(data, (*usage, "totalTokenCount"))),
        reasoning=thoughts,
        cached=int(optional_number(data, (*usage, "cachedContentTokenCount")) or 0),
    )


READERS: Mapping[str, Reader] = MappingProxyType({"models": read_models, "usage": read_usage})


def classify(answer: RawAnswer) -> Failure | None:
    """A quota id with PerDay waits for midnight Pacific, "limit: 0" stops, anything else is a rate."""
    failure = classify_status(answer)
    if failure is None:
        return None
    message = f"HTTP {answer.status}: {message_in(answer.data)}"
    if answer.status == 429:
        if _LIMIT_ZERO.search(_message(answer.data)):
            return billing(message, Scope.ENDPOINT)
        if any("PerDay" in quota_id for quota_id in _quota_ids(answer.data)):
            return quota(message, Reset.PACIFIC_DAY)
        delays = (go_duration_s(str(detail.get("retryDelay", ""))) for detail in _details(answer.data))
        told = next((delay for delay in delays if delay is not None), retry_after_s(answer))
        return rate_limited(message, told)
    reasons = {str(detail.get("reason", "")) for detail in _details(answer.data)}
    if answer.status == 400 and (
        "API_KEY_INVALID" in reasons or "API key not valid" in _message(answer.data)
    ):
        return auth(message)
    if code_in(answer.data, ("error", "status")) == "UNAVAILABLE":
        return Failure(ApiErrorKind.HTTP, message, retryable=True)
    return failure


def _message(data: object) -> str:
    error = data.get("error") if isinstance(data, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""


def _details(data: object) -> Iterator[Mapping[str, object]]:
    error = data.get("error") if isinstance(data, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))


def _quota_ids(data: object) -> Iterator[str]:
    for detail in _details(data):
        violations = detail.get("violations")
        if isinstance(violations, list):
            yield from (str(item.get("quotaId", "")) for item in violations if isinstance(item, dict))
