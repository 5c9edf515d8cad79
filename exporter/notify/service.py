"""What people ask of the notifier: list, history, acknowledge, resolve, silence; answers are JSON values.

The HTTP layer and the command line stand on this. A change is recorded when its method returns.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from exporter.clock import Clock
from exporter.config.matchers import match_all
from exporter.errors import NotFoundError
from exporter.model.labels import LabelSet, Matcher, MatchOp
from exporter.notify import silences
from exporter.notify.dispatch import Dispatcher
from exporter.notify.message import bounded
from exporter.notify.payload import number_text
from exporter.notify.ports import HistoryFilter
from exporter.notify.records import Episode, Silence, fingerprint, row_id
from exporter.notify.silences import SilenceError, rfc3339
from exporter.notify.steps import sliced
from exporter.rules.alert import AlertInstance, AlertState
from exporter.rules.model import AlertingRule

_BY_MAX, _NOTES_MAX = 255, 10_000


class UnknownAlertError(NotFoundError):
    """No active alert, or no silence, has this id."""


class AlertService:
    """See the module."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._book = dispatcher.book
        self._clock = clock

    # alerts

    async def alerts(self, matchers: Sequence[Matcher] = ()) -> list[dict[str, Any]]:
        """Every pending and firing instance that matches: Prometheus' fields and ours.

        Ours: id, fingerprint, severity, firedAt, peak, held, acknowledgement, silencedBy, notifications,
        suppressed, and `outlook`: for each destination `nextSendAt`, or `why` there is none.
        """
        found = []
        active = [instance for instances in self._book.active.values() for instance in instances]
        for some in sliced(active):
            found += [self._describe(one) for one in some if match_all(matchers, one.labels)]
            await asyncio.sleep(0)
        return found

    def alert(self, episode_id: str) -> dict[str, Any] | None:
        """One firing instance in the same words; None where no such episode fires."""
        instance = self._book.firing.get(episode_id)
        return self._describe(instance) if instance is not None else None

    def _describe(self, instance: AlertInstance) -> dict[str, Any]:
        now_ms = self._clock.now_ms()
        document: dict[str, Any] = {
            "labels": instance.labels.as_dict(),
            "annotations": bounded(instance.annotations),
            "state": instance.state.text,
            "activeAt": rfc3339(instance.active_at_ms),
            "value": number_text(instance.value),
            "peak": number_text(instance.peak),
            "severity": instance.severity,
            "fingerprint": fingerprint(instance.labels),
            "held": instance.held,
        }
        episode = self._book.episodes.get(instance.episode_id)
        if instance.state is not AlertState.FIRING or episode is None:
            return document | {"id": "", "outlook": [], "nextSendAt": None, "why": "pending"}
        outlook = self._book.outlook(episode.id, now_ms)
        times = [one.next_at_ms for one in outlook if one.next_at_ms]
        why = "; ".join(dict.fromkeys(one.why for one in outlook if one.why)) or "no receiver"
        return document | {
            "id": episode.id,
            "firedAt": rfc3339(episode.triggered_at_ms),
            **_acts(episode),
            "silencedBy": list(
                silences.silenced_by(self._book.silences.values(), self._book.labels_of(episode), now_ms)
            ),
            "notifications": episode.notifications,
            "suppressed": episode.suppressed,
            "notifiedAt": _time(episode.notified_at_ms),
            "outlook": [
                {"receiver": one.receiver, "nextSendAt": _time(one.next_at_ms), "why": one.why}
                for one in outlook
            ],
            "nextSendAt": _time(min(times)) if times else None,
            "why": "" if times else why,
        }

    def standing(self, rule: AlertingRule, labels: LabelSet, at_ms: int) -> dict[str, Any]:
        """What keeps an instance with these labels quiet at a time (`quiet`, '' if nothing), and for each
        destination that it is routed to: receiver, route, routeMatchers, cooldown (seconds), armedAt, until,
        suppressed, onItsWay, muted. The gates are as they are now."""
        found = []
        for one in self._book.standings(rule, labels, at_ms):
            gate, route = one.gate, one.target.route
            until_ms = gate.armed_at_ms + one.cooldown_ms if gate.armed_at_ms and one.cooldown_ms else 0
            found.append(
                {
                    "receiver": one.target.destination.key,
                    "kind": one.target.destination.kind,
                    "route": one.target.route_id,
                    "routeMatchers": [str(matcher) for matcher in route.matchers],
                    "cooldown": one.cooldown_ms / 1000,
                    "armedAt": _time(gate.armed_at_ms),
                    "until": _time(until_ms),
                    "suppressed": gate.suppressed,
                    "onItsWay": bool(gate.flights),
                    "muted": one.muted,
                }
            )
        return {"quiet": self._book.quieted(labels, at_ms), "destinations": found}

    async def history(self, wanted: HistoryFilter) -> Sequence[Mapping[str, Any]]:
        """Episodes of the database, newest first, each with its notifications.

        Raises: StorageError while the database is away.
        """
        await self._dispatcher.flush()
        return await self._dispatcher.store.history(wanted)

    async def find(self, **wanted: Any) -> Sequence[Mapping[str, Any]]:
        """The same, with the filter's fields as keywords."""
        return await self.history(HistoryFilter(**wanted))

    async def acknowledge(self, alert_id: str, by: str, notes: str = "") -> dict[str, Any]:
        """Stop the repetitions of a firing alert until it ends.

        Raises: UnknownAlertError; ValueError for a missing name.
        """
        episode_id, by, notes = self._find(alert_id), _name(by), notes[:_NOTES_MAX]
        episode = self._book.acknowledge(episode_id, by, notes, self._clock.now_ms())
        await self._dispatcher.flush()
        return {"id": episode_id, **_acts(episode)}

    async def resolve(self, alert_id: str, by: str, notes: str = "") -> dict[str, Any]:
        """Resolve a firing alert by hand; it stays quiet until its condition has cleared.

        Raises: UnknownAlertError; ValueError for a missing name.
        """
        episode_id, by, notes = self._find(alert_id), _name(by), notes[:_NOTES_MAX]
        episode = self._book.resolve(episode_id, by, notes, self._clock.now_ms())
        await self._dispatcher.flush()
        return {"id": episode_id, **_acts(episode)}

    async def alerts_v2(self, matchers: Sequence[Matcher] = ()) -> list[dict[str, Any]]:
        """The firing instances as Alertmanager's GET /api/v2/alerts shows them."""
        found = []
        for some in sliced(list(self._book.firing.items())):
            for episode_id, instance in some:
                episode = self._book.episodes.get(episode_id)
                if episode is not None and match_all(matchers, self._book.labels_of(episode)):
                    found.append(self._as_alertmanager(episode, instance))
            await asyncio.sleep(0)
        return found

    def _as_alertmanager(self, episode: Episode, instance: AlertInstance) -> dict[str, Any]:
        now_ms = self._clock.now_ms()
        labels = self._book.labels_of(episode)
        silenced = silences.silenced_by(self._book.silences.values(), labels, now_ms)
        quiet = self._book.quiet_because(episode, now_ms)
        inhibited = [quiet.removeprefix("inhibited by ")] if quiet.startswith("inhibited") else []
        receivers = dict.fromkeys(target.route.receiver for target in self._book.router.targets(labels))
        return {
            "annotations": bounded(instance.annotations),
            "endsAt": rfc3339(now_ms + 5 * 60_000),
            "fingerprint": fingerprint(labels),
            "generatorURL": self._book.link_of(episode),
            "labels": labels.as_dict(),
            "receivers": [{"name": name} for name in receivers],
            "startsAt": rfc3339(episode.triggered_at_ms),
            "status": {
                "inhibitedBy": inhibited,
                "silencedBy": list(silenced),
                "state": "suppressed" if silenced or inhibited else "active",
            },
            "updatedAt": rfc3339(now_ms),
        }

    # silences

    def silences(self, matchers: Sequence[Matcher] = ()) -> list[dict[str, Any]]:
        """All silences as Alertmanager's API shows them: active, pending, expired, each by its end.

        `matchers` select, as the API's `filter` does, the silences that have matchers of these values.
        """
        now_ms = self._clock.now_ms()
        order = {"active": 0, "pending": 1, "expired": 2}
        chosen = [one for one in self._book.silences.values() if _selected(one, matchers)]
        chosen.sort(key=lambda one: (order[one.state(now_ms)], one.ends_at_ms))
        return [silences.to_json(one, now_ms) for one in chosen]

    def silence(self, silence_id: str) -> dict[str, Any]:
        """One silence.

        Raises: UnknownAlertError.
        """
        found = self._book.silences.get(silence_id)
        if found is None:
            raise UnknownAlertError(f"silence {silence_id} not found")
        return silences.to_json(found, self._clock.now_ms())

    async def set_silence(self, document: object) -> str:
        """Make a silence, or change the one whose id it has; returns the id.

        As in Alertmanager, one that is changed in its matchers, or that has expired, gets a new id.
        Raises: SilenceError; UnknownAlertError for an id that no silence has.
        """
        now_ms = self._clock.now_ms()
        wanted_id = document.get("id", "") if isinstance(document, Mapping) else ""
        if not isinstance(wanted_id, str):
            raise SilenceError("id must be a string")
        before = self._book.silences.get(wanted_id)
        if wanted_id and before is None:
            raise UnknownAlertError(f"silence {wanted_id} not found")
        silence = silences.from_json(document, wanted_id or str(uuid.uuid4()), now_ms)
        if before is not None:
            state = before.state(now_ms)
            if state == "active" and before.matchers == silence.matchers:
                silence = replace(silence, starts_at_ms=before.starts_at_ms)
            elif not (state == "pending" and before.matchers == silence.matchers):
                if state != "expired":
                    self._expire(before, now_ms)
                silence = replace(silence, id=str(uuid.uuid4()))
        self._book.set_silence(silence)
        await self._dispatcher.flush()
        return silence.id

    async def expire_silence(self, silence_id: str) -> None:
        """End a silence now.

        Raises: UnknownAlertError; SilenceError where it has expired already.
        """
        silence = self._book.silences.get(silence_id)
        if silence is None:
            raise UnknownAlertError(f"silence {silence_id} not found")
        now_ms = self._clock.now_ms()
        if silence.state(now_ms) == "expired":
            raise SilenceError(f"silence {silence_id} already expired")
        self._expire(silence, now_ms)
        await self._dispatcher.flush()

    def _expire(self, silence: Silence, now_ms: int) -> None:
        starts = min(silence.starts_at_ms, now_ms)
        self._book.set_silence(replace(silence, starts_at_ms=starts, ends_at_ms=now_ms, updated_at_ms=now_ms))

    def _find(self, alert_id: str) -> str:
        """The id of an active episode, given it or the id of its row."""
        episode = self._book.episodes.get(alert_id)
        if episode is None:
            same_row = (one for one in self._book.episodes.values() if str(row_id(one.id)) == alert_id)
            episode = next(same_row, None)
        if episode is None or not episode.active:
            raise UnknownAlertError(f"no alert {alert_id} is firing")
        return episode.id


def _selected(silence: Silence, matchers: Sequence[Matcher]) -> bool:
    """Whether a silence has, for each filter, a matcher of that name with a value that fits it."""
    labels = LabelSet.of(
        (one.name, one.value) for one in silence.matchers if one.op in (MatchOp.EQUAL, MatchOp.REGEX)
    )
    return match_all(matchers, labels)


def _acts(episode: Episode) -> dict[str, Any]:
    return {
        "acknowledgedAt": _time(episode.acked_at_ms),
        "acknowledgedBy": episode.acked_by,
        "acknowledgeNotes": episode.ack_notes,
        "resolvedAt": _time(episode.resolved_at_ms),
        "resolvedBy": episode.resolved_by,
        "resolutionNotes": episode.resolution_notes,
    }


def _time(ts_ms: int) -> str | None:
    return rfc3339(ts_ms) if ts_ms else None


def _name(by: str) -> str:
    if not by.strip():
        raise ValueError('"by" must name who acts')
    return by.strip()[:_BY_MAX]
