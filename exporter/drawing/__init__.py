"""Pictures out of plain shapes: charts and timelines, as SVG or as pixels.

Data flow: something with numbers (a backtest, a report, the answers to a dashboard's queries) builds a
`Picture`, a tuple of boxes, lines, areas and labels with places in pixels; svg.py writes it, and the command
line turns it into PNG. chart.py draws series over time with honest axes (scale.py), values in Grafana's units
(units.py), times in UTC (times.py) and labels that fit (text.py).

Invariants: a shape's colour is an `Ink`, which has one value for light and one for dark paper; nothing here
reads a clock, a file or a font. Pure.
"""

from __future__ import annotations
