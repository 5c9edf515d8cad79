"""Receivers, routes, matchers and time intervals as the configuration gives them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from exporter.config.matchers import parse_matchers
from exporter.config.positions import Reader, parse_yaml
from exporter.config.receivers import (
    NotificationConfig,
    RouteConfig,
    WebhookConfig,
    read_alerting,
    read_notification,
)
from exporter.config.time_intervals import read_time_intervals
from exporter.model.labels import LabelSet
from exporter.notify.route import Router, destinations

HOOK = "webhook_configs: [{url: 'http://x/y'}]"


def read(text: str) -> tuple[NotificationConfig, list[str]]:
    node, reader = parse_yaml(text, "c.yml"), Reader("c.yml")
    found = read_notification(reader, node, node.entries or {})
    return found, [str(problem) for problem in reader.problems]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a=b", ['a="b"']),
        (' a = "b c" ', ['a="b c"']),
        ('{a=~"x|y", b!="1"}', ['a=~"x|y"', 'b!="1"']),
        ("{a=b,}", ['a="b"']),
        ("{}", []),
        ("", []),
        ('"a b"="c"', ['a b="c"']),
        ("Προμηθεύς=x", ['Προμηθεύς="x"']),
        (r'a="\"\\\n"', [r'a="\"\\\n"']),
        (r'a="\xf0\x9f\x99\x82"', ['a="🙂"']),
        ("a=", ['a=""']),  # classic
        (r'a=~"\d+"', [r'a=~"\\d+"']),  # classic: a lone backslash is one
        ('a="b,c",d=e', ['a="b,c"', 'd="e"']),
        ("a=b c", ['a="b c"']),  # classic
    ],
)
def test_matchers(text: str, shown: list[str]) -> None:
    """The UTF-8 syntax, and the classic one where that does not fit."""
    assert [str(one) for one in parse_matchers(text)] == shown


@pytest.mark.parametrize("text", ["a", "=b", 'a="b', "{a=b", "{{a=b}}", 'a=~"("', 'a="b"c"', "1a=b c"])
def test_bad_matchers(text: str) -> None:
    """Each is refused with a reason."""
    with pytest.raises(ValueError, match=r"bad matcher|regexp"):
        parse_matchers(text)


def test_the_default_sends_everything_to_the_log() -> None:
    """No notification keys at all."""
    config, problems = read("{}")
    assert problems == []
    assert [one.kind for one in destinations(config).values()] == ["log"]
    assert [target.destination.key for target in Router(config).targets(LabelSet.of({"a": "b"}))] == ["log"]


def test_routes_inherit_and_override() -> None:
    """A child takes what it does not say; matchers and continue are its own."""
    config, problems = read(
        f"""
        route:
          receiver: a
          group_by: [alertname]
          group_wait: 5s
          repeat_interval: 4h
          routes:
            - receiver: b
              match: {{x: "1"}}
              match_re: {{y: "2|3"}}
              routes: [{{matchers: [z=1], cooldown: 1h}}]
        receivers: [{{name: a, {HOOK}}}, {{name: b, {HOOK}}}]
        """
    )
    assert problems == []
    child = config.route.routes[0]
    assert (child.group_by, child.group_wait_ms, child.cooldown_ms) == (("alertname",), 5000, 4 * 3_600_000)
    assert sorted(str(one) for one in child.matchers) == ['x="1"', 'y=~"2|3"']
    assert (child.routes[0].receiver, child.routes[0].cooldown_ms) == ("b", 3_600_000)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"x": "0"}, ["root"]),
        ({"x": "1"}, ["a"]),
        ({"x": "2"}, ["b", "c"]),
        ({"x": "3"}, ["deep"]),
        ({"x": "3", "y": "no"}, ["d"]),
        ({"x": "4"}, ["same"]),
    ],
)
def test_the_route_tree_is_walked_as_alertmanager_walks_it(
    labels: dict[str, str], receivers: list[str]
) -> None:
    """First matching child unless it continues; the node itself where none matches; each destination once."""
    names = "root a b c d deep same"
    config, problems = read(
        f"""
        route:
          receiver: root
          routes:
            - {{receiver: a, matchers: [x=1]}}
            - {{receiver: b, matchers: [x=2], continue: true}}
            - {{receiver: c, matchers: [x=2]}}
            - {{receiver: d, matchers: [x=3], routes: [{{receiver: deep, matchers: [y!=no]}}]}}
            - {{receiver: same, matchers: [x=4], continue: true}}
            - {{receiver: same, matchers: [x=4]}}
            - {{receiver: a, matchers: [x=1]}}
        receivers: [{", ".join(f"{{name: {name}, {HOOK}}}" for name in names.split())}]
        """
    )
    assert problems == []
    assert [one.destination.key for one in Router(config).targets(LabelSet.of(labels))] == receivers


def test_integrations_of_a_receiver_are_destinations_of_their_own() -> None:
    """The first has the receiver's name, the others a number."""
    config, _ = read(
        "route: {receiver: a}\nreceivers:\n"
        "  - {name: a, log_configs: [{}], webhook_configs: [{url: 'http://x'}, {url_file: /f}]}\n"
        "  - {name: none}"
    )
    assert [(key, one.kind) for key, one in destinations(config).items()] == [
        ("a", "log"), ("a#1", "webhook"), ("a#2", "webhook"), ("log", "log"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("route: {}", "c.yml:1:8: the root route needs a receiver"),
        ("route: {receiver: x}", 'undefined receiver "x"'),
        ("route: {receiver: log, matchers: [a=b]}", "the root route must not have matchers"),
        ("route: {receiver: log, group_waits: 4h}", 'in route, did you mean "group_wait"?'),
        ("route: {receiver: log, group_wait: 1}", 'not a valid duration string: "1"'),
        ("route: {receiver: log, cooldown: 1m, repeat_interval: 1m}", "two names for one thing"),
        ("route: {receiver: log, group_by: [..., a]}", "group_by cannot have"),
        ("route: {receiver: log, routes: [{matchers: ['a=~(']}]}", "c.yml:1:45: "),
        ("route: {receiver: log, routes: [{mute_time_intervals: [x]}]}", 'undefined time interval "x"'),
        ("receivers: [{webhook_configs: []}]", "a receiver needs a name"),
        ("receivers: [{name: a}, {name: a}]", 'receiver "a" is given twice'),
        ("receivers: [{name: a, slack_configs: []}]", 'unknown key "slack_configs"'),
        ("receivers: [{name: a, webhook_configs: [{}]}]", "exactly one of url and url_file"),
        ("receivers: [{name: a, webhook_configs: [{url: 'ftp://x'}]}]", "url is not an HTTP URL"),
        ("receivers: [{name: a, webhook_configs: [{url: 'http://x:99999'}]}]", "url is not an HTTP URL"),
        ("receivers: [{name: a, webhook_configs: [{url: 'http://x', timeout: soon}]}]", "timeout: not"),
        ("receivers: [{name: a, webhook_configs: [{url: 'http://x', max_alerts: -1}]}]", "must be 0 or more"),
        ("receivers: [{name: a, apprise_configs: [{urls: ['']}]}]", "exactly one of urls and urls_file"),
        ("receivers: [{name: a, apprise_configs: [{urls: [slack]}]}]", "has no scheme"),
        ("receivers: [{name: a, fallback: b}]", 'the fallback "b" of receiver "a"'),
        ("receivers: [{name: a, fallback: a}]", 'the fallback "a" of receiver "a"'),
        ("time_intervals: [{name: a, time_intervals: [{weekdays: [noday]}]}]", 'unknown name in "noday"'),
        ("time_intervals: [{name: a, time_intervals: [{times: [{start_time: '17:00', end_time: '9:00'}]}]}]",
         "HH:MM"),
        ("time_intervals: [{name: a, time_intervals: [{times: [{start_time: '17:00', end_time: '09:00'}]}]}]",
         "must be before"),
        ("time_intervals: [{name: a, time_intervals: [{days_of_month: ['0']}]}]", "out of range"),
        ("time_intervals: [{name: a, time_intervals: [{location: Mars/Base}]}]", 'unknown location "Mars'),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_place(text: str, problem: str) -> None:
    """Nothing is ignored."""
    _, problems = read(text)
    assert any(problem in one and one.startswith("c.yml:") for one in problems), problems


def test_secrets_do_not_show() -> None:
    """A configuration can be printed."""
    config, _ = read(
        "receivers: [{name: a, webhook_configs: [{url: 'http://u:topsecret@x/topsecret',"
        " http_config: {authorization: {credentials: topsecret}}}], apprise_configs: [{urls: ['slack://topsecret']}]}]"
    )
    assert "topsecret" not in repr(config)


def test_http_config() -> None:
    """The names of Prometheus' http_config."""
    config, problems = read(
        "receivers: [{name: a, webhook_configs: [{url: 'http://x',"
        " http_config: {basic_auth: {username: u, password: p},"
        " tls_config: {insecure_skip_verify: true}, follow_redirects: false,"
        " http_headers: {X-A: {values: [b]}}}}]}]"
    )
    assert problems == []
    webhook = config.receivers[0].integrations[0]
    assert isinstance(webhook, WebhookConfig)
    http = webhook.http
    assert (http.username, http.password, http.insecure_skip_verify, http.follow_redirects, http.headers) == (
        "u", "p", True, False, (("X-A", "b"),),
    )  # fmt: skip


def test_alertmanagers() -> None:
    """Prometheus' section with static targets; other discovery is refused."""
    node, reader = (
        parse_yaml("alertmanagers: [{scheme: https, path_prefix: /am/, static_configs: [{targets: [h:1]}]}]"),
        Reader(""),
    )
    (one,) = read_alerting(reader, node).alertmanagers
    assert (one.urls, reader.problems) == (("https://h:1/am",), [])
    for text, problem in (
        ("alertmanagers: [{dns_sd_configs: []}]", "unknown key"),
        ("alertmanagers: [{static_configs: [{targets: ['http://h:1']}]}]", "without scheme"),
        ("alertmanagers: [{static_configs: []}]", "needs static_configs"),
        ("alertmanagers: [{api_version: v1, static_configs: [{targets: [h:1]}]}]", "api_version"),
    ):
        node, reader = parse_yaml(text), Reader("")
        read_alerting(reader, node)
        assert any(problem in str(one) for one in reader.problems)


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("spec", "inside", "outside"),
    [
        ("times: [{start_time: '09:00', end_time: '17:00'}]", "2024-05-01 09:00", "2024-05-01 17:00"),
        ("times: [{start_time: '00:00', end_time: '24:00'}]", "2024-05-01 23:59", None),
        ("weekdays: ['monday:friday']", "2024-05-03 00:00", "2024-05-04 00:00"),
        ("weekdays: [sunday]", "2024-05-05 12:00", "2024-05-06 12:00"),
        ("days_of_month: ['1:5']", "2024-05-05 00:00", "2024-05-06 00:00"),
        ("days_of_month: ['-3:-1']", "2024-02-27 00:00", "2024-02-26 00:00"),
        ("days_of_month: ['29:31']", "2024-02-29 00:00", "2023-02-28 00:00"),
        ("months: ['january:march', '12']", "2024-12-31 00:00", "2024-04-01 00:00"),
        ("years: ['2020:2022', '2024']", "2024-01-01 00:00", "2023-01-01 00:00"),
        ("times: [{start_time: '09:00', end_time: '10:00'}], location: Australia/Sydney", "2024-05-01 23:30",
         "2024-05-01 09:30"),
        ("weekdays: [monday], months: [may]", "2024-05-06 00:00", "2024-06-03 00:01x"),
    ],
)  # fmt: skip
def test_time_intervals(spec: str, inside: str, outside: str | None) -> None:
    """Ends are exclusive for times, inclusive for the rest; all fields must hold."""
    node, reader = parse_yaml(f"[{{name: n, time_intervals: [{{{spec}}}]}}]"), Reader("")
    (interval,) = read_time_intervals(reader, node)
    assert reader.problems == []
    assert interval.contains(at(inside))
    if outside is not None:
        assert not interval.contains(at(outside.rstrip("x")))


def test_routes_are_muted_and_active_by_intervals() -> None:
    """Muted while inside a mute interval, or outside every active one."""
    config, _ = read(
        "time_intervals:\n"
        "  - {name: night, time_intervals: [{times: [{start_time: '00:00', end_time: '06:00'}]}]}"
    )
    router = Router(config)
    night, day = at("2024-05-01 03:00"), at("2024-05-01 12:00")
    mute, active = RouteConfig(mute_time_intervals=("night",)), RouteConfig(active_time_intervals=("night",))
    assert [router.muted_by(mute, night), router.muted_by(mute, day)] == ["night", ""]
    assert [router.muted_by(active, night), router.muted_by(active, day)] == ["", "not night"]
