"""The text of a dashboard's file."""

from __future__ import annotations

import json

from exporter.dashboards.model import Dashboard
from exporter.dashboards.render import render


def text_of(dashboard: Dashboard) -> str:
    """JSON, indented, with a newline at the end."""
    return json.dumps(render(dashboard), indent=2, ensure_ascii=False) + "\n"
