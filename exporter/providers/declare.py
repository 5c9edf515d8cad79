"""Declarations of providers: YAML in, ProviderSpec out, every fault with its line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from exporter.config.positions import Reader as YamlReader
from exporter.config.positions import YamlNode, parse_yaml
from exporter.errors import ConfigError
from exporter.providers.failures import classify_status
from exporter.providers.paths import SchemaError, find, number, optional_number, parse_path
from exporter.providers.results import Declared, Quote, Quotes, Result
from exporter.providers.spec import (
    POLICIES,
    WINDOWS_S,
    AuthSpec,
    BatchSpec,
    CachePolicy,
    Classifier,
    DataKind,
    Endpoint,
    HedgeSpec,
    LimitHeaders,
    LimitSpec,
    MetricSpec,
    PlanSpec,
    ProviderSpec,
    Reader,
)

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?\Z")
PROVIDER_KEYS = (
    "base_url", "auth", "limits", "headers", "endpoints", "assets", "plans", "interval", "timeout",
)  # fmt: skip
ENDPOINT_KEYS = (
    "path", "params", "base_url", "method", "data", "ttl", "poll", "key_info", "needs_key", "batch",
    "quote", "metrics", "reader", "hedge_after",
)  # fmt: skip


def read_declaration(
    name: str,
    text: str,
    *,
    readers: Mapping[str, Reader] | None = None,
    classify: Classifier = classify_status,
    file: str = "",
) -> ProviderSpec:
    """The provider that a YAML text declares; `readers` are what `reader:` may name.

    Raises: ConfigError with all problems.
    """
    reader = YamlReader(file or name)
    spec = read_provider(reader, name, parse_yaml(text, file or name), readers=readers, classify=classify)
    if reader.problems:
        raise ConfigError(reader.problems)
    return spec


def read_provider(
    reader: YamlReader,
    name: str,
    node: YamlNode,
    *,
    readers: Mapping[str, Reader] | None = None,
    classify: Classifier = classify_status,
    extra_keys: tuple[str, ...] = (),
) -> ProviderSpec:
    """As `read_declaration`, from a node of a larger file; faults go to `reader`."""
    entries = reader.mapping(node, f'provider "{name}"', PROVIDER_KEYS + extra_keys)
    base_url = _url(reader, entries["base_url"], "base_url") if "base_url" in entries else ""
    if "base_url" not in entries:
        reader.problem(node, f'provider "{name}" needs a base_url')
    if "endpoints" not in entries:
        reader.problem(node, f'provider "{name}" needs endpoints')
    assets = reader.string_map(entries["assets"], "assets") if "assets" in entries else {}
    ids = {asset_id: symbol for symbol, asset_id in assets.items()}
    endpoints = _EndpointReader(reader, readers or {}, ids)
    interval = (
        reader.duration_ms(entries["interval"], "interval", minimum_ms=1000)
        if "interval" in entries
        else None
    )
    timeout = (
        reader.duration_ms(entries["timeout"], "timeout", minimum_ms=1) if "timeout" in entries else None
    )
    return ProviderSpec(
        name=name,
        base_url=base_url,
        auth=_auth(reader, entries["auth"]) if "auth" in entries else AuthSpec(),
        limits=read_limits(reader, entries["limits"]) if "limits" in entries else (),
        endpoints=endpoints.read(entries["endpoints"]) if "endpoints" in entries else {},
        assets=assets,
        headers=_headers(reader, entries["headers"]) if "headers" in entries else None,
        plans=_plans(reader, entries["plans"]) if "plans" in entries else {},
        interval_s=(interval or 30_000) / 1000,
        timeout_s=(timeout or 15_000) / 1000,
        classify=classify,
    )


def read_limits(reader: YamlReader, node: YamlNode) -> tuple[LimitSpec, ...]:
    """Limits by window: a number (a ceiling), or {ceiling, safe, plan, keyed_only}."""
    limits = []
    for window, value in reader.mapping(node, "limits", WINDOWS_S).items():
        if value.entries is None:
            count = reader.integer(value, f"limit of a {window}", minimum=1)
            limits.append(LimitSpec(window, count))
            continue
        entries = reader.mapping(value, f"limit of a {window}", ("ceiling", "safe", "plan", "keyed_only"))
        ceiling = reader.integer(entries["ceiling"], "ceiling", minimum=1) if "ceiling" in entries else None
        safe = reader.integer(entries["safe"], "safe", minimum=1) if "safe" in entries else None
        if ceiling is None and safe is None:
            reader.problem(value, f"limit of a {window} needs a ceiling or a safe value")
        plan = "plan" in entries and reader.boolean(entries["plan"], "plan") is True
        keyed = "keyed_only" in entries and reader.boolean(entries["keyed_only"], "keyed_only") is True
        limits.append(LimitSpec(window, ceiling, safe, plan, keyed_only=keyed))
    return tuple(sorted(limits, key=lambda limit: limit.period_s))


def override_limits(limits: tuple[LimitSpec, ...], given: Mapping[str, int]) -> tuple[LimitSpec, ...]:
    """Limits with what the configuration says; a window that was not limited becomes so."""
    merged = [replace(limit, configured=given.get(limit.window)) for limit in limits]
    known = {limit.window for limit in limits}
    merged += [
        LimitSpec(window, None, configured=count) for window, count in given.items() if window not in known
    ]
    return tuple(sorted(merged, key=lambda limit: limit.period_s))


@dataclass(frozen=True, slots=True)
class QuotePaths:
    """Reads quotes by paths in which `{id}` stands for the asked id; `times` is seconds or milliseconds."""

    price: str
    market_cap: str
    volume_24h: str
    updated: str
    scale_ms: float
    param: str
    symbols: Mapping[str, str]

    def __call__(self, data: object, params: Mapping[str, str]) -> Result:
        """Quotes of the asked ids.

        Raises: SchemaError where no asked id is there, or a field is.
        """
        asked = params.get(self.param, "").split(",") if self.param else [""]
        found: dict[str, Quote] = {}
        missing: SchemaError | None = None
        for asset_id in asked:
            price_path = parse_path(self.price.replace("{id}", asset_id))
            if "{id}" in self.price:
                try:
                    find(data, price_path[:1])
                except SchemaError as drift:
                    missing = drift  # an unknown id is simply absent
                    continue
            updated = self._optional(data, self.updated, asset_id)
            found[asset_id] = Quote(
                symbol=self.symbols.get(asset_id, asset_id or "BTC"),
                price_usd=number(data, price_path),
                market_cap_usd=self._optional(data, self.market_cap, asset_id),
                volume_24h_usd=self._optional(data, self.volume_24h, asset_id),
                updated_ms=None if updated is None else round(updated * self.scale_ms),
            )
        if not found:
            raise missing or SchemaError(self.price, "is missing")
        return Quotes(found)

    def _optional(self, data: object, path: str, asset_id: str) -> float | None:
        return optional_number(data, parse_path(path.replace("{id}", asset_id))) if path else None


@dataclass(frozen=True, slots=True)
class MetricPaths:
    """Reads declared metrics; every declared field must be there."""

    metrics: tuple[MetricSpec, ...]

    def __call__(self, data: object, params: Mapping[str, str]) -> Result:
        """The values by metric name.

        Raises: SchemaError for a field that is missing or no number.
        """
        del params
        return Declared({spec.metric: number(data, spec.path) * spec.scale for spec in self.metrics})


class _EndpointReader:
    def __init__(self, reader: YamlReader, readers: Mapping[str, Reader], symbols: Mapping[str, str]) -> None:
        self._reader, self._readers, self._symbols = reader, readers, symbols

    def read(self, node: YamlNode) -> dict[str, Endpoint]:
        return {
            name: endpoint
            for name, value in self._reader.mapping(node, "endpoints").items()
            if (endpoint := self._endpoint(name, value)) is not None
        }

    def _endpoint(self, name: str, node: YamlNode) -> Endpoint | None:
        reader = self._reader
        entries = reader.mapping(node, f'endpoint "{name}"', ENDPOINT_KEYS)
        if "path" not in entries:
            reader.problem(node, f'endpoint "{name}" needs a path')
            return None
        path = reader.string(entries["path"], "path") or ""
        if not path.startswith("/") or "?" in path or "#" in path:
            reader.problem(entries["path"], "path must start with / and hold no parameters")
        words = [kind.value for kind in DataKind]
        data = reader.choice(entries["data"], "data", words) if "data" in entries else None
        kind = DataKind(data) if data in words else DataKind.NONE
        ttl_ms = reader.duration_ms(entries["ttl"], "ttl") if "ttl" in entries else None
        method = reader.choice(entries["method"], "method", ("GET", "POST")) if "method" in entries else None
        batch = self._batch(entries["batch"]) if "batch" in entries else None
        metrics = self._metrics(entries["metrics"]) if "metrics" in entries else ()
        return Endpoint(
            name=name,
            path=path,
            params=reader.string_map(entries["params"], "params") if "params" in entries else {},
            base_url=_url(reader, entries["base_url"], "base_url") if "base_url" in entries else "",
            method=method or "GET",
            kind=kind,
            hedge=read_hedge(reader, entries["hedge_after"]) if "hedge_after" in entries else None,
            policy=with_ttl(POLICIES[kind], None if ttl_ms is None else ttl_ms / 1000),
            poll="poll" in entries and reader.boolean(entries["poll"], "poll") is True,
            key_info="key_info" in entries and reader.boolean(entries["key_info"], "key_info") is True,
            needs_key="needs_key" in entries and reader.boolean(entries["needs_key"], "needs_key") is True,
            batch=batch,
            metrics=metrics,
            read=self._read_with(node, entries, metrics, batch),
        )

    def _read_with(
        self,
        node: YamlNode,
        entries: Mapping[str, YamlNode],
        metrics: tuple[MetricSpec, ...],
        batch: BatchSpec | None,
    ) -> Reader | None:
        given = [key for key in ("reader", "quote", "metrics") if key in entries]
        if len(given) > 1:
            self._reader.problem(
                node, f"an endpoint has one of reader, quote and metrics, not {' and '.join(given)}"
            )
        if "reader" in entries:
            name = self._reader.choice(entries["reader"], "reader", self._readers)
            return self._readers.get(name or "")
        if "quote" in entries:
            return self._quote(entries["quote"], batch)
        return MetricPaths(metrics) if metrics else None

    def _quote(self, node: YamlNode, batch: BatchSpec | None) -> QuotePaths:
        known = ("price", "market_cap", "volume_24h", "updated_s", "updated_ms")
        entries = self._reader.mapping(node, "quote", known)
        paths = {key: self._path(value, key) for key, value in entries.items()}
        if "price" not in entries:
            self._reader.problem(node, "quote needs the path of a price")
        return QuotePaths(
            price=paths.get("price", ""),
            market_cap=paths.get("market_cap", ""),
            volume_24h=paths.get("volume_24h", ""),
            updated=paths.get("updated_s") or paths.get("updated_ms", ""),
            scale_ms=1000.0 if paths.get("updated_s") else 1.0,
            param=batch.param if batch else "",
            symbols=self._symbols,
        )

    def _metrics(self, node: YamlNode) -> tuple[MetricSpec, ...]:
        found = []
        for item in self._reader.sequence(node, "metrics"):
            entries = self._reader.mapping(item, "metric", ("metric", "path", "help", "scale"))
            if "metric" not in entries or "path" not in entries:
                self._reader.problem(item, "a metric needs metric and path")
                continue
            name = self._reader.string(entries["metric"], "metric") or ""
            if not _METRIC_NAME.match(name):
                self._reader.problem(entries["metric"], f'"{name}" is not a metric name')
            text = self._reader.string(entries["help"], "help") if "help" in entries else None
            scale = self._reader.number(entries["scale"], "scale") if "scale" in entries else None
            path = self._path(entries["path"], "path")
            found.append(
                MetricSpec(name, path, text or f"{path} of the answer.", 1.0 if scale is None else scale)
            )
        return tuple(found)

    def _batch(self, node: YamlNode) -> BatchSpec:
        entries = self._reader.mapping(node, "batch", ("param", "max"))
        param = self._reader.string(entries["param"], "param") if "param" in entries else None
        if not param:
            self._reader.problem(node, "batch needs the param that takes the ids")
        most = self._reader.integer(entries["max"], "max", minimum=1) if "max" in entries else None
        return BatchSpec(param or "", most or 100)

    def _path(self, node: YamlNode, what: str) -> str:
        text = self._reader.string(node, what) or ""
        try:
            parse_path(text.replace("{id}", "id"))
        except ValueError as error:
            self._reader.problem(node, f"{what}: {error}", "keys and indexes such as data.items[0].price")
        return text


def read_hedge(reader: YamlReader, node: YamlNode) -> HedgeSpec | None:
    """`hedge_after`: `p99` or a duration; None where it is neither."""
    if (node.text or "").strip() == "p99":
        return HedgeSpec()
    after_ms = reader.duration_ms(node, "hedge_after (p99 or a duration)", minimum_ms=1)
    return None if after_ms is None else HedgeSpec(after_ms / 1000)


def with_ttl(policy: CachePolicy, ttl_s: float | None) -> CachePolicy:
    """A policy with another fresh time; one that keeps nothing stays without stale answers at 0."""
    return policy if ttl_s is None else replace(policy, ttl_s=ttl_s)


def _url(reader: YamlReader, node: YamlNode, what: str) -> str:
    text = reader.string(node, what) or ""
    if not _URL.match(text):
        reader.problem(
            node,
            f'{what} must not be "{text}"',
            "http://host/path or https://host/path, no parameters, no login",
        )
    return text.rstrip("/")


def _auth(reader: YamlReader, node: YamlNode) -> AuthSpec:
    entries = reader.mapping(node, "auth", ("header", "prefix", "required", "env"))
    header = reader.string(entries["header"], "header") if "header" in entries else None
    if not header:
        reader.problem(node, "auth needs a header")
    return AuthSpec(
        header=header or "",
        prefix=(reader.string(entries["prefix"], "prefix") or "") if "prefix" in entries else "",
        required="required" in entries and reader.boolean(entries["required"], "required") is True,
        env=(reader.string(entries["env"], "env") or "") if "env" in entries else "",
    )


def _headers(reader: YamlReader, node: YamlNode) -> LimitHeaders:
    entries = reader.mapping(node, "headers", ("window", "limit", "remaining", "reset", "reset_waits"))
    names = {
        key: (reader.string(entries[key], key) or "").lower() if key in entries else ""
        for key in ("limit", "remaining", "reset")
    }
    window = reader.choice(entries["window"], "window", WINDOWS_S) if "window" in entries else "minute"
    waits = "reset_waits" not in entries or reader.boolean(entries["reset_waits"], "reset_waits") is True
    return LimitHeaders(window or "minute", names["limit"], names["remaining"], names["reset"], waits)


def _plans(reader: YamlReader, node: YamlNode) -> dict[str, PlanSpec]:
    plans = {}
    for name, value in reader.mapping(node, "plans").items():
        entries = reader.mapping(value, f'plan "{name}"', ("base_url", "header"))
        if "base_url" not in entries or "header" not in entries:
            reader.problem(value, f'plan "{name}" needs base_url and header')
            continue
        base_url = _url(reader, entries["base_url"], "base_url")
        plans[name] = PlanSpec(base_url, reader.string(entries["header"], "header") or "")
    return plans
