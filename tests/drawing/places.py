"""Where the shapes of a picture are: for tests that nothing is cut off or written over."""

from __future__ import annotations

from itertools import combinations

from exporter.drawing.shapes import Frame, Label, Picture
from exporter.drawing.text import text_width


def place(label: Label) -> Frame:
    """The box around a label's letters."""
    width = text_width(label.text, label.size, bold=label.bold, mono=label.mono)
    left = {"start": label.x, "middle": label.x - width / 2, "end": label.x - width}[label.anchor]
    return Frame(left, label.y - 0.75 * label.size, width, 0.9 * label.size)


def outside(picture: Picture) -> list[str]:
    """The labels that reach over the picture's edge."""
    return [
        label.text
        for label in labels(picture)
        if (at := place(label)).x < 0 or at.right > picture.width or at.y < 0 or at.bottom > picture.height
    ]


def overlaps(picture: Picture) -> list[tuple[Label, Label]]:
    """The pairs of labels that are written over one another."""
    return [
        (one, other) for one, other in combinations(labels(picture), 2) if _meet(place(one), place(other))
    ]


def labels(picture: Picture) -> list[Label]:
    """All text in it."""
    return [shape for shape in picture.shapes if isinstance(shape, Label) and shape.text.strip()]


def _meet(one: Frame, other: Frame) -> bool:
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom
