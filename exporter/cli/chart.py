"""A line chart in the terminal: one braille canvas for all series, with axes and a legend."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_HEIGHT = 16

Series = tuple[str, Sequence[tuple[float, str]]]


def draw_chart(series: Sequence[Series], width: int | None = None) -> None:
    """Print the series over their common time range; a cell shows the colour of the last series in it."""
    console = Console(highlight=False)
    points = [
        (index, float(ts), value)
        for index, (_, rows) in enumerate(series)
        for ts, text in rows
        if math.isfinite(value := _number(text))
    ]
    if not points:
        console.print("no finite values to draw")
        return
    columns = (width or console.width) - 14
    lines = canvas(points, max(columns, 10), _HEIGHT)
    low, high = min(point[2] for point in points), max(point[2] for point in points)
    first, last = min(point[1] for point in points), max(point[1] for point in points)
    for row, line in enumerate(lines):
        edge = high if row == 0 else low if row == _HEIGHT - 1 else None
        text = Text(f"{edge:>11.5g} ┤" if edge is not None else " " * 12 + "│")
        for char, owner in line:
            text.append(char, style=_COLOURS[owner % len(_COLOURS)] if owner >= 0 else "")
        console.print(text, no_wrap=True, overflow="crop")
    left, right = _clock(first), _clock(last)
    console.print(" " * 13 + left + right.rjust(max(columns - len(left), 0)))
    for index, (name, rows) in enumerate(series[:20]):
        newest = rows[-1][1] if rows else ""
        console.print(Text("  ● ", style=_COLOURS[index % len(_COLOURS)]) + Text(f"{name}  {newest}"))
    if len(series) > 20:
        console.print(f"  and {len(series) - 20} more series")


def canvas(
    points: Sequence[tuple[int, float, float]], width: int, height: int
) -> list[list[tuple[str, int]]]:
    """Braille rows, top first, each cell with the series that owns it (-1 for an empty cell).

    `points` are (series, time, value), in the order of time within a series; each cell holds 2 by 4 dots.
    Neighbours are joined by a line, unless a point between them is missing.
    """
    low, high = min(point[2] for point in points), max(point[2] for point in points)
    first, last = min(point[1] for point in points), max(point[1] for point in points)
    dots = [[0] * width for _ in range(height)]
    owner = [[-1] * width for _ in range(height)]
    gap = 1.5 * _step(points)
    before: tuple[int, float, int, int] | None = None
    for index, ts, value in points:
        x = round((ts - first) / ((last - first) or 1) * (width * 2 - 1))
        y = round((high - value) / ((high - low) or 1) * (height * 4 - 1))
        start = (x, y)
        if before is not None and before[0] == index and ts - before[1] <= gap:
            start = before[2:]
        for at_x, at_y in _line(start, (x, y)):
            dots[at_y // 4][at_x // 2] |= _DOTS[at_y % 4][at_x % 2]
            owner[at_y // 4][at_x // 2] = index
        before = (index, ts, x, y)
    return [
        [(chr(0x2800 + bits) if bits else " ", who) for bits, who in zip(row, owners, strict=True)]
        for row, owners in zip(dots, owner, strict=True)
    ]


def _step(points: Sequence[tuple[int, float, float]]) -> float:
    """The least time between neighbours of one series: a range query answers at even steps."""
    pairs = itertools.pairwise(points)
    return min((b[1] - a[1] for a, b in pairs if a[0] == b[0]), default=0.0)


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots from start to end, both included."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        share = step / steps
        yield round(start[0] + share * (end[0] - start[0])), round(start[1] + share * (end[1] - start[1]))


def _number(text: str) -> float:
    return float(text.replace("Inf", "inf"))


def _clock(ts: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.gmtime(ts))
