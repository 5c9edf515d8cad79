"""Regular expressions of templates: RE2, unanchored, with Go's replacement syntax and error words."""

from __future__ import annotations

import re
from typing import Any, Final

from exporter.model.regex import compile_unanchored
from exporter.template.quoting import can_backquote, quote
from exporter.template.signature import CallError

_NAME: Final = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")


def compile_pattern(pattern: str, *, must: bool) -> Any:
    """A compiled pattern. `must` words a fault as regexp.MustCompile's panic does.

    Raises: CallError.
    """
    try:
        return compile_unanchored(pattern)
    except ValueError as error:
        words = str(error)
        if must:
            shown = f"`{pattern}`" if can_backquote(pattern) else quote(pattern)
            words = f"regexp: Compile({shown}): {words}"
        raise CallError(words) from error


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern is found anywhere in the text. Raises: CallError."""
    return compile_pattern(pattern, must=False).search(text) is not None


def replace_all(pattern: str, replacement: str, text: str) -> str:
    """Every match replaced; $1, ${1} and ${name} stand for groups, $$ for a dollar sign.

    An empty match right after another match does not count. Raises: CallError.
    """
    regex = compile_pattern(pattern, must=True)
    out: list[str] = []
    copied = at = 0
    while at <= len(text):
        match = regex.search(text, at)
        if match is None:
            break
        lo, hi = match.span()
        out.append(text[copied:lo])
        if hi > copied or lo == 0:
            out.append(_expanded(replacement, match))
        copied = hi
        if hi > at:
            at = hi
        else:
            at += 1
    out.append(text[copied:])
    return "".join(out)


def _expanded(replacement: str, match: Any) -> str:
    names: dict[str, int] = dict(match.re.groupindex)

    def group(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if name is None:
            return "$"
        if name.isdigit() and (name == "0" or name[0] != "0"):
            at = int(name)
        elif name in names:
            at = names[name]
        else:
            return ""
        return (match.group(at) or "") if at <= match.re.groups else ""

    return _NAME.sub(group, replacement)
