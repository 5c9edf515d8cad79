"""The `outcome` label: a small closed set of words for how a call ended."""

from __future__ import annotations

import asyncio

from exporter.errors import ApiError

SUCCESS = "success"
CANCELLED = "cancelled"
TIMEOUT = "timeout"
NETWORK = "network"
ERROR = "error"

_STATEMENT_CANCELLED = "57014"  # statement_timeout, or a cancel request
_CONNECTION_CLASS = "08"


def outcome_of(error: BaseException) -> str:
    """The outcome of a call that raised.

    An `ApiError` gives its kind; a cancelled task `cancelled`; a time-out, Postgres' statement time-out
    included, `timeout`; a lost connection `network`; anything else `error`. Our own errors are judged by
    their cause where they carry one.
    """
    if isinstance(error, ApiError):
        return error.kind.value
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    if isinstance(error, TimeoutError):
        return TIMEOUT
    if isinstance(error, OSError):
        return NETWORK
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate == _STATEMENT_CANCELLED:
        return TIMEOUT
    if isinstance(sqlstate, str) and sqlstate.startswith(_CONNECTION_CLASS):
        return NETWORK
    cause = error.__cause__
    return outcome_of(cause) if cause is not None and cause is not error else ERROR
