"""`collect.targets`: what to scrape, in the names of Prometheus' scrape_configs. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.config.http_client import HttpClientConfig, read_http_client
from exporter.config.positions import Reader, YamlNode, parse_yaml
from exporter.errors import InputError
from exporter.ingest.relabel import RelabelAction, RelabelRule, fault_of
from exporter.ingest.target import Limits
from exporter.model.durations import format_duration

DEFAULT_TIMEOUT_MS = 10_000
DEFAULT_BODY_LIMIT = 64 * 1024**2
DEFAULT_SAMPLE_LIMIT = 500_000
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_SIZE = re.compile(r"(\d+)(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?", re.ASCII)
_UNITS: dict[str, int] = {"": 1, "B": 1, **{f"{c}B": 1 << 10 * (i + 1) for i, c in enumerate("KMGT")}}
_UNITS |= {f"{c}iB": 1 << 10 * (i + 1) for i, c in enumerate("KMGT")}
_HTTP_KEYS = ("authorization", "basic_auth", "tls_config", "follow_redirects")
_LIMIT_KEYS = ("sample_limit", "label_limit", "label_name_length_limit", "label_value_length_limit")
_KEYS = (
    "job_name",
    "static_configs",
    "file_sd_configs",
    "scrape_interval",
    "scrape_timeout",
    "metrics_path",
    "scheme",
    "params",
    "honor_labels",
    "honor_timestamps",
    "relabel_configs",
    "metric_relabel_configs",
    "body_size_limit",
    *_LIMIT_KEYS,
    *_HTTP_KEYS,
)
_RELABEL_KEYS = (
    "source_labels",
    "separator",
    "regex",
    "target_label",
    "replacement",
    "action",
    "modulus",
)


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """Addresses that share labels. `source` names the group in the API and in messages."""

    targets: tuple[str, ...]
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ScrapeJob:
    """One entry of `collect.targets`. `interval_ms` is None where `global.scrape_interval` holds."""

    name: str
    static: tuple[TargetGroup, ...] = ()
    files: tuple[str, ...] = ()
    interval_ms: int | None = None
    timeout_ms: int | None = None
    metrics_path: str = "/metrics"
    scheme: str = "http"
    params: tuple[tuple[str, tuple[str, ...]], ...] = ()
    honor_labels: bool = False
    honor_timestamps: bool = True
    relabel: tuple[RelabelRule, ...] = ()
    metric_relabel: tuple[RelabelRule, ...] = ()
    limits: Limits = Limits(samples=DEFAULT_SAMPLE_LIMIT)
    body_size_limit: int = DEFAULT_BODY_LIMIT
    http: HttpClientConfig = field(default_factory=HttpClientConfig)

    def timing(self, global_interval_ms: int) -> tuple[int, int]:
        """Interval and timeout in milliseconds."""
        interval_ms = self.interval_ms if self.interval_ms is not None else global_interval_ms
        default_ms = min(DEFAULT_TIMEOUT_MS, interval_ms)
        return interval_ms, self.timeout_ms if self.timeout_ms is not None else default_ms

    def discovered(self, group: TargetGroup, address: str, global_interval_ms: int) -> dict[str, str]:
        """The labels of one address before relabelling."""
        interval_ms, timeout_ms = self.timing(global_interval_ms)
        return {
            "job": self.name,
            "__scheme__": self.scheme,
            "__metrics_path__": self.metrics_path,
            "__scrape_interval__": format_duration(interval_ms),
            "__scrape_timeout__": format_duration(timeout_ms),
            **dict(group.labels),
            "__address__": address,
        }


def read_targets(reader: Reader, node: YamlNode) -> tuple[ScrapeJob, ...]:
    """The jobs of `collect.targets`; every fault becomes a problem with its place."""
    jobs: list[ScrapeJob] = []
    for item in reader.sequence(node, "collect.targets"):
        job = _job(reader, item)
        if job is None:
            continue
        if any(job.name == other.name for other in jobs):
            reader.problem(item, f'the job_name "{job.name}" is given twice')
        jobs.append(job)
    return tuple(jobs)


def read_target_file(text: str, file: str) -> tuple[TargetGroup, ...]:
    """The groups of a file of file_sd_configs, YAML or JSON.

    Raises: InputError with every problem.
    """
    reader = Reader(file)
    groups = _groups(reader, parse_yaml(text, file), "the list of target groups")
    if reader.problems:
        raise InputError(reader.problems)
    return groups


def _job(reader: Reader, node: YamlNode) -> ScrapeJob | None:
    what = "a job of collect.targets"
    entries = reader.mapping(node, what, _KEYS)
    if node.entries is None:
        return None
    name = reader.string(entries["job_name"], "job_name") if "job_name" in entries else None
    if not name:
        reader.problem(entries.get("job_name", node), f"{what} needs a job_name")
        return None
    found: dict[str, Any] = {"name": name}
    if "static_configs" in entries:
        found["static"] = _groups(reader, entries["static_configs"], "static_configs")
    if "file_sd_configs" in entries:
        found["files"] = _files(reader, entries["file_sd_configs"])
    for key, field_name in (("scrape_interval", "interval_ms"), ("scrape_timeout", "timeout_ms")):
        if key in entries:
            found[field_name] = reader.duration_ms(entries[key], key, minimum_ms=1)
    if "metrics_path" in entries and (path := reader.string(entries["metrics_path"], "metrics_path")):
        found["metrics_path"] = path
    if "scheme" in entries:
        found["scheme"] = reader.choice(entries["scheme"], "scheme", ("http", "https")) or "http"
    if "params" in entries:
        params = reader.mapping(entries["params"], "params")
        found["params"] = tuple((key, reader.strings(value, key)) for key, value in sorted(params.items()))
    for key in ("honor_labels", "honor_timestamps"):
        if key in entries:
            found[key] = bool(reader.boolean(entries[key], key))
    for key, field_name in (("relabel_configs", "relabel"), ("metric_relabel_configs", "metric_relabel")):
        if key in entries:
            found[field_name] = tuple(_rules(reader, entries[key], key))
    found["limits"] = _limits(reader, entries)
    if "body_size_limit" in entries:
        found["body_size_limit"] = _size(reader, entries["body_size_limit"])
    found["http"] = _http(reader, node, _HTTP_KEYS & entries.keys())
    job = ScrapeJob(**found)
    _check_timing(reader, entries, job)
    return job


def _check_timing(reader: Reader, entries: dict[str, YamlNode], job: ScrapeJob) -> None:
    if job.timeout_ms is not None and job.interval_ms is not None and job.timeout_ms > job.interval_ms:
        reader.problem(entries["scrape_timeout"], "scrape_timeout must not be longer than scrape_interval")


def check_timing(
    reader: Reader, node: YamlNode, jobs: Collection[ScrapeJob], global_interval_ms: int
) -> None:
    """A timeout longer than the interval that `global` gives is a problem too."""
    for job in jobs:
        interval_ms, timeout_ms = job.timing(global_interval_ms)
        if job.interval_ms is None and timeout_ms > interval_ms:
            reader.problem(node, f'scrape_timeout of job "{job.name}" is longer than global.scrape_interval')


def _groups(reader: Reader, node: YamlNode, what: str) -> tuple[TargetGroup, ...]:
    found = []
    for item in reader.sequence(node, what):
        entries = reader.mapping(item, what, ("targets", "labels"))
        targets = []
        for one in reader.sequence(entries["targets"], "targets") if "targets" in entries else ():
            address = reader.string(one, "a target")
            if address is not None and (not address or "/" in address):
                reader.problem(one, f'target "{address}" must be HOST:PORT without scheme or path')
            elif address is not None:
                targets.append(address)
        labels = {}
        if "labels" in entries:
            for name, value in reader.mapping(entries["labels"], "labels").items():
                if _LABEL.fullmatch(name) is None:
                    reader.problem(value, f'"{name}" is not a label name')
                labels[name] = reader.string(value, f'"{name}" in labels') or ""
        found.append(TargetGroup(tuple(targets), tuple(sorted(labels.items()))))
    return tuple(found)


def _files(reader: Reader, node: YamlNode) -> tuple[str, ...]:
    found: list[str] = []
    for item in reader.sequence(node, "file_sd_configs"):
        entries = reader.mapping(item, "file_sd_configs", ("files", "refresh_interval"))
        if "refresh_interval" in entries:
            reader.duration_ms(entries["refresh_interval"], "refresh_interval", minimum_ms=1)
        if "files" not in entries:
            reader.problem(item, "file_sd_configs needs files")
            continue
        for one in reader.sequence(entries["files"], "files"):
            name = reader.string(one, "a file name") or ""
            folder, _, last = name.rpartition("/")
            if not last.endswith((".json", ".yml", ".yaml")) or any(sign in folder for sign in "*?["):
                reader.problem(one, f'"{name}" must end in .json, .yml or .yaml; * only in the last part')
            else:
                found.append(name)
    return tuple(found)


def _rules(reader: Reader, node: YamlNode, what: str) -> list[RelabelRule]:
    found = []
    for item in reader.sequence(node, what):
        entries = reader.mapping(item, what, _RELABEL_KEYS)
        values: dict[str, Any] = {}
        for key in ("separator", "regex", "target_label", "replacement"):
            if key in entries:
                values[key] = reader.string(entries[key], key) or ""
        if "source_labels" in entries:
            values["source_labels"] = reader.strings(entries["source_labels"], "source_labels")
        if "modulus" in entries:
            values["modulus"] = reader.integer(entries["modulus"], "modulus", minimum=0) or 0
        if "action" in entries:
            text = (reader.string(entries["action"], "action") or "").lower()
            actions = {action.value: action for action in RelabelAction}
            if text not in actions:
                reader.problem(
                    entries["action"], f'"{text}" is not an action of {what}', ", ".join(sorted(actions))
                )
                continue
            values["action"] = actions[text]
        rule = RelabelRule(**values)
        fault = fault_of(rule, tuple(entries))
        if fault:
            reader.problem(item, f"{what}: {fault}")
        else:
            found.append(rule)
    return found


def _limits(reader: Reader, entries: dict[str, YamlNode]) -> Limits:
    values = [DEFAULT_SAMPLE_LIMIT, 0, 0, 0]
    for place, key in enumerate(_LIMIT_KEYS):
        if key in entries:
            values[place] = reader.integer(entries[key], key, minimum=0) or 0
    return Limits(*values)


def _size(reader: Reader, node: YamlNode) -> int:
    text = reader.string(node, "body_size_limit") or ""
    found = _SIZE.fullmatch(text)
    if found is None:
        reader.problem(node, f'body_size_limit: "{text}" is not a size', "a number of bytes, 10MB, 64MiB")
        return DEFAULT_BODY_LIMIT
    return int(found[1]) * _UNITS[found[2] or ""]


def _http(reader: Reader, node: YamlNode, keys: Collection[str]) -> HttpClientConfig:
    entries, places = node.entries or {}, node.keys or {}
    inner = replace(
        node, entries={key: entries[key] for key in keys}, keys={key: places[key] for key in keys}
    )
    return read_http_client(reader, inner, "a job of collect.targets")
