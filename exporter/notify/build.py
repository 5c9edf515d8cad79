"""From a destination of the configuration to the notifier that delivers to it."""

from __future__ import annotations

from exporter.clock import Clock
from exporter.config.receivers import AppriseConfig, LogConfig, WebhookConfig
from exporter.notify.dispatch import MakeNotifier
from exporter.notify.ports import Notifier
from exporter.notify.receivers.apprise import AppriseNotifier
from exporter.notify.receivers.log import LogNotifier
from exporter.notify.receivers.webhook import WebhookNotifier
from exporter.notify.route import Destination


def notifier_factory(clock: Clock, external_url: str = "") -> MakeNotifier:
    """What makes the notifier of a destination."""

    def make(destination: Destination) -> Notifier:
        config = destination.config
        if isinstance(config, LogConfig):
            return LogNotifier(config, clock)
        if isinstance(config, WebhookConfig):
            return WebhookNotifier(config, clock, external_url=external_url)
        assert isinstance(config, AppriseConfig)
        return AppriseNotifier(config, clock)

    return make
