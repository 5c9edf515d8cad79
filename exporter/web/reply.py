"""Answers of the HTTP API v1 before they are put on the wire: a status code and a JSON body. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exporter.errors import QueryError, StorageError
from exporter.web.encode import RawJson, dump
from exporter.web.params import ParamError

_CODES = {
    "bad_data": 400,
    "execution": 422,
    "timeout": 503,
    "canceled": 499,
    "unavailable": 503,
    "not_found": 404,
}
_SUCCESS = b'{"status":"success","data":%b}'


@dataclass(frozen=True, slots=True)
class Reply:
    """A status code and a JSON body."""

    status: int
    body: bytes


def success(data: Any, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Reply:
    """The envelope of an answer."""
    if isinstance(data, RawJson) and not warnings and not infos:
        return Reply(200, _SUCCESS % data.data)
    document: dict[str, Any] = {"status": "success", "data": data}
    if warnings:
        document["warnings"] = list(warnings)
    if infos:
        document["infos"] = list(infos)
    return Reply(200, dump(document))


def failure(error_type: str, message: str, code: int | None = None) -> Reply:
    """The envelope of an error."""
    body = dump({"status": "error", "errorType": error_type, "error": message})
    return Reply(code or _CODES.get(error_type, 500), body)


def refusal(error: ParamError | QueryError | StorageError) -> Reply:
    """What a request is told whose parameters, query or samples are at fault."""
    if isinstance(error, ParamError):
        return failure("bad_data", str(error))
    if isinstance(error, QueryError):
        return failure(error.kind.error_type, str(error))
    return failure("unavailable", str(error))


def query_failure(error: QueryError) -> Reply:
    """As `refusal`, where the text of the query is a parameter."""
    message = str(error)
    if error.kind.error_type == "bad_data":
        message = f'invalid parameter "query": {message}'
    return failure(error.kind.error_type, message)


INTERNAL = failure("internal", "internal error, see the log", 500)
"""What a fault of ours is told as."""
