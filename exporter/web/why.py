"""GET /api/v1/alerts/why: why an alert did, or did not, fire or notify."""

from __future__ import annotations

from aiohttp import web

from exporter.config.matchers import parse_matchers
from exporter.errors import ExporterError, NotFoundError, QueryError, QueryErrorKind, StorageError
from exporter.model.labels import Matcher
from exporter.web.api_v1 import failure, success
from exporter.web.params import parse_time_ms
from exporter.web.ports import Deps


class WhyRoute:
    """The handler; `add_routes` mounts it."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Mount the endpoint."""
        router.add_get("/api/v1/alerts/why", self.why)

    async def why(self, request: web.Request) -> web.Response:
        """Query parameters: `alert`, `at` (a time; now without it), `match` (label matchers, repeatable)."""
        query = request.query
        try:
            alert = query.get("alert", "")
            if not alert:
                return failure("bad_data", 'invalid parameter "alert": a rule\'s name is needed')
            at_ms = parse_time_ms(query["at"], "at") if query.get("at") else None
            matchers: list[Matcher] = []
            for text in query.getall("match", []):
                matchers.extend(parse_matchers(text))
            if self._deps.why is None:
                return failure("unavailable", "nothing can be explained here")
            return success(await self._deps.why.why(alert, at_ms, matchers))
        except NotFoundError as error:
            return failure("not_found", str(error))
        except StorageError as error:
            return failure("unavailable", str(error))
        except QueryError as error:
            return failure("timeout" if error.kind is QueryErrorKind.TIMEOUT else "execution", str(error))
        except (ValueError, ExporterError) as error:
            return failure("bad_data", str(error))
