"""Silences: matching, validation, and the JSON of Alertmanager's /api/v2/silences. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.config.matchers import match_all
from exporter.errors import ExporterError
from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.notify.records import Silence

RETENTION_MS = 5 * 86_400_000  # expired ones are shown for 120 hours, as by Alertmanager
_MAX_MATCHERS = 100
_MAX_TEXT = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LAST_MS = 253_402_300_799_000  # the end of the year 9999


class SilenceError(ExporterError):
    """A silence is refused; the text says why."""


def rfc3339(ts_ms: int) -> str:
    """A time in UTC with milliseconds, as Alertmanager's API writes it."""
    moment = _EPOCH + timedelta(milliseconds=min(max(ts_ms, 0), _LAST_MS))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ts_ms % 1000:03d}Z"


def parse_rfc3339(text: object, what: str) -> int:
    """Unix milliseconds of a time.

    Raises: SilenceError for what is not an RFC 3339 time.
    """
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise SilenceError(f"{what} must be an RFC 3339 time such as 2024-05-01T12:00:00Z, not {text!r}")
    base, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(base.upper() + ("+00:00" if zone in "Zz" else zone))
    except ValueError as error:
        raise SilenceError(f"{what}: {error}") from error
    return int((moment - _EPOCH) / timedelta(milliseconds=1)) + int(float(fraction or 0) * 1000)


def silenced_by(silences: Iterable[Silence], labels: LabelSet, now_ms: int) -> tuple[str, ...]:
    """The ids of the active silences that match a label set."""
    return tuple(
        silence.id
        for silence in silences
        if silence.state(now_ms) == "active" and match_all(silence.matchers, labels)
    )


def to_json(silence: Silence, now_ms: int) -> dict[str, Any]:
    """The silence as Alertmanager's API shows it."""
    return {
        "id": silence.id,
        "status": {"state": silence.state(now_ms)},
        "updatedAt": rfc3339(silence.updated_at_ms),
        "comment": silence.comment,
        "createdBy": silence.created_by,
        "startsAt": rfc3339(silence.starts_at_ms),
        "endsAt": rfc3339(silence.ends_at_ms),
        "matchers": [
            {
                "name": matcher.name,
                "value": matcher.value,
                "isRegex": matcher.op in (MatchOp.REGEX, MatchOp.NOT_REGEX),
                "isEqual": matcher.op in (MatchOp.EQUAL, MatchOp.REGEX),
            }
            for matcher in silence.matchers
        ],
    }


def from_json(document: object, silence_id: str, now_ms: int) -> Silence:
    """The silence that a POST asks for, under the given id.

    Raises: SilenceError for a shape, time or matcher that Alertmanager refuses too.
    """
    if not isinstance(document, Mapping):
        raise SilenceError("a silence must be a JSON object")
    starts = parse_rfc3339(document.get("startsAt"), "startsAt")
    ends = parse_rfc3339(document.get("endsAt"), "endsAt")
    if starts > ends:
        raise SilenceError("invalid silence: end time must not be before start time")
    if ends <= now_ms:
        raise SilenceError("invalid silence: end time must not be in the past")
    raw = document.get("matchers")
    if not isinstance(raw, list) or not raw or len(raw) > _MAX_MATCHERS:
        raise SilenceError("invalid silence: at least one matcher required, at most 100")
    matchers = tuple(_matcher(one) for one in raw)
    if all(matcher.matches("") for matcher in matchers):
        raise SilenceError("invalid silence: at least one matcher must not match the empty string")
    return Silence(
        id=silence_id,
        matchers=matchers,
        starts_at_ms=max(starts, now_ms),  # nothing is silenced in the past
        ends_at_ms=ends,
        created_by=_text(document, "createdBy"),
        comment=_text(document, "comment"),
        updated_at_ms=now_ms,
    )


def _matcher(document: object) -> Matcher:
    if not isinstance(document, Mapping):
        raise SilenceError("each matcher must be an object with name, value and isRegex")
    name, value = document.get("name"), document.get("value")
    if not isinstance(name, str) or not name or not isinstance(value, str):
        raise SilenceError("each matcher needs the strings name and value")
    regex, equal = document.get("isRegex", False), document.get("isEqual", True)
    if not isinstance(regex, bool) or not isinstance(equal, bool):
        raise SilenceError("isRegex and isEqual must be true or false")
    op = (
        (MatchOp.REGEX if equal else MatchOp.NOT_REGEX)
        if regex
        else (MatchOp.EQUAL if equal else MatchOp.NOT_EQUAL)
    )
    try:
        return Matcher(name, op, value)
    except ValueError as error:
        raise SilenceError(f"invalid silence: {error}") from error


def _text(document: Mapping[str, object], key: str) -> str:
    text = document.get(key)
    if not isinstance(text, str):
        raise SilenceError(f"{key} must be a string")
    return text[:_MAX_TEXT]
