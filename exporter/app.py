"""The composition root: builds every object, owns the tasks, orders start and stop; only cli imports it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from prometheus_client import CollectorRegistry, Gauge

from exporter import __version__
from exporter.assets import asset_dir
from exporter.clock import Clock, SystemClock
from exporter.collectors.sqlconfig import DEFAULT_DATABASE, SqlFile
from exporter.collectors.system import LoopLag
from exporter.compose.banner import banner_lines
from exporter.compose.checks import Checks
from exporter.compose.data_dir import DataDir, advertised_url, lease_s
from exporter.compose.inputs import load_groups, load_sql
from exporter.compose.judging import remote_query
from exporter.compose.notifying import Notifying
from exporter.compose.progress import Progress
from exporter.compose.replicas import Asker, ReplicaMetrics, Replicas
from exporter.compose.simulation import Simulation
from exporter.compose.sources import build_client, build_collectors, further_databases, shared_quota
from exporter.compose.stats import DashboardStats, cache_document, rate_limit_document
from exporter.compose.status import head_stats, no_targets, runtime
from exporter.compose.targets import build_scrapes
from exporter.compose.warm import warm_head
from exporter.compose.why import WhyService
from exporter.config.load import expand_text
from exporter.config.providers import ProviderConfig
from exporter.config.schema import Config
from exporter.db.embedded import EmbeddedPostgres
from exporter.db.event_history import EventHistory
from exporter.db.events import EventCodec, EventWriter
from exporter.db.history import History
from exporter.db.leader import LeaderSession, Replica
from exporter.db.metrics import PackingMetrics, RetentionMetrics, WriteMetrics
from exporter.db.migrate import migrate_up
from exporter.db.packing import Packing
from exporter.db.pool import Database
from exporter.db.retention import Retention
from exporter.db.sample_codec import SampleCodec
from exporter.db.spool import Spool
from exporter.db.writer import SampleWriter
from exporter.errors import ConfigError, InputError, StorageError
from exporter.faults import Faults
from exporter.ingest.scrape_parser import Metadata
from exporter.ingest.target import REPORT_NAMES
from exporter.loops.metrics import PipelineMetrics
from exporter.loops.providers import ProviderPoller
from exporter.loops.rules import RuleLoop
from exporter.loops.scrape import ScrapeLoop
from exporter.loops.snapshot import SnapshotLoop
from exporter.loops.unmatched import UnmatchedRules
from exporter.model.durations import format_duration
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch
from exporter.notify.heartbeat import Heartbeat, HeartbeatMetrics
from exporter.observe.metrics import QueryMetrics as DbQueryMetrics
from exporter.observe.monitor import Monitor
from exporter.observe.snapshot import Snapshotter
from exporter.promql.engine import Engine
from exporter.query.local import Limits, LocalQueries
from exporter.query.log import QueryLog
from exporter.query.metrics import QueryMetrics
from exporter.query.older import OlderSamples
from exporter.query.remote import RemoteApi
from exporter.query.remote_values import RemoteQueries
from exporter.rules.engine_query import EngineQueries
from exporter.rules.expand import TemplateSettings
from exporter.rules.group import QueryFn
from exporter.rules.model import RuleGroup
from exporter.simulate.prices import PriceFeed
from exporter.storage import MemoryStorage
from exporter.web.auth import WebConfig, is_loopback
from exporter.web.dashboard import DashboardDocument
from exporter.web.encode import rfc3339
from exporter.web.exposition import ExpositionPage
from exporter.web.metrics import ExpositionMetrics
from exporter.web.ports import Deps, QueryService, Status
from exporter.web.server import Server, create_app

log = logging.getLogger(__name__)

_DATABASE_WAIT_S = 10.0
_SPOOL_SHARE = 8  # of the spool's bound an eighth is for events


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decided."""

    config: Config
    host: str
    port: int
    web_config: WebConfig
    external_url: str
    simulate: bool
    flags: Mapping[str, str]
    reload_config: Callable[[], Config]
    price_feed: PriceFeed | None = None  # of the simulation; None is a random walk


class App:
    """One running exporter: `start`, then `run_until`, then `stop`, which undoes whatever was started."""

    def __init__(self, options: Options, clock: Clock | None = None) -> None:
        self._options = options
        self._config = options.config
        self._clock = clock or SystemClock()
        self._stack = contextlib.AsyncExitStack()
        self._missing = "starting"
        self._lines: list[str] = []
        self._reloading = asyncio.Lock()
        self._reload_tasks: set[asyncio.Task[None]] = set()
        self._reload_ok = True
        self._started_ms = self._loaded_ms = self._clock.now_ms()

    # -- start ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up, in order: files, listener, database, alerts, sources, loops.

        Raises: InputError for a bad rule or collector file, ConfigError for a port in use or a database
            that cannot be reached. Nothing is left running then once `stop` has been awaited.
        """
        groups = load_groups(self._config.rule_files)
        sql_files = load_sql(self._config.sql_files, lambda text: expand_text(text, os.environ))
        self._build_core()
        self._build_queries()
        await self._open_data_dir()
        base_url = await self._listen()
        await self._open_database()
        self._build_writers()
        self._observed_since_ms = await self._warm()
        await self._open_sources(sql_files)
        await self._open_rules(groups)
        await self._open_targets()
        self._start_loops()
        # What stands now stays: without it a full collection walks it all, some 30 ms on the event loop.
        gc.collect()
        gc.freeze()
        self._missing = ""
        self._lines = banner_lines(
            self._config,
            groups,
            self._providers,
            base_url=base_url,
            database_url=self._database.url,
            replica=self._replicas.describe(),
            simulator_url=self._simulation.url if self._simulation is not None else "",
        )

    def banner(self) -> Sequence[str]:
        """Where things are, what runs, what is off and why."""
        return self._lines

    async def run_until(self, stop: asyncio.Event) -> None:
        """Wait for the end; the loops look after themselves."""
        await stop.wait()

    async def stop(self) -> None:
        """Undo the start, last things first: listener, loops, sources, notifications, spool, database."""
        self._missing = "stopping"
        await self._stack.aclose()

    def _build_core(self) -> None:
        """What needs no IO: registry, metrics of the pipeline, head."""
        self._registry = CollectorRegistry()
        self._pipeline = PipelineMetrics(self._registry)
        self._faults = Faults(self._pipeline.faults, self._clock)
        build = Gauge(
            "quantum_build_info",
            "Version of the exporter and of Python; always 1.",
            ["version", "python"],
            registry=self._registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self._note_reload(ok=True)
        self._storage = MemoryStorage()

        def on_error(collector: object, error: Exception) -> None:
            self._faults.report(f"collector {type(collector).__name__}", error)

        self._snapshotter = Snapshotter(self._registry, on_error=on_error)
        self._exposition = ExpositionPage(
            self._registry, on_error, metrics=ExpositionMetrics(self._registry), clock=self._clock
        )

    def _build_queries(self) -> None:
        """The engine behind the API and the rules: the embedded one, or the one at `query.url`."""
        query = self._config.query
        metrics = QueryMetrics(self._registry)
        self._judge: Callable[[], QueryFn]
        self._queries: QueryService
        if query.url is not None:
            session = aiohttp.ClientSession()
            self._stack.push_async_callback(session.close)
            api = RemoteApi(query.url, session, timeout_s=query.timeout_ms / 1000)
            self._judge = remote_query(api, asyncio.get_running_loop())
            self._queries = RemoteQueries(api)
            return
        engine = Engine(
            self._storage,
            lookback_delta_ms=query.lookback_delta_ms,
            max_samples=query.max_samples,
            timeout_s=query.timeout_ms / 1000,
            monotonic=self._clock.monotonic,
        )
        self._judge = EngineQueries(engine)
        self._history: History | None = None
        queries = LocalQueries(
            self._storage,
            engine,
            limits=Limits(query.timeout_ms / 1000, query.max_samples, query.max_concurrency),
            clock=self._clock,
            metrics=metrics,
            older=OlderSamples(self._storage, lambda: self._history),
            query_log=QueryLog(query.log_file) if query.log_file else None,
        )
        self._stack.callback(queries.close)
        self._queries = queries

    async def _open_data_dir(self) -> None:
        folder = self._config.storage.data_dir
        self._data_dir = DataDir(folder)
        self._stack.callback(self._data_dir.close)
        await asyncio.to_thread(self._data_dir.open)

    async def _listen(self) -> str:
        """Bind the port first: a port in use must not cost a started database."""
        options = self._options
        server = Server(
            create_app(self._deps(), options.web_config, loopback=is_loopback(options.host)),
            options.host,
            options.port,
            options.web_config,
        )
        self._stack.push_async_callback(server.stop)
        self._base_url = await server.start()
        return self._base_url

    async def _open_database(self) -> None:
        """Start or reach Postgres and apply the migrations.

        Raises: ConfigError where `database.url` does not answer within ten seconds.
        """
        url = self._config.database.url
        self._embedded: EmbeddedPostgres | None = None
        if not url:
            self._missing = "the embedded Postgres is starting"
            self._embedded = EmbeddedPostgres(self._config.storage.data_dir / "postgres", self._clock)
            self._stack.push_async_callback(self._embedded.stop)
            url = await self._embedded.start()
        self._database = Database(url, self._clock)
        self._stack.push_async_callback(self._database.close)
        deadline = self._clock.monotonic() + _DATABASE_WAIT_S
        while not await self._database.probe():
            if self._clock.monotonic() >= deadline:
                raise ConfigError(f"database.url: the database does not answer: {self._database.last_error}")
            await self._clock.sleep(0.5)
        self._missing = "the migrations are being applied"
        await migrate_up(url, asset_dir("sql"), clock=self._clock)
        self._history = History(self._database)

    async def _warm(self) -> int:
        """Give the embedded engine back what was stored before the start."""
        now_ms = self._clock.now_ms()
        if self._history is None or self._config.query.url is not None:
            return now_ms
        self._missing = "stored samples are being loaded"
        return await warm_head(self._storage, self._history, now_ms, self._config.storage.head_window_ms)

    def _build_writers(self) -> None:
        """Samples and events on their way to Postgres, each with a spool."""
        storage = self._config.storage
        share = storage.spool_max_bytes // _SPOOL_SHARE
        self._samples = SampleWriter(
            self._database,
            self._spool("samples", SampleCodec(), storage.spool_max_bytes - share),
            WriteMetrics(self._registry),
            self._clock,
        )
        self._keep_running("writer of samples", self._samples.run)
        self._stack.push_async_callback(self._samples.close)  # before its loop is ended: it empties the queue
        self._events = EventWriter(
            self._database,
            self._spool("events", EventCodec(), share),
            WriteMetrics(self._registry, "events"),
            self._clock,
        )
        self._keep_running("writer of events", self._events.run)
        self._stack.push_async_callback(self._events.close)

    def _spool(self, name: str, codec: Any, max_bytes: int) -> Spool[Any]:
        return Spool(self._config.storage.data_dir / "spool" / name, codec, self._clock, max_bytes=max_bytes)

    async def _open_sources(self, sql_files: Sequence[SqlFile]) -> None:
        """Providers and collectors; in a simulation also what they talk to."""
        providers: Mapping[str, ProviderConfig] = self._config.collect.providers
        self._simulation: Simulation | None = None
        if self._options.simulate:
            self._simulation = Simulation(self._database, self._clock, self._options.price_feed)
            self._stack.push_async_callback(self._simulation.stop)
            await self._simulation.start()
            providers = self._simulation.providers(providers)
        self._providers = providers
        journal_dir = None if self._options.simulate else self._config.storage.data_dir / "quotas"
        shared = None
        if not self._options.simulate:
            shared = shared_quota(self._config, self._database, self._clock)
        self._client = build_client(
            providers,
            registry=self._registry,
            clock=self._clock,
            events=self._events,
            journal_dir=journal_dir,
            shared=shared,
        )
        self._stack.push_async_callback(self._client.close)
        await self._client.start()
        self._poller = ProviderPoller(self._client, providers, registry=self._registry, clock=self._clock)
        timed = DbQueryMetrics(self._registry)
        self._monitor = Monitor(
            registry=self._registry,
            events=self._events,
            history=EventHistory(self._database),
            clock=self._clock,
            api=self._client.metrics,
            queries=timed,
        )
        databases = {DEFAULT_DATABASE: self._database, **further_databases(sql_files, self._clock)}
        for name, database in databases.items():
            if name != DEFAULT_DATABASE:
                self._stack.push_async_callback(database.close)
        self._lag = LoopLag(self._clock)
        self._collectors = build_collectors(
            self._config,
            sql_files,
            databases,
            registry=self._registry,
            clock=self._clock,
            lag=self._lag,
            timer=timed.record,  # without events: our own queries are no rows in the user's table
        )

    async def _open_rules(self, groups: Sequence[RuleGroup]) -> None:
        """Notification with its stored state, if it is our turn, then the rules that go on from there."""
        session = LeaderSession(
            self._database.url,
            self._clock,
            self._myself(),
            lease_s=lease_s(self._config),
            is_shutting_down=lambda: self._database.is_shutting_down,
        )
        self._notifying = Notifying(
            self._config,
            self._database,
            session,
            registry=self._registry,
            clock=self._clock,
            external_url=self._external_url,
            groups=groups,
            was_away=self._observed_since_ms >= self._started_ms,
            permitted=lambda: self._replicas.permitted(),
            why_not=lambda: self._replicas.describe(),
        )
        ask = Asker()
        self._stack.push_async_callback(ask.close)
        self._replicas = Replicas(
            session,
            self._notifying,
            ask,
            self._clock,
            ReplicaMetrics(self._registry),
            on_fault=self._faults.report,
        )
        self._stack.push_async_callback(self._replicas.close)
        self._stack.push_async_callback(self._notifying.close)
        self._keep_running("notifier", self._notifying.run)
        self._stack.push_async_callback(self._notifying.drain)
        await self._replicas.begin()
        self._keep_running("replicas", self._replicas.run)
        self._snapshots = SnapshotLoop(
            self._snapshotter,
            self._storage,
            self._persist,
            self._clock,
            self._pipeline,
            interval_ms=self._config.global_.scrape_interval_ms,
            head_window_ms=self._config.storage.head_window_ms,
            on_fault=self._faults.report,
        )
        self._rules = RuleLoop(
            query=self._judge,
            append=self._storage.append_batch,
            persist=self._persist,
            hand_on=self._notifying.handle,
            clock=self._clock,
            metrics=self._pipeline,
            default_interval_ms=self._config.global_.evaluation_interval_ms,
            settings=self._template_settings(self._config),
            on_fault=self._faults.report,
        )
        states = self._notifying.restored(groups, self._observed_since_ms, self._replicas.known)
        self._rules.load(groups, states)
        self._notifying.adopt = self._rules.adopt

    def _myself(self) -> Replica:
        """How the other replicas know this one."""
        name = f"{platform.node()}:{urlsplit(self._base_url).port}"
        return Replica(self._data_dir.replica_id, name, advertised_url(self._config, self._base_url))

    def _persist(self, batch: SampleBatch) -> None:
        """Samples on their way to Postgres. Replicas measure the same series, so that one history stands
        there: that of the replica that notifies."""
        if self._replicas.notifies:
            self._samples.put(batch)
        else:
            self._samples.pass_over()

    async def _open_targets(self) -> None:
        """The scraping of other exporters."""
        self._scrapes = build_scrapes(
            self._config,
            self._storage,
            self._persist,
            registry=self._registry,
            pipeline=self._pipeline,
            clock=self._clock,
            faults=self._faults,
        )
        self._stack.push_async_callback(self._scrapes.close)
        await self._scrapes.load(self._config.collect.targets, self._config.global_.scrape_interval_ms)

    def _start_loops(self) -> None:
        self._heartbeat = Heartbeat(
            self._config.heartbeat,
            self._clock,
            HeartbeatMetrics(self._registry),
            Progress(self._rules, self._notifying, self._clock).stalled,
        )
        retention = Retention(
            self._database,
            RetentionMetrics(self._registry),
            self._clock,
            retention_ms=self._config.database.retention_ms,
            alert_retention_ms=self._config.database.alert_retention_ms,
            downsample_retention_ms=self._config.database.downsample_retention_ms,
            prune_alerts=self._notifying.prune,
        )
        self._retention = retention
        self._keep_running("event-loop lag", self._lag.run)
        self._keep_running("collectors", self._collectors.run)
        self._keep_running("providers", self._poller.run)
        self._keep_running("retention", retention.run)
        packing = Packing(self._database, PackingMetrics(self._registry), self._clock)
        self._keep_running("packing", packing.run)
        self._keep_running("snapshot", self._snapshots.run)
        self._keep_running("targets", self._scrapes.run)
        self._keep_running("rules", self._rules.run)
        if self._config.query.url is None:  # else the samples that rules read are elsewhere
            unmatched = UnmatchedRules(
                self._rules.groups,
                lambda: [
                    *self._storage.label_values("__name__"),
                    # without targets nobody is to be told that no target is there
                    *(() if self._config.collect.targets else REPORT_NAMES),
                ],
                self._clock,
                self._pipeline,
            )
            self._keep_running("unmatched rules", unmatched.run)
        self._keep_running("heartbeat", self._heartbeat.run)
        if self._simulation is not None:
            world = self._simulation
            self._keep_running("trading simulator", lambda: world.trade(self._monitor))
            self._keep_running("visitors", lambda: world.visit(self._client, self._providers))

    def _keep_running(self, component: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A loop as a task that is ended before what it uses."""
        task = asyncio.create_task(self._faults.keep_running(component, start), name=component)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)

    # -- reload ---------------------------------------------------------------------------------------

    def request_reload(self) -> None:
        """Reload in the background (SIGHUP); a refusal is logged."""

        async def attempt() -> None:
            with contextlib.suppress(InputError):
                await self.reload()

        task = asyncio.create_task(attempt(), name="reload")
        self._reload_tasks.add(task)
        task.add_done_callback(self._reload_tasks.discard)

    async def reload(self) -> None:
        """Take over rules, routes, receivers and the cron secret anew; what is refused changes nothing.

        Raises: InputError with every problem.
        """
        async with self._reloading:
            try:
                # In a thread: very many rules take longer to read than the loop may wait.
                config = await asyncio.to_thread(self._options.reload_config)
                groups = await asyncio.to_thread(load_groups, config.rule_files)
            except InputError as error:
                self._note_reload(ok=False)
                log.error("the reload was refused, what ran goes on: %s", error)
                raise
            targets = config.collect.targets
            config = replace(config, collect=replace(config.collect, targets=self._config.collect.targets))
            for section in ("global_", "database", "storage", "query", "collect"):
                if getattr(config, section) != getattr(self._config, section):
                    log.warning("a change of %s takes effect at the next start", section.rstrip("_"))
            kept = {name: getattr(self._config, name) for name in ("database", "storage", "query", "collect")}
            kept["collect"] = replace(kept["collect"], targets=targets)
            self._config = replace(config, **kept)
            await self._scrapes.load(targets, config.global_.scrape_interval_ms)
            change = await self._rules.reload(groups, self._template_settings(config))
            await self._notifying.reload(config, groups)
            self._heartbeat.configure(config.heartbeat)
            for provider in self._client.providers:  # a key or a bill may have been put right
                self._client.resume(provider)
            self._note_reload(ok=True)
            log.info("reloaded: %s", change.summary)

    def _note_reload(self, *, ok: bool) -> None:
        self._reload_ok = ok
        self._pipeline.reload_successful.set(ok)
        if ok:
            self._loaded_ms = self._clock.now_ms()
            self._pipeline.reload_time.set(self._loaded_ms / 1000)

    # -- what others see ------------------------------------------------------------------------------

    @property
    def _external_url(self) -> str:
        return self._options.external_url or f"http://{self._options.host}:{self._options.port}"

    def _template_settings(self, config: Config) -> TemplateSettings:
        return TemplateSettings(dict(config.global_.external_labels), self._external_url)

    def _deps(self) -> Deps:
        """The server is up before the rest: what it asks for is looked up when it is asked."""
        return Deps(
            clock=self._clock,
            queries=self._queries,
            rules=_Rules(self),
            exposition=self._exposition,
            status=Status(
                started_ms=self._started_ms,
                config_yaml=lambda: self._config.text,
                flags=self._options.flags,
                runtime=lambda: {
                    **runtime(
                        reload_ok=self._reload_ok,
                        config_time=rfc3339(self._loaded_ms),
                        retention=format_duration(self._config.database.retention_ms),
                    ),
                    "replica": _ReplicaFacts(self).document(),
                },
                head_stats=lambda: head_stats(self._storage),
                metadata=self._snapshotter.metadata,
                alertmanagers=lambda: [
                    f"{url}/api/v2/alerts" for one in self._config.alerting.alertmanagers for url in one.urls
                ],
                targets=self._targets,
                scraped_metadata=self._scraped_metadata,
                scrape_pools=lambda: [job.name for job in self._config.collect.targets],
            ),
            alerts=lambda: self._notifying.service,
            ready=lambda: self._missing,
            reload=self.reload,
            dashboard=self._dashboard,
            cache_stats=lambda: cache_document(self._client.cache_stats()),
            rate_limits=lambda: rate_limit_document(self._client.rate_limit_stats()),
            run_checks=self._run_checks,
            cron_secret=lambda: self._config.dashboard_api.cron_secret,
            replicas=_ReplicaFacts(self),
            why=WhyService(_Rules(self), self._queries, lambda: self._notifying.service, self._clock),
        )

    def _targets(self) -> Mapping[str, Any]:
        scrapes: ScrapeLoop | None = getattr(self, "_scrapes", None)
        return scrapes.document() if scrapes is not None else no_targets()

    def _scraped_metadata(self) -> Sequence[tuple[LabelSet, Mapping[str, Metadata]]]:
        scrapes: ScrapeLoop | None = getattr(self, "_scrapes", None)
        return scrapes.metadata() if scrapes is not None else ()

    async def _dashboard(self) -> Mapping[str, Any]:
        document = DashboardDocument(
            self._queries, self._rules, DashboardStats(self._client), self._clock, self._started_ms
        )
        return await document.build()

    async def _run_checks(self) -> Mapping[str, Any]:
        checks = Checks(
            self._collectors,
            self._snapshots,
            self._rules,
            self._database,
            self._client,
            self._queries,
            self._cleanup,
            self._clock,
        )
        return await checks.run()

    async def _cleanup(self) -> Mapping[str, Any]:
        try:
            report = await self._retention.apply()
        except StorageError as error:
            return {"error": str(error)}
        return {"partitionsDropped": list(report.dropped), "alertsDeleted": report.alerts_removed}


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rule service of an app that may still be starting."""

    app: App

    def groups(self) -> Sequence[Any]:
        """All groups; none before the rules are loaded."""
        rules: RuleLoop | None = getattr(self.app, "_rules", None)
        return rules.groups() if rules is not None else ()


@dataclass(frozen=True, slots=True)
class _ReplicaFacts:
    """Leadership of an app that may still be starting."""

    app: App

    def leader_url(self) -> str:
        """Where the replica is that notifies in this one's place, '' if none is known."""
        replicas: Replicas | None = getattr(self.app, "_replicas", None)
        leader = replicas.leader if replicas is not None else None
        return leader.url if leader is not None else ""

    def document(self) -> Mapping[str, Any]:
        """The claim, and who notifies."""
        replicas: Replicas | None = getattr(self.app, "_replicas", None)
        if replicas is None:
            return {}
        leader = replicas.leader
        return {
            **replicas.claim().to_json(),
            "notifies": replicas.notifies,
            "leader": leader.name if leader is not None else "",
            "leaderUrl": leader.url if leader is not None else "",
        }
