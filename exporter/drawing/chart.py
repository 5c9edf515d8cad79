"""Series over time: axes that say what they show, lines, stacked areas or bars, limits, and a legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from exporter.drawing.ink import Ink, series_ink
from exporter.drawing.scale import Axis, axis
from exporter.drawing.shapes import Area, Box, Frame, Label, Line, Point, Shape
from exporter.drawing.text import fitted, text_width
from exporter.drawing.times import tick_text, ticks
from exporter.drawing.units import value_text

SMALL: Final = 11
_ROW: Final = 17
_BELOW: Final = 20  # for the times under the axis
_NAME: Final = 150.0  # of a name in the legend, which is cut only where it is longer and room is short

CALCS: Final[dict[str, tuple[str, Callable[[Sequence[float]], float]]]] = {
    "lastNotNull": ("last", lambda values: values[-1]),
    "max": ("max", max),
    "min": ("min", min),
    "mean": ("mean", lambda values: math.fsum(values) / len(values)),
    "sum": ("sum", math.fsum),
}
"""Grafana's names of reducers to the word in a legend and the reducer over finite values."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points in ascending time; a value that is not finite is a gap."""

    name: str
    ts_ms: tuple[int, ...]
    values: tuple[float, ...]
    ink: Ink | None = None

    def finite(self) -> list[float]:
        """The values that can be drawn."""
        return [value for value in self.values if math.isfinite(value)]


@dataclass(frozen=True, slots=True)
class Look:
    """How series are drawn. `limits` are values with a colour, drawn as dashed lines where they are in view.

    `step_ms` is the time between two points; where more is missing the line is broken.
    """

    unit: str = "short"
    decimals: int | None = None
    lowest: float | None = None
    highest: float | None = None
    stacked: bool = False
    bars: bool = False
    stepped: bool = False
    fill: float = 0.08
    limits: tuple[tuple[float, Ink], ...] = ()
    step_ms: int = 15_000
    calcs: tuple[str, ...] = ()
    spans: tuple[tuple[int, int, Ink], ...] = field(default=())


def chart(frame: Frame, series: Sequence[Series], start_ms: int, end_ms: int, look: Look) -> Iterator[Shape]:
    """Everything inside a frame: legend at the bottom where `look.calcs` names columns, the plot above it."""
    inked = [
        one if one.ink else Series(one.name, one.ts_ms, one.values, series_ink(at))
        for at, one in enumerate(series)
    ]
    drawn = [one for one in inked if one.finite()]
    legend = _legend(frame, drawn, look) if look.calcs and drawn else None
    plot = frame.without(bottom=legend.height) if legend else frame
    layers = _layers(drawn, look)
    scale = axis(
        [value for one in layers for value in (*one.upper, *(one.lower if look.stacked else ()))],
        lowest=look.lowest,
        highest=look.highest,
        most=max(2, int(plot.height // 45)),
        unit=look.unit,
    )
    texts = _mark_texts(scale, look)
    left = max((text_width(text, SMALL) for text in texts), default=0) + 10
    inner = plot.without(left=left, top=6, right=8, bottom=_BELOW)
    yield from _grid(inner, scale, texts, start_ms, end_ms)
    place = _Place(inner, scale, start_ms, max(1, end_ms - start_ms))
    yield from _spans(place, start_ms, end_ms, look.spans)
    for layer in reversed(layers) if look.stacked else layers:
        yield from _draw(layer, place, look)
    for value, ink in look.limits:
        if scale.low <= value <= scale.high:
            y = place.y(value)
            yield Line(((inner.x, y), (inner.right, y)), ink, 1.2, dashed=True)
    if legend:
        yield from _write(legend, Frame(frame.x, frame.bottom - legend.height, frame.width, legend.height))


@dataclass(frozen=True, slots=True)
class _Layer:
    """A series as drawn: stacked ones stand on `lower`."""

    series: Series
    ts_ms: tuple[int, ...]
    upper: tuple[float, ...]
    lower: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    frame: Frame
    scale: Axis
    start_ms: int
    span_ms: int

    def x(self, at_ms: float) -> float:
        return self.frame.x + self.frame.width * (at_ms - self.start_ms) / self.span_ms

    def y(self, value: float) -> float:
        return self.frame.bottom - self.frame.height * self.scale.share(value)


def _spans(
    place: _Place, start_ms: int, end_ms: int, spans: Sequence[tuple[int, int, Ink]]
) -> Iterator[Shape]:
    """A strip along the time axis for each span, and a dashed line where it begins."""
    frame = place.frame
    for begin, end, ink in spans:
        if end < start_ms or begin > end_ms:
            continue
        low, high = place.x(max(begin, start_ms)), place.x(min(end, end_ms))
        yield Box(low, frame.bottom, max(1.5, high - low), 3, ink, opacity=0.7)
        if begin >= start_ms:
            yield Line(((low, frame.y), (low, frame.bottom)), ink, 0.7, dashed=True)


def _layers(series: Sequence[Series], look: Look) -> list[_Layer]:
    if not look.stacked:
        return [_Layer(one, one.ts_ms, one.values, (0.0,) * len(one.ts_ms)) for one in series]
    times = tuple(sorted({at for one in series for at in one.ts_ms}))
    below = dict.fromkeys(times, 0.0)
    layers = []
    for one in series:
        own = dict(zip(one.ts_ms, one.values, strict=True))
        lower = tuple(below[at] for at in times)
        for at in times:
            value = own.get(at, 0.0)
            below[at] += value if math.isfinite(value) else 0.0
        layers.append(_Layer(one, times, tuple(below[at] for at in times), lower))
    return layers


def _mark_texts(scale: Axis, look: Look) -> list[str]:
    """The marks' values, with as many places as tell each from the next."""
    texts: list[str] = []
    for decimals in (look.decimals, 1, 2, 3, 4):
        texts = [value_text(mark, look.unit, decimals) for mark in scale.marks]
        if len(set(texts)) == len(texts):
            break
    return texts


def _grid(frame: Frame, scale: Axis, texts: Sequence[str], start_ms: int, end_ms: int) -> Iterator[Shape]:
    for mark, text in zip(scale.marks, texts, strict=True):
        y = frame.bottom - frame.height * scale.share(mark)
        yield Line(((frame.x, y), (frame.right, y)), Ink.GRID, 1)
        yield Label(frame.x - 6, y + 4, text, Ink.MUTED, "end", SMALL)
    span = end_ms - start_ms
    for tick in ticks(start_ms, end_ms, max(2, int(frame.width // 72))):
        x = frame.x + frame.width * (tick - start_ms) / max(1, span)
        yield Line(((x, frame.y), (x, frame.bottom)), Ink.GRID, 1)
        words = tick_text(tick, span)
        half = text_width(words, SMALL) / 2
        if frame.x - 30 <= x - half and x + half <= frame.right + 8:
            yield Label(x, frame.bottom + 15, words, Ink.MUTED, "middle", SMALL)


def _draw(layer: _Layer, place: _Place, look: Look) -> Iterator[Shape]:
    ink = layer.series.ink or Ink.SERIES_1
    if look.bars:
        width = max(3.0, place.frame.width * look.step_ms / place.span_ms * 0.8)
        for at, high, low in zip(layer.ts_ms, layer.upper, layer.lower, strict=True):
            x = min(max(place.x(at), place.frame.x), place.frame.right - width)
            top, bottom = place.y(high), place.y(low)
            if bottom - top > 0.2:
                yield Box(x, top, width, bottom - top, ink, opacity=0.8)
        return
    for run in _runs(layer, look.step_ms):
        upper = _path([(place.x(at), place.y(high)) for at, high, _ in run], stepped=look.stepped)
        lower = _path([(place.x(at), place.y(low)) for at, _, low in run], stepped=look.stepped)
        if len(run) == 1:
            ((x, y),) = upper
            yield Box(x - 1.5, y - 1.5, 3, 3, ink, radius=1.5)
            continue
        if look.fill:
            base = lower if look.stacked else [(x, place.y(max(0.0, place.scale.low))) for x, _ in upper]
            yield Area((*upper, *reversed(base)), ink, look.fill)
        yield Line(tuple(upper), ink)


def _runs(layer: _Layer, step_ms: int) -> Iterator[list[tuple[int, float, float]]]:
    """The points between gaps."""
    run: list[tuple[int, float, float]] = []
    for at, high, low in zip(layer.ts_ms, layer.upper, layer.lower, strict=True):
        gap = run and at - run[-1][0] > 1.5 * step_ms
        if run and (gap or not math.isfinite(high)):
            yield run
            run = []
        if math.isfinite(high):
            run.append((at, high, low))
    if run:
        yield run


def _path(points: list[Point], *, stepped: bool) -> list[Point]:
    if not stepped:
        return points
    out: list[Point] = []
    for x, y in points:
        if out:
            out.append((x, out[-1][1]))
        out.append((x, y))
    return out


# -- the legend ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Legend:
    """Rows of names and figures, in columns; `words` are the headings of the figures."""

    words: tuple[str, ...]
    widths: tuple[float, ...]  # of the figures
    entries: tuple[tuple[Series, tuple[str, ...]], ...]
    rows: int
    columns: int
    left_out: int

    @property
    def height(self) -> float:
        """With the line of headings."""
        return (self.rows + 1) * _ROW + 4


def _legend(frame: Frame, series: Sequence[Series], look: Look) -> _Legend:
    """As many columns as the longest name leaves room for; under half of the frame's height."""
    known = [CALCS[name] for name in look.calcs if name in CALCS]
    order = list(series)
    if "max" in look.calcs and not look.stacked:
        order.sort(key=lambda one: -max(one.finite()))
    entries = [
        (one, tuple(value_text(reduce(one.finite()), look.unit, look.decimals) for _, reduce in known))
        for one in order
    ]
    words = tuple(word for word, _ in known)
    widths = tuple(
        16 + max(text_width(text, 12) for text in (word, *(row[at] for _, row in entries)))
        for at, word in enumerate(words)
    )
    longest = max(text_width(one.name, 12) for one in order)
    columns = min(len(order), max(1, int(frame.width // (min(longest, _NAME) + 44 + sum(widths)))))
    rows = min(-(-len(order) // columns), max(1, int(frame.height * 0.44 // _ROW) - 1))
    columns = min(columns, -(-len(order) // rows))
    shown = len(order) if len(order) <= rows * columns else rows * columns - 1
    return _Legend(words, widths, tuple(entries[:shown]), rows, columns, len(order) - shown)


def _write(legend: _Legend, frame: Frame) -> Iterator[Shape]:
    width = frame.width / legend.columns

    def rights(column: int) -> list[float]:
        end = frame.x + (column + 1) * width - (10 if column + 1 < legend.columns else 2)
        return [end - sum(legend.widths[at + 1 :]) for at in range(len(legend.words))]

    for column in range(legend.columns):
        for word, right in zip(legend.words, rights(column), strict=True):
            yield Label(right, frame.y + _ROW - 4, word, Ink.MUTED, "end", SMALL)
    for number, (one, row) in enumerate(legend.entries):
        column, line = divmod(number, legend.rows)
        left, base = frame.x + column * width, frame.y + _ROW * (line + 2) - 4
        yield Box(left + 4, base - 5, 12, 3, one.ink or Ink.SERIES_1, radius=1)
        name = fitted(one.name, width - 36 - sum(legend.widths), 12)
        yield Label(left + 22, base, name, Ink.TEXT, size=12)
        for text, right in zip(row, rights(column), strict=True):
            yield Label(right, base, text, Ink.TEXT, "end", 12)
    if legend.left_out:
        column, line = divmod(len(legend.entries), legend.rows)
        left, base = frame.x + column * width, frame.y + _ROW * (line + 2) - 4
        yield Label(left + 22, base, f"and {legend.left_out} more", Ink.MUTED, size=12)
