"""Scrapes other exporters: which targets there are, and a task for each of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from exporter.births import Births
from exporter.clock import Clock
from exporter.config.targets import ScrapeJob, TargetGroup, read_target_file
from exporter.errors import InputError
from exporter.ingest.scrape_parser import Metadata
from exporter.ingest.target import Target, make_target
from exporter.loops.scrape_http import Fetcher
from exporter.loops.scrape_metrics import ScrapeMetrics
from exporter.loops.scrape_target import Surroundings, TargetLoop, in_thread
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch

log = logging.getLogger(__name__)
_LOOK_EVERY_S: Final = 5.0
_MAX_FILE: Final = 16 * 1024**2
_MAX_DROPPED: Final = 1000  # dropped targets that are listed

Key = tuple[ScrapeJob, Target]


class ScrapeLoop:
    """All targets of all jobs. `load` sets the jobs, `run` scrapes until it is cancelled.

    Files of file_sd_configs are looked at every five seconds; `base` is the folder of relative names.
    """

    def __init__(
        self,
        *,
        append: Callable[[SampleBatch], object],
        persist: Callable[[SampleBatch], None],
        clock: Clock,
        metrics: ScrapeMetrics,
        on_fault: Callable[[str, BaseException], None],
        base: Path,
        user_agent: str,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._base = base
        self._user_agent = user_agent
        self._pools = (
            ThreadPoolExecutor(1, thread_name_prefix="scrape"),
            ThreadPoolExecutor(1, thread_name_prefix="scrape-large"),
        )
        self._around = Surroundings(append, persist, clock, metrics, *self._pools, on_fault, Births())
        self._jobs: tuple[ScrapeJob, ...] = ()
        self._interval_ms = 0
        self._fetchers: dict[ScrapeJob, Fetcher] = {}
        self._loops: dict[Key, TargetLoop] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._dropped: dict[str, list[LabelSet]] = {}
        self._dropped_counts: dict[str, int] = {}
        self._files: dict[Path, tuple[tuple[int, int], tuple[TargetGroup, ...]]] = {}
        self._told: set[tuple[str, str]] = set()
        self._changing = asyncio.Lock()

    async def load(self, jobs: Sequence[ScrapeJob], interval_ms: int) -> None:
        """Scrape these jobs from now on; `interval_ms` is what `global.scrape_interval` says."""
        async with self._changing:
            names, before = {job.name for job in jobs}, {job.name for job in self._jobs}
            for name in names - before:
                self._metrics.add_job(name)
            self._jobs, self._interval_ms = tuple(jobs), interval_ms
            await self._refresh()
            for name in before - names:
                self._metrics.forget_job(name)
            for job in [job for job in self._fetchers if job not in self._jobs]:
                await self._fetchers.pop(job).close()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                async with self._changing:
                    await self._refresh()
                    self._start()
                await self._clock.sleep(_LOOK_EVERY_S)
        finally:
            tasks, self._tasks = list(self._tasks.values()), {}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Close connections and threads; after `run` has ended."""
        for fetcher in self._fetchers.values():
            await fetcher.close()
        for pool in self._pools:
            await asyncio.to_thread(pool.shutdown)

    def loops(self) -> Sequence[TargetLoop]:
        """The targets, by job and address."""
        return sorted(self._loops.values(), key=lambda loop: (loop.job.name, loop.target.url))

    def metadata(self) -> Sequence[tuple[LabelSet, Mapping[str, Metadata]]]:
        """What each target says about its metrics, with the target's labels."""
        return [(loop.target.labels, loop.metadata()) for loop in self.loops()]

    def document(self) -> Mapping[str, Any]:
        """The data of /api/v1/targets."""
        dropped = [labels.as_dict() for found in self._dropped.values() for labels in found]
        return {
            "activeTargets": [loop.document() for loop in self.loops()],
            "droppedTargets": [{"discoveredLabels": labels} for labels in dropped],
            "droppedTargetCounts": dict(self._dropped_counts),
        }

    async def _refresh(self) -> None:
        """Bring the loops in line with jobs and files."""
        wanted: dict[Key, None] = {}
        names = {job.name for job in self._jobs}
        self._dropped = {name: found for name, found in self._dropped.items() if name in names}
        self._dropped_counts = {name: count for name, count in self._dropped_counts.items() if name in names}
        for job in self._jobs:
            groups = [*job.static, *await self._from_files(job)]
            targets = self._targets(job, groups)
            wanted.update({(job, target): None for target in targets})
            self._metrics.targets.labels(job.name).set(len(targets))
        gone = {key: self._loops.pop(key) for key in list(self._loops) if key not in wanted}
        for key in gone:
            task = self._tasks.pop(key, None)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if gone:  # what their threads have begun is finished first
            await asyncio.gather(*(in_thread(pool, lambda: None) for pool in self._pools))
        # A target that goes on under another configuration keeps its series.
        heirs = {loop.target.labels: loop for loop in gone.values()}
        for job, target in wanted:
            if (job, target) not in self._loops:
                before = heirs.pop(target.labels, None)
                fetcher = self._fetchers.get(job)
                if fetcher is None:
                    fetcher = self._fetchers[job] = Fetcher(job.http, user_agent=self._user_agent)
                self._loops[job, target] = TargetLoop(job, target, fetcher, self._around, before)
        for loop in gone.values():
            if loop.target.labels in heirs:
                await loop.end()
        if self._tasks:
            self._start()

    def _start(self) -> None:
        for key, loop in self._loops.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(loop.run(), name=f"scrape {loop.target.url}")

    def _targets(self, job: ScrapeJob, groups: Sequence[TargetGroup]) -> list[Target]:
        found: dict[Target, None] = {}
        dropped: list[LabelSet] = []
        count = 0
        for group in groups:
            for address in group.targets:
                discovered = job.discovered(group, address, self._interval_ms)
                try:
                    target = make_target(discovered, job.relabel, job.params)
                except ValueError as error:
                    self._tell(job, f"the target {address} cannot be scraped: {error}")
                    target = None
                if target is not None:
                    found[target] = None
                else:
                    count += 1
                    if len(dropped) < _MAX_DROPPED:
                        dropped.append(LabelSet.of(discovered))
        self._dropped[job.name], self._dropped_counts[job.name] = dropped, count
        return list(found)

    async def _from_files(self, job: ScrapeJob) -> list[TargetGroup]:
        """The groups of the job's files; a file that cannot be read keeps what it said before."""
        groups: list[TargetGroup] = []
        for pattern in job.files:
            for path in await asyncio.to_thread(_matching, self._base, pattern):
                try:
                    known = self._files.get(path)
                    self._files[path] = await asyncio.to_thread(_read_file, path, known)
                except (OSError, ValueError, InputError) as error:
                    self._metrics.file_errors.labels(job.name).inc()
                    self._tell(job, f"{path} is not taken over: {error}")
                if path in self._files:
                    meta = ("__meta_filepath", str(path))
                    groups += [
                        TargetGroup(group.targets, (*group.labels, meta)) for group in self._files[path][1]
                    ]
        return groups

    def _tell(self, job: ScrapeJob, text: str) -> None:
        """Log a fault once."""
        if (job.name, text) not in self._told and len(self._told) < _MAX_DROPPED:
            self._told.add((job.name, text))
            log.warning("job %s: %s", job.name, text)


def _matching(base: Path, pattern: str) -> list[Path]:
    folder, _, last = pattern.rpartition("/")
    place = base / (folder or ("/" if pattern.startswith("/") else "."))
    return sorted(place.glob(last))


def _read_file(
    path: Path, known: tuple[tuple[int, int], tuple[TargetGroup, ...]] | None
) -> tuple[tuple[int, int], tuple[TargetGroup, ...]]:
    state = path.stat()
    version = (state.st_mtime_ns, state.st_size)
    if known is not None and known[0] == version:
        return known
    if state.st_size > _MAX_FILE:
        raise ValueError(f"larger than {_MAX_FILE} bytes")
    return version, read_target_file(path.read_text("utf-8"), str(path))
