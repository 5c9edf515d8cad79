"""The collector protocol, and the runner that times and isolates each collector."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from exporter.clock import Clock
from exporter.collectors.metrics import CollectorMetrics
from exporter.errors import ExporterError

_LOG = logging.getLogger(__name__)
_CANCEL_GRACE_S = 1.0  # a query that is cancelled needs a moment to tell the server


class CollectorError(ExporterError):
    """A collector could not collect; the message says why."""


class CollectorTimeoutError(CollectorError):
    """A collector gave up because what it asked took too long."""


class Outcome(Enum):
    """How a run ended; the value is the label."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Collected:
    """The families of one run, and what was refused of it: one line for each kind of fault."""

    families: Sequence[Metric]
    refused: int = 0
    faults: Sequence[str] = ()


class Collector(Protocol):
    """Yields metric families when asked. The name is its label in metrics and log lines."""

    @property
    def name(self) -> str:
        """Unique among the collectors of a runner."""

    @property
    def interval_s(self) -> float:
        """Seconds from one run to the next."""

    @property
    def timeout_s(self) -> float:
        """Seconds after which a run is cancelled."""

    async def collect(self) -> Collected:
        """Measure now. Any exception is a failed run."""


@dataclass(slots=True)
class CollectorStatus:
    """What is known of one collector; times are Unix milliseconds, 0 before the first."""

    name: str
    outcome: Outcome | None = None
    last_run_ms: int = 0
    last_success_ms: int = 0
    duration_s: float = 0.0
    error: str = ""
    faults: Sequence[str] = ()


@dataclass(slots=True)
class _Entry:
    collector: Collector
    status: CollectorStatus
    families: Sequence[Metric] = ()
    running: asyncio.Task[Collected] | None = None
    logged: str = ""  # the error that a fault began with
    told: bool = False  # whether that was worth a warning
    faults_logged: Sequence[str] = field(default=())


class CollectorRunner:
    """Runs collectors, each on its own; it is itself a collector of the registry with what they yielded."""

    def __init__(self, registry: CollectorRegistry, clock: Clock, metrics: CollectorMetrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._entries: dict[str, _Entry] = {}
        registry.register(self)

    def add(self, collector: Collector) -> None:
        """Take a collector in. Raises: ValueError where its name is taken."""
        name = collector.name
        if name in self._entries:
            raise ValueError(f'a collector named "{name}" is there already')
        self._entries[name] = _Entry(collector, CollectorStatus(name))
        for outcome in Outcome:
            self._metrics.runs.labels(name, outcome.value)
        self._metrics.refused.labels(name)
        self._metrics.success.labels(name).set(0)

    async def remove(self, name: str) -> None:
        """Stop a collector's run, drop its families and its own series; for a reload, `run` being over."""
        entry = self._entries.pop(name)
        await self._end(entry)
        for outcome in Outcome:
            self._metrics.runs.remove(name, outcome.value)
        for metric in (self._metrics.duration, self._metrics.success, self._metrics.last_success):
            metric.remove(name)
        self._metrics.refused.remove(name)

    def collect(self) -> Iterator[Metric]:
        """The families of the last successful runs, same names joined (prometheus_client's protocol)."""
        return iter(_joined(metric for entry in self._entries.values() for metric in entry.families))

    def describe(self) -> Iterable[Metric]:
        """No families are known before the first run (prometheus_client's protocol)."""
        return ()

    def status(self) -> list[CollectorStatus]:
        """The state of each collector."""
        return [entry.status for entry in self._entries.values()]

    async def run(self) -> None:
        """Run every collector at its interval until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for entry in self._entries.values():
                    group.create_task(self._loop(entry), name=f"collector {entry.collector.name}")
        finally:
            for entry in self._entries.values():
                await self._end(entry)

    async def run_all(self) -> list[CollectorStatus]:
        """Run every collector once, now, all at the same time; one that is running already is left alone."""
        await asyncio.gather(*(self.run_once(name) for name in self._entries))
        return self.status()

    async def run_once(self, name: str) -> CollectorStatus:
        """One run of one collector: time it, keep what it yields, or drop what it yielded before."""
        entry = self._entries[name]
        status = entry.status
        if entry.running is not None:
            if not entry.running.done():
                self._metrics.runs.labels(name, Outcome.SKIPPED.value).inc()
                return status
            entry.running = None
        start = self._clock.monotonic()
        status.last_run_ms = self._clock.now_ms()
        task = entry.running = asyncio.create_task(entry.collector.collect(), name=f"collect {name}")
        try:
            outcome, error = await self._outcome(task, entry.collector.timeout_s)
        except asyncio.CancelledError:
            await self._end(entry)
            raise
        if task.done():
            entry.running = None
        collected = task.result() if outcome is Outcome.SUCCESS else Collected(())
        status.outcome, status.error, status.faults = outcome, error, collected.faults
        status.duration_s = self._clock.monotonic() - start
        entry.families = collected.families
        self._measure(status, collected.refused)
        self._log(entry)
        return status

    async def _outcome(self, task: asyncio.Task[Collected], timeout_s: float) -> tuple[Outcome, str]:
        timer = asyncio.create_task(self._clock.sleep(timeout_s))
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        if task.done():
            if task.cancelled():
                return Outcome.ERROR, "it was cancelled"
            error = task.exception()
            if error is None:
                return Outcome.SUCCESS, ""
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error
            if isinstance(error, (TimeoutError, CollectorTimeoutError)):
                return Outcome.TIMEOUT, str(error) or "a time-out of its own"
            return Outcome.ERROR, str(error) or type(error).__name__
        task.cancel()
        grace = asyncio.create_task(self._clock.sleep(_CANCEL_GRACE_S))
        await asyncio.wait({task, grace}, return_when=asyncio.FIRST_COMPLETED)
        grace.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # taken note of: it came too late
        return Outcome.TIMEOUT, f"no answer within {timeout_s:g} s"

    def _measure(self, status: CollectorStatus, refused: int) -> None:
        name, metrics = status.name, self._metrics
        success = status.outcome is Outcome.SUCCESS
        if success:
            status.last_success_ms = self._clock.now_ms()
            metrics.last_success.labels(name).set(status.last_success_ms / 1000)
        metrics.duration.labels(name).set(status.duration_s)
        metrics.success.labels(name).set(float(success))
        metrics.runs.labels(name, status.outcome.value if status.outcome else "").inc()
        metrics.refused.labels(name).inc(refused)

    def _log(self, entry: _Entry) -> None:
        """One line when a fault begins, one when it ends; a cause that stops many collectors is told once."""
        status = entry.status
        if status.error and not entry.logged:
            known = any(other.logged == status.error for other in self._entries.values())
            entry.logged = status.error
            entry.told = not known
            level = logging.DEBUG if known else logging.WARNING
            _LOG.log(level, "collector %s failed: %s", status.name, status.error)
        elif not status.error and entry.logged:
            _LOG.log(logging.INFO if entry.told else logging.DEBUG, "collector %s works again", status.name)
            entry.logged = ""
        if status.outcome is Outcome.SUCCESS and list(status.faults) != list(entry.faults_logged):
            for fault in status.faults:
                _LOG.warning("collector %s: %s", status.name, fault)
            entry.faults_logged = status.faults

    async def _loop(self, entry: _Entry) -> None:
        clock = self._clock
        due = clock.monotonic()
        while True:
            await self.run_once(entry.collector.name)
            interval = entry.collector.interval_s
            now = clock.monotonic()
            due += interval
            if due <= now:  # the run took longer than its interval: keep the phase, leave out what was missed
                due += interval * ((now - due) // interval + 1)
            await clock.sleep(due - now)

    async def _end(self, entry: _Entry) -> None:
        task, entry.running, entry.families = entry.running, None, ()
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_GRACE_S)


def _joined(metrics: Iterable[Metric]) -> list[Metric]:
    """One family per name: two collectors may yield parts of the same family, a page may name it once."""
    found: dict[str, Metric] = {}
    for metric in metrics:
        known = found.get(metric.name)
        if known is None:
            found[metric.name] = metric
        elif known.type == metric.type:
            joined = Metric(known.name, known.documentation, known.type, known.unit)
            joined.samples = [*known.samples, *metric.samples]
            found[metric.name] = joined
    return list(found.values())
