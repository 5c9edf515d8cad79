"""`collect.providers`: which upstream APIs are polled, with which key, limits and interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from exporter.config.positions import Reader, YamlNode
from exporter.providers import builtin_providers
from exporter.providers.declare import override_limits, read_hedge, read_provider
from exporter.providers.spec import WINDOWS_S, Endpoint, HedgeSpec, ProviderSpec

_SETTINGS = ("enabled", "api_key", "plan")
_CALLS = ("smoothing", "hedge_after")
BUILTIN_KEYS = (*_SETTINGS, "base_url", "interval", "timeout", "limits", "smoothing", "hedge_after")
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


def _option(default: Any, help_text: str, unit: str = "") -> Any:
    return field(default=default, metadata={"help": help_text, "unit": unit})


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One provider as configured: its declaration with the configuration merged in, and its key.

    `enabled` is False where it is switched off or its key is missing; `off_reason` then says why.
    """

    spec: ProviderSpec
    enabled: bool = _option(True, "whether it is polled; one that needs a key is off without it")
    api_key: str = field(
        default="", repr=False, metadata={"help": "the key; never shown, logged or measured", "unit": ""}
    )
    interval_ms: int = _option(30_000, "least time between two polls of one endpoint", "duration")
    timeout_ms: int = _option(15_000, "longest time of one call", "duration")
    smoothing: int = _option(0, "calls that may start together; 0 for no smoothing within the limit", "calls")
    hedge: HedgeSpec | None = field(
        default=None,
        metadata={"help": "p99 or a duration: when a second call is made beside a slow one", "unit": ""},
    )
    off_reason: str = ""

    @property
    def name(self) -> str:
        """The key under `collect.providers`, and the `provider` label."""
        return self.spec.name


def default_providers(environ: Mapping[str, str] = _NO_ENVIRONMENT) -> Mapping[str, ProviderConfig]:
    """The seven providers without any configuration; keys come from their usual variables."""
    return {name: _settled(spec, None, _key_of(spec, environ)) for name, spec in builtin_providers().items()}


def read_providers(
    reader: Reader, node: YamlNode, environ: Mapping[str, str] = _NO_ENVIRONMENT
) -> Mapping[str, ProviderConfig]:
    """`collect.providers`: settings of the seven, and declarations of any other API.

    A provider of the seven that is not mentioned keeps its defaults. Where `api_key` is not given the key
    comes from the provider's usual variable in `environ`. Faults go to `reader`.
    """
    builtin = builtin_providers()
    found = dict(default_providers(environ))
    for name, value in reader.mapping(node, "providers").items():
        if name in builtin:
            found[name] = _read_builtin(reader, builtin[name], value, environ)
        else:
            found[name] = _read_declared(reader, name, value)
    return found


def simulated(providers: Mapping[str, ProviderConfig], base_url: str) -> Mapping[str, ProviderConfig]:
    """The same providers against the simulator: a path prefix as host, a made-up key, all seven on."""
    builtin = builtin_providers()
    found = {}
    for name, config in providers.items():
        if name not in builtin:
            found[name] = config
            continue
        switched_off = not config.enabled and config.off_reason == _SWITCHED_OFF
        root = f"{base_url.rstrip('/')}/{name}"
        spec = replace(config.spec, base_url=root, plans={}, endpoints=_without_hosts(config.spec.endpoints))
        found[name] = replace(
            config,
            spec=spec,
            api_key="simulated" if spec.auth.header else "",
            enabled=not switched_off,
            off_reason=config.off_reason if switched_off else "",
        )
    return found


_SWITCHED_OFF = "switched off in the configuration"


def _read_builtin(
    reader: Reader, spec: ProviderSpec, node: YamlNode, environ: Mapping[str, str]
) -> ProviderConfig:
    entries = reader.mapping(node, f'provider "{spec.name}"', BUILTIN_KEYS)
    if "limits" in entries:
        spec = replace(spec, limits=override_limits(spec.limits, _read_limits(reader, entries["limits"])))
    if "plan" in entries:
        if not spec.plans:
            reader.problem(entries["plan"], f'provider "{spec.name}" has no plans')
        plan = reader.choice(entries["plan"], "plan", ("", *spec.plans)) if spec.plans else None
        if plan:
            chosen = spec.plans.get(plan)
            if chosen is not None:
                spec = replace(
                    spec, base_url=chosen.base_url, auth=replace(spec.auth, header=chosen.auth_header)
                )
    if "base_url" in entries:
        text = (reader.string(entries["base_url"], "base_url") or "").rstrip("/")
        if not text.startswith(("http://", "https://")):
            reader.problem(entries["base_url"], "base_url must start with http:// or https://")
        spec = replace(spec, base_url=text, endpoints=_without_hosts(spec.endpoints))
    return _read_settings(reader, spec, entries, environ)


def _read_declared(reader: Reader, name: str, node: YamlNode) -> ProviderConfig:
    spec = read_provider(reader, name, node, extra_keys=(*_SETTINGS, *_CALLS))
    entries = {
        key: value
        for key, value in (node.entries or {}).items()
        if key in (*_SETTINGS, "interval", "timeout", *_CALLS)
    }
    return _read_settings(reader, spec, entries, _NO_ENVIRONMENT)


def _read_settings(
    reader: Reader, spec: ProviderSpec, entries: Mapping[str, YamlNode], environ: Mapping[str, str]
) -> ProviderConfig:
    enabled = reader.boolean(entries["enabled"], "enabled") if "enabled" in entries else None
    key = reader.string(entries["api_key"], "api_key") if "api_key" in entries else None
    if key and any(ord(character) < 32 or ord(character) > 126 for character in key):
        reader.problem(entries["api_key"], "api_key holds a character that no header may hold")
        key = ""
    if key and not spec.auth.header:
        reader.problem(
            entries["api_key"], f'provider "{spec.name}" takes no key (declare auth for one that does)'
        )
    config = _settled(spec, enabled, key.strip() if key is not None else _key_of(spec, environ))
    if "interval" in entries:
        interval = reader.duration_ms(entries["interval"], "interval", minimum_ms=1000)
        config = replace(config, interval_ms=interval or config.interval_ms)
    if "timeout" in entries:
        timeout = reader.duration_ms(entries["timeout"], "timeout", minimum_ms=1)
        config = replace(config, timeout_ms=timeout or config.timeout_ms)
    if "smoothing" in entries:
        smoothing = reader.integer(entries["smoothing"], "smoothing", minimum=0)
        config = replace(config, smoothing=smoothing or 0)
    if "hedge_after" in entries:
        config = replace(config, hedge=read_hedge(reader, entries["hedge_after"]))
    return config


def _settled(spec: ProviderSpec, enabled: bool | None, key: str) -> ProviderConfig:
    reason = ""
    if enabled is False:
        reason = _SWITCHED_OFF
    elif spec.auth.required and not key:
        reason = f"no API key ({spec.auth.env})" if spec.auth.env else "no API key (api_key)"
    if not key:
        spec = replace(spec, limits=tuple(limit for limit in spec.limits if not limit.keyed_only))
    return ProviderConfig(
        spec=spec,
        enabled=not reason,
        api_key=key,
        interval_ms=round(spec.interval_s * 1000),
        timeout_ms=round(spec.timeout_s * 1000),
        off_reason=reason,
    )


def _read_limits(reader: Reader, node: YamlNode) -> dict[str, int]:
    found = {}
    for window, value in reader.mapping(node, "limits", WINDOWS_S).items():
        count = reader.integer(value, f"limit of a {window}", minimum=1)
        if count is not None:
            found[window] = count
    return found


def _key_of(spec: ProviderSpec, environ: Mapping[str, str]) -> str:
    return environ.get(spec.auth.env, "").strip() if spec.auth.env else ""


def _without_hosts(endpoints: Mapping[str, Endpoint]) -> Mapping[str, Endpoint]:
    return {name: replace(endpoint, base_url="") for name, endpoint in endpoints.items()}
