"""The queries of Grafana's panels, asked of live data sources as Grafana asks them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import aiohttp
import asyncpg

from exporter.dashboards.answers import Answer, from_prometheus, from_rows
from exporter.dashboards.check import custom_choices, sql_variables
from exporter.dashboards.queries import PanelQuery, Surroundings, expand_promql, expand_sql
from exporter.errors import ConfigError, QueryError
from exporter.promql.parse import parse_expr
from exporter.query.remote import RemoteApi

_TIMEOUT_S = 30.0


class PanelSources:
    """A Prometheus-compatible API, a database, or both; a query whose source is missing is not asked."""

    def __init__(self, api: RemoteApi | None, connection: Any) -> None:
        self._api = api
        self._connection = connection

    async def surroundings(self, dashboard: Mapping[str, Any], around: Surroundings) -> Surroundings:
        """With the dashboard's variables: all choices of each."""
        variables = {**custom_choices(dashboard), **await self._choices(dashboard)}
        return replace(around, variables=variables)

    async def ask(self, query: PanelQuery, around: Surroundings) -> Answer:
        """One query; what fails is in the answer's `error`."""
        return await (self._sql(query, around) if query.is_sql else self._promql(query, around))

    async def _choices(self, dashboard: Mapping[str, Any]) -> dict[str, str]:
        if self._connection is None:
            return {}
        chosen = {}
        for name, query in sql_variables(dashboard).items():
            try:
                chosen[name] = ",".join(str(row[0]) for row in await self._connection.fetch(query))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                chosen[name] = ""  # the panels that need it will say what is wrong
        return chosen

    async def _promql(self, query: PanelQuery, around: Surroundings) -> Answer:
        # what stands in a regular expression is left to match everything, as the variable's `allValue` does
        text = expand_promql(query.text, replace(around, variables=None))
        try:
            if self._api is None:
                parse_expr(text)
                return Answer(query, asked=False)
            if query.instant:
                found = await self._api.instant(text, around.to_ms)
            else:
                found = await self._api.range(text, around.from_ms, around.to_ms, around.step_ms)
        except QueryError as error:
            return Answer(query, error=str(error))
        return from_prometheus(query, found.data)

    async def _sql(self, query: PanelQuery, around: Surroundings) -> Answer:
        if self._connection is None:
            return Answer(query, asked=False)
        try:
            statement = await self._connection.prepare(expand_sql(query.text, around))
            columns = [attribute.name for attribute in statement.get_attributes()]
            return from_rows(query, columns, await statement.fetch())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            return Answer(query, error=str(error) or type(error).__name__)


@contextlib.asynccontextmanager
async def panel_sources(url: str, database: str) -> AsyncIterator[PanelSources]:
    """Connected to what is named; the database is only read.

    Raises: ConfigError where the database does not answer, QueryError where `url` is no server's URL.
    """
    async with contextlib.AsyncExitStack() as stack:
        api = connection = None
        if url:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            api = RemoteApi(url, session, timeout_s=_TIMEOUT_S)
        if database:
            connection = await _connect(database)
            stack.push_async_callback(connection.close)
        yield PanelSources(api, connection)


async def _connect(database: str) -> Any:
    try:
        connection = await asyncpg.connect(database, timeout=10.0, command_timeout=_TIMEOUT_S)
        await connection.execute("set default_transaction_read_only = on")
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ConfigError(f"the database does not answer: {error or type(error).__name__}") from error
    return connection
