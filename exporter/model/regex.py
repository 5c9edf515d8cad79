"""RE2 regular expressions: the only importer of re2. Linear time, Go's syntax, fully anchored."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.dot_nl = True
_PLAIN_OPTIONS = re2.Options()
_PLAIN_OPTIONS.log_errors = False


@lru_cache(maxsize=4096)
def compile_anchored(pattern: str) -> Any:
    """A compiled RE2 whose `fullmatch` anchors at both ends, `.` matching newline, as Prometheus does.

    Raises: ValueError with RE2's own words for a pattern outside its syntax.
    """
    return _compile(pattern)


@lru_cache(maxsize=1024)
def compile_unanchored(pattern: str) -> Any:
    """A compiled RE2 for `search`, `.` not matching newline, as templates use it.

    Raises: ValueError with RE2's own words for a pattern outside its syntax.
    """
    return _compile(pattern, _PLAIN_OPTIONS)


def _compile(pattern: str, options: Any = _OPTIONS) -> Any:
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        detail = error.args[0] if error.args else "invalid regular expression"
        text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise ValueError(f"error parsing regexp: {text}") from error
