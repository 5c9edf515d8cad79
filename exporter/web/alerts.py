"""Alerts beyond Prometheus' API: list with outlook, history, acknowledgement, resolution, silences.

`/api/v2` answers as Alertmanager's API does, so that amtool can be pointed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from exporter import __version__
from exporter.config.matchers import parse_matchers
from exporter.errors import ExporterError, NotFoundError, StorageError
from exporter.model.labels import Matcher
from exporter.web import encode
from exporter.web.api_v1 import failure, success
from exporter.web.params import ParamError, parse_limit, parse_time_ms
from exporter.web.ports import AlertActions, Deps

Handler = Callable[[web.Request], Awaitable[web.Response]]
_AT_ONCE = 100
_TEXT_FILTERS = ("alertname", "severity", "state", "receiver", "by")


class AlertRoutes:
    """The handlers; `add_routes` mounts them."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Mount every endpoint."""
        router.add_get("/api/v1/alerts/outlook", _v1(self.outlook))
        router.add_get("/api/v1/alerts/history", _v1(self.history))
        router.add_post("/api/v1/alerts/{id}/ack", _v1(self.acknowledge))
        router.add_post("/api/v1/alerts/{id}/resolve", _v1(self.resolve))
        router.add_get("/api/v2/alerts", _v2(self.alerts_v2))
        router.add_get("/api/v2/status", _v2(self.status_v2))
        router.add_get("/api/v2/silences", _v2(self.silences))
        router.add_post("/api/v2/silences", _v2(self.set_silence))
        router.add_get("/api/v2/silence/{id}", _v2(self.silence))
        router.add_delete("/api/v2/silence/{id}", _v2(self.expire_silence))

    @property
    def _alerts(self) -> AlertActions:
        return self._deps.alerts()

    # /api/v1

    async def outlook(self, request: web.Request) -> web.Response:
        """Every pending and firing instance, with when it is sent next or why not."""
        return success({"alerts": await _dumped(await self._alerts.alerts(_matchers(request)))})

    async def history(self, request: web.Request) -> web.Response:
        """Episodes, newest first, each with who acted on it and what was sent."""
        query = request.query
        wanted: dict[str, Any] = {name: query.get(name, "") for name in _TEXT_FILTERS}
        for name in ("start", "end"):
            if query.get(name):
                wanted[f"{name}_ms"] = parse_time_ms(query[name], name)
        wanted["limit"] = parse_limit(query.get("limit")) or 100
        wanted["offset"] = parse_limit(query.get("offset"))
        labels = {one.name: one.value for one in _matchers(request)}
        if labels:
            wanted["labels"] = labels
        return success({"episodes": list(await self._alerts.find(**wanted))})

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Stop the repetitions of an episode: {"by", "notes"}."""
        by, notes = await _who(request)
        return success(await self._alerts.acknowledge(request.match_info["id"], by, notes))

    async def resolve(self, request: web.Request) -> web.Response:
        """Resolve an episode by hand: {"by", "notes"}."""
        by, notes = await _who(request)
        return success(await self._alerts.resolve(request.match_info["id"], by, notes))

    # /api/v2

    async def alerts_v2(self, request: web.Request) -> web.Response:
        """Firing instances as Alertmanager shows them."""
        found = await self._alerts.alerts_v2(_matchers(request))
        for state in ("active", "suppressed"):
            name = "active" if state == "active" else "silenced"
            if request.query.get(name) == "false":
                found = [one for one in found if one["status"]["state"] != state]
        return _json(await _dumped(found))

    async def status_v2(self, request: web.Request) -> web.Response:
        """What a client of Alertmanager's API asks first."""
        return _json(
            {
                "cluster": {"status": "disabled", "peers": []},
                "config": {"original": self._deps.status.config_yaml()},
                "uptime": encode.rfc3339(self._deps.status.started_ms),
                "versionInfo": {
                    "branch": "", "buildDate": "", "buildUser": "", "goVersion": "", "revision": "",
                    "version": f"quantum-exporter {__version__}",
                },
            }
        )  # fmt: skip

    async def silences(self, request: web.Request) -> web.Response:
        """All silences."""
        return _json(self._alerts.silences(_matchers(request)))

    async def silence(self, request: web.Request) -> web.Response:
        """One silence."""
        return _json(self._alerts.silence(request.match_info["id"]))

    async def set_silence(self, request: web.Request) -> web.Response:
        """Make or change a silence."""
        return _json({"silenceID": await self._alerts.set_silence(await _body(request))})

    async def expire_silence(self, request: web.Request) -> web.Response:
        """End a silence now."""
        await self._alerts.expire_silence(request.match_info["id"])
        return web.Response(body=b"")


def _v1(handler: Handler) -> Handler:
    """Turn faults into the envelope of /api/v1."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except NotFoundError as error:
            return failure("not_found", str(error))
        except StorageError as error:
            return failure("unavailable", str(error))
        except (ParamError, ValueError, ExporterError) as error:
            return failure("bad_data", str(error))

    return handle


def _v2(handler: Handler) -> Handler:
    """Turn faults into what Alertmanager answers: the text as a JSON string."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except NotFoundError as error:
            return _json(str(error), 404)
        except StorageError as error:
            return _json(str(error), 500)
        except (ValueError, ExporterError) as error:
            return _json(str(error), 400)

    return handle


async def _dumped(found: Sequence[Any]) -> encode.RawJson:
    """A list that may be long as JSON; others run in between."""
    parts = []
    for start in range(0, len(found), _AT_ONCE):
        parts += [encode.dump(one) for one in found[start : start + _AT_ONCE]]
        await asyncio.sleep(0)
    return encode.RawJson(b"[%b]" % b",".join(parts))


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=encode.dump(document), status=status, content_type="application/json")


def _matchers(request: web.Request) -> Sequence[Matcher]:
    found: list[Matcher] = []
    for text in request.query.getall("filter", []):
        try:
            found.extend(parse_matchers(text))
        except ValueError as error:
            raise ParamError(str(error), "filter") from error
    return found


async def _body(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError as error:
        raise ParamError(f"the body is not JSON: {error}") from error


async def _who(request: web.Request) -> tuple[str, str]:
    body = await _body(request)
    if not isinstance(body, dict) or not isinstance(body.get("by"), str):
        raise ParamError('the body must be {"by": "NAME", "notes": "..."}')
    notes = body.get("notes") or ""
    if not isinstance(notes, str):
        raise ParamError('"notes" must be a string')
    return body["by"], notes
