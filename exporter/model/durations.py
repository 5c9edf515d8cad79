"""Durations as Prometheus writes them (`1h30m`, `15s`, `250ms`), in integer milliseconds."""

from __future__ import annotations

import re

_UNITS_MS = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
_PATTERN = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII
)
_MAX_MS = (2**63 - 1) // 1_000_000  # Go keeps a duration in int64 nanoseconds

ALLOWED = "a duration such as 30s, 5m, 1h30m, 7d (units y w d h m s ms, largest first)"


def parse_duration(text: str) -> int:
    """Milliseconds of a Prometheus duration. `0` needs no unit.

    Raises: ValueError with Prometheus' words for an empty, malformed or too long duration.
    Source: Prometheus common/model ParseDuration.
    """
    if text == "":
        raise ValueError("empty duration string")
    if text == "0":
        return 0
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(_fault(text))
    total = sum(
        int(amount) * unit
        for amount, unit in zip(match.groups(), _UNITS_MS.values(), strict=True)
        if amount is not None
    )
    if total > _MAX_MS:
        raise ValueError("duration out of range")
    return total


def _fault(text: str) -> str:
    """What is wrong with a duration that does not read: the first unknown unit, else its shape or order."""
    order = list(_UNITS_MS)
    last = -1
    for found in re.finditer(r"([0-9]*)([^0-9]*)", text):
        amount, unit = found.groups()
        if not amount or not unit:
            break
        if unit not in _UNITS_MS:
            return f'unknown unit "{unit}" in duration "{text}"'
        if order.index(unit) <= last:
            break
        last = order.index(unit)
    return f'not a valid duration string: "{text}"'


def format_duration(ms: int) -> str:
    """The canonical text of a duration in milliseconds (inverse of `parse_duration`).

    Years, weeks and days are used only where they divide the rest exactly, as in Prometheus
    (`model.Duration.String`): 1w is `1w`, 8d is `8d`, 25h is `25h`.
    """
    if ms == 0:
        return "0s"
    sign, rest = ("-", -ms) if ms < 0 else ("", ms)
    parts = []
    for unit, size in _UNITS_MS.items():
        exact_only = unit in ("y", "w", "d")
        if exact_only and rest % size:
            continue
        amount, rest = divmod(rest, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return sign + "".join(parts)
