"""The error tree: one root, one family per phase; a `Problem` says where and what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in an input: where it stands, what is wrong, what is allowed.

    `line` and `column` count from 1; 0 means unknown. `file` may be empty.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    allowed: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}" if place else f"{self.line}:{self.column}"
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} (allowed: {self.allowed})" if self.allowed else text


class ExporterError(Exception):
    """Root of every error that this program raises on purpose."""


class InputError(ExporterError):
    """An input file is refused; carries every problem found, in file order."""

    def __init__(self, problems: Sequence[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(InputError):
    """The configuration is refused."""


class RuleFormatError(InputError):
    """A rule file or a rule-test file is refused."""


class ExpositionError(InputError):
    """A text exposition cannot be read."""


class TemplateError(ExporterError):
    """A template cannot be parsed or expanded. `str()` is the message Prometheus would give.

    `detail` is that message without the part that names the phase; `line` and `column` count from 1 in the
    template's own text, 0 where unknown.
    """

    def __init__(self, message: str, *, detail: str = "", line: int = 0, column: int = 0) -> None:
        self.detail = detail or message
        self.line = line
        self.column = column
        super().__init__(message)


class QueryErrorKind(Enum):
    """Why a query failed. `error_type` is the field of that name in Prometheus' HTTP API."""

    SYNTAX = "syntax"
    TYPE = "type"  # parsed, but its types or arguments do not fit
    EXECUTION = "execution"
    UNSUPPORTED = "unsupported"  # a feature that this engine refuses (native histograms)
    LIMIT = "limit"  # more samples than max_samples
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    UNAVAILABLE = "unavailable"  # a remote engine or the sample store does not answer

    @property
    def error_type(self) -> str:
        """`errorType` of Prometheus' HTTP API: bad_data, execution, timeout, canceled or unavailable."""
        if self in (QueryErrorKind.SYNTAX, QueryErrorKind.TYPE):
            return "bad_data"
        if self in (QueryErrorKind.UNSUPPORTED, QueryErrorKind.LIMIT):
            return "execution"
        return str(self.value)


class QueryError(ExporterError):
    """A query cannot be parsed or evaluated. `str()` is the message Prometheus would give."""

    def __init__(self, message: str, kind: QueryErrorKind = QueryErrorKind.EXECUTION) -> None:
        self.kind = kind
        super().__init__(message)


class NotFoundError(ExporterError):
    """What a caller named does not exist."""


class StorageError(ExporterError):
    """The sample store or the alert store cannot be read."""


class WriteError(StorageError):
    """Samples, events or alerts could not be written; the caller spools them."""


class MigrationError(ExporterError):
    """A migration cannot be applied or does not match what was applied before."""


class DeliveryError(ExporterError):
    """A receiver did not take a notification.

    `retryable` says whether a later try may succeed, `retry_after_s` what the receiver asked for.
    """

    def __init__(self, reason: str, *, retryable: bool, retry_after_s: float | None = None) -> None:
        self.reason = reason
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class ApiErrorKind(Enum):
    """Why an upstream call failed; the value is the `outcome` label."""

    NETWORK = "network"
    TIMEOUT = "timeout"
    HTTP = "http"
    DECODE = "decode"
    SCHEMA = "schema"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    BILLING = "billing"
    AUTH = "auth"
    BREAKER_OPEN = "breaker_open"
    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"


class ApiError(ExporterError):
    """An upstream call failed. Never carries a key: URLs are redacted before they get here."""

    def __init__(
        self,
        message: str,
        kind: ApiErrorKind,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.kind = kind
        self.provider = provider
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(message)
