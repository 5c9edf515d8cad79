"""The dashboards that ship with the program."""

from __future__ import annotations

from exporter.dashboards.alerts import alerts
from exporter.dashboards.database import database
from exporter.dashboards.itself import itself
from exporter.dashboards.model import Dashboard
from exporter.dashboards.overview import overview
from exporter.dashboards.trading import trading
from exporter.dashboards.upstream import upstream


def shipped() -> dict[str, Dashboard]:
    """File name without its ending to dashboard."""
    return {
        "overview": overview(),
        "upstream-apis": upstream(),
        "trading": trading(),
        "database": database(),
        "alerts": alerts(),
        "exporter": itself(),
    }
