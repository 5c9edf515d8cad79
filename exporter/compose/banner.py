"""The first lines on the terminal: where things are, what runs, what is off and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter import __version__
from exporter.config.providers import ProviderConfig
from exporter.config.schema import Config
from exporter.rules.model import RuleGroup


def banner_lines(
    config: Config,
    groups: Sequence[RuleGroup],
    providers: Mapping[str, ProviderConfig],
    *,
    base_url: str,
    database_url: str,
    replica: str,
    simulator_url: str,
) -> list[str]:
    """The lines; `simulator_url` is empty where nothing is simulated, `replica` says who notifies."""
    rules = sum(len(group.rules) for group in groups)
    kind = "database.url" if config.database.url else f"embedded Postgres, {config.storage.data_dir}"
    on = [name for name, provider in providers.items() if provider.enabled]
    lines = [
        ("metrics", f"{base_url}/metrics"),
        ("API", f"{base_url}/api/v1 (Prometheus' HTTP API), {base_url}/api/quantum/monitoring-dashboard"),
        ("database", f"{database_url} ({kind})"),
        *((("replica", replica),) if config.database.url else ()),  # an embedded one has no replicas
        ("rules", f"{rules} in {len(groups)} groups, {len(config.rule_files)} files"),
        ("providers", ", ".join(on) or "none"),
    ]
    lines += [
        ("off", f"{name}: {provider.off_reason}")
        for name, provider in providers.items()
        if not provider.enabled
    ]
    if not config.dashboard_api.cron_secret:
        lines.append(("off", "cron endpoint: no secret (CRON_SECRET)"))
    if simulator_url:
        lines.append(("simulator", f"{simulator_url} (faults: POST /_control/faults)"))
    return [f"quantum-exporter {__version__} is ready", *(f"  {name:<10} {text}" for name, text in lines)]
