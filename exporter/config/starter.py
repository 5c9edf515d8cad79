"""The configuration that `quantum-exporter init` writes: every option, its default and what it means.

Made from the schema, so that it cannot fall behind it. What is commented out with a single `#` is an option
at its default, or an example: without the sign it is valid where it stands.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from exporter.config.reference import option_rows
from exporter.providers import builtin_providers

_WIDTH = 100
_LIVE = {
    "database.url": "${DATABASE_URL:-}",
    "dashboard_api.cron_secret": "${CRON_SECRET:-}",
}
_BY_HAND = ("collect.sql", "collect.targets", "collect.providers")
_HEAD = """\
## Configuration of quantum-exporter. Lines that begin with # show a default or an example.
##   check   quantum-exporter check config config.yml
##   start   quantum-exporter run --config.file config.yml
##   reload  kill -HUP, or POST /-/reload: what is refused changes nothing
## ${VAR} comes from the environment, ${VAR:-default} where it may be absent. Durations: 30s, 5m, 1h30m, 7d.
"""
_COLLECT = """\
  ## files of SQL collectors, relative to this file; without the key the platform's own queries run
  #sql: ["sql/*.yml"]
  ## other exporters, with the keys of Prometheus' scrape_configs
  #targets:
  #  - job_name: node
  #    static_configs: [{targets: ["127.0.0.1:9100"]}]
"""
_TAIL = """\
## rule files, relative to this file; without the key the shipped rules are judged
rule_files: ["rules/*.yml"]

## who is told: as Alertmanager's routes and receivers. `cooldown` is the least time between two firing
## notifications of one alert instance; the rules have their own, a route's is a floor.
route:
  receiver: log
  #routes:
  #  - {matchers: ['severity="critical"'], receiver: ops, continue: true}
  #  - {matchers: ['severity=~"warning|info"'], receiver: chat, cooldown: 4h}
receivers:
  - {name: log}
  #- {name: ops, webhook_configs: [{url: "http://127.0.0.1:9099/hook", send_resolved: true}]}
  ## Slack, Telegram, e-mail, SMS and a hundred more, by the URLs of apprise
  #- {name: chat, apprise_configs: [{urls: ["${ALERT_URLS:-json://127.0.0.1:9099/chat}"]}]}
#alerting:
#  alertmanagers: [{static_configs: [{targets: ["127.0.0.1:9093"]}]}]
"""


def starter_config() -> str:
    """The text of a commented starter configuration; valid as it is, and without its single `#` signs."""
    sections: dict[str, list[str]] = {}
    for key, default, meaning in option_rows():
        section, _, name = key.rpartition(".")
        if key in _BY_HAND or section.startswith("collect.providers"):
            continue
        lines = sections.setdefault(section, [f"{section}:"])
        lines += (f"  ## {line}" for line in textwrap.wrap(meaning, _WIDTH))
        lines.append(f"  {name}: {_LIVE[key]}" if key in _LIVE else f"  #{name}: {_value(default)}")
        if name in ("system", "postgres"):
            lines[-1] += "  # false turns it off"
    sections["collect"] += [*_COLLECT.splitlines(), *_providers()]
    blocks = ["\n".join(lines) + "\n" for lines in sections.values()]
    return "\n".join([_HEAD, *blocks, _TAIL])


def _value(shown: str) -> str:
    """A default as YAML, from how the option table shows it."""
    return {"none": "null", "`true`": "{}"}.get(shown, shown.strip("`"))


def _providers() -> Iterator[str]:
    yield "  ## upstream APIs; one that needs a key is off without it"
    yield "  providers:"
    for name, spec in builtin_providers().items():
        variable = spec.auth.env
        key = f', api_key: "${{{variable}:-}}"' if variable else ""
        yield f"    {name}: {{enabled: true{key}}}"
