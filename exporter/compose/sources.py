"""The sources of measurements: collectors, providers and, on request, what is simulated."""

from __future__ import annotations

import platform
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from exporter.client import ApiClient, ClientMetrics
from exporter.client.journal import FileJournal, NoJournal, SharedQuota
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
from exporter.db.quota import PostgresQuota
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
    shared: SharedQuota | None = None,
) -> ApiClient:
    """The upstream client; `journal_dir` None forgets quotas at the end of the process (simulation)."""
    return ApiClient(
        providers,
        clock=clock,
        metrics=ClientMetrics(registry),
        events=events,
        journal=FileJournal(journal_dir) if journal_dir is not None else NoJournal(),
        shared=shared,
        rng=random.Random(),
    )


def shared_quota(config: Config, database: Database, clock: Clock) -> SharedQuota | None:
    """Quotas shared with the other exporters of a database; None for an embedded one, which has no others."""
    if not config.database.url:
        return None
    # The same after a restart, so that it does not count as one more who shares.
    holder = f"{platform.node()}:{config.storage.data_dir.resolve()}"
    return PostgresQuota(database, clock, holder=holder)


def further_databases(sql_files: Sequence[SqlFile], clock: Clock) -> dict[str, Database]:
    """The databases that SQL files name beside the own one."""
    urls = {name: url for file in sql_files for name, url in file.databases.items()}
    return {
        name: Database(url, clock, max_connections=2, application_name="quantum-exporter sql")
        for name, url in urls.items()
    }
