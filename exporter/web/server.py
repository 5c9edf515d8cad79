"""The aiohttp application and its runner: routes, authentication, errors, the listener."""

from __future__ import annotations

import asyncio
import errno
import hmac
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from exporter.errors import ConfigError, ExporterError, InputError
from exporter.web import encode
from exporter.web.alerts import AlertRoutes
from exporter.web.api_v1 import ApiV1, failure, response
from exporter.web.auth import BasicAuth, WebConfig, changes_state, is_loopback
from exporter.web.direct import DirectSite
from exporter.web.forward import Forwarding
from exporter.web.negotiate import Wanted
from exporter.web.ports import Deps
from exporter.web.queries import QueryEndpoints
from exporter.web.reply import INTERNAL
from exporter.web.why import WhyRoute

log = logging.getLogger(__name__)

Middleware = Callable[
    [web.Request, Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[web.StreamResponse]
]
_QUERIES = web.AppKey("queries", QueryEndpoints)
_QUERY_PATHS = ("/api/v1/query", "/api/v1/query_range")
_OPEN_PATHS = ("/-/healthy", "/-/ready", "/-/replica")


def create_app(deps: Deps, web_config: WebConfig, *, loopback: bool) -> web.Application:
    """The application. `loopback` says that only this machine can reach the listener."""
    middlewares = [_guard(web_config, loopback=loopback), _faults]
    forwarding = Forwarding(deps.replicas) if deps.replicas is not None else None
    if forwarding is not None:
        middlewares.insert(1, forwarding.middleware())
    middlewares.append(_until_ready(deps.ready))
    app = web.Application(middlewares=middlewares, client_max_size=16 * 1024**2)
    if forwarding is not None:
        app.on_cleanup.append(forwarding.close)
    queries = app[_QUERIES] = QueryEndpoints(deps.queries, deps.clock)
    ApiV1(deps, queries).add_routes(app.router)
    AlertRoutes(deps).add_routes(app.router)
    WhyRoute(deps).add_routes(app.router)
    _Plain(deps).add_routes(app.router)
    if web_config.headers:

        async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(web_config.headers)

        app.on_response_prepare.append(add_headers)
    return app


class _Plain:
    """Health, readiness, reload, metrics, the platform's dashboard document and cron endpoint."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/", self.index)
        router.add_get("/graph", self.graph)
        router.add_get("/metrics", self.metrics)
        router.add_get("/-/healthy", self.healthy)
        router.add_get("/-/ready", self.ready)
        if self._deps.replicas is not None:
            router.add_get("/-/replica", self.replica)
        router.add_post("/-/reload", self.reload)
        router.add_put("/-/reload", self.reload)
        router.add_get("/api/quantum/monitoring-dashboard", self.dashboard)
        router.add_get("/api/quantum/cache-stats", self.cache_stats)
        router.add_get("/api/quantum/rate-limits", self.rate_limits)
        router.add_post("/api/quantum/cron-monitoring", self.cron)

    async def index(self, request: web.Request) -> web.Response:
        links = (
            ("/metrics", "metrics"),
            ("/api/v1/alerts", "alerts"),
            ("/api/v1/rules", "rules"),
            ("/api/quantum/monitoring-dashboard", "state of the platform"),
            ("/-/ready", "readiness"),
        )
        items = "".join(f'<li><a href="{path}">{text}</a></li>' for path, text in links)
        page = f"<!doctype html><title>quantum-exporter</title><h1>quantum-exporter</h1><ul>{items}</ul>"
        return web.Response(text=page, content_type="text/html")

    async def graph(self, request: web.Request) -> web.Response:
        """Where notifications link to: the answer to the expression `g0.expr`; there is no graph here."""
        query = urlencode({"query": request.query.get("g0.expr", "")})
        return web.Response(status=302, headers={"Location": f"api/v1/query?{query}"})

    async def metrics(self, request: web.Request) -> web.Response:
        asked = request.query
        created = asked.get("created", "false")
        if created not in ("true", "false"):
            return web.Response(text=f'created: "{created}" (allowed: true, false)\n', status=400)

        def names(key: str) -> tuple[str, ...]:
            return tuple(sorted(set(asked.getall(key, []))))

        wanted = Wanted(names("name[]"), names("collect[]"), names("exclude[]"), created == "true")
        try:
            body, headers = await self._deps.exposition.render(
                request.headers.get("Accept", ""),
                request.headers.get("Accept-Encoding", ""),
                wanted,
            )
        except InputError as error:
            return web.Response(text=f"{error}\n", status=400)
        return web.Response(body=body, headers=dict(headers))

    async def healthy(self, request: web.Request) -> web.Response:
        return web.Response(text="quantum-exporter is Healthy.\n")

    async def ready(self, request: web.Request) -> web.Response:
        missing = self._deps.ready()
        if missing:
            return web.Response(text=f"Service Unavailable: {missing}\n", status=503)
        return web.Response(text="quantum-exporter is Ready.\n")

    async def replica(self, request: web.Request) -> web.Response:
        """What another replica asks that cannot reach the database."""
        assert self._deps.replicas is not None
        document = self._deps.replicas.document()
        return web.Response(body=encode.dump(document), content_type="application/json")

    async def reload(self, request: web.Request) -> web.Response:
        try:
            await self._deps.reload()
        except InputError as error:
            return web.Response(text=f"failed to reload config: {error}\n", status=500)
        return web.Response(text="")

    async def dashboard(self, request: web.Request) -> web.Response:
        document = await self._deps.dashboard()
        return web.Response(body=encode.dump(document), content_type="application/json")

    async def cache_stats(self, request: web.Request) -> web.Response:
        return web.Response(body=encode.dump(self._deps.cache_stats()), content_type="application/json")

    async def rate_limits(self, request: web.Request) -> web.Response:
        return web.Response(body=encode.dump(self._deps.rate_limits()), content_type="application/json")

    async def cron(self, request: web.Request) -> web.Response:
        secret = self._deps.cron_secret()
        if not secret:
            return _plain_error(503, "no cron secret is configured (dashboard_api.cron_secret)")
        given = request.headers.get("x-cron-secret", "")
        if not hmac.compare_digest(given.encode(), secret.encode()):
            return _plain_error(401, "the header x-cron-secret is missing or wrong")
        return web.Response(body=encode.dump(await self._deps.run_checks()), content_type="application/json")


def _plain_error(status: int, message: str) -> web.Response:
    body = encode.dump({"success": False, "error": message})
    return web.Response(body=body, status=status, content_type="application/json")


def _guard(config: WebConfig, *, loopback: bool) -> Any:
    """Basic authentication where users are configured; without it nobody changes state from afar."""
    basic = BasicAuth(config.users) if config.users else None

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        if basic is not None:
            if request.path not in _OPEN_PATHS and not await basic.allows(
                request.headers.get("Authorization")
            ):
                return web.Response(text="Unauthorized\n", status=401, headers={"WWW-Authenticate": "Basic"})
        elif not loopback and changes_state(request):
            return failure(
                "forbidden",
                "this listener is not loopback: "
                "what changes state needs basic_auth_users in --web.config.file",
                403,
            )
        if request.headers.get("Sec-Fetch-Site", "same-origin") == "cross-site" and changes_state(request):
            return failure("forbidden", "a page of another site may not change state here", 403)
        return await handler(request)  # type: ignore[no-any-return]

    return guard


def _until_ready(missing: Callable[[], str]) -> Middleware:
    """While the program starts or stops, the API answers 503 with what is missing, as Prometheus does.

    Queries are answered from what is in memory, from the first moment on.
    """

    @web.middleware
    async def until_ready(request: web.Request, handler: Any) -> web.StreamResponse:
        needs_all = request.path.startswith("/api/") or request.path == "/-/reload"
        if needs_all and request.path not in _QUERY_PATHS and (reason := missing()):
            return failure("unavailable", f"not ready: {reason}")
        return await handler(request)  # type: ignore[no-any-return]

    return until_ready


@web.middleware
async def _faults(request: web.Request, handler: Any) -> web.StreamResponse:
    """A fault of ours answers 500 with its kind, and is logged with its cause."""
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except web.HTTPNotFound as error:
        error.text = "404 page not found\n"
        raise
    except web.HTTPMethodNotAllowed as error:
        if request.method == "OPTIONS" and request.path.startswith("/api/v1/"):
            return web.Response(status=204)  # what a browser asks before it asks
        error.text = "Method Not Allowed\n"
        raise
    except (web.HTTPException, asyncio.CancelledError):
        raise
    except ExporterError as error:
        return failure("internal", str(error), 500)
    except Exception:
        log.exception("request failed: %s %s", request.method, request.path)
        return response(INTERNAL)


class Server:
    """The listener: started once, stopped with a short grace for requests under way."""

    def __init__(self, app: web.Application, host: str, port: int, web_config: WebConfig) -> None:
        self._queries = app[_QUERIES]
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._host = host
        self._port = port
        self._config = web_config

    async def start(self) -> str:
        """Listen; returns the base URL.

        Raises: ConfigError where the address cannot be bound, naming it.
        """
        await self._runner.setup()
        context = self._config.ssl_context()
        try:
            await self._site(context).start()
        except OSError as error:
            await self._runner.cleanup()
            address = f"{self._host}:{self._port}"
            if error.errno == errno.EADDRINUSE:
                reason = "another program uses this port (choose one with --web.listen-address)"
            else:
                reason = error.strerror or str(error)
            raise ConfigError(f"cannot listen on {address}: {reason}") from error
        port = self._runner.addresses[0][1]
        shown = f"[{self._host}]" if ":" in self._host else self._host or "0.0.0.0"
        return f"{'https' if context else 'http'}://{shown}:{port}"

    def _site(self, context: ssl.SSLContext | None) -> web.BaseSite:
        """Queries go straight to their endpoints where nobody has to say who they are."""
        host = self._host or None
        if self._config.users:
            return web.TCPSite(self._runner, host, self._port, ssl_context=context)
        return DirectSite(
            self._runner,
            host,
            self._port,
            self._queries,
            headers=self._config.headers,
            ssl_context=context,
        )

    async def stop(self) -> None:
        """Stop listening and end the requests under way."""
        await self._runner.cleanup()


def parse_listen_address(text: str, option: str = "--web.listen-address") -> tuple[str, int]:
    """Host and port of an option's `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (every interface).

    Raises: ConfigError for anything else.
    """
    host, found, port = text.rpartition(":")
    if not found or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ConfigError(
            f'{option}: "{text}" is not an address (allowed: HOST:PORT, such as 127.0.0.1:9464)'
        )
    return host.strip("[]"), int(port)


__all__ = ["Server", "create_app", "is_loopback", "parse_listen_address"]
