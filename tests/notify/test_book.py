"""The alert book without any loop: restarts and crashes at every point of a history."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import pytest

from exporter.config.receivers import NotificationConfig
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.notify.book import AlertBook
from exporter.notify.records import Changes, Notification
from exporter.notify.steps import finish
from exporter.rules.alert import from_record
from exporter.rules.model import AlertingRule
from tests.notify.stage import MINUTE, Stage, config, rule

T0 = 1_700_000_000_000
TWO = (
    "route: {receiver: ops, routes: [{receiver: log, continue: true}, {receiver: ops}]}\n"
    "receivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]"
)


class Crash(Exception):  # noqa: N818
    """The process dies here."""


@dataclass
class Machine:
    """Book, rows and receiver in steps of a second; may die between any two of them."""

    rules: list[AlertingRule]
    notification: NotificationConfig
    rng: Random = field(default_factory=lambda: Random(0))
    die: float = 0.0
    fail: float = 0.0
    rows: Changes = field(default_factory=Changes)
    arrived: list[tuple[int, Notification]] = field(default_factory=list)
    flapping: Counter[str] = field(default_factory=Counter)
    now_ms: int = T0
    crashes: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.book = AlertBook(self.notification, external_labels=EMPTY_LABELS, link=lambda _: "")
        self.book.load(Changes.from_record(json.loads(self.rows.to_json())), self.now_ms)
        self.stage = Stage(self.rules)
        for one in self.rules:
            for record in self.book.loaded_instances(one.key):
                instance = from_record(record)
                self.stage.instances[one.key][instance.labels] = instance
        self.inbox: list[Notification] = []

    def maybe_die(self) -> None:
        if self.rng.random() < self.die:
            raise Crash

    def work(self) -> None:
        """Commit what the book decided, then deliver, then commit that; until nothing is left."""
        while True:
            outcome = self.book.take()
            self.flapping += outcome.flapping
            self.maybe_die()
            self.rows.merge(outcome.changes)
            self.maybe_die()
            self.inbox.extend(outcome.notifications)
            if not self.inbox:
                return
            one = self.inbox.pop(0)
            known = any(one.id == other.id for _, other in self.arrived)
            if not known and self.rng.random() < self.fail:
                self.book.dead(one.id, self.now_ms, "HTTP 400", attempts=1)
                continue
            self.arrived.append((self.now_ms, one))
            self.maybe_die()
            self.book.delivered(one.id, self.now_ms)

    def step(self, firing: Iterable[str] | None) -> None:
        """One second, with an evaluation where `firing` is given; after a crash it is tried once more."""
        for _ in range(100):
            try:
                if firing is None:
                    finish(self.book.tick(self.now_ms))
                else:
                    finish(self.book.evaluate(self.stage.evaluate(self.now_ms, firing), self.now_ms))
                self.work()
                break
            except Crash:
                self.crashes += 1
                self.start()
        self.now_ms += 1000

    def told(self) -> list[tuple[str, str, str, int]]:
        return [
            (one.destination, one.status, alert.labels.get("instance"), alert.suppressed)
            for _, one in self.arrived
            for alert in one.alerts
        ]


def flapping(seed: int, seconds: int, names: str = "ab") -> list[set[str] | None]:
    """What fires at each second: an evaluation every 15 s, in which each instance may change."""
    rng, firing, script = Random(seed), set[str](), []
    for second in range(seconds):
        if second % 15:
            script.append(None)
            continue
        firing ^= {name for name in names if rng.random() < 0.25}
        script.append(set(firing))
    return script


@pytest.mark.parametrize("cooldown", [0, 3])
@pytest.mark.parametrize("by", [None, ()])
def test_a_restart_at_any_second_changes_no_notification(cooldown: int, by: tuple[str, ...] | None) -> None:
    """Ten minutes of flapping, restarted once at each second: the same notifications as undisturbed."""
    script = flapping(7, 600)

    def run(restart_at: int) -> list[tuple[int, str, tuple[str, ...]]]:
        machine = Machine([rule(cooldown=cooldown, by=by)], config(TWO))
        for second, firing in enumerate(script):
            if second == restart_at:
                machine.start()
            machine.step(firing)
        return [(at, one.id, tuple(alert.fingerprint for alert in one.alerts)) for at, one in machine.arrived]

    undisturbed = run(-1)
    assert len(undisturbed) > 8
    for second in range(0, 600, 4 if cooldown else 20):
        assert run(second) == undisturbed, second


@pytest.mark.parametrize("seed", range(12))
def test_crashes_lose_nothing_and_break_no_cooldown(seed: int) -> None:
    """Dying at random between deciding, recording, sending and recording that: each episode is told or was
    held back, no second notification comes inside a cooldown, each resolved follows its firing, and every
    episode has its row."""
    machine = Machine([rule(cooldown=3)], config(), Random(seed), die=0.15, fail=0.1)
    script = flapping(seed, 1200)
    for firing in script:
        machine.step(firing)
    machine.die = machine.fail = 0.0
    for firing in [*[None] * 4000, set(), *[None] * 300]:
        machine.step(firing)
    assert machine.crashes > 20
    by_id: dict[str, tuple[int, Notification]] = {}
    for at, one in machine.arrived:
        by_id.setdefault(one.id, (at, one))
        assert by_id[one.id][1].alerts[0].episode_id == one.alerts[0].episode_id
    told = {alert.episode_id for _, one in machine.arrived if one.status == "firing" for alert in one.alerts}
    ended = {
        alert.episode_id for _, one in machine.arrived if one.status == "resolved" for alert in one.alerts
    }
    dead = {
        episode for one in machine.rows.notifications.values() if one.state.value == "dead"
        for episode in one.episode_ids
    }  # fmt: skip
    for episode in machine.rows.episodes.values():
        assert episode.id in told or episode.suppressed or episode.id in dead
        assert not episode.active
    assert ended <= told
    assert told - ended <= dead
    assert told <= machine.rows.episodes.keys()
    last: dict[LabelSet, int] = {}
    for at, one in sorted(by_id.values(), key=lambda pair: pair[0]):
        if one.status != "firing":
            continue
        labels = one.alerts[0].labels
        assert at - last.get(labels, -(10**15)) >= 3 * MINUTE
        last[labels] = at


def test_a_stored_flight_without_its_notification_is_given_up() -> None:
    """A slot that nothing in the outbox stands for must not block its gate for ever."""
    machine = Machine([rule(cooldown=3)], config())
    finish(machine.book.evaluate(machine.stage.evaluate(T0, ["a"]), T0))
    machine.rows.merge(machine.book.take().changes)
    machine.rows.notifications.clear()
    machine.start()
    for second in range(120):
        machine.step({"a"} if second % 15 == 0 else None)
    assert machine.told() == [("ops", "firing", "a", 0)]


def test_group_by_puts_alerts_of_one_evaluation_together() -> None:
    """One notification for each group; firing and resolved apart."""
    text = "route: {receiver: ops, group_by: [alertname]}\nreceivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]"
    machine = Machine([rule("A"), rule("B")], config(text))
    finish(machine.book.evaluate(machine.stage.evaluate(T0, {"A": ["x", "y"], "B": ["z"]}), T0))
    machine.work()
    assert [sorted(alert.labels.get("instance") for alert in one.alerts) for _, one in machine.arrived] == [
        ["x", "y"],
        ["z"],
    ]
    assert dict(machine.arrived[0][1].group_labels) == {"alertname": "A"}


def test_group_wait_and_group_interval_delay_firing_only() -> None:
    """The first leaves after group_wait, later ones with the next group_interval, resolved at once."""
    text = (
        "route: {receiver: ops, group_by: [alertname], group_wait: 30s, group_interval: 2m}\n"
        "receivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]"
    )
    machine = Machine([rule()], config(text))
    script: dict[int, set[str]] = {0: {"a"}, 15: {"a", "b"}, 60: {"a", "b", "c"}, 75: {"a", "c"}}
    for second in range(200):
        machine.step(script.get(second))
    times = [(at - T0) // 1000 for at, _ in machine.arrived]
    assert times == [30, 75, 150]
    assert [one.status for _, one in machine.arrived] == ["firing", "resolved", "firing"]
    assert machine.told()[-1][2] == "c"


def test_a_route_cooldown_is_a_floor() -> None:
    """repeat_interval repeats what has no cooldown of its own, and does not shorten a longer one."""
    text = "route: {receiver: ops, repeat_interval: 5m}\nreceivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]"
    machine = Machine([rule("Short"), rule("Long", cooldown=10)], config(text))
    finish(machine.book.evaluate(machine.stage.evaluate(T0, {"Short": ["s"], "Long": ["l"]}), T0))
    machine.work()
    for _ in range(660):
        machine.step(None)
    counts = {name: sum(one == name for _, _, one, _ in machine.told()) for name in "sl"}
    assert counts == {"s": 3, "l": 2}


def test_ack_stops_repeats_until_the_episode_ends() -> None:
    """Resolved is still told, and the next episode is told again."""
    machine = Machine([rule(cooldown=1)], config())
    machine.step({"a"})
    (episode,) = machine.book.firing
    machine.book.acknowledge(episode, "ann", "on it", machine.now_ms)
    for _ in range(180):
        machine.step(None)
    machine.step({"a"})
    assert machine.told() == [("ops", "firing", "a", 0)]
    assert machine.book.outlook(episode, machine.now_ms)[0].why == "acknowledged by ann"
    machine.start()
    machine.step({"a"})
    machine.step(set())
    machine.step({"a"})
    assert [status for _, status, _, _ in machine.told()] == ["firing", "resolved", "firing"]
    assert machine.rows.episodes[episode].acked_by == "ann"


def test_resolve_by_hand_mutes_until_the_condition_has_cleared() -> None:
    """Told at once with the name; the episode stays resolved by that person; a new one is told."""
    machine = Machine([rule(cooldown=1)], config())
    machine.step({"a"})
    (episode,) = machine.book.firing
    machine.book.resolve(episode, "ann", "known", machine.now_ms)
    machine.step(None)
    assert machine.arrived[-1][1].alerts[0].resolved_by == "ann"
    for second in range(180):
        if second == 60:
            machine.start()
        machine.step({"a"} if second % 15 == 0 else None)
    machine.step(set())
    assert [status for _, status, _, _ in machine.told()] == ["firing", "resolved"]
    stored = machine.rows.episodes[episode]
    assert (stored.resolved_by, stored.resolve_reason, stored.active) == ("ann", "by hand", False)
    machine.step({"a"})
    assert machine.told()[-1][1] == "firing"


def test_removed_rules_resolve_their_episodes_with_the_reason() -> None:
    """After a reload without the rule the firing alert is told resolved: rule removed."""
    machine = Machine([rule("Gone"), rule("Kept")], config())
    finish(machine.book.evaluate(machine.stage.evaluate(T0, {"Gone": ["g"], "Kept": ["k"]}), T0))
    machine.work()
    finish(machine.book.retain([one for one in machine.rules if one.name == "Kept"], T0 + 1))
    machine.work()
    last = machine.arrived[-1][1].alerts[0]
    assert (last.status, last.labels.get("alertname"), last.resolve_reason) == (
        "resolved",
        "Gone",
        "rule removed",
    )
    assert len(machine.book.firing) == 1


def test_flapping_has_one_notice() -> None:
    """From the bound on, the next notification says so once; with hold the others are kept back."""
    for hold in (False, True):
        text = (
            f"route: {{receiver: ops, flapping: {{transitions: 4, window: 1h, hold: {str(hold).lower()}}}}}\n"
            "receivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]"
        )
        machine = Machine([rule()], config(text))
        for number in range(8):
            machine.step({"a"} if number % 2 == 0 else set())
        firing = [one.alerts[0] for _, one in machine.arrived if one.status == "firing"]
        assert [alert.flapping for alert in firing] == ([0, 0, 5] if hold else [0, 0, 5, 0])
        assert machine.flapping == {"ops": 1}


def test_inhibited_and_silenced_alerts_wait() -> None:
    """They are told when what kept them quiet is over, if they still fire."""
    text = (
        "route: {receiver: ops}\nreceivers: [{name: ops, webhook_configs: [{url: 'http://x'}]}]\n"
        "inhibit_rules:\n"
        "  - {source_matchers: [alertname=Big], target_matchers: [alertname=Small], equal: [instance]}"
    )
    machine = Machine([rule("Big"), rule("Small")], config(text))

    def evaluate(**firing: list[str]) -> None:
        finish(machine.book.evaluate(machine.stage.evaluate(machine.now_ms, firing), machine.now_ms))
        machine.work()
        machine.now_ms += 15_000

    evaluate(Big=["x"], Small=["x", "y"])
    assert sorted(name for _, _, name, _ in machine.told()) == ["x", "y"]
    assert {one.alerts[0].labels.get("alertname") for _, one in machine.arrived} >= {"Big"}
    evaluate(Small=["x", "y"])
    assert [one.status for _, one in machine.arrived][-2:] in (["resolved", "firing"], ["firing", "resolved"])
