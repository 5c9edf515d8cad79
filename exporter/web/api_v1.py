"""Prometheus' HTTP API v1: queries, labels, rules, alerts, status.

Source: Prometheus' HTTP API document; envelope, codes and error types as its web/api/v1 answers.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from aiohttp import web

from exporter import __version__
from exporter.errors import QueryError, QueryErrorKind, StorageError
from exporter.model.found import Found
from exporter.model.labels import Matcher
from exporter.promql.explain import Step
from exporter.promql.parse import parse_expr, parse_selector
from exporter.promql.printer import to_pretty
from exporter.rules.emptiness import selectors_of
from exporter.web import encode, reply
from exporter.web.params import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    ParamError,
    Params,
    first,
    flag,
    go_int,
    only,
    optional_time_ms,
    parse_limit,
)
from exporter.web.ports import Deps
from exporter.web.queries import Endpoint, QueryEndpoints, timeout_of
from exporter.web.reply import Reply, query_failure, refusal
from exporter.web.rules_json import active_alerts, rule_groups

# Clients read features off this version; it names the API level, then what answers.
API_VERSION = f"3.0.0+quantum-exporter.{__version__}"

_HANG_UP_CHECK_S = 0.25
T = TypeVar("T")
Handler = Callable[[Params, web.Request], Awaitable[web.Response]]


def success(data: Any, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> web.Response:
    """The envelope of an answer."""
    return response(reply.success(data, warnings, infos))


def failure(error_type: str, message: str, code: int | None = None) -> web.Response:
    """The envelope of an error."""
    return response(reply.failure(error_type, message, code))


def response(answer: Reply) -> web.Response:
    """A reply as aiohttp sends it."""
    return web.Response(body=answer.body, status=answer.status, content_type="application/json")


class ApiV1:
    """The handlers; `add_routes` mounts them under /api/v1."""

    def __init__(self, deps: Deps, queries: QueryEndpoints) -> None:
        self._deps = deps
        self._queries = queries

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Mount every endpoint."""
        both = {
            **{name: _awaited(endpoint) for name, endpoint in self._queries.by_name().items()},
            "labels": self.labels,
            "series": self.series,
            "format_query": self.format_query,
            "query_explain": self.query_explain,
            "query_exemplars": self.query_exemplars,
        }
        for path, handler in both.items():
            router.add_get(f"/api/v1/{path}", _wrapped(handler), allow_head=False)
            router.add_post(f"/api/v1/{path}", _wrapped(handler))
        for path, handler in {
            "label/{name}/values": self.label_values,
            "metadata": self.metadata,
            "rules": self.rules,
            "alerts": self.alerts,
            "alertmanagers": self.alertmanagers,
            "targets": self.targets,
            "targets/metadata": self.targets_metadata,
            "scrape_pools": self.scrape_pools,
            "status/buildinfo": self.buildinfo,
            "status/config": self.config,
            "status/flags": self.flags,
            "status/runtimeinfo": self.runtimeinfo,
            "status/tsdb": self.tsdb,
        }.items():
            router.add_get(f"/api/v1/{path}", _wrapped(handler), allow_head=False)

    # queries

    async def query_explain(self, params: Params, request: web.Request) -> web.Response:
        """Instant query with the tree of its sub-expressions; an endpoint of our own."""
        ts_ms = self._time(params, "time", self._deps.clock.now_ms())
        timeout_s = timeout_of(params)
        try:
            result, root = await _while_connected(
                request,
                self._deps.queries.explain(first(params, "query"), ts_ms, timeout_s=timeout_s),
            )
        except QueryError as error:
            return response(query_failure(error))
        return success({"time": ts_ms / 1000, "tree": explained(root)}, result.warnings, result.infos)

    async def format_query(self, params: Params, request: web.Request) -> web.Response:
        """The query, laid out."""
        try:
            return success(to_pretty(parse_expr(first(params, "query"))))
        except QueryError as error:
            return response(query_failure(error))

    async def query_exemplars(self, params: Params, request: web.Request) -> web.Response:
        """No exemplars are stored, so every valid query has an empty answer."""
        start_ms = self._time(params, "start", MIN_TIME_MS)
        if self._time(params, "end", MAX_TIME_MS) < start_ms:
            raise ParamError("end timestamp must not be before start timestamp")
        expr = parse_expr(first(params, "query"))
        return success([] if list(selectors_of(expr)) else None)

    # labels

    async def labels(self, params: Params, request: web.Request) -> web.Response:
        """Label names."""
        limit, start_ms, end_ms = self._label_params(params)
        names = await self._deps.queries.label_names(_label_matchers(params), start_ms, end_ms)
        return _limited(names, limit)

    async def label_values(self, params: Params, request: web.Request) -> web.Response:
        """Values of one label."""
        name = request.match_info["name"]
        if name.startswith("U__"):
            name = _unescape(name)
        if not name or "\x00" in name:
            return failure("bad_data", f'invalid label name: "{name}"')
        limit, start_ms, end_ms = self._label_params(params)
        values = await self._deps.queries.label_values(name, _label_matchers(params), start_ms, end_ms)
        return _limited(values, limit)

    async def series(self, params: Params, request: web.Request) -> web.Response:
        """Series by matchers."""
        if not params.get("match[]"):
            return failure("bad_data", "no match[] parameter provided")
        limit, start_ms, end_ms = self._label_params(params)
        found = await self._deps.queries.series(_series_matchers(params), start_ms, end_ms)
        return _limited(found, limit)

    # rules and alerts

    async def rules(self, params: Params, request: web.Request) -> web.Response:
        """Rule groups with state."""
        kind = only(params.get("type", ()), ("alert", "record"), "type")
        exclude_alerts = flag(first(params, "exclude_alerts"), "exclude_alerts")
        return success(
            rule_groups(
                self._deps.rules.groups(),
                kind=kind,
                files=params.get("file[]", ()),
                names=params.get("rule_name[]", ()),
                groups_wanted=params.get("rule_group[]", ()),
                matcher_sets=_label_matchers(params),
                exclude_alerts=exclude_alerts,
                group_limit=_group_limit(first(params, "group_limit")),
                next_token=first(params, "group_next_token"),
            )
        )

    async def alerts(self, params: Params, request: web.Request) -> web.Response:
        """Pending and firing alert instances."""
        return success({"alerts": active_alerts(self._deps.rules.groups())})

    async def alertmanagers(self, params: Params, request: web.Request) -> web.Response:
        """The Alertmanagers that are told."""
        active = [{"url": url} for url in self._deps.status.alertmanagers()]
        return success({"activeAlertmanagers": active, "droppedAlertmanagers": []})

    async def targets(self, params: Params, request: web.Request) -> web.Response:
        """Scrape targets, of one job where `scrapePool` names it."""
        state, pool = first(params, "state").lower() or "any", first(params, "scrapePool")
        document = dict(self._deps.status.targets())
        active, dropped = document["activeTargets"], document["droppedTargets"]
        if pool:
            active = [one for one in active if one["scrapePool"] == pool]
            dropped = [one for one in dropped if one["discoveredLabels"]["job"] == pool]
        document["activeTargets"] = active if state in ("any", "active") else []
        document["droppedTargets"] = dropped if state in ("any", "dropped") else []
        return success(document)

    async def scrape_pools(self, params: Params, request: web.Request) -> web.Response:
        """The names of the jobs."""
        return success({"scrapePools": sorted(self._deps.status.scrape_pools())})

    # status

    async def metadata(self, params: Params, request: web.Request) -> web.Response:
        """Type, help and unit of metrics."""
        limit, wanted = _metadata_limit(params), first(params, "metric")
        found: dict[str, dict[tuple[str, str, str], None]] = {}
        for name, entry in self._deps.status.metadata().items():
            found.setdefault(name, {})[entry] = None
        for _, told in self._deps.status.scraped_metadata():
            for name, one in told.items():
                found.setdefault(name, {})[one.kind, one.help, one.unit] = None
        shown = {
            name: [{"type": kind, "help": text, "unit": unit} for kind, text, unit in entries]
            for name, entries in found.items()
            if not wanted or name == wanted
        }
        return success(dict(list(shown.items())[:limit]) if limit >= 0 else shown)

    async def targets_metadata(self, params: Params, request: web.Request) -> web.Response:
        """Type, help and unit of metrics as each target tells them."""
        limit, wanted = _metadata_limit(params), first(params, "metric")
        text = first(params, "match_target")
        matchers = _selector(text, "match_target") if text else ()
        found: list[dict[str, Any]] = []
        for labels, told in self._deps.status.scraped_metadata():
            if 0 <= limit <= len(found):
                break
            if not all(matcher.matches(labels.get(matcher.name)) for matcher in matchers):
                continue
            for name in (wanted,) if wanted else sorted(told):
                one = told.get(name)
                if one is not None:
                    about = {} if wanted else {"metric": name}
                    entry = {"type": one.kind, "help": one.help, "unit": one.unit}
                    found.append({"target": labels.as_dict(), **about, **entry})
        return success(found)

    async def buildinfo(self, params: Params, request: web.Request) -> web.Response:
        """What answers, and its API level."""
        return success(
            {
                "version": API_VERSION,
                "revision": "",
                "branch": "",
                "buildUser": "",
                "buildDate": "",
                "goVersion": "",
            }
        )

    async def config(self, params: Params, request: web.Request) -> web.Response:
        """The configuration with secrets masked."""
        return success({"yaml": self._deps.status.config_yaml()})

    async def flags(self, params: Params, request: web.Request) -> web.Response:
        """The command line's flags."""
        return success(self._deps.status.flags)

    async def runtimeinfo(self, params: Params, request: web.Request) -> web.Response:
        """Facts of the running process."""
        runtime = {
            "startTime": encode.rfc3339(self._deps.status.started_ms),
            "CWD": os.getcwd(),  # noqa: PTH109
            "hostname": socket.gethostname(),
            "serverTime": encode.rfc3339(self._deps.clock.now_ms()),
        }
        return success({**runtime, **self._deps.status.runtime()})

    async def tsdb(self, params: Params, request: web.Request) -> web.Response:
        """Statistics of the head."""
        return success(await asyncio.to_thread(self._deps.status.head_stats))

    def _time(self, params: Params, name: str, default: int) -> int:
        return optional_time_ms(first(params, name), name, default)

    def _label_params(self, params: Params) -> tuple[int, int, int]:
        limit = parse_limit(first(params, "limit"))
        return limit, self._time(params, "start", MIN_TIME_MS), self._time(params, "end", MAX_TIME_MS)


def _wrapped(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Read GET and form parameters; turn faults into the envelope."""

    async def handle(request: web.Request) -> web.Response:
        params: dict[str, list[str]] = {}
        try:
            pairs = [*request.query.items()]
            if request.method == "POST":
                pairs = [(key, str(value)) for key, value in (await request.post()).items()] + pairs
            for key, value in pairs:
                params.setdefault(key, []).append(value)
            return await handler(params, request)
        except (ParamError, QueryError, StorageError) as error:
            return response(refusal(error))

    return handle


def _awaited(endpoint: Endpoint) -> Handler:
    """An endpoint of queries as a handler; a client that hangs up ends its query."""

    async def handle(params: Params, request: web.Request) -> web.Response:
        answer = endpoint(params)
        return response(answer if isinstance(answer, Reply) else await _while_connected(request, answer))

    return handle


def _group_limit(text: str) -> int:
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise ParamError(f'strconv.ParseInt: parsing "{text}": invalid syntax', "group_limit") from None


def _matcher_sets(params: Params) -> list[Sequence[Matcher]]:
    """The selectors of match[]. Raises: QueryError; ParamError for one that matches every series."""
    sets: list[Sequence[Matcher]] = [parse_selector(text) for text in params.get("match[]", ())]
    if any(all(matcher.matches("") for matcher in matchers) for matchers in sets):
        raise ParamError("match[] must contain at least one non-empty matcher")
    return sets


def _selector(text: str, name: str) -> Sequence[Matcher]:
    """The matchers of a parameter. Raises: ParamError."""
    try:
        return parse_selector(text)
    except QueryError as error:
        raise ParamError(str(error), name) from error


def _metadata_limit(params: Params) -> int:
    limit = go_int(first(params, "limit") or "-1")
    if limit is None or abs(limit) >= 2**63:
        raise ParamError("limit must be a number")
    return limit


def _series_matchers(params: Params) -> list[Sequence[Matcher]]:
    """As the series endpoint words its errors. Raises: ParamError."""
    try:
        return _matcher_sets(params)
    except (QueryError, ParamError) as error:
        raise ParamError(str(error), "match[]") from error


def _label_matchers(params: Params) -> list[Sequence[Matcher]]:
    """As the other endpoints word their errors. Raises: ParamError."""
    try:
        return _matcher_sets(params)
    except QueryError as error:
        raise ParamError(str(error)) from error


async def _while_connected(request: web.Request, answer: Coroutine[Any, Any, T]) -> T:
    """The answer; a client that hangs up cancels what works on it.

    Raises: QueryError (CANCELED) then, and whatever the answer raises.
    """
    task = asyncio.ensure_future(answer)
    try:
        while not (await asyncio.wait((task,), timeout=_HANG_UP_CHECK_S))[0]:
            if request.transport is None or request.transport.is_closing():
                raise QueryError("query was canceled in expression evaluation", QueryErrorKind.CANCELED)
    finally:
        task.cancel()  # nothing where it is done
    return task.result()


def explained(root: Step) -> dict[str, Any]:
    """A sub-expression and its parts; times in seconds."""
    document: dict[str, Any] = {"expr": root.text, "type": root.kind}
    if root.value:
        document["value"] = root.value
    return {
        **document,
        "series": root.series,
        "samples": root.samples,
        "seconds": round(root.seconds, 9),
        "ownSeconds": round(root.own_seconds, 9),
        "parts": [explained(part) for part in root.parts],
    }


def _limited(found: Found[Any], limit: int) -> web.Response:
    if limit and len(found.items) > limit:
        return success(list(found.items)[:limit], [*found.warnings, "results truncated due to limit"])
    return success(list(found.items), found.warnings)


def _unescape(name: str) -> str:
    """A label name in Prometheus' value encoding (`U__` then `_hex_` for other characters, `__` for `_`)."""
    out, rest = [], name[3:]
    while rest:
        if rest.startswith("__"):
            out.append("_")
            rest = rest[2:]
        elif rest[0] == "_":
            code, end, tail = rest[1:].partition("_")
            if not end:
                return name
            try:
                out.append(chr(int(code, 16)))
            except ValueError:
                return name
            rest = tail
        else:
            out.append(rest[0])
            rest = rest[1:]
    return "".join(out)
