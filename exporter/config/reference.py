"""The option table of docs/configuration.md, from the schema: key, default, unit, meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.config.providers import ProviderConfig
from exporter.config.schema import (
    CollectConfig,
    DashboardApiConfig,
    DatabaseConfig,
    GlobalConfig,
    HeartbeatConfig,
    QueryConfig,
    ReplicasConfig,
    StorageConfig,
)
from exporter.model.durations import format_duration

SECTIONS: tuple[tuple[str, type[Any]], ...] = (
    ("global", GlobalConfig),
    ("database", DatabaseConfig),
    ("storage", StorageConfig),
    ("query", QueryConfig),
    ("collect", CollectConfig),
    ("collect.providers.NAME", ProviderConfig),
    ("dashboard_api", DashboardApiConfig),
    ("heartbeat", HeartbeatConfig),
    ("replicas", ReplicasConfig),
)


def option_rows() -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of every option that the schema declares with a meaning."""
    for section, schema in SECTIONS:
        for field in dataclasses.fields(schema):
            if "help" not in field.metadata:
                continue
            is_duration = field.metadata["unit"] == "duration"
            key = field.name.removesuffix("_ms") if is_duration else field.name
            yield f"{section}.{key}", _shown(field.default, is_duration=is_duration), _meaning(field)


def option_table() -> str:
    """The rows as a Markdown table."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in option_rows()]
    return "\n".join(lines)


def _shown(default: Any, *, is_duration: bool) -> str:
    if default is dataclasses.MISSING:
        return "none"
    if is_duration:
        return f"`{format_duration(default)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return ", ".join(f"`{item}`" for item in default) or "none"
    if isinstance(default, (int, Path)):
        return f"`{default}`"
    return f"`{default}`" if default else "none"


def _meaning(field: dataclasses.Field[Any]) -> str:
    unit = field.metadata["unit"]
    suffix = f" ({unit})" if unit not in ("", "duration") else ""
    return f"{field.metadata['help']}{suffix}".replace("|", "\\|")
