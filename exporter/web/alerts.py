"""Alerts beyond Prometheus' API: history, acknowledgement, resolution by hand, why, silences."""

from __future__ import annotations

from aiohttp import web

from exporter.web.ports import Deps


class AlertRoutes:
    """The handlers."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Mount every endpoint."""
