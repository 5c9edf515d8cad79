"""A picture as SVG, readable in light and dark."""

from __future__ import annotations

from html import escape

from exporter.drawing.ink import Ink
from exporter.drawing.shapes import Area, Box, Label, Line, Picture, Point, Shape

_FONT = "system-ui, sans-serif"
_MONO = "ui-monospace, monospace"


def svg(drawing: Picture, *, styled: bool = True) -> str:
    """The picture as SVG; follows the reader's choice of light or dark.

    `styled` False leaves the colours out, for a page that has `style_sheet` once.
    """
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width} {drawing.height}" '
        f'width="{drawing.width}" height="{drawing.height}" role="img" font-family="{_FONT}">'
    )
    style = [f"<style>{style_sheet()}</style>"] if styled else []
    paper = f'<rect class="{drawing.paper.name}" width="{drawing.width}" height="{drawing.height}"/>'
    shapes = [_shape(shape) for shape in drawing.shapes]
    return "\n".join([head, f"<title>{escape(drawing.title)}</title>", *style, paper, *shapes, "</svg>\n"])


def style_sheet() -> str:
    """The inks as CSS classes: of the same name for what is filled, with -line for strokes."""
    light, dark = ("".join(_rules(ink, theme) for ink in Ink) for theme in (0, 1))
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _rules(ink: Ink, theme: int) -> str:
    colour = ink.value[theme]
    return f".{ink.name}{{fill:{colour}}}.{ink.name}-line{{stroke:{colour};fill:none}}"


def _shape(shape: Shape) -> str:
    match shape:
        case Label():
            weight = ' font-weight="600"' if shape.bold else ""
            family = f' font-family="{_MONO}" xml:space="preserve"' if shape.mono else ""
            return (
                f'<text class="{shape.ink.name}" x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size}" '
                f'text-anchor="{shape.anchor}"{weight}{family}>{escape(shape.text)}</text>'
            )
        case Line():
            dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
            return (
                f'<polyline class="{shape.ink.name}-line" stroke-width="{shape.width:g}"{dash} '
                f'stroke-linejoin="round" points="{_points(shape.points)}"/>'
            )
        case Area():
            return (
                f'<polygon class="{shape.ink.name}" fill-opacity="{shape.opacity:g}" '
                f'points="{_points(shape.points)}"/>'
            )
        case Box():
            return _box(shape)


def _box(box: Box) -> str:
    place = f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}"'
    if box.radius:
        place += f' rx="{box.radius:g}"'
    if box.opacity < 1:
        place += f' fill-opacity="{box.opacity:g}"'
    if not box.tip:
        return f'<rect class="{box.ink.name}" {place}/>'
    return f'<rect class="{box.ink.name}" {place}><title>{escape(box.tip)}</title></rect>'


def _points(points: tuple[Point, ...]) -> str:
    return " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)
