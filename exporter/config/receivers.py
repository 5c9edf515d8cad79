"""Where notifications go: receivers, the route tree, inhibition, outside Alertmanagers. Pure.

Names and keys are Alertmanager's; a key that this program does not support is a problem with its place.
`read_notification` reads the top-level keys that belong together and then checks their cross-references.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from exporter.config.http_client import HttpClientConfig, read_http_client
from exporter.config.matchers import ALLOWED as MATCHERS_ALLOWED
from exporter.config.matchers import parse_matchers
from exporter.config.positions import Reader, YamlNode
from exporter.config.time_intervals import TimeInterval, read_time_intervals
from exporter.model.labels import Matcher, MatchOp

LOG_RECEIVER = "log"
ALL_LABELS = "..."  # in group_by: each alert instance is a group of its own
DEFAULT_TIMEOUT_MS = 10_000
MAX_ALERTS_PER_NOTIFICATION = 200

ROUTE_KEYS = (
    "receiver", "group_by", "continue", "match", "match_re", "matchers", "group_wait", "group_interval",
    "repeat_interval", "cooldown", "mute_time_intervals", "active_time_intervals", "flapping", "routes",
)  # fmt: skip
RECEIVER_KEYS = ("name", "log_configs", "webhook_configs", "apprise_configs", "fallback", "fallback_after")
WEBHOOK_KEYS = ("url", "url_file", "send_resolved", "http_config", "max_alerts", "timeout", "title", "text")
APPRISE_KEYS = ("urls", "urls_file", "send_resolved", "timeout", "title", "text", "format")
LOG_KEYS = ("send_resolved", "title", "text")
ALERTMANAGER_HTTP_KEYS = ("authorization", "basic_auth", "tls_config", "follow_redirects", "proxy_url")
INHIBIT_KEYS = (
    "target_match", "target_match_re", "target_matchers",
    "source_match", "source_match_re", "source_matchers", "equal", "name",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogConfig:
    """One line per alert in this program's log, at a level that follows the severity."""

    send_resolved: bool = True
    title: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Alertmanager's payload, version 4. `max_alerts` 0 sends all; `url_file` is read at each send."""

    url: str = field(default="", repr=False)
    url_file: str = ""
    send_resolved: bool = True
    http: HttpClientConfig = field(default_factory=HttpClientConfig)
    max_alerts: int = 0
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    title: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class AppriseConfig:
    """Anything that apprise speaks, by its URLs; `format` is text, markdown or html."""

    urls: tuple[str, ...] = field(default=(), repr=False)
    urls_file: str = ""
    send_resolved: bool = True
    timeout_ms: int = 30_000
    title: str = ""
    text: str = ""
    format: str = "text"


IntegrationConfig = LogConfig | WebhookConfig | AppriseConfig


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """A named destination of one or more integrations. After `fallback_after` failed tries of a notification
    the receiver named `fallback` gets it too, until one of the two takes it."""

    name: str
    integrations: tuple[IntegrationConfig, ...] = ()
    fallback: str = ""
    fallback_after: int = 3


@dataclass(frozen=True, slots=True)
class FlappingConfig:
    """From `transitions` changes of state within `window_ms` on an instance is flapping; `hold` keeps its
    firing notifications back after the notice, until it is calm."""

    transitions: int = 20
    window_ms: int = 3_600_000
    hold: bool = False


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """A node of the route tree with everything inherited filled in. Durations in milliseconds.

    `cooldown_ms` is a floor under the cooldown of the rules (`repeat_interval` is another name for it).
    """

    receiver: str = LOG_RECEIVER
    matchers: tuple[Matcher, ...] = ()
    continue_: bool = False
    group_by: tuple[str, ...] = ()
    group_wait_ms: int = 0
    group_interval_ms: int = 0
    cooldown_ms: int = 0
    mute_time_intervals: tuple[str, ...] = ()
    active_time_intervals: tuple[str, ...] = ()
    flapping: FlappingConfig = field(default_factory=FlappingConfig)
    routes: tuple[RouteConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class InhibitRule:
    """Mutes alerts that match `target` while one that matches `source` and has equal `equal` labels fires."""

    target: tuple[Matcher, ...]
    source: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertmanagerConfig:
    """Alertmanagers that are told of every firing and resolved instance, as Prometheus tells them."""

    targets: tuple[str, ...]
    scheme: str = "http"
    path_prefix: str = ""
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    http: HttpClientConfig = field(default_factory=HttpClientConfig)

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URL of each target."""
        prefix = self.path_prefix.strip("/")
        return tuple(
            f"{self.scheme}://{target}" + (f"/{prefix}" if prefix else "") for target in self.targets
        )


@dataclass(frozen=True, slots=True)
class AlertingConfig:
    """`alerting`: Alertmanagers outside."""

    alertmanagers: tuple[AlertmanagerConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class NotificationConfig:
    """Routes, receivers, inhibition and time intervals. The default sends everything to the log."""

    route: RouteConfig = field(default_factory=RouteConfig)
    receivers: tuple[ReceiverConfig, ...] = (ReceiverConfig(LOG_RECEIVER, (LogConfig(),)),)
    inhibit_rules: tuple[InhibitRule, ...] = ()
    time_intervals: tuple[TimeInterval, ...] = ()

    def receiver(self, name: str) -> ReceiverConfig:
        """A receiver by name.

        Raises: KeyError for a name that is not configured.
        """
        for receiver in self.receivers:
            if receiver.name == name:
                return receiver
        raise KeyError(name)


def read_notification(reader: Reader, root: YamlNode, entries: Mapping[str, YamlNode]) -> NotificationConfig:
    """What the notification keys of a configuration say, cross-references checked.

    `entries` may hold route, receivers, inhibit_rules, time_intervals and mute_time_intervals; `root` is
    where a problem of the whole is reported.
    """
    intervals: tuple[TimeInterval, ...] = ()
    for key in ("time_intervals", "mute_time_intervals"):
        if key in entries:
            intervals += read_time_intervals(reader, entries[key], key)
    receivers = read_receivers(reader, entries["receivers"]) if "receivers" in entries else ()
    if not any(receiver.name == LOG_RECEIVER for receiver in receivers):
        receivers += (ReceiverConfig(LOG_RECEIVER, (LogConfig(),)),)
    route = read_route(reader, entries["route"]) if "route" in entries else RouteConfig()
    inhibit = read_inhibit_rules(reader, entries["inhibit_rules"]) if "inhibit_rules" in entries else ()
    config = NotificationConfig(route, receivers, inhibit, intervals)
    _check_references(reader, root, entries, config)
    return config


def read_receivers(reader: Reader, node: YamlNode) -> tuple[ReceiverConfig, ...]:
    """The receivers of a list; names are unique."""
    found: list[ReceiverConfig] = []
    for item in reader.sequence(node, "receivers"):
        receiver = _receiver(reader, item)
        if receiver is None:
            continue
        if any(other.name == receiver.name for other in found):
            reader.problem(item, f'receiver "{receiver.name}" is given twice')
        found.append(receiver)
    return tuple(found)


def _receiver(reader: Reader, node: YamlNode) -> ReceiverConfig | None:
    entries = reader.mapping(node, "a receiver", RECEIVER_KEYS)
    name = reader.string(entries["name"], "name") if "name" in entries else ""
    if not name:
        reader.problem(node, "a receiver needs a name")
        return None
    integrations: list[IntegrationConfig] = []
    for key, read in (("log_configs", _log), ("webhook_configs", _webhook), ("apprise_configs", _apprise)):
        if key in entries:
            found = (read(reader, item) for item in reader.sequence(entries[key], key))
            integrations.extend(one for one in found if one is not None)
    if not integrations and name == LOG_RECEIVER:
        integrations.append(LogConfig())
    receiver = ReceiverConfig(name, tuple(integrations))
    if "fallback" in entries:
        receiver = replace(receiver, fallback=reader.string(entries["fallback"], "fallback") or "")
    if "fallback_after" in entries:
        after = reader.integer(entries["fallback_after"], "fallback_after", minimum=1)
        receiver = replace(receiver, fallback_after=after or 3)
    return receiver


def _log(reader: Reader, node: YamlNode) -> LogConfig:
    entries = reader.mapping(node, "log_configs", LOG_KEYS)
    return LogConfig(_flag(reader, entries, "send_resolved", True), *_texts(reader, entries))


def _webhook(reader: Reader, node: YamlNode) -> WebhookConfig | None:
    entries = reader.mapping(node, "webhook_configs", WEBHOOK_KEYS)
    url = reader.string(entries["url"], "url") or "" if "url" in entries else ""
    url_file = reader.string(entries["url_file"], "url_file") or "" if "url_file" in entries else ""
    if bool(url) == bool(url_file):
        reader.problem(node, "webhook_configs needs exactly one of url and url_file")
        return None
    if url:
        _check_url(reader, entries["url"], url)
    title, text = _texts(reader, entries)
    return WebhookConfig(
        url=url,
        url_file=url_file,
        send_resolved=_flag(reader, entries, "send_resolved", True),
        http=read_http_client(reader, entries["http_config"], "http_config")
        if "http_config" in entries
        else HttpClientConfig(),
        max_alerts=(reader.integer(entries["max_alerts"], "max_alerts", minimum=0) or 0)
        if "max_alerts" in entries
        else 0,
        timeout_ms=_duration(reader, entries, "timeout", DEFAULT_TIMEOUT_MS) or DEFAULT_TIMEOUT_MS,
        title=title,
        text=text,
    )


def _apprise(reader: Reader, node: YamlNode) -> AppriseConfig | None:
    entries = reader.mapping(node, "apprise_configs", APPRISE_KEYS)
    urls = reader.strings(entries["urls"], "urls") if "urls" in entries else ()
    # a variable may hold several, as apprise itself takes them
    urls = tuple(part for url in urls for part in url.split())
    urls_file = reader.string(entries["urls_file"], "urls_file") or "" if "urls_file" in entries else ""
    if bool(urls) == bool(urls_file):
        reader.problem(node, "apprise_configs needs exactly one of urls and urls_file, not empty")
        return None
    for url in urls:
        if "://" not in url:
            reader.problem(
                entries["urls"],
                "an item of urls has no scheme",
                "apprise URLs such as mailto://..., slack://...",
            )
    title, text = _texts(reader, entries)
    kind = (
        reader.choice(entries["format"], "format", ("text", "markdown", "html"))
        if "format" in entries
        else "text"
    )
    return AppriseConfig(
        urls,
        urls_file,
        _flag(reader, entries, "send_resolved", True),
        _duration(reader, entries, "timeout", 30_000) or 30_000,
        title,
        text,
        kind or "text",
    )


def read_route(reader: Reader, node: YamlNode) -> RouteConfig:
    """The route tree; the root needs a receiver, matches everything and has no mute or active times."""
    entries = reader.mapping(node, "route", ROUTE_KEYS)
    for key in ("match", "match_re", "matchers", "continue", "mute_time_intervals", "active_time_intervals"):
        if key in entries:
            reader.problem(entries[key], f"the root route must not have {key}")
    if not (entries.get("receiver") and entries["receiver"].text):
        reader.problem(node, "the root route needs a receiver")
    return _route(reader, node, RouteConfig(), root=True)


def _route(reader: Reader, node: YamlNode, parent: RouteConfig, *, root: bool = False) -> RouteConfig:
    entries = reader.mapping(node, "a route", ROUTE_KEYS) if not root else dict(node.entries or {})
    if "cooldown" in entries and "repeat_interval" in entries:
        reader.problem(
            entries["cooldown"], "cooldown and repeat_interval are two names for one thing: give one"
        )
    receiver = reader.string(entries["receiver"], "receiver") if "receiver" in entries else ""
    group_by = reader.strings(entries["group_by"], "group_by") if "group_by" in entries else parent.group_by
    if ALL_LABELS in group_by and len(group_by) > 1:
        reader.problem(entries["group_by"], f"group_by cannot have {ALL_LABELS!r} among other labels")
    cooldown_key = "cooldown" if "cooldown" in entries else "repeat_interval"
    route = RouteConfig(
        receiver=receiver or parent.receiver,
        matchers=() if root else _matchers(reader, entries, ""),
        continue_=_flag(reader, entries, "continue", False),
        group_by=group_by,
        group_wait_ms=_duration(reader, entries, "group_wait", parent.group_wait_ms),
        group_interval_ms=_duration(reader, entries, "group_interval", parent.group_interval_ms),
        cooldown_ms=_duration(reader, entries, cooldown_key, parent.cooldown_ms),
        mute_time_intervals=_names(reader, entries, "mute_time_intervals"),
        active_time_intervals=_names(reader, entries, "active_time_intervals"),
        flapping=_flapping(reader, entries["flapping"], parent.flapping)
        if "flapping" in entries
        else parent.flapping,
    )
    children = reader.sequence(entries["routes"], "routes") if "routes" in entries else ()
    return replace(route, routes=tuple(_route(reader, child, route) for child in children))


def _flapping(reader: Reader, node: YamlNode, parent: FlappingConfig) -> FlappingConfig:
    entries = reader.mapping(node, "flapping", ("transitions", "window", "hold"))
    transitions = parent.transitions
    if "transitions" in entries:
        transitions = reader.integer(entries["transitions"], "transitions", minimum=2) or parent.transitions
    window = _duration(reader, entries, "window", parent.window_ms)
    return FlappingConfig(transitions, window, _flag(reader, entries, "hold", parent.hold))


def read_inhibit_rules(reader: Reader, node: YamlNode) -> tuple[InhibitRule, ...]:
    """The inhibition rules of a list."""
    found = []
    for item in reader.sequence(node, "inhibit_rules"):
        entries = reader.mapping(item, "an inhibition rule", INHIBIT_KEYS)
        equal = reader.strings(entries["equal"], "equal") if "equal" in entries else ()
        found.append(
            InhibitRule(_matchers(reader, entries, "target_"), _matchers(reader, entries, "source_"), equal)
        )
    return tuple(found)


def read_alerting(reader: Reader, node: YamlNode | None) -> AlertingConfig:
    """The section `alerting`, in Prometheus' format with static_configs."""
    if node is None:
        return AlertingConfig()
    entries = reader.mapping(node, "alerting", ("alertmanagers",))
    if "alertmanagers" not in entries:
        return AlertingConfig()
    items = reader.sequence(entries["alertmanagers"], "alertmanagers")
    return AlertingConfig(tuple(_alertmanager(reader, item) for item in items))


def _alertmanager(reader: Reader, node: YamlNode) -> AlertmanagerConfig:
    http_keys = ALERTMANAGER_HTTP_KEYS
    entries = reader.mapping(
        node,
        "an alertmanager",
        ("static_configs", "scheme", "path_prefix", "timeout", "api_version", *http_keys),
    )
    targets: list[str] = []
    for static in (
        reader.sequence(entries["static_configs"], "static_configs") if "static_configs" in entries else ()
    ):
        inner = reader.mapping(static, "static_configs", ("targets",))
        found = reader.strings(inner["targets"], "targets") if "targets" in inner else ()
        for target in found:
            if "/" in target or not target:
                reader.problem(
                    inner["targets"], f'target "{target}" must be HOST:PORT without scheme or path'
                )
        targets.extend(found)
    if not targets:
        reader.problem(node, "an alertmanager needs static_configs with targets")
    if "api_version" in entries:
        reader.choice(entries["api_version"], "api_version", ("v2",))
    http_entries = {key: entries[key] for key in http_keys if key in entries}
    http_node = replace(
        node, entries=http_entries, keys={key: (node.keys or {})[key] for key in http_entries}
    )
    scheme = reader.choice(entries["scheme"], "scheme", ("http", "https")) if "scheme" in entries else "http"
    return AlertmanagerConfig(
        targets=tuple(targets),
        scheme=scheme or "http",
        path_prefix=(reader.string(entries["path_prefix"], "path_prefix") or "")
        if "path_prefix" in entries
        else "",
        timeout_ms=_duration(reader, entries, "timeout", DEFAULT_TIMEOUT_MS),
        http=read_http_client(reader, http_node, "an alertmanager"),
    )


def _matchers(reader: Reader, entries: Mapping[str, YamlNode], prefix: str) -> tuple[Matcher, ...]:
    """Matchers from `matchers` (list) and the older `match` and `match_re` (mappings)."""
    found: list[Matcher] = []
    key = f"{prefix}matchers"
    if key in entries:
        for item in reader.sequence(entries[key], key):
            text = reader.string(item, f"each item of {key}")
            try:
                found.extend(parse_matchers(text or ""))
            except ValueError as error:
                reader.problem(item, str(error), MATCHERS_ALLOWED)
    for key, op in ((f"{prefix}match", MatchOp.EQUAL), (f"{prefix}match_re", MatchOp.REGEX)):
        if key not in entries:
            continue
        for name, value in reader.string_map(entries[key], key).items():
            try:
                found.append(Matcher(name, op, value))
            except ValueError as error:
                reader.problem(entries[key], f"{key}: {error}")
    return tuple(found)


def _check_references(
    reader: Reader, root: YamlNode, entries: Mapping[str, YamlNode], config: NotificationConfig
) -> None:
    known = [receiver.name for receiver in config.receivers]
    intervals = [interval.name for interval in config.time_intervals]

    def walk(route: RouteConfig, node: YamlNode) -> None:
        if route.receiver not in known:
            reader.problem(
                (node.entries or {}).get("receiver", node),
                f'undefined receiver "{route.receiver}"',
                ", ".join(known),
            )
        for key in ("mute_time_intervals", "active_time_intervals"):
            for name in getattr(route, key):
                if name not in intervals:
                    place = (node.entries or {}).get(key, node)
                    reader.problem(place, f'undefined time interval "{name}"', ", ".join(intervals))
        children = (node.entries or {}).get("routes")
        for child, child_node in zip(route.routes, children.items or () if children else (), strict=False):
            walk(child, child_node)

    walk(config.route, entries.get("route", root))
    for receiver in config.receivers:
        if receiver.fallback and (receiver.fallback not in known or receiver.fallback == receiver.name):
            reader.problem(
                entries.get("receivers", root),
                f'the fallback "{receiver.fallback}" of receiver "{receiver.name}" is not another receiver',
                ", ".join(name for name in known if name != receiver.name),
            )


def _check_url(reader: Reader, node: YamlNode, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        good = False
    if not good:
        reader.problem(node, "url is not an HTTP URL", "http://HOST/PATH or https://HOST/PATH")


def _texts(reader: Reader, entries: Mapping[str, YamlNode]) -> tuple[str, str]:
    title, text = (
        (reader.string(entries[key], key) or "") if key in entries else "" for key in ("title", "text")
    )
    return title, text


def _flag(reader: Reader, entries: Mapping[str, YamlNode], key: str, default: bool) -> bool:
    value = reader.boolean(entries[key], key) if key in entries else None
    return default if value is None else value


def _duration(reader: Reader, entries: Mapping[str, YamlNode], key: str, default: int) -> int:
    value = reader.duration_ms(entries[key], key) if key in entries else None
    return default if value is None else value


def _names(reader: Reader, entries: Mapping[str, YamlNode], key: str) -> tuple[str, ...]:
    return reader.strings(entries[key], key) if key in entries else ()
