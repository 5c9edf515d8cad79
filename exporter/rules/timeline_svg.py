"""A backtest's timeline as a picture: shapes on a canvas, and their SVG, readable in light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from html import escape

from exporter.model.durations import format_duration
from exporter.rules.timeline import Lane, ticks

_LEFT, _RIGHT, _TOP, _LANE, _BOTTOM = 240, 200, 64, 30, 50
_BAR = 14


class Ink(Enum):
    """What a shape is drawn with; the value is its colour on white and on black."""

    TEXT = ("#1c1c1c", "#f0f0f0")
    MUTED = ("#5c5c5c", "#a8a8a8")
    GRID = ("#dcdcdc", "#3a3a3a")
    CRITICAL = ("#d03b3b", "#e66767")
    WARNING = ("#b97a00", "#e0a030")
    INFO = ("#2a78d6", "#5b9cec")
    OTHER = ("#6b6b6b", "#9a9a9a")


PAPER = ("#ffffff", "#16181a")


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle, or a line where it is thin."""

    x: float
    y: float
    width: float
    height: float
    ink: Ink
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text; `anchor` is start, middle or end, `y` its base line."""

    x: float
    y: float
    text: str
    ink: Ink
    anchor: str = "start"
    size: int = 13


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes in the order in which they are drawn."""

    title: str
    width: int
    height: int
    shapes: tuple[Box | Label, ...]


def ink_of(severity: str) -> Ink:
    """The ink of a severity."""
    return {"critical": Ink.CRITICAL, "warning": Ink.WARNING, "info": Ink.INFO}.get(severity, Ink.OTHER)


def picture(
    title: str, rows: Sequence[Lane], start_ms: int, end_ms: int, *, width: int = 1200, note: str = ""
) -> Picture:
    """A lane for each alert: bars where it fires, a stroke above where a notification left."""
    bottom = _TOP + _LANE * len(rows)
    span = max(1, end_ms - start_ms)

    def x(at_ms: int) -> float:
        inside = min(max(at_ms, start_ms), end_ms) - start_ms
        return round(_LEFT + (width - _LEFT - _RIGHT) * inside / span, 1)

    shapes: list[Box | Label] = [
        Label(16, 26, title, Ink.TEXT, size=16),
        Label(16, 48, note, Ink.MUTED),
        Label(width - 16, 48, "episodes · firing · sent", Ink.MUTED, "end"),
    ]
    for tick in ticks(start_ms, end_ms, 8):
        shapes.append(Box(x(tick), _TOP - 6, 1, bottom - _TOP + 6, Ink.GRID))
        shapes.append(Label(x(tick), bottom + 18, tick_text(tick, span), Ink.MUTED, "middle"))
    legend = (
        "UTC. A bar: it fires. A stroke above: a notification left. Red critical, orange warning, blue info."
    )
    shapes.append(Label(16, bottom + 40, legend, Ink.MUTED, size=12))
    for number, lane in enumerate(rows):
        shapes.extend(_lane(lane, _TOP + _LANE * number, x, width))
    return Picture(title, width, bottom + _BOTTOM, tuple(shapes))


def _lane(lane: Lane, top: int, x: Callable[[int], float], width: int) -> Iterator[Box | Label]:
    middle = top + _LANE / 2
    ink = ink_of(lane.severity)
    words = Ink.TEXT if lane.spans else Ink.MUTED
    yield Box(16, middle - 5, 10, 10, ink)
    yield Label(36, middle + 4.5, _short(lane.name, 27), words)
    yield Box(_LEFT, middle, width - _LEFT - _RIGHT, 1, Ink.GRID)
    for start, end in lane.spans:
        tip = f"{lane.name}: {moment_text(start)} to {moment_text(end)}"
        yield Box(x(start), middle - _BAR / 2 + 2, max(2.0, x(end) - x(start)), _BAR, ink, tip)
    for at in _apart(sorted({x(at) for at in lane.sent_ms}), 3.0):
        yield Box(at, middle - 12, 1.5, 6, Ink.TEXT)
    figures = f"{lane.episodes} · {rounded(lane.firing_ms)} · {len(lane.sent_ms)}"
    yield Label(width - 16, middle + 4.5, figures if lane.episodes else "never", Ink.MUTED, "end")


def svg(drawing: Picture) -> str:
    """The picture as SVG; follows the reader's choice of light or dark."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width} {drawing.height}" '
        f'width="{drawing.width}" height="{drawing.height}" role="img" font-family="system-ui, sans-serif">'
    )
    light = "".join(f".{ink.name}{{fill:{ink.value[0]}}}" for ink in Ink)
    dark = "".join(f".{ink.name}{{fill:{ink.value[1]}}}" for ink in Ink)
    style = (
        f"<style>.PAPER{{fill:{PAPER[0]}}}{light}"
        f"@media(prefers-color-scheme:dark){{.PAPER{{fill:{PAPER[1]}}}{dark}}}</style>"
    )
    paper = f'<rect class="PAPER" width="{drawing.width}" height="{drawing.height}"/>'
    shapes = [_shape(shape) for shape in drawing.shapes]
    return "\n".join([head, f"<title>{escape(drawing.title)}</title>", style, paper, *shapes, "</svg>\n"])


def _shape(shape: Box | Label) -> str:
    if isinstance(shape, Label):
        return (
            f'<text class="{shape.ink.name}" x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size}" '
            f'text-anchor="{shape.anchor}">{escape(shape.text)}</text>'
        )
    place = f'x="{shape.x:g}" y="{shape.y:g}" width="{shape.width:g}" height="{shape.height:g}"'
    if not shape.tip:
        return f'<rect class="{shape.ink.name}" {place}/>'
    return f'<rect class="{shape.ink.name}" {place}><title>{escape(shape.tip)}</title></rect>'


def tick_text(at_ms: int, span_ms: int) -> str:
    """A time on an axis, as exact as the axis is."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    if span_ms > 8 * 86_400_000:
        return f"{moment:%b} {moment.day}"
    if span_ms > 86_400_000:
        return f"{moment:%b} {moment.day} {moment:%H:%M}"
    return f"{moment:%H:%M}"


def moment_text(at_ms: int) -> str:
    """A time in full, UTC."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def rounded(ms: int) -> str:
    """A duration, as exact as its length asks for."""
    unit = 1000 if ms < 3_600_000 else 60_000 if ms < 172_800_000 else 3_600_000
    return format_duration(ms // unit * unit)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """The places without those that would stand on the one before."""
    kept: list[float] = []
    for place in places:
        if not kept or place - kept[-1] >= gap:
            kept.append(place)
    return kept
