"""Grafana dashboards as code: small values in, dashboard JSON out.

Data flow: a module per dashboard builds a `Dashboard` out of rows and panels (model.py, panels.py); render.py
lays it out and turns it into Grafana's JSON; `python -m exporter.dashboards` writes it to grafana/dashboards.
The JSON is committed, and a test says whether it is current. queries.py reads the queries back out of any
dashboard and expands Grafana's macros, for checks.

common.py has the panels that stand on more than one dashboard.

Invariants: uids are stable; thresholds are those of the rules (thresholds.py); every panel has a unit, a
description and a legend. Pure but for `__main__`.
"""

from __future__ import annotations

from exporter.dashboards.model import Dashboard
from exporter.dashboards.render import render
from exporter.dashboards.shipped import shipped

__all__ = ["Dashboard", "render", "shipped"]
