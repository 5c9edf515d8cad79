"""The setup of the specification: a sample receiver and querier, our rule loop, a recording Alertmanager.

Time stands still until a test moves it by whole intervals; each step stores the samples that hold, evaluates,
and waits until what is to be sent has been taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from exporter.config.receivers import AlertmanagerConfig
from exporter.loops.metrics import PipelineMetrics
from exporter.loops.rules import RuleLoop
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.model.staleness import STALE_NAN
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.receivers.alertmanager import Alertmanagers
from exporter.promql.engine import Engine
from exporter.promql.notation import parse_series
from exporter.promql.values import InstantVector
from exporter.rules.engine_query import EngineQueries
from exporter.rules.evaluation import GroupEvaluation, GroupView
from exporter.rules.expand import TemplateSettings
from exporter.rules.format import read_rule_file
from exporter.rules.group import GroupState
from exporter.storage import MemoryStorage
from tests.helpers.clock import FakeClock
from tests.notify.test_webhook import server
from tests.web.api_server import api_server, local_queries

START_MS = 1_700_000_000_000


def ms(text: str) -> int:
    """Unix milliseconds of a time as it stands in JSON."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class _Live(Sequence[GroupView]):
    """The groups of the loop at each moment."""

    def __init__(self, rules: RuleLoop) -> None:
        self._rules = rules

    def __getitem__(self, index: Any) -> Any:
        return self._rules.groups()[index]

    def __len__(self) -> int:
        return len(self._rules.groups())

    def __iter__(self) -> Iterator[GroupView]:
        return iter(self._rules.groups())


class Rig:
    """See the module. `posts` are the bodies that the receiver took, each with the time of its arrival."""

    def __init__(
        self, rules: str, alertmanager: str, *, default_interval_s: int, start_ms: int, file: str
    ) -> None:
        self.clock = FakeClock(start_ms)
        self.storage = MemoryStorage()
        self.posts: list[tuple[int, list[dict[str, Any]]]] = []
        self.evaluations: list[GroupEvaluation] = []
        self._holding: dict[LabelSet, float] = {}
        self._ending: list[LabelSet] = []
        self.alertmanagers = Alertmanagers(
            [AlertmanagerConfig((alertmanager.removeprefix("http://"),))],
            self.clock,
            NotifyMetrics(CollectorRegistry()),
            external_labels=EMPTY_LABELS,
            default_interval_ms=default_interval_s * 1000,
            link=lambda rule: f"http://x/graph?g0.expr={rule.expr_text}",
            rng=Random(1),
        )
        self.rules = RuleLoop(
            query=EngineQueries(Engine(self.storage)),
            append=self.storage.append_batch,
            persist=lambda _: None,
            hand_on=self._hand_on,
            clock=self.clock,
            metrics=PipelineMetrics(CollectorRegistry()),
            default_interval_ms=default_interval_s * 1000,
            settings=TemplateSettings({"cluster": "c"}, "http://x"),
            on_fault=self._fail,
        )
        groups = read_rule_file(rules, file)
        self.rules.load(groups, {group.key: GroupState() for group in groups})
        self._interval_s = (groups[0].interval_ms or default_interval_s * 1000) / 1000

    async def _hand_on(self, evaluation: GroupEvaluation) -> None:
        self.evaluations.append(evaluation)
        await self.alertmanagers.handle(evaluation)

    def _fail(self, component: str, error: BaseException) -> None:
        raise AssertionError(component) from error

    async def receive(self, request: web.Request) -> web.Response:
        """The recording Alertmanager."""
        assert (request.method, request.path) == ("POST", "/api/v2/alerts")
        assert request.content_type == "application/json"
        body = await request.json()
        assert isinstance(body, list)
        self.posts.append((self.clock.now_ms(), body))
        return web.Response()

    def hold(self, **series: float | None) -> None:
        """Values that hold from now on, None ends a series; keys are metric names, with one label set `i`."""
        for name, value in series.items():
            self.hold_series({f'{name}{{i="1"}}': value})

    def hold_series(self, series: Mapping[str, float | None]) -> None:
        """The same with whole series as keys."""
        for text, value in series.items():
            labels = parse_series(f"{text} _")[0]
            if value is None:
                if self._holding.pop(labels, None) is not None:
                    self._ending.append(labels)
            else:
                self._holding[labels] = value

    async def evaluate(self) -> GroupEvaluation:
        """One evaluation of the (first) group now, and everything sent."""
        for labels, value in self._holding.items():
            self.storage.append(labels, self.clock.now_ms(), value)
        while self._ending:
            self.storage.append(self._ending.pop(), self.clock.now_ms(), STALE_NAN)
        evaluations = await self.rules.evaluate_all()
        async with asyncio.timeout(20):
            while any(target._waiting for target in self.alertmanagers._targets):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        return evaluations[0]

    async def step(self, **series: float | None) -> GroupEvaluation:
        """One interval on, then `hold` and `evaluate`."""
        self.clock.jump(self._interval_s)
        self.hold(**series)
        return await self.evaluate()

    async def steps(self, count: int) -> None:
        """So many intervals on."""
        for _ in range(count):
            await self.step()

    @property
    def sent(self) -> list[tuple[int, dict[str, Any]]]:
        """Every alert that was taken: seconds since the start, and the alert."""
        return [((at - START_MS) // 1000, alert) for at, body in self.posts for alert in body]

    def series(self, query: str) -> dict[str, float]:
        """What the querier answers now."""
        value = Engine(self.storage).query(query, self.clock.now_ms()).value
        assert isinstance(value, InstantVector)
        return {str(labels): number for labels, number in zip(value.labels, value.values, strict=True)}

    async def get(self, path: str) -> Any:
        """The decoded `data` of our API."""
        queries = local_queries(self.storage)
        async with (
            api_server(self.storage, queries=queries, groups=_Live(self.rules)) as url,
            aiohttp.ClientSession() as session,
            session.get(f"{url}{path}") as answer,
        ):
            document = await answer.json()
        queries.close()
        assert (answer.status, document["status"]) == (200, "success")
        return document["data"]


@contextlib.asynccontextmanager
async def rig(
    rules: str,
    *,
    interval_s: int = 60,
    alertmanager: str = "",
    start_ms: int = START_MS,
    file: str = "rules.yml",
) -> AsyncIterator[Rig]:
    """A rig over a rule file; `alertmanager` is a real one, else it is the recording receiver."""
    made: list[Rig] = []

    async def receive(request: web.Request) -> web.Response:
        return await made[0].receive(request)

    async with server(receive) as url:
        one = Rig(rules, alertmanager or url, default_interval_s=interval_s, start_ms=start_ms, file=file)
        made.append(one)
        task = asyncio.create_task(one.alertmanagers.run())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.alertmanagers.close()
            one.rules._pool.shutdown()
