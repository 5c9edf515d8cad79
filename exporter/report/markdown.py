"""A report as Markdown; plots are rows of bars, which every reader shows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from exporter.drawing.units import value_text
from exporter.report.model import Period, Report
from exporter.report.sections import Section, sections, series_of, spark, title_of


def markdown(report: Report) -> str:
    """The whole text."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {title_of(report)}"
    for section in sections(report):
        yield from ("", f"## {section.title}", "")
        if section.rows:
            yield from section.sentences
            yield ""
            yield from _table(section)
        else:
            yield from (f"- {sentence}" for sentence in section.sentences)
        yield from _plot(section, report.period)


def _plot(section: Section, period: Period) -> Iterator[str]:
    """A row of bars for each series, a bar for each step of the period, with its lowest and highest value."""
    rows = series_of(section)
    if not rows:
        return
    yield from ("", f"{section.plot_title}, from the lowest to the highest value of each line:", "", "```")
    width = max(map(len, rows))
    steps = range(period.start_ms + period.step_ms, period.end_ms + 1, period.step_ms)
    for name, points in rows.items():
        values = dict(points)
        bars = spark([values.get(at, math.nan) for at in steps])
        low, high = (value_text(end(values.values()), section.look.unit) for end in (min, max))
        yield f"{name:<{width}}  {bars}  {low if low == high else f'{low} to {high}'}"
    yield "```"


def _table(section: Section) -> Iterator[str]:
    yield _row(section.columns)
    yield _row(["---" if at < section.words else "---:" for at in range(len(section.columns))])
    for row in section.rows:
        yield _row(row)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
