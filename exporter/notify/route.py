"""The route tree: from an alert's labels to destinations, with what applies on the way. Pure.

Source: Alertmanager's configuration page, route: depth first, the first matching child unless it says
continue, the node itself where no child matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from exporter.config.matchers import match_all
from exporter.config.receivers import (
    ALL_LABELS,
    AppriseConfig,
    IntegrationConfig,
    LogConfig,
    NotificationConfig,
    RouteConfig,
    WebhookConfig,
)
from exporter.config.time_intervals import TimeInterval
from exporter.model.labels import LabelSet

_KINDS = {LogConfig: "log", WebhookConfig: "webhook", AppriseConfig: "apprise"}


@dataclass(frozen=True, slots=True)
class Destination:
    """One integration of one receiver: has its own lane in the outbox and its own cooldown gates.

    `key` is the receiver's name for its first integration, with a number behind it for the others.
    """

    key: str
    receiver: str
    kind: str
    config: IntegrationConfig


@dataclass(frozen=True, slots=True)
class Target:
    """A destination that a route chose for an alert, and the route's terms."""

    destination: Destination
    route: RouteConfig
    route_id: str  # the place in the tree: 0, 0.1, 0.1.0

    def group_labels(self, labels: LabelSet) -> LabelSet:
        """The labels that group the alert on this route."""
        by = self.route.group_by
        return labels if by == (ALL_LABELS,) else labels.keep(by)


def destinations(config: NotificationConfig) -> dict[str, Destination]:
    """Every integration of every receiver, by key."""
    found: dict[str, Destination] = {}
    for receiver in config.receivers:
        for number, integration in enumerate(receiver.integrations):
            key = receiver.name if number == 0 else f"{receiver.name}#{number}"
            found[key] = Destination(key, receiver.name, _KINDS[type(integration)], integration)
    return found


class Router:
    """Finds the targets of alerts; remembers what it found for each label set."""

    def __init__(self, config: NotificationConfig) -> None:
        self._config = config
        self._destinations = destinations(config)
        self._intervals: Mapping[str, TimeInterval] = {one.name: one for one in config.time_intervals}
        self._found: dict[LabelSet, tuple[Target, ...]] = {}
        self._shared: dict[tuple[str, ...], tuple[Target, ...]] = {}  # by the route ids: few, for many alerts

    def targets(self, labels: LabelSet) -> tuple[Target, ...]:
        """The targets of an alert, each destination once, in tree order."""
        found = self._found.get(labels)
        if found is None:
            if len(self._found) > 100_000:
                self._found.clear()
            routes = tuple(_matching(self._config.route, "0", labels))
            ids = tuple(route_id for _, route_id in routes)
            shared = self._shared.get(ids)
            if shared is None:
                shared = self._shared[ids] = self._targets(routes)
            found = self._found[labels] = shared
        return found

    def _targets(self, routes: Iterable[tuple[RouteConfig, str]]) -> tuple[Target, ...]:
        by_key: dict[str, Target] = {}
        for route, route_id in routes:
            for destination in self._destinations.values():
                if destination.receiver == route.receiver:
                    by_key.setdefault(destination.key, Target(destination, route, route_id))
        return tuple(by_key.values())

    def muted_by(self, route: RouteConfig, now_ms: int) -> str:
        """The name of the time interval that keeps a route quiet now, '' if none does."""
        if not route.mute_time_intervals and not route.active_time_intervals:
            return ""
        for name in route.mute_time_intervals:
            if name in self._intervals and self._intervals[name].contains(now_ms):
                return name
        active = [self._intervals[name] for name in route.active_time_intervals if name in self._intervals]
        if active and not any(interval.contains(now_ms) for interval in active):
            return f"not {' or '.join(interval.name for interval in active)}"
        return ""


def _matching(route: RouteConfig, route_id: str, labels: LabelSet) -> Iterator[tuple[RouteConfig, str]]:
    matched = False
    for number, child in enumerate(route.routes):
        if not match_all(child.matchers, labels):
            continue
        matched = True
        yield from _matching(child, f"{route_id}.{number}", labels)
        if not child.continue_:
            break
    if not matched:
        yield route, route_id
