"""Grafana dashboards drawn without Grafana: JSON and the answers to its queries become a picture.

Data flow: `page(dashboard, answers, ...)` lays panels out on Grafana's grid; panels.py picks a drawer by the
panel's type (numbers, tables, grids of cells, and the charts of `exporter.drawing`); fields.py reads units,
thresholds and mappings as Grafana does; frames.py makes tables out of answers and applies transformations.

Invariants: the same queries, units, thresholds, mappings and "no value" texts as in the browser; a panel type
that is not drawn says so in its place; nothing here asks anybody anything. Pure.
"""

from __future__ import annotations

from exporter.pictures.page import page

__all__ = ["page"]
