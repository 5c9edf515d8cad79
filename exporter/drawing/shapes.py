"""Shapes on a canvas: x grows to the right, y downwards, both in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from exporter.drawing.ink import Ink

Point = tuple[float, float]


class Frame(NamedTuple):
    """A place on the canvas to draw into."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of its lower edge."""
        return self.y + self.height

    def without(self, *, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Frame:
        """What is left of it inside margins."""
        width, height = self.width - left - right, self.height - top - bottom
        return Frame(self.x + left, self.y + top, max(1.0, width), max(1.0, height))


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle, or a line where it is thin; `tip` is shown under the pointer."""

    x: float
    y: float
    width: float
    height: float
    ink: Ink
    tip: str = ""
    opacity: float = 1.0
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; `dashed` for limits, which are no data."""

    points: tuple[Point, ...]
    ink: Ink
    width: float = 1.5
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon."""

    points: tuple[Point, ...]
    ink: Ink
    opacity: float = 0.15


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text; `anchor` is start, middle or end, `y` its base line."""

    x: float
    y: float
    text: str
    ink: Ink
    anchor: str = "start"
    size: int = 13
    bold: bool = False
    mono: bool = False


Shape = Box | Line | Area | Label


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes in the order in which they are drawn, on `paper`."""

    title: str
    width: int
    height: int
    shapes: tuple[Shape, ...]
    paper: Ink = Ink.PANEL
