"""Reads the configuration: YAML, environment, shape, cross-references; all problems at once."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from exporter.assets import asset_dir
from exporter.config.positions import Reader, YamlNode, parse_yaml, resolve_scalar
from exporter.config.providers import default_providers, read_providers
from exporter.config.receivers import read_alerting, read_notification
from exporter.config.schema import (
    CollectConfig,
    Config,
    DashboardApiConfig,
    DatabaseConfig,
    GlobalConfig,
    HeartbeatConfig,
    QueryConfig,
    ReplicasConfig,
    StorageConfig,
)
from exporter.config.targets import check_timing, read_targets
from exporter.errors import ConfigError, InputError
from exporter.model.labels import LabelSet

Section = TypeVar("Section", GlobalConfig, DatabaseConfig, QueryConfig, CollectConfig)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_NOTIFICATION_KEYS = (
    "route",
    "receivers",
    "inhibit_rules",
    "time_intervals",
    "mute_time_intervals",
    "templates",
)
TOP_KEYS = (
    "global",
    "database",
    "storage",
    "query",
    "collect",
    "rule_files",
    "alerting",
    "dashboard_api",
    "heartbeat",
    "replicas",
    *_NOTIFICATION_KEYS[:5],
)
_SECRET_KEYS = re.compile(r"(?i)(key|secret|password|token|credentials|urls?)$")

# What runs where no file is given: everything that needs no key, and what the environment names.
DEFAULT_TEXT = """\
database:
  url: ${DATABASE_URL:-}
dashboard_api:
  cron_secret: ${CRON_SECRET:-}
"""


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of a file, or the built-in one for None.

    Raises: ConfigError with every problem, each with file:line:column.
    """
    if path is None:
        return _load(DEFAULT_TEXT, "built-in configuration", None, environ)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from error
    return _load(text, str(path), path, environ)


def _load(text: str, name: str, path: Path | None, environ: Mapping[str, str]) -> Config:
    reader = Reader(name)
    try:
        root = expand(parse_yaml(text, name), reader, environ)
    except InputError as error:
        raise ConfigError(error.problems) from error
    entries = reader.mapping(root, "the configuration", TOP_KEYS)
    notification_entries = {key: entries[key] for key in _NOTIFICATION_KEYS if key in entries}
    global_ = _read_global(reader, entries.get("global"))
    config = Config(
        file=path,
        global_=global_,
        database=_read_database(reader, entries.get("database")),
        storage=_read_storage(reader, entries.get("storage")),
        query=_read_query(reader, entries.get("query")),
        collect=_read_collect(reader, entries.get("collect"), environ, global_.scrape_interval_ms),
        notification=read_notification(reader, root, notification_entries),
        alerting=read_alerting(reader, entries.get("alerting")),
        dashboard_api=_read_dashboard_api(reader, entries.get("dashboard_api")),
        heartbeat=_read_heartbeat(reader, entries.get("heartbeat")),
        replicas=_read_replicas(reader, entries.get("replicas")),
    )
    base = path.parent if path is not None else None
    rules = _files(reader, entries.get("rule_files"), base, "rules", "*.yml")
    collect_node = (entries["collect"].entries or {}).get("sql") if "collect" in entries else None
    sql = _files(reader, collect_node, base, "sql", "queries.yml")
    if reader.problems:
        raise ConfigError(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return replace(config, rule_files=rules, sql_files=sql, text=masked(text))


def expand(node: YamlNode, reader: Reader, environ: Mapping[str, str]) -> YamlNode:
    """The tree with `${VAR}` and `${VAR:-default}` put into its scalars; an unset variable is a problem."""
    if node.text is not None:
        if "${" not in node.text:
            return node

        try:
            return resolve_scalar(node, expand_text(node.text, environ))
        except ValueError as error:
            reader.problem(node, str(error), "a default, as in ${NAME:-value}")
            return resolve_scalar(node, "")
    if node.items is not None:
        return replace(node, items=tuple(expand(item, reader, environ) for item in node.items))
    entries = node.entries or {}
    return replace(node, entries={key: expand(value, reader, environ) for key, value in entries.items()})


def expand_text(text: str, environ: Mapping[str, str]) -> str:
    """A text with `${VAR}` and `${VAR:-default}` put in.

    Where VAR is not set and VAR_FILE is, the value is that file's text without its last line end, as the
    images of databases take their secrets.

    Raises: ValueError naming a variable that is not set and has no default, or a file that cannot be read.
    """

    def value_of(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = environ.get(name) or _from_file(name, environ) or environ.get(name)
        if value or (value is not None and default is None):
            return value
        if default is None:
            raise ValueError(f"the environment variable {name} is not set")
        return default

    return _VARIABLE.sub(value_of, text)


def _from_file(name: str, environ: Mapping[str, str]) -> str | None:
    file = environ.get(f"{name}_FILE")
    if not file:
        return None
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"{name}_FILE: cannot read {file}: {reason}") from error


def masked(text: str) -> str:
    """The configuration as read, with the values of secret-looking keys hidden (for the status page)."""
    lines = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        name = key.strip(" -{\"'")
        plain = value.strip()
        if colon and plain and not plain.startswith("${") and _SECRET_KEYS.search(name):
            line = f"{key}: <secret>"
        lines.append(line)
    return "\n".join(lines) + ("\n" if lines else "")


def _read_global(reader: Reader, node: YamlNode | None) -> GlobalConfig:
    found = GlobalConfig()
    if node is None:
        return found
    entries = reader.mapping(node, "global", ("scrape_interval", "evaluation_interval", "external_labels"))
    for key in ("scrape_interval", "evaluation_interval"):
        if key in entries:
            value = reader.duration_ms(entries[key], f"global.{key}", minimum_ms=100)
            if value is not None:
                found = _with(found, f"{key}_ms", value)
    if "external_labels" in entries:
        labels = LabelSet.of(reader.string_map(entries["external_labels"], "global.external_labels"))
        found = replace(found, external_labels=labels.pairs)
    return found


def _read_database(reader: Reader, node: YamlNode | None) -> DatabaseConfig:
    found = DatabaseConfig()
    if node is None:
        return found
    entries = reader.mapping(
        node, "database", ("url", "retention", "alert_retention", "downsample_retention")
    )
    if "url" in entries:
        url = reader.string(entries["url"], "database.url") or ""
        if url and not url.startswith(("postgresql://", "postgres://")):
            reader.problem(
                entries["url"], "database.url is not a Postgres URL", "postgresql://USER@HOST:PORT/NAME"
            )
        found = replace(found, url=url)
    for key in ("retention", "alert_retention", "downsample_retention"):
        if key in entries:
            value = reader.duration_ms(entries[key], f"database.{key}", minimum_ms=3_600_000)
            if value is not None:
                found = _with(found, f"{key}_ms", value)
    return found


def _read_storage(reader: Reader, node: YamlNode | None) -> StorageConfig:
    found = StorageConfig()
    if node is None:
        return found
    entries = reader.mapping(node, "storage", ("data_dir", "head_window", "spool_max_bytes"))
    if "data_dir" in entries and (text := reader.string(entries["data_dir"], "storage.data_dir")):
        found = replace(found, data_dir=Path(text))
    if "head_window" in entries:
        value = reader.duration_ms(entries["head_window"], "storage.head_window", minimum_ms=600_000)
        found = replace(found, head_window_ms=value if value is not None else found.head_window_ms)
    if "spool_max_bytes" in entries:
        size = reader.integer(entries["spool_max_bytes"], "storage.spool_max_bytes", minimum=1 << 20)
        found = replace(found, spool_max_bytes=size if size is not None else found.spool_max_bytes)
    return found


def _read_query(reader: Reader, node: YamlNode | None) -> QueryConfig:
    found = QueryConfig()
    if node is None:
        return found
    known = ("url", "timeout", "max_samples", "max_concurrency", "lookback_delta", "log_file")
    entries = reader.mapping(node, "query", known)
    if "url" in entries and not entries["url"].is_null:
        url = reader.string(entries["url"], "query.url") or None
        if url is not None and not url.startswith(("http://", "https://")):
            reader.problem(entries["url"], f'query.url: "{url}" is not a URL', "http://HOST:PORT or null")
        found = replace(found, url=url)
    for key in ("timeout", "lookback_delta"):
        if key in entries:
            value = reader.duration_ms(entries[key], f"query.{key}", minimum_ms=1)
            found = _with(found, f"{key}_ms", value) if value is not None else found
    for key in ("max_samples", "max_concurrency"):
        if key in entries:
            count = reader.integer(entries[key], f"query.{key}", minimum=1)
            found = _with(found, key, count) if count is not None else found
    if "log_file" in entries and not entries["log_file"].is_null:
        path = reader.string(entries["log_file"], "query.log_file")
        found = replace(found, log_file=Path(path) if path else None)
    return found


def _read_collect(
    reader: Reader, node: YamlNode | None, environ: Mapping[str, str], scrape_interval_ms: int
) -> CollectConfig:
    found = CollectConfig(providers=default_providers(environ))
    if node is None:
        return found
    entries = reader.mapping(node, "collect", ("system", "postgres", "sql", "providers", "targets"))
    for key in ("system", "postgres"):
        if key in entries:
            found = _with(found, key, _switch(reader, entries[key], f"collect.{key}"))
    if "sql" in entries:
        found = replace(found, sql=reader.strings(entries["sql"], "collect.sql"))
    if "providers" in entries:
        found = replace(found, providers=read_providers(reader, entries["providers"], environ))
    if "targets" in entries:
        found = replace(found, targets=read_targets(reader, entries["targets"]))
        check_timing(reader, entries["targets"], found.targets, scrape_interval_ms)
    return found


def _with(section: Section, key: str, value: object) -> Section:
    """A section with one field set; the caller knows that the value fits."""
    changes: dict[str, Any] = {key: value}
    return replace(section, **changes)


def _switch(reader: Reader, node: YamlNode, what: str) -> bool:
    """A collector without options: `{}`, true or nothing turns it on, false turns it off."""
    if node.entries is not None:
        reader.mapping(node, what, ())
        return True
    return True if node.is_null else bool(reader.boolean(node, what))


def _read_dashboard_api(reader: Reader, node: YamlNode | None) -> DashboardApiConfig:
    if node is None:
        return DashboardApiConfig()
    entries = reader.mapping(node, "dashboard_api", ("cron_secret",))
    if "cron_secret" not in entries:
        return DashboardApiConfig()
    return DashboardApiConfig(reader.string(entries["cron_secret"], "dashboard_api.cron_secret") or "")


def _read_heartbeat(reader: Reader, node: YamlNode | None) -> HeartbeatConfig:
    found = HeartbeatConfig()
    if node is None:
        return found
    entries = reader.mapping(node, "heartbeat", ("url", "interval", "method", "timeout"))
    if "url" in entries:
        url = (reader.string(entries["url"], "heartbeat.url") or "").strip()
        if url and not re.match(r"https?://[^/\s]", url):
            reader.problem(
                entries["url"], "heartbeat.url is not an HTTP URL", "http://..., https://..., empty"
            )
        found = replace(found, url=url)
    if "interval" in entries:
        interval_ms = reader.duration_ms(entries["interval"], "heartbeat.interval", minimum_ms=1000)
        found = replace(found, interval_ms=interval_ms or found.interval_ms)
    if "timeout" in entries:
        timeout_ms = reader.duration_ms(entries["timeout"], "heartbeat.timeout", minimum_ms=100)
        found = replace(found, timeout_ms=timeout_ms or found.timeout_ms)
    if "method" in entries:
        method = reader.choice(entries["method"], "heartbeat.method", ("GET", "POST", "HEAD"))
        found = replace(found, method=method or found.method)
    return found


def _read_replicas(reader: Reader, node: YamlNode | None) -> ReplicasConfig:
    found = ReplicasConfig()
    if node is None:
        return found
    entries = reader.mapping(node, "replicas", ("advertise_url", "lease"))
    if "advertise_url" in entries:
        url = (reader.string(entries["advertise_url"], "replicas.advertise_url") or "").strip()
        if url and not re.match(r"https?://[^/\s]", url):
            reader.problem(
                entries["advertise_url"],
                "replicas.advertise_url is not an HTTP URL",
                "http://..., https://..., empty",
            )
        found = replace(found, advertise_url=url.rstrip("/"))
    if "lease" in entries:
        lease_ms = reader.duration_ms(entries["lease"], "replicas.lease", minimum_ms=1000)
        found = replace(found, lease_ms=lease_ms or found.lease_ms)
    return found


def _files(
    reader: Reader, node: YamlNode | None, base: Path | None, folder: str, shipped: str
) -> tuple[Path, ...]:
    """The files that a list of names and globs stands for; without a list, the shipped ones."""
    if node is None:
        return tuple(sorted(asset_dir(folder).glob(shipped)))
    found: dict[Path, None] = {}
    for item in reader.sequence(node, f"the list of {folder} files"):
        pattern = reader.string(item, "a file name")
        if not pattern:
            continue
        full = Path(pattern) if base is None else base / pattern
        matches = sorted(glob.glob(str(full)))  # noqa: PTH207 - the pattern may be absolute
        if not matches and not glob.has_magic(pattern):
            reader.problem(item, f"no such file: {full}")
        found.update(dict.fromkeys(map(Path, matches)))
    return tuple(found)
