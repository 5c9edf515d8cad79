"""SQL text cut into its statements, as psql would send them. PURE."""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<dollar> \$(?P<tag>[A-Za-z_]\w*|)\$ .*? \$(?P=tag)\$ )
    | (?P<text> '(?:[^']|'')*' | "(?:[^"]|"")*" )
    | (?P<end> ; )
    | (?P<word> \w+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


def split_statements(sql: str) -> list[str]:
    """The statements of a script without their semicolons; comments go, empty statements too.

    Knows quoted text, quoted names, dollar quotes and comments (block comments do not nest).
    """
    statements: list[str] = []
    current: list[str] = []
    for match in _TOKEN.finditer(sql):
        if match["comment"] is not None:
            current.append(" ")
        elif match["end"] is not None:
            statements.append("".join(current).strip())
            current = []
        else:
            current.append(match[0])
    statements.append("".join(current).strip())
    return [statement for statement in statements if statement]


_CONCURRENTLY: Final = re.compile(
    r"create\s+(?:unique\s+)?index\s+concurrently\s+if\s+not\s+exists\s+\"?(\w+)\"?", re.IGNORECASE
)


def concurrent_index_name(statement: str) -> str | None:
    """The index that a `create index concurrently if not exists` makes, None for other statements."""
    match = _CONCURRENTLY.match(statement)
    return match[1] if match else None


_DROP: Final = re.compile(r"drop\s+index\s+concurrently\b", re.IGNORECASE)


def drops_concurrently(statement: str) -> bool:
    """Whether it is a `drop index concurrently`."""
    return _DROP.match(statement) is not None
