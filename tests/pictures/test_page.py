"""Every shipped dashboard as a picture: whole, readable, and true to its JSON."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from exporter.cli.picture import png
from exporter.dashboards import render, shipped
from exporter.dashboards.answers import Answer, Track, from_rows, name_of
from exporter.dashboards.queries import PanelQuery, Surroundings, annotation_queries, queries_of
from exporter.drawing.ink import Ink
from exporter.drawing.shapes import Box, Label, Picture
from exporter.drawing.svg import svg
from exporter.pictures.page import page, panels_of
from exporter.query.panels import PanelSources
from tests.drawing.places import labels, outside, overlaps

NOW = 1_790_000_000_000
AROUND = Surroundings(NOW - 3_600_000, NOW)
DASHBOARDS = {name: render(dashboard) for name, dashboard in shipped().items()}
LONG = "a_rather_long_name_of_something"


def tracks(query: PanelQuery) -> tuple[Track, ...]:
    """Some series with the labels that the legend or the buckets ask for."""
    names = re.findall(r"\{\{(\w+)\}\}", query.legend) or ["provider"]
    bounds = ["0.005", "0.1", "1", "+Inf"] if "le" in names else ["x", LONG, "y"]
    count = 1 if query.instant and "$" not in query.text else 40
    times = tuple(NOW - (count - 1 - at) * 90_000 for at in range(count))
    return tuple(
        Track(
            {"severity": "warning", "alertname": "A", **dict.fromkeys(names, bound)},
            times,
            tuple(float(number + at % 3) for at in range(count)),
        )
        for number, bound in enumerate(bounds)
    )


async def answered(dashboard: Mapping[str, Any], connection: Any, width: int) -> Picture:
    """The picture with made-up series and what a fresh database answers."""
    sources = PanelSources(None, connection)
    own = await sources.surroundings(dashboard, AROUND)

    async def ask(query: PanelQuery) -> Answer:
        return await sources.ask(query, own) if query.is_sql else Answer(query, tracks(query))

    answers = {
        number: [await ask(query) for query in queries_of(panel)]
        for number, panel in enumerate(panels_of(dashboard))
    }
    annotations = [await ask(query) for query in annotation_queries(dashboard)]
    return page(dashboard, answers, annotations, AROUND, width=width)


@pytest.mark.parametrize("width", [1000, 1400])
@pytest.mark.parametrize("name", DASHBOARDS)
async def test_nothing_is_cut_off_or_written_over(name: str, width: int, migrated_url: str) -> None:
    """At two widths: no label leaves the picture or meets another, and every panel has its title."""
    connection = await asyncpg.connect(migrated_url)
    try:
        found = await answered(DASHBOARDS[name], connection, width)
    finally:
        await connection.close()
    assert not outside(found)
    assert not overlaps(found)
    titles = {label.text for label in labels(found) if label.bold}
    wanted = {one["title"] for one in panels_of(DASHBOARDS[name])}
    assert width < 1400 or wanted <= titles


def panel(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "title": "P", "gridPos": {"x": 0, "y": 0, "w": 24, "h": 8}, **more}


def picture(one: Mapping[str, Any], *answers: Answer) -> Picture:
    return page({"title": "D", "panels": [one]}, {0: answers}, (), AROUND, width=900)


def query(**more: Any) -> PanelQuery:
    return PanelQuery(**{"panel": "P", "ref": "A", "is_sql": False, "text": "", "instant": False, **more})


def track(value: float, **found: str) -> Track:
    return Track(found, (NOW - 60_000, NOW), (value, value))


def inks(found: Picture, text: str) -> set[Ink]:
    return {label.ink for label in labels(found) if label.text == text}


STEPS = {
    "steps": [
        {"value": None, "color": "green"},
        {"value": 0.5, "color": "orange"},
        {"value": 0.9, "color": "red"},
    ]
}


@pytest.mark.parametrize(
    ("value", "text", "ink"), [(0.49, "49%", Ink.GREEN), (0.5, "50%", Ink.ORANGE), (0.95, "95%", Ink.RED)]
)
def test_a_stat_changes_its_colour_at_the_threshold(value: float, text: str, ink: Ink) -> None:
    """At the step's value the colour is the step's, as in the browser."""
    look = {"defaults": {"unit": "percentunit", "thresholds": STEPS}}
    found = picture(panel("stat", fieldConfig=look), Answer(query(), (track(value),)))
    assert inks(found, text) == {ink}


def test_a_mapped_value_is_a_word() -> None:
    """1 is shown as up, in the mapping's colour."""
    mapping = {"type": "value", "options": {"1": {"text": "up", "color": "green"}}}
    look = {"defaults": {"mappings": [mapping], "thresholds": STEPS}}
    assert inks(picture(panel("stat", fieldConfig=look), Answer(query(), (track(1),))), "up") == {Ink.GREEN}


def test_no_value_and_errors_are_said() -> None:
    """An empty panel shows its text for that; a failing query its error."""
    empty = picture(panel("timeseries", fieldConfig={"defaults": {"noValue": "all well"}}), Answer(query()))
    assert inks(empty, "all well")
    failed = picture(panel("timeseries"), Answer(query(), error="it broke"))
    assert inks(failed, "it broke") == {Ink.RED}
    assert any("pie" in label.text for label in labels(picture(panel("piechart"))))


def test_a_histogram_is_not_cumulative() -> None:
    """Buckets of a histogram count up; a cell shows its own share alone, and empty ones are not drawn."""
    rows = [track(1.0, le="0.1"), track(1.0, le="1"), track(4.0, le="+Inf")]
    found = picture(panel("heatmap"), Answer(query(), tuple(rows)))
    cells = [shape for shape in found.shapes if isinstance(shape, Box) and shape.ink is Ink.ORANGE]
    plot = [cell for cell in cells if cell.width != 6]  # the others are the scale
    assert len({round(cell.y) for cell in plot}) == 2  # the bucket up to 1 holds nothing
    assert len({label.text for label in labels(found)} & {"100 ms", "1", "over 1"}) >= 1


def test_states_are_runs_of_equal_values() -> None:
    """Three samples of two values are two bars; a gap ends a bar."""
    mapping = {"type": "value", "options": {"1": {"text": "on", "color": "red"}}}
    one = Track({}, (NOW - 45_000, NOW - 30_000, NOW - 15_000), (1.0, 1.0, 2.0))
    look = {"defaults": {"mappings": [mapping]}}
    found = picture(panel("state-timeline", fieldConfig=look), Answer(query(legend="s"), (one,)))
    bars = [shape for shape in found.shapes if isinstance(shape, Box) and shape.tip]
    assert [bar.tip for bar in bars] == ["on", "2"]


def test_tables_are_transformed_as_the_browser_does() -> None:
    """Merged on labels, columns hidden, ordered and renamed, rows sorted; hidden fields stay out."""
    first = Answer(query(ref="A"), (track(1, a="x"), track(3, a="y")))
    second = Answer(query(ref="B"), (track(7, a="x"),))
    transformations = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": {"a": 0},
                "renameByName": {"Value #A": "used", "Value #B": "limit"},
            },
        },
    ]
    hidden = {
        "matcher": {"id": "byName", "options": "limit"},
        "properties": [{"id": "custom.hidden", "value": True}],
    }
    one = panel(
        "table",
        transformations=transformations,
        options={"sortBy": [{"displayName": "used", "desc": True}]},
        fieldConfig={"defaults": {}, "overrides": [hidden]},
    )
    texts = [label.text for label in labels(picture(one, first, second))]
    assert [text for text in texts if text in ("a", "used", "limit", "x", "y", "1", "3", "7")] == [
        "a", "y", "x", "used", "3", "1",
    ]  # fmt: skip


def test_a_narrow_table_gets_smaller_letters_before_it_loses_any() -> None:
    """The same row in less and less room: whole, whole and smaller, cut with a mark that says so."""
    cells = tuple(f"some words {number}" for number in range(10))
    answer = Answer(query(is_sql=True), columns=tuple("abcdefghij"), rows=(cells,))

    def row(width: int) -> list[Label]:
        drawn = page({"title": "D", "panels": [panel("table")]}, {0: [answer]}, (), AROUND, width=width)
        return [label for label in labels(drawn) if label.text.startswith("some")]

    wide, tight, narrow = row(1400), row(900), row(600)
    assert [label.text for label in wide] == [label.text for label in tight] == list(cells)
    assert tight[0].size < wide[0].size
    assert all(label.text.endswith("…") for label in narrow)


def test_sql_over_time_becomes_series() -> None:
    """Long form is named by its text column, wide form by its columns; NULL is no point."""
    long = from_rows(
        query(is_sql=True), ("time", "metric", "value"), [(1, "a", 2), (2, "a", 3), (1, "b", None)]
    )
    assert [(name_of(one, ""), one.ts_ms, one.values) for one in long.tracks] == [
        ("a", (1000, 2000), (2.0, 3.0))
    ]
    wide = from_rows(query(is_sql=True), ("time", "p", "q"), [(1, 2, 3)])
    assert [name_of(one, "") for one in wide.tracks] == ["p", "q"]


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="Pillow is optional")
def test_png_has_the_pictures_size_and_theme() -> None:
    """As many pixels as asked for, on light or dark paper."""
    from PIL import Image

    found = picture(panel("stat"), Answer(query(), (track(1),)))
    for dark in (False, True):
        image = Image.open(io.BytesIO(png(found, scale=2, dark=dark))).convert("RGB")
        assert image.size == (1800, found.height * 2)
        corner = "#" + "".join(f"{part:02x}" for part in image.getpixel((1, 1)))
        assert corner == Ink.PAPER.value[dark]


def test_texts_of_the_shapes_are_escaped() -> None:
    """A title may hold any sign."""
    text = svg(Picture("<&>", 10, 10, (Label(0, 0, "<b>", Ink.TEXT),)))
    assert "&lt;b&gt;" in text
    assert "<title>&lt;&amp;&gt;</title>" in text
