"""What an error answer means: which kind of failure, whether a second try helps, and how long to wait.

A 429 alone says nothing: the body tells a rate (wait), a day's or month's quota (wait for the reset) and a
bill or plan (stop) apart. Each provider's classifier looks at its own error format first and falls back to
`classify_status`.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from enum import Enum

from exporter.errors import ApiErrorKind

_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_MAX_WAIT_S = 31 * 86_400.0


class Scope(Enum):
    """What a failure stops: this call only, all calls of the endpoint, or the whole provider."""

    CALL = "call"
    ENDPOINT = "endpoint"
    PROVIDER = "provider"


class Reset(Enum):
    """When a used-up quota comes back."""

    UTC_DAY = "midnight UTC"
    PACIFIC_DAY = "midnight Pacific time"
    UTC_MONTH = "the first of the month, UTC"


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An HTTP answer as far as a classifier needs it.

    `headers` are found by their lower-case names, `data` is the decoded JSON (None where it is none), `text`
    the first characters of the body, `now_s` the Unix time at which it came.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    data: object = None
    text: str = ""
    now_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed and what follows.

    `wait_s`: no call (in the scope) before that many seconds; None: as retries say. `reset`: no call before
    the quota's reset. `message` is the provider's own text, shortened.
    """

    kind: ApiErrorKind
    message: str
    retryable: bool = False
    wait_s: float | None = None
    reset: Reset | None = None
    scope: Scope = Scope.CALL

    @property
    def stops(self) -> bool:
        """Whether calls end until someone intervenes: a bill or a plan, which waiting does not change."""
        return self.kind is ApiErrorKind.BILLING


def rate_limited(message: str, wait_s: float | None) -> Failure:
    """Too many calls for now: all calls wait, then a second try helps."""
    return Failure(ApiErrorKind.RATE_LIMITED, message, True, wait_s, scope=Scope.PROVIDER)


def quota(message: str, reset: Reset, wait_s: float | None = None) -> Failure:
    """A day's or month's quota is used up: all calls wait for the reset."""
    return Failure(ApiErrorKind.QUOTA, message, wait_s=wait_s, reset=reset, scope=Scope.PROVIDER)


def billing(message: str, scope: Scope = Scope.PROVIDER) -> Failure:
    """The bill or the plan forbids it: stop, and never try again by oneself."""
    return Failure(ApiErrorKind.BILLING, message, scope=scope)


def auth(message: str) -> Failure:
    """The key is missing, wrong or not allowed."""
    return Failure(ApiErrorKind.AUTH, message, wait_s=3600.0, scope=Scope.PROVIDER)


def classify_status(answer: RawAnswer) -> Failure | None:
    """The failure that the HTTP status alone tells; None below 400."""
    status = answer.status
    if status < 300:
        return None
    message = f"HTTP {status}" + (
        f": {said}" if (said := message_in(answer.data) or plain(answer.text)) else ""
    )
    if status < 400:
        return Failure(ApiErrorKind.HTTP, f"HTTP {status}: redirected")
    wait_s = retry_after_s(answer)
    if status == 429:
        return rate_limited(message, wait_s)
    if status == 401:
        return auth(message)
    if status == 402:
        return billing(message)
    if status == 403:
        return auth(message)
    if status == 408:
        return Failure(ApiErrorKind.TIMEOUT, message, True, wait_s)
    if status >= 500:
        # 501 and 505 say that the server will never do it.
        return Failure(
            ApiErrorKind.HTTP,
            message,
            status not in (501, 505),
            wait_s,
            scope=Scope.CALL if wait_s is None else Scope.PROVIDER,
        )
    return Failure(ApiErrorKind.HTTP, message)


def retry_after_s(answer: RawAnswer) -> float | None:
    """Seconds that the Retry-After header asks for (a number or an HTTP date), at most 31 days."""
    given = answer.headers.get("retry-after", "").strip()
    if not given:
        return None
    try:
        wait_s = float(given)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(given)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wait_s = moment.timestamp() - answer.now_s
    return min(max(0.0, wait_s), _MAX_WAIT_S) if wait_s == wait_s else None


def go_duration_s(given: str) -> float | None:
    """Seconds of a duration as Go prints it: `12ms`, `6m0s`, `34.4s`; None where it is none."""
    parts = _GO_DURATION.findall(given)
    if not parts or "".join(number + unit for number, unit in parts) != given:
        return None
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)


def message_in(data: object) -> str:
    """The error text of a JSON error body in its usual places; empty where there is none."""
    for path in (
        ("error", "message"),
        ("error", "status", "error_message"),
        ("status", "error_message"),
        ("error",),
        ("message",),
    ):
        node = data
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        if isinstance(node, str) and node:
            return plain(node)
    return ""


def code_in(data: object, *paths: tuple[str, ...]) -> str:
    """The error code at the first of these paths that holds a number or a string, as text."""
    for path in paths:
        node = data
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        if isinstance(node, str | int) and not isinstance(node, bool):
            return str(node)
    return ""


def plain(given: str, limit: int = 200) -> str:
    """One short line of a body for a message: HTML is named, not shown."""
    stripped = given.strip()
    if stripped[:1] == "<":
        return "an HTML page"
    if stripped[:1] in ("{", "["):
        return ""
    line = " ".join("".join(c if c.isprintable() else " " for c in stripped[: limit * 2]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
