"""The scraping of other exporters, joined with the head and the writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from exporter import __version__
from exporter.clock import Clock
from exporter.config.schema import Config
from exporter.faults import Faults
from exporter.loops.metrics import PipelineMetrics
from exporter.loops.scrape import ScrapeLoop
from exporter.loops.scrape_metrics import ScrapeMetrics
from exporter.model.samples import SampleBatch
from exporter.storage import MemoryStorage


def build_scrapes(
    config: Config,
    storage: MemoryStorage,
    persist: Callable[[SampleBatch], None],
    *,
    registry: CollectorRegistry,
    pipeline: PipelineMetrics,
    clock: Clock,
    faults: Faults,
) -> ScrapeLoop:
    """The loop without jobs; names of target files are relative to the configuration file."""

    def append(batch: SampleBatch) -> None:
        result = storage.append_batch(batch)
        if result.out_of_order:
            pipeline.rejected.labels("out_of_order").inc(result.out_of_order)
        if result.duplicate:
            pipeline.rejected.labels("duplicate").inc(result.duplicate)

    return ScrapeLoop(
        append=append,
        persist=persist,
        clock=clock,
        metrics=ScrapeMetrics(registry),
        on_fault=faults.report,
        base=config.file.parent if config.file is not None else Path(),
        user_agent=f"quantum-exporter/{__version__}",
    )
