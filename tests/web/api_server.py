"""Our HTTP API over a storage, on a free port, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from aiohttp import web
from prometheus_client import CollectorRegistry

from exporter.clock import Clock, SystemClock
from exporter.compose.status import head_stats, no_targets, runtime
from exporter.ingest.scrape_parser import Metadata
from exporter.model.labels import LabelSet
from exporter.promql.engine import Engine
from exporter.query.local import Limits, LocalQueries
from exporter.query.log import QueryLog
from exporter.query.metrics import QueryMetrics
from exporter.rules.evaluation import GroupView
from exporter.storage import MemoryStorage
from exporter.web.auth import WebConfig
from exporter.web.ports import Deps, QueryService, Status
from exporter.web.server import Server, create_app


class Groups:
    """The rule service over fixed groups."""

    def __init__(self, groups: Sequence[GroupView] = ()) -> None:
        self._groups = groups

    def groups(self) -> Sequence[GroupView]:
        return self._groups


def local_queries(
    storage: MemoryStorage,
    *,
    limits: Limits | None = None,
    clock: Clock | None = None,
    query_log: QueryLog | None = None,
    kind: type[LocalQueries] = LocalQueries,
) -> LocalQueries:
    """The embedded engine over a storage."""
    limits, clock = limits or Limits(), clock or SystemClock()
    engine = Engine(storage, max_samples=limits.max_samples, monotonic=clock.monotonic)
    return kind(
        storage,
        engine,
        limits=limits,
        clock=clock,
        metrics=QueryMetrics(CollectorRegistry()),
        query_log=query_log,
    )


def api_app(
    storage: MemoryStorage,
    queries: QueryService,
    *,
    clock: Clock | None = None,
    groups: Sequence[GroupView] = (),
    metadata: dict[str, tuple[str, str, str]] | None = None,
    targets: Mapping[str, Any] | None = None,
    scraped: Sequence[tuple[LabelSet, Mapping[str, Metadata]]] = (),
) -> web.Application:
    """An application that answers the query API; the rest of the program is not there."""
    clock = clock or SystemClock()
    status = Status(
        started_ms=clock.now_ms(),
        config_yaml=lambda: "global: {}\n",
        flags={"config.file": ""},
        runtime=lambda: runtime(reload_ok=True, config_time="2026-01-01T00:00:00Z", retention="30d"),
        head_stats=lambda: head_stats(storage),
        metadata=lambda: metadata or {},
        alertmanagers=lambda: ["http://127.0.0.1:9093/api/v2/alerts"],
        targets=lambda: targets or no_targets(),
        scrape_pools=lambda: ["b", "a"] if targets else [],
        scraped_metadata=lambda: scraped or (),
    )
    absent = cast(Any, None)  # what the query API does not touch
    deps = Deps(
        clock=clock,
        queries=queries,
        rules=Groups(groups),
        exposition=absent,
        status=status,
        alerts=absent,
        ready=lambda: "",
        reload=absent,
        dashboard=absent,
        run_checks=absent,
        cron_secret=lambda: "",
    )
    return create_app(deps, WebConfig(), loopback=True)


@asynccontextmanager
async def api_server(
    storage: MemoryStorage,
    *,
    queries: QueryService | None = None,
    groups: Sequence[GroupView] = (),
    metadata: dict[str, tuple[str, str, str]] | None = None,
    targets: Mapping[str, Any] | None = None,
    scraped: Sequence[tuple[LabelSet, Mapping[str, Metadata]]] = (),
) -> AsyncIterator[str]:
    """The base URL of a server of `api_app`; by default over the embedded engine."""
    own = None if queries is not None else local_queries(storage)
    app = api_app(
        storage,
        queries or cast(QueryService, own),
        groups=groups,
        metadata=metadata,
        targets=targets,
        scraped=scraped,
    )
    server = Server(app, "127.0.0.1", 0, WebConfig())
    try:
        yield await server.start()
    finally:
        await server.stop()
        if own is not None:
            own.close()
