"""The scraping of one target: when, what becomes of the answer, and what is known about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from exporter.births import Births, mass_birth
from exporter.clock import Clock
from exporter.config.targets import ScrapeJob
from exporter.errors import ExpositionError
from exporter.ingest.scrape_parser import Format, Metadata, ScrapeLimitError, ScrapeParser
from exporter.ingest.target import SeriesMaker, Target, TargetSeries
from exporter.loops.scrape_http import Answer, Fetcher, ScrapeError
from exporter.loops.scrape_metrics import ScrapeMetrics
from exporter.model.durations import format_duration
from exporter.model.samples import SampleBatch
from exporter.web.encode import rfc3339

log = logging.getLogger(__name__)
_LARGE: Final = 256 * 1024  # bytes on the wire: read in a thread of their own, so that others need not wait
_HUGE: Final = 1 << 20  # unpacked bytes from which on the first reading makes very many series
_TOLERANCE_MS: Final = 2  # a scrape that starts this late still has the time of its slot


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the targets share. `append` is called in threads and must be safe there; `persist` is not."""

    append: Callable[[SampleBatch], object]
    persist: Callable[[SampleBatch], None]
    clock: Clock
    metrics: ScrapeMetrics
    small: ThreadPoolExecutor
    large: ThreadPoolExecutor
    on_fault: Callable[[str, BaseException], None]
    births: Births


class TargetLoop:
    """Scrapes one target once in each interval, at a place in it that its labels decide.

    `before` is the loop of the same target under a former configuration: its series go on.
    """

    def __init__(
        self,
        job: ScrapeJob,
        target: Target,
        fetcher: Fetcher,
        around: Surroundings,
        before: TargetLoop | None = None,
    ) -> None:
        self.job = job
        self.target = target
        self.series: TargetSeries = before.series if before is not None else TargetSeries(target.labels)
        self._fetcher = fetcher
        self._around = around
        self._parser = ScrapeParser(
            SeriesMaker(target.labels, job.metric_relabel, job.limits, honor_labels=job.honor_labels),
            max_series=job.limits.samples,
        )
        self._health = "unknown"
        self._error = ""
        self._last_ms: int = before._last_ms if before is not None else 0
        self._duration_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        interval_ms = self.target.interval_ms
        offset_ms = self.target.labels.merged({"__url__": self.target.url}).fingerprint() % interval_ms
        clock, missed = self._around.clock, self._around.metrics.missed.labels(self.job.name)
        slot = (clock.now_ms() - offset_ms) // interval_ms
        while True:
            now_ms = clock.now_ms()
            following = (now_ms - offset_ms) // interval_ms + 1
            missed.inc(max(0, following - slot - 1))
            slot = following
            due_ms = slot * interval_ms + offset_ms
            await clock.sleep((due_ms - now_ms) / 1000)
            try:
                await self.scrape(due_ms)
            except Exception as error:
                self._around.on_fault("scrape", error)

    async def scrape(self, due_ms: int) -> None:
        """One scrape now; `due_ms` is the time that it should have."""
        around = self._around
        now_ms = around.clock.now_ms()
        ts_ms = due_ms if 0 <= now_ms - due_ms <= _TOLERANCE_MS else now_ms
        if ts_ms <= self._last_ms:
            return
        self._last_ms = ts_ms
        started = around.clock.monotonic()
        outcome, error, total = "success", "", 0
        try:
            answer = await self._fetcher.get(
                self.target.url, timeout_s=self.target.timeout_ms / 1000, limit=self.job.body_size_limit
            )
            pool = around.large if answer.gzip or len(answer.body) > _LARGE else around.small
            batches = await in_thread(pool, lambda: self._digest(answer, ts_ms, started))
        except ScrapeError as failure:
            outcome, error = failure.outcome, str(failure)
        except ScrapeLimitError as failure:
            outcome, error, total = "limit", str(failure), self._parser.total
        except ExpositionError as failure:
            outcome, total = "parse", self._parser.total
            problem = failure.problems[0]
            error = f"line {problem.line}: {problem.message}" if problem.line else problem.message
        except ValueError as failure:
            outcome, error, total = "parse", str(failure), self._parser.total
        self._duration_s = around.clock.monotonic() - started
        if error:
            batches = self.series.fail(ts_ms, self._duration_s, total)
            await in_thread(around.small, lambda: self._append(batches))
        for batch in batches:
            around.persist(batch)
        self._note(outcome, error)

    async def end(self) -> None:
        """The target is gone: everything that it had ends now."""
        batches = self.series.end(max(self._around.clock.now_ms(), self._last_ms + 1))
        await in_thread(self._around.small, lambda: self._append(batches))
        for batch in batches:
            self._around.persist(batch)

    def _digest(self, answer: Answer, ts_ms: int, started: float) -> list[SampleBatch]:
        """Decompress, read, put into the head; runs in a thread."""
        body = answer.plain(self.job.body_size_limit)
        with mass_birth() if len(body) > _HUGE else nullcontext():
            return self._take_over(body, answer.format, ts_ms, started)

    def _take_over(self, body: bytes, format_: Format, ts_ms: int, started: float) -> list[SampleBatch]:
        scraped = self._parser.parse(body, format_)
        limit = self.job.limits.samples
        if limit and len(scraped.series) > limit:
            raise ScrapeLimitError(f"sample_limit exceeded: {len(scraped.series)} samples, limit {limit}")
        if not self.job.honor_timestamps:
            scraped.times.clear()
        batches = self.series.accept(scraped, ts_ms, self._around.clock.monotonic() - started)
        self._append(batches)
        self._around.births.add(scraped.born)
        return batches

    def _append(self, batches: list[SampleBatch]) -> None:
        for batch in batches:
            self._around.append(batch)

    def _note(self, outcome: str, error: str) -> None:
        metrics, job = self._around.metrics, self.job.name
        metrics.scrapes.labels(job, outcome).inc()
        metrics.duration.labels(job).observe(self._duration_s)
        metrics.samples.labels(job).inc(self._parser.total if not error else 0)
        health = "down" if error else "up"
        if health == "down" and self._health != "down":
            log.warning("the target %s of job %s is down: %s", self.target.url, job, error)
        elif health == "up" and self._health == "down":
            log.info("the target %s of job %s is up again", self.target.url, job)
        self._health, self._error = health, error

    def metadata(self) -> Mapping[str, Metadata]:
        """What the target says about its metrics."""
        return self._parser.metadata

    def document(self) -> dict[str, Any]:
        """The entry of /api/v1/targets."""
        return {
            "discoveredLabels": self.target.discovered.as_dict(),
            "labels": self.target.labels.as_dict(),
            "scrapePool": self.job.name,
            "scrapeUrl": self.target.url,
            "globalUrl": self.target.url,
            "lastError": self._error,
            "lastScrape": rfc3339(self._last_ms),
            "lastScrapeDuration": self._duration_s,
            "health": self._health,
            "scrapeInterval": format_duration(self.target.interval_ms),
            "scrapeTimeout": format_duration(self.target.timeout_ms),
        }


async def in_thread(pool: ThreadPoolExecutor, work: Callable[[], Any]) -> Any:
    """Run work in a pool and wait for it."""
    return await asyncio.get_running_loop().run_in_executor(pool, work)
