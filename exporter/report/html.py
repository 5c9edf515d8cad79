"""A report as one HTML file: no script, nothing fetched, light or dark as the reader likes."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from exporter.drawing.chart import Series, chart
from exporter.drawing.ink import Ink, ink_of
from exporter.drawing.shapes import Frame, Picture
from exporter.drawing.svg import style_sheet, svg
from exporter.report.model import Report
from exporter.report.sections import Section, sections, series_of, title_of

_WIDTH: Final = 860
_HEIGHT: Final = 260
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c1c1c;--soft:#5c5f66;--line:#e2e4e8;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#f0f0f0;--soft:#a3a8b0;--line:#2a2e35;--paper:#1a1d22}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
max-width:860px;padding:24px 16px 48px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 6px}p{margin:6px 0;color:var(--soft)}
ul{padding-left:20px;margin:8px 0}li{margin:4px 0}
div.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:10px 0;font-size:14px}
th{color:var(--soft);font-weight:600}th,td{padding:5px 10px 5px 0;border-bottom:1px solid var(--line);
text-align:left;white-space:nowrap}th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}
figure{margin:14px 0}figcaption{color:var(--soft);font-size:14px}svg{max-width:100%;height:auto;display:block}
"""


def html(report: Report) -> str:
    """The whole page."""
    title = escape(title_of(report))
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}{style_sheet()}</style></head><body>"
    )
    return "\n".join([head, f"<h1>{title}</h1>", *_body(report), "</body></html>\n"])


def _body(report: Report) -> Iterator[str]:
    for section in sections(report):
        yield f"<h2>{escape(section.title)}</h2>"
        if section.rows:
            yield from (f"<p>{escape(sentence)}</p>" for sentence in section.sentences)
            yield _table(section)
        else:
            items = "".join(f"<li>{escape(sentence)}</li>" for sentence in section.sentences)
            yield f"<ul>{items}</ul>"
        if series_of(section):
            caption = f"<figcaption>{escape(section.plot_title)}</figcaption>"
            yield f"<figure>{caption}{svg(plot(section, report), styled=False)}</figure>"


def plot(section: Section, report: Report) -> Picture:
    """The plot of a section over the period."""
    series = [
        Series(name, tuple(at for at, _ in points), tuple(value for _, value in points), _ink(name))
        for name, points in series_of(section).items()
    ]
    # a point stands for the step that ends there: a bar is drawn over its step
    shift = section.look.step_ms if section.look.bars else 0
    moved = [Series(one.name, tuple(at - shift for at in one.ts_ms), one.values, one.ink) for one in series]
    frame = Frame(0, 0, _WIDTH, _HEIGHT)
    shapes = chart(frame, moved, report.period.start_ms, report.period.end_ms, section.look)
    return Picture(section.plot_title, _WIDTH, _HEIGHT, tuple(shapes))


def _ink(name: str) -> Ink | None:
    found = ink_of(name)
    return None if found is Ink.OTHER else found


def _table(section: Section) -> str:
    def cells(row: tuple[str, ...], tag: str) -> str:
        return "".join(
            f"<{tag}{'' if at < section.words else ' class=n'}>{escape(cell)}</{tag}>"
            for at, cell in enumerate(row)
        )

    rows = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in section.rows)
    return f'<div class="wide"><table><tr>{cells(section.columns, "th")}</tr>{rows}</table></div>'
