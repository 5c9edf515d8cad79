"""An Alertmanager configuration out of our routes, receivers and cooldowns, as far as it can say them.

Alertmanager has no cooldown. `repeat_interval` covers one half of it: how often an alert that fires on is
sent again. The other half, that an alert which resolves and fires again is held back, has no counterpart, as
the head of the file says. Alerts of one cooldown share a route under each of our routes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.config.http_client import HttpClientConfig
from exporter.config.receivers import (
    AppriseConfig,
    InhibitRule,
    LogConfig,
    NotificationConfig,
    ReceiverConfig,
    RouteConfig,
    WebhookConfig,
)
from exporter.config.time_intervals import IntervalSpec, Span, TimeInterval
from exporter.model.durations import format_duration
from exporter.model.labels import Matcher
from exporter.rules.export import quoted
from exporter.rules.model import AlertingRule, RuleGroup

# Alertmanager forgets what it sent after five days; a longer interval would repeat early.
ONCE_MS = 432_000_000
_GROUP_INTERVAL_MS = 15_000
_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_HEAD = """\
# Written by quantum-exporter export prometheus-rules.
# A cooldown becomes the repeat_interval of a route: alerts that fire on are sent again that often. An alert
# that resolves and fires again within its cooldown is sent anew here, where quantum-exporter holds it back.
# A cooldown of 0s, once per episode, is a repeat_interval of 5d, after which Alertmanager forgets.
"""

_Terms = tuple[int, tuple[str, ...] | None]


def alertmanager_config(config: NotificationConfig, groups: Sequence[RuleGroup]) -> str:
    """The text of alertmanager.yml."""
    terms: dict[_Terms, list[str]] = {}
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, AlertingRule):
                names = terms.setdefault((rule.cooldown_ms, rule.cooldown_by), [])
                if rule.name not in names:
                    names.append(rule.name)
    lines = ["route:", *_indented(_route(config.route, terms, root=True), 2), "receivers:"]
    for receiver in config.receivers:
        lines.extend(_indented(_receiver(receiver), 2))
    if config.inhibit_rules:
        lines.append("inhibit_rules:")
        for inhibit in config.inhibit_rules:
            lines.extend(_indented(_item(_inhibit(inhibit)), 2))
    if config.time_intervals:
        lines.append("time_intervals:")
        for interval in config.time_intervals:
            lines.extend(_indented(_time_interval(interval), 2))
    return _HEAD + "\n".join(lines) + "\n"


def _indented(lines: Iterator[str] | Sequence[str], width: int) -> Iterator[str]:
    return (" " * width + line for line in lines)


def _item(lines: Iterator[str]) -> Iterator[str]:
    """Lines of a mapping as an item of a list; comments before the first key stay comments."""
    dash = "- "
    for line in lines:
        if dash == "- " and line.startswith("#"):
            yield line
            continue
        yield dash + line
        dash = "  "


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(quoted(text) for text in texts) + "]"


# -- routes -------------------------------------------------------------------------------------------


def _route(route: RouteConfig, terms: dict[_Terms, list[str]], *, root: bool = False) -> Iterator[str]:
    yield f"receiver: {quoted(route.receiver)}"
    if not root:
        yield from _matchers("matchers", route.matchers)
        if route.continue_:
            yield "continue: true"
    yield f"group_by: {_list(route.group_by or ('...',))}"
    yield f"group_wait: {format_duration(route.group_wait_ms)}"
    yield f"group_interval: {format_duration(route.group_interval_ms or _GROUP_INTERVAL_MS)}"
    splits = not any(child.continue_ for child in route.routes)
    shortest = min((cooldown_ms for cooldown_ms, _ in terms if cooldown_ms), default=0)
    own_ms = route.cooldown_ms if splits else max(route.cooldown_ms, shortest)
    yield f"repeat_interval: {format_duration(own_ms or ONCE_MS)}"
    if not root:
        yield from _times(route)
    wanted = [one for one in sorted(terms, key=_order) if splits and (one[0] or one[1] is not None)]
    if not splits:
        yield "# A route below goes on to the next one, so that alerts cannot be told apart by their cooldown"
        yield "# here: the shortest one stands for all."
    if route.routes or wanted:
        yield "routes:"
        for child in route.routes:
            yield from _indented(_item(_route(child, terms)), 2)
        for one in wanted:
            yield from _indented(_item(_cooldown_route(route, one, terms[one])), 2)


def _order(terms: _Terms) -> tuple[int, str]:
    return terms[0], str(terms[1])


def _cooldown_route(route: RouteConfig, terms: _Terms, names: Sequence[str]) -> Iterator[str]:
    cooldown_ms, shared_by = terms
    note = f"# cooldown {format_duration(cooldown_ms)}"
    if shared_by is not None:
        note += f", shared by alerts of equal {', '.join(shared_by) or 'name'}"
    if cooldown_ms < route.cooldown_ms:
        note += f"; the route allows no shorter one than {format_duration(route.cooldown_ms)}"
    yield note
    yield "matchers:"
    pattern = "|".join(names)  # alert names are used as they are: most are plain words
    yield f"  - {quoted(f'alertname=~{quoted(_regex(pattern, names))}')}"
    if not route.group_by and shared_by is not None:
        yield f"group_by: {_list(('alertname', *shared_by))}"
    yield f"repeat_interval: {format_duration(max(cooldown_ms, route.cooldown_ms) or ONCE_MS)}"
    yield from _times(route)


def _regex(pattern: str, names: Sequence[str]) -> str:
    if all(name.replace("_", "").replace(" ", "").replace("-", "").isalnum() for name in names):
        return pattern
    special = set("\\.+*?()|[]{}^$")
    return "|".join("".join(f"\\{char}" if char in special else char for char in name) for name in names)


def _times(route: RouteConfig) -> Iterator[str]:
    if route.mute_time_intervals:
        yield f"mute_time_intervals: {_list(route.mute_time_intervals)}"
    if route.active_time_intervals:
        yield f"active_time_intervals: {_list(route.active_time_intervals)}"


def _matchers(key: str, matchers: Sequence[Matcher]) -> Iterator[str]:
    if matchers:
        yield f"{key}:"
        for matcher in matchers:
            yield f"  - {quoted(str(matcher))}"


# -- receivers ----------------------------------------------------------------------------------------


def _receiver(receiver: ReceiverConfig) -> Iterator[str]:
    webhooks = [one for one in receiver.integrations if isinstance(one, WebhookConfig)]
    for one in receiver.integrations:
        if isinstance(one, LogConfig):
            yield f"# {receiver.name}: its log_configs have no counterpart, nothing is written to a log"
        elif isinstance(one, AppriseConfig):
            yield f"# {receiver.name}: its apprise_configs have no counterpart; put a receiver of"
            yield "# Alertmanager's own here, or a webhook of apprise-api"
        elif one.title or one.text:
            yield f"# {receiver.name}: title and text of a webhook are made by its reader"
    if receiver.fallback:
        yield f"# {receiver.name}: the fallback receiver {receiver.fallback} has no counterpart"
    yield f"- name: {quoted(receiver.name)}"
    if webhooks:
        yield "  webhook_configs:"
        for webhook in webhooks:
            yield from _indented(_item(_webhook(webhook)), 4)


def _webhook(webhook: WebhookConfig) -> Iterator[str]:
    if webhook.url:
        yield f"url: {quoted(webhook.url)}"
    else:
        yield f"url_file: {quoted(webhook.url_file)}"
    yield f"send_resolved: {'true' if webhook.send_resolved else 'false'}"
    if webhook.max_alerts:
        yield f"max_alerts: {webhook.max_alerts}"
    http = list(_http(webhook.http))
    if http:
        yield "http_config:"
        yield from _indented(http, 2)


def _http(http: HttpClientConfig) -> Iterator[str]:
    if http.credentials or http.credentials_file:
        yield "authorization:"
        yield f"  type: {quoted(http.auth_type)}"
        yield from _set("  ", credentials=http.credentials, credentials_file=http.credentials_file)
    if http.username:
        yield "basic_auth:"
        yield from _set(
            "  ", username=http.username, password=http.password, password_file=http.password_file
        )
    tls = list(
        _set(
            "  ",
            ca_file=http.ca_file,
            cert_file=http.cert_file,
            key_file=http.key_file,
            server_name=http.server_name,
        )
    )
    if tls or http.insecure_skip_verify:
        yield "tls_config:"
        yield from tls
        if http.insecure_skip_verify:
            yield "  insecure_skip_verify: true"
    if not http.follow_redirects:
        yield "follow_redirects: false"
    yield from _set("", proxy_url=http.proxy_url)
    if http.headers:
        yield f"# http_headers left out: {', '.join(name for name, _ in http.headers)}"


def _set(indent: str, **texts: str) -> Iterator[str]:
    for key, text in texts.items():
        if text:
            yield f"{indent}{key}: {quoted(text)}"


# -- inhibition and times -----------------------------------------------------------------------------


def _inhibit(rule: InhibitRule) -> Iterator[str]:
    yield from _matchers("source_matchers", rule.source)
    yield from _matchers("target_matchers", rule.target)
    if rule.equal:
        yield f"equal: {_list(rule.equal)}"


def _time_interval(interval: TimeInterval) -> Iterator[str]:
    yield f"- name: {quoted(interval.name)}"
    yield "  time_intervals:"
    for spec in interval.specs:
        yield from _indented(_item(_spec(spec)), 4)


def _spec(spec: IntervalSpec) -> Iterator[str]:
    if spec.minutes:
        times = ", ".join(
            f'{{start_time: "{_clock(low)}", end_time: "{_clock(high)}"}}' for low, high in spec.minutes
        )
        yield f"times: [{times}]"
    if spec.weekdays:
        days = [_span(span, _WEEKDAYS) for span in spec.weekdays]
        yield f"weekdays: {_list(days)}"
    for key, spans in (("days_of_month", spec.days_of_month), ("months", spec.months), ("years", spec.years)):
        if spans:
            yield f"{key}: {_list([_span(span) for span in spans])}"
    yield f"location: {quoted(spec.location)}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _span(span: Span, names: Sequence[str] = ()) -> str:
    low, high = (names[one] for one in span) if names else (str(one) for one in span)
    return low if low == high else f"{low}:{high}"
