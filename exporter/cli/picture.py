"""PNG of a timeline, with Pillow (the optional extra `pictures`)."""

from __future__ import annotations

import importlib
import io
from typing import Any

from exporter.errors import ConfigError
from exporter.rules.timeline_svg import PAPER, Box, Picture

_SCALE = 2  # for screens of two dots a pixel


def png(drawing: Picture) -> bytes:
    """The picture as PNG, on white.

    Raises: ConfigError where Pillow is not installed.
    """
    try:
        image_module: Any = importlib.import_module("PIL.Image")
        draw_module: Any = importlib.import_module("PIL.ImageDraw")
        font_module: Any = importlib.import_module("PIL.ImageFont")
    except ImportError as error:
        raise ConfigError(
            "PNG needs Pillow: pip install 'quantum-exporter[pictures]' (--output svg needs nothing)"
        ) from error
    image = image_module.new("RGB", (drawing.width * _SCALE, drawing.height * _SCALE), PAPER[0])
    draw = draw_module.Draw(image)
    fonts: dict[int, Any] = {}
    for shape in drawing.shapes:
        colour = shape.ink.value[0]
        left, top = shape.x * _SCALE, shape.y * _SCALE
        if isinstance(shape, Box):
            right, bottom = left + shape.width * _SCALE - 1, top + shape.height * _SCALE - 1
            draw.rectangle((left, top, max(left, right), max(top, bottom)), fill=colour)
        else:
            font = fonts.setdefault(shape.size, font_module.load_default(shape.size * _SCALE))
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            draw.text((left, top), shape.text, fill=colour, font=font, anchor=anchor)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
