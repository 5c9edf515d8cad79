"""Every configuration field with its default, unit and meaning, as frozen dataclasses.

Durations are integer milliseconds inside, Prometheus durations in the file. The option table in
docs/configuration.md is checked against this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.config.providers import ProviderConfig
from exporter.config.receivers import AlertingConfig, NotificationConfig
from exporter.config.targets import ScrapeJob

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def option(default: Any, help_text: str, unit: str = "") -> Any:
    """A dataclass field that carries its meaning; `unit` is empty for plain values."""
    return field(default=default, metadata={"help": help_text, "unit": unit})


@dataclass(frozen=True, slots=True)
class GlobalConfig:
    """`global`: the two intervals and what is added to every notification."""

    scrape_interval_ms: int = option(
        15 * SECOND, "how often snapshots, collectors and targets run", "duration"
    )
    evaluation_interval_ms: int = option(
        15 * SECOND, "how often rule groups without an interval run", "duration"
    )
    external_labels: tuple[tuple[str, str], ...] = option((), "labels added to everything that leaves")


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """`database`: where samples, events and alerts are remembered."""

    url: str = option("", "postgresql:// URL; empty starts an embedded Postgres under storage.data_dir")
    retention_ms: int = option(30 * DAY, "age at which samples and events go", "duration")
    alert_retention_ms: int = option(90 * DAY, "age at which resolved alerts go", "duration")
    downsample_retention_ms: int = option(
        365 * DAY, "age at which the history in steps of five minutes goes", "duration"
    )


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """`storage`: what is kept in memory and on the disk beside the program."""

    data_dir: Path = option(Path("data"), "folder of the embedded Postgres, the spool and the journals")
    head_window_ms: int = option(6 * HOUR, "how long samples stay in memory", "duration")
    spool_max_bytes: int = option(
        2 * 1024**3, "size bound of the spool, oldest dropped and counted beyond it", "bytes"
    )


@dataclass(frozen=True, slots=True)
class QueryConfig:
    """`query`: where rules are judged and /api/v1/query is answered."""

    url: str | None = option(None, "null for the embedded engine, else any Prometheus-compatible API")
    timeout_ms: int = option(30 * SECOND, "longest time of one query", "duration")
    max_samples: int = option(50_000_000, "most samples one query may load", "samples")
    max_concurrency: int = option(4, "queries evaluated at once", "queries")
    lookback_delta_ms: int = option(5 * MINUTE, "how far back an instant selector looks", "duration")
    log_file: Path | None = option(None, "file that takes a line of JSON for each query of the HTTP API")


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """`collect`: the sources of measurements."""

    system: bool = option(True, "CPU, memory, disk, network and this process, by psutil")
    postgres: bool = option(True, "the database's own statistics")
    sql: tuple[str, ...] = option(("sql/queries.yml",), "files of SQL collectors, globs allowed")
    providers: Mapping[str, ProviderConfig] = field(
        default_factory=dict, metadata={"help": "upstream APIs, by name", "unit": ""}
    )
    targets: tuple[ScrapeJob, ...] = option((), "other exporters to scrape, as Prometheus' scrape_configs")


@dataclass(frozen=True, slots=True)
class DashboardApiConfig:
    """`dashboard_api`: the platform's own endpoints."""

    cron_secret: str = option("", "secret of POST /api/quantum/cron-monitoring; empty turns it off")


@dataclass(frozen=True, slots=True)
class HeartbeatConfig:
    """`heartbeat`: the dead man's switch."""

    url: str = option("", "outside URL that is requested as long as rules and notifier run; empty: none")
    interval_ms: int = option(MINUTE, "time between two beats", "duration")
    method: str = option("GET", "GET, POST or HEAD")
    timeout_ms: int = option(10 * SECOND, "longest time of one beat", "duration")


@dataclass(frozen=True, slots=True)
class ReplicasConfig:
    """`replicas`: several exporters on one database, of which one notifies."""

    advertise_url: str = option(
        "",
        "where the other replicas reach this one; empty: the listen address, on all interfaces the host name",
    )
    lease_ms: int = option(
        10 * SECOND,
        "how long a hanging leader is waited for, at most two thirds of evaluation_interval",
        "duration",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; `file` is None where the built-in defaults are used."""

    file: Path | None
    global_: GlobalConfig
    database: DatabaseConfig
    storage: StorageConfig
    query: QueryConfig
    collect: CollectConfig
    notification: NotificationConfig
    alerting: AlertingConfig
    dashboard_api: DashboardApiConfig
    rule_files: tuple[Path, ...] = ()
    sql_files: tuple[Path, ...] = ()
    heartbeat: HeartbeatConfig = field(default_factory=HeartbeatConfig)
    replicas: ReplicasConfig = field(default_factory=ReplicasConfig)
    text: str = ""  # as read, secrets masked, for /api/v1/status/config
