"""Colours by what they mean, each for light and for dark paper."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Ink(Enum):
    """What a shape is drawn with; the value is its colour on light and on dark paper."""

    PAPER = ("#f4f5f7", "#111317")
    PANEL = ("#ffffff", "#1a1d22")
    EDGE = ("#e2e4e8", "#2a2e35")
    TEXT = ("#1c1c1c", "#f0f0f0")
    MUTED = ("#5c5f66", "#a3a8b0")
    GRID = ("#e3e5e8", "#30343b")
    TRACK = ("#eceef1", "#2b2f36")
    ON_COLOUR = ("#ffffff", "#fffffe")

    GREEN = ("#2f8f4e", "#57b973")
    YELLOW = ("#b38f00", "#e8c33f")
    ORANGE = ("#c06a00", "#f2953c")
    RED = ("#d03b3b", "#f0626a")
    DARK_RED = ("#a11d2a", "#d6303c")
    BLUE = ("#2a78d6", "#5b9cec")
    GREY = ("#6b6b6b", "#9a9a9a")

    CRITICAL = RED
    WARNING = ORANGE
    INFO = BLUE
    OTHER = GREY

    SERIES_1 = ("#3274d9", "#6ea6ff")
    SERIES_2 = ("#d9822b", "#ffb357")
    SERIES_3 = ("#3d9c57", "#73bf69")
    SERIES_4 = ("#8e5bd0", "#b88df0")
    SERIES_5 = ("#c4427a", "#ff7eb0")
    SERIES_6 = ("#1f9aa6", "#4fd1d9")
    SERIES_7 = ("#9a8412", "#d9c34a")
    SERIES_8 = ("#7a5c46", "#c69c7d")
    SERIES_9 = ("#5470a0", "#8fa8d6")
    SERIES_10 = ("#6e8f2a", "#a9cc57")


SERIES: Final = tuple(ink for ink in Ink if ink.name.startswith("SERIES_"))


def series_ink(number: int) -> Ink:
    """The ink of the n-th series; after the last it begins again."""
    return SERIES[number % len(SERIES)]


def ink_of(severity: str) -> Ink:
    """The ink of a severity."""
    return {"critical": Ink.CRITICAL, "warning": Ink.WARNING, "info": Ink.INFO}.get(severity, Ink.OTHER)
