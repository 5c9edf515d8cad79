"""PNG of a picture, with Pillow (the optional extra `pictures`)."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Final

from exporter.drawing.shapes import Area, Box, Label, Line, Picture, Point, Shape
from exporter.errors import ConfigError

_FINE: Final = 3  # edges are smoothed by drawing so much larger first
_BAND: Final = 400  # rows drawn at a time, so that memory stays small
_DASH: Final = (5.0, 4.0)
_PLAIN_SIGNS: Final = frozenset(map(chr, range(32, 127))) | set("…·°±")  # what Pillow's own font has
_SANS, _MONO = "DejaVuSans.ttf", "DejaVuSansMono.ttf"


def png(drawing: Picture, *, scale: int = 2, dark: bool = False) -> bytes:
    """The picture as PNG; `scale` 2 is for screens of two dots a pixel.

    Raises: ConfigError where Pillow is not installed, or text needs a font that is not there.
    """
    pillow = _pillow()
    theme = 1 if dark else 0
    width, height = drawing.width * scale, drawing.height * scale
    paper = drawing.paper.value[theme]
    image = pillow.image.new("RGB", (width, height), paper)
    for top in range(0, height, _BAND):
        rows = min(_BAND, height - top)
        band = pillow.image.new("RGB", (width * _FINE, rows * _FINE), paper)
        pen = pillow.draw.Draw(band, "RGBA")
        for shape in drawing.shapes:
            first, last = _extent(shape)
            if first * scale < top + rows and last * scale >= top:
                _trace(pen, shape, scale * _FINE, top * _FINE, theme)
        image.paste(band.resize((width, rows), pillow.image.Resampling.BOX), (0, top))
    pen = pillow.draw.Draw(image)
    fonts = _Fonts(pillow.font)
    for shape in drawing.shapes:
        if isinstance(shape, Label):
            _write(pen, shape, scale, theme, fonts)
    out = io.BytesIO()
    image.quantize(256, dither=pillow.image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def _pillow() -> Any:
    try:
        image, draw, font = (
            importlib.import_module(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont")
        )
    except ImportError as error:
        raise ConfigError(
            "PNG needs Pillow: pip install 'quantum-exporter[pictures]' (--output svg needs nothing)"
        ) from error
    return SimpleNamespace(image=image, draw=draw, font=font)


class _Fonts:
    """Fonts by size: Pillow's own for plain text, DejaVu for other signs and for equal widths."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._known: dict[tuple[str, int], Any] = {}

    def of(self, label: Label, size: int) -> Any:
        file = _MONO if label.mono else "" if _PLAIN_SIGNS.issuperset(label.text) else _SANS
        if (file, size) not in self._known:
            self._known[file, size] = self._load(file, size)
        return self._known[file, size]

    def _load(self, file: str, size: int) -> Any:
        if not file:
            return self._module.load_default(size)
        try:
            return self._module.truetype(file, round(size * 0.94) if file == _SANS else size)
        except OSError as error:
            raise ConfigError(
                f"the font {file} is missing (Debian: apt install fonts-dejavu-core)"
            ) from error


def _extent(shape: Shape) -> tuple[float, float]:
    """The rows that a shape may touch."""
    match shape:
        case Box():
            return shape.y, shape.y + shape.height
        case Line():
            ys = [y for _, y in shape.points]
            return min(ys) - shape.width, max(ys) + shape.width
        case Area():
            ys = [y for _, y in shape.points]
            return min(ys), max(ys)
        case Label():
            return math.inf, -math.inf


def _trace(pen: Any, shape: Shape, scale: int, top: int, theme: int) -> None:
    """Draw one shape, `scale` times as large, with `top` pixels above the canvas."""

    def at(points: Sequence[Point]) -> list[Point]:
        return [(x * scale, y * scale - top) for x, y in points]

    match shape:
        case Box():
            left, upper = shape.x * scale, shape.y * scale - top
            right, lower = left + shape.width * scale - 1, upper + shape.height * scale - 1
            corners = (left, upper, max(left, right), max(upper, lower))
            colour = _colour(shape.ink.value[theme], shape.opacity)
            if shape.radius:
                pen.rounded_rectangle(corners, radius=shape.radius * scale, fill=colour)
            else:
                pen.rectangle(corners, fill=colour)
        case Area():
            pen.polygon(at(shape.points), fill=_colour(shape.ink.value[theme], shape.opacity))
        case Line():
            colour = _colour(shape.ink.value[theme], 1.0)
            width = max(1, round(shape.width * scale))
            for points in _dashes(shape.points) if shape.dashed else (shape.points,):
                pen.line(at(points), fill=colour, width=width, joint="curve")


def _dashes(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    dash, gap = _DASH
    for (x0, y0), (x1, y1) in pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        for number in range(math.ceil(length / (dash + gap))):
            begin = number * (dash + gap) / length
            end = min(1.0, begin + dash / length)
            yield (
                (x0 + (x1 - x0) * begin, y0 + (y1 - y0) * begin),
                (x0 + (x1 - x0) * end, y0 + (y1 - y0) * end),
            )


def _write(pen: Any, label: Label, scale: int, theme: int, fonts: _Fonts) -> None:
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[label.anchor]
    colour = label.ink.value[theme]
    size = label.size * scale
    stroke = size / 45 if label.bold else 0
    font = fonts.of(label, size)
    pen.text(
        (label.x * scale, label.y * scale), label.text, fill=colour, font=font, anchor=anchor,
        stroke_width=stroke, stroke_fill=colour,
    )  # fmt: skip


def _colour(text: str, opacity: float) -> tuple[int, int, int, int]:
    red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue, round(opacity * 255)
