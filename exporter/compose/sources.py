"""The sources of measurements: collectors, providers and, on request, what is simulated."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from exporter.client import ApiClient, ClientMetrics
from exporter.client.journal import FileJournal, NoJournal
from exporter.clock import Clock
from exporter.collectors.base import CollectorRunner
from exporter.collectors.metrics import CollectorMetrics
from exporter.collectors.ports import QueryTimer
from exporter.collectors.postgres import DatabaseProbe, postgres_specs
from exporter.collectors.sql import SqlCollector
from exporter.collectors.sqlconfig import DEFAULT_DATABASE, SqlFile
from exporter.collectors.system import LoopLag, SystemCollector
from exporter.config.providers import ProviderConfig
from exporter.config.schema import Config
from exporter.db.pool import Database
from exporter.model.events import EventSink


def build_collectors(
    config: Config,
    sql_files: Iterable[SqlFile],
    databases: Mapping[str, Database],
    *,
    registry: CollectorRegistry,
    clock: Clock,
    lag: LoopLag,
    timer: QueryTimer,
) -> CollectorRunner:
    """The runner with every collector of the configuration; `databases` by name, the own one as "default"."""
    runner = CollectorRunner(registry, clock, CollectorMetrics(registry))
    interval_s = config.global_.scrape_interval_ms / 1000
    own = databases[DEFAULT_DATABASE]
    runner.add(DatabaseProbe(own, clock, interval_s=interval_s, timer=timer))
    if config.collect.system:
        runner.add(SystemCollector(interval_s=interval_s, lag=lag.take))
    specs = [*(postgres_specs() if config.collect.postgres else ())]
    specs += [spec for file in sql_files for spec in file.collectors]
    for spec in specs:
        runner.add(
            SqlCollector(spec, databases[spec.database], clock, default_interval_s=interval_s, timer=timer)
        )
    return runner


def build_client(
    providers: Mapping[str, ProviderConfig],
    *,
    registry: CollectorRegistry,
    clock: Clock,
    events: EventSink,
    journal_dir: Path | None,
) -> ApiClient:
    """The upstream client; `journal_dir` None forgets quotas at the end of the process (simulation)."""
    return ApiClient(
        providers,
        clock=clock,
        metrics=ClientMetrics(registry),
        events=events,
        journal=FileJournal(journal_dir) if journal_dir is not None else NoJournal(),
        rng=random.Random(),
    )


def further_databases(sql_files: Sequence[SqlFile], clock: Clock) -> dict[str, Database]:
    """The databases that SQL files name beside the own one."""
    urls = {name: url for file in sql_files for name, url in file.databases.items()}
    return {
        name: Database(url, clock, max_connections=2, application_name="quantum-exporter sql")
        for name, url in urls.items()
    }
